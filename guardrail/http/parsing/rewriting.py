"""Changes a body as a decision obliges, and nothing else in it.

Members that stay are copied byte for byte: numbers keep their digits, keys their order. A cap is
only ever lowered, or set where the request has none that is heeded. What comes out is read again:
unless the reader sees that it does what it is obliged to, the request is not passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import msgspec

from guardrail.http.dialects import UsageFormat
from guardrail.http.parsing.caps import REALTIME, caps_by_usage, caps_of
from guardrail.http.parsing.endpoints import JSON_FIELDS, CapRules, Endpoint, Kind, endpoint_of
from guardrail.http.parsing.folding import AT_ONCE, fold, unfold
from guardrail.http.parsing.json_body import (
    EVERY,
    Members,
    alike,
    each_changed,
    inner_of,
    members_of,
    raw_of,
)
from guardrail.http.parsing.members import (
    ALSO_MODELS,
    CAPS,
    FLOORS,
    MODELS,
    OTHER_MODELS,
    OUTPUT_CONFIG,
    REASONING,
    TOOL_CHOICES,
    TOOL_MEMBERS,
)
from guardrail.http.parsing.obligations import CONTAINERS, LISTS, disabled_by, unkept, unmet
from guardrail.http.parsing.reading import read_parts
from guardrail.http.parsing.values import (
    FREE,
    ParsedRequest,
    ReadingLimits,
    RequestParts,
    RewriteError,
)

_SMALLEST_THINKING = 1024


def cap_response(members: Members, limit: object, name: str) -> None:
    """Cap a response of a session: every cap in it is lowered, or one of that name is set."""
    limit = _checked(limit)
    _lower(members, limit)
    if not any(cap in members for cap in REALTIME.names):
        members[name] = raw_of(limit)


def _checked(limit: object) -> int:
    """Return a cap.

    Raises:
        RewriteError: it is none.
    """
    if isinstance(limit, int) and not isinstance(limit, bool) and limit >= 1:
        return limit
    raise RewriteError(f"a cap of `{limit!r}` is no number of tokens")


def _lower(members: Members, limit: int) -> None:
    for name in (*CAPS, *FLOORS, *REALTIME.names):
        value = _number(members.get(name))
        if value is not None and not 0 <= value <= limit:
            members[name] = raw_of(limit)
    reasoning = inner_of(members, "reasoning")
    budget = None if reasoning is None else _number(reasoning.get("max_tokens"))
    if reasoning is not None and budget is not None and not 0 <= budget <= limit:
        members["reasoning"] = raw_of({**reasoning, "max_tokens": limit})


def _set_cap(members: Members, rules: CapRules, limit: int) -> None:
    """Set a cap as the endpoint reads it, in each of several settings that has none."""
    for dotted in rules.names:
        within, _, name = dotted.rpartition(".")
        if not within and _number(members.get(name)) == 0:
            raise RewriteError("the body caps output at 0, which hosts read in different ways")
    at = next((dotted for dotted in rules.names if dotted.split(".")[0] in members), rules.names[0])
    within, _, name = at.rpartition(".")
    if not within:
        members[rules.names[0]] = raw_of(limit)
        return
    settings = bytes(members.get(within, b"{}"))
    if settings[:1] == b"[":
        every = [_capped(bytes(each), name, limit) for each in _elements(settings)]
        members[within] = raw_of(every or [{name: limit}])
    else:
        members[within] = raw_of(_capped(settings, name, limit))


def _elements(text: bytes) -> list[msgspec.Raw]:
    return msgspec.json.decode(text, type=EVERY)


def _capped(text: bytes, name: str, limit: int) -> Members:
    members = members_of(text) if text[:1] == b"{" else {}
    if not _number(members.get(name)):
        members[name] = raw_of(limit)
    return members


def _lower_thinking(members: Members, limit: int) -> None:
    """Keep a thinking budget below the cap, as its vendor demands, or end the thinking."""
    thinking = inner_of(members, "thinking")
    budget = None if thinking is None else _number(thinking.get("budget_tokens"))
    if thinking is None or budget is None or budget < limit:
        return
    if limit > _SMALLEST_THINKING:
        thinking["budget_tokens"] = raw_of(limit - 1)
        members["thinking"] = raw_of(thinking)
    else:
        del members["thinking"]


def _number(raw: msgspec.Raw | None) -> int | None:
    """Return a cap as it is written, -1 for what is none (`inf`, or a negative number)."""
    value = None if raw is None else msgspec.json.decode(raw)
    return value if value is None or (value.__class__ is int and value >= 0) else -1


_TOOLS = (*TOOL_MEMBERS, *TOOL_CHOICES)
_REASONING = (*REASONING, "include_reasoning", "thinking_token_budget")
_REALTIME = "/v1/realtime"
_AGENTS = ("agent_id", "agent")
CHANGES = frozenset({"model", "max_output_tokens", "disable"})
"""The obligations that a request is changed for; others are the host's to keep."""


def rewritten(
    asked: ParsedRequest, obligations: Mapping[str, object], parts: RequestParts | None = None
) -> bytes | None:
    """Return the body changed as obliged, None if it may stay as it is.

    `model` replaces the model's name; `max_output_tokens` lowers every cap above it, or sets one
    where there is none; `disable` takes out tools, reasoning (what asks for it: a model may do so
    unasked) and the stream. Other obligations are the host's to keep. What a path says is changed
    by `rewritten_path`. `parts` is the request as it came, a JSON body where it is not given.

    Raises:
        RewriteError: the body is none that can be changed: a form whose model or stream it is
            about, a file of requests, a batch whose requests were sent before it, what is stored
            with the host; or what is obliged cannot be seen in what would be passed on.
    """
    wanted = {
        name: obligations[name] for name in CHANGES if obligations.get(name) not in (None, ())
    }
    free = all(asked.estimate.get(unit) == amount for unit, amount in FREE.items())
    if not wanted or (asked.problem is None and free):
        return None
    endpoint = endpoint_of(asked.path)
    if endpoint.usage is UsageFormat.OPENAI_MEDIA and asked.problem is None and not asked.document:
        _keep(unmet(asked.facts, asked.estimate, wanted, capless=True))
        return None
    if asked.problem is not None or not isinstance(asked.document, dict) or asked.body is None:
        raise RewriteError("the body is no JSON object that could be changed as obliged")
    if endpoint.name.endswith("submit_tool_outputs"):
        raise RewriteError("what it goes on with was asked for before")
    after = _in_outline(asked.body, lambda text: _text_changed(text, asked, endpoint, wanted))
    body = asked.body if after is None else after
    path = rewritten_path(asked, wanted) or asked.path
    parts = parts or RequestParts("POST", asked.path, b"", JSON_FIELDS, body, b"", ReadingLimits())
    again = read_parts(parts._replace(path=path, body=body))
    if again.problem is not None:
        raise RewriteError(f"what would be left of it cannot be read: {again.problem}")
    realtime = endpoint.name.startswith(_REALTIME)
    speechless = endpoint.usage is UsageFormat.OPENAI_MEDIA or endpoint.capability == "image"
    _keep(unmet(again.facts, again.estimate, wanted, capless=realtime or speechless))
    _keep(unkept(again.document, wanted))
    return after


def _text_changed(
    text: bytes, asked: ParsedRequest, endpoint: Endpoint, wanted: Mapping[str, object]
) -> bytes | None:
    before = members_of(text)
    if endpoint.kind is Kind.BATCH:
        after = each_changed(
            before, lambda one: _changed(one, wanted, _alone(asked, one), endpoint)
        )
    else:
        after = _changed(before, wanted, asked, endpoint)
    return None if alike(before, after) else msgspec.json.encode(after)


def _in_outline(text: bytes, change: Callable[[bytes], bytes | None]) -> bytes | None:
    """Return a text as changed; of a large one, its outline is, since copies of it would add up."""
    if len(text) <= AT_ONCE:
        return change(text)
    folded = fold(text)
    outline = change(folded.outline)
    return None if outline is None else unfold(outline, text, folded)


def rewritten_path(asked: ParsedRequest, obligations: Mapping[str, object]) -> str | None:
    """Return the path changed as obliged where it names model or stream, None if it may stay.

    Raises:
        RewriteError: no path of the same endpoint names that model.
    """
    endpoint = endpoint_of(asked.path)
    path = asked.path
    model = obligations.get("model")
    if endpoint.model is not None and isinstance(model, str) and model != endpoint.model:
        path = _with_model(path, endpoint, model)
    if endpoint.streams and "stream" in disabled_by(obligations):
        head, _, method = path.rpartition(":")
        if not method.lower().startswith("stream"):
            raise RewriteError("its path asks for a stream")
        plain = method[len("stream") :]
        path = f"{head}:{plain[:1].lower()}{plain[1:]}"
    return None if path == asked.path else path


def rewritten_response(
    members: Members,
    response: Members,
    facts: Mapping[str, object],
    obligations: Mapping[str, object],
    cap: str,
) -> bytes | None:
    """Return a realtime frame that asks for a response, changed as obliged; None if it may stay.

    What the session has set is set anew for this one response: its tools to none, its cap (a
    member named `cap`) to the limit. Its model and its reasoning belong to the session.

    Raises:
        RewriteError: the session has another model, or reasons.
    """
    after = dict(response)
    model, limit = obligations.get("model"), obligations.get("max_output_tokens")
    disabled = disabled_by(obligations)
    if model is not None and facts.get("request.model") != model:
        raise RewriteError("the model of a session cannot be changed in it")
    if "stream" in disabled:
        raise RewriteError("a session streams")
    if "reasoning" in disabled:
        _drop(after, _REASONING)
        if facts.get("request.reasoning") is not False and alike(after, response):
            raise RewriteError("the reasoning of a session cannot be changed in it")
    if "tools" in disabled and facts.get("request.tools") != 0:
        _drop(after, _TOOLS)
        if "prompt" in after:
            raise RewriteError("a stored prompt is not seen here")
        for name in LISTS:
            if name in after:
                after[name] = _without_tools(after[name])
        after |= {"tools": raw_of([]), "tool_choice": raw_of("none")}
    if limit is not None:
        cap_response(after, limit, cap)
    if alike(response, after):
        return None
    return msgspec.json.encode({**members, "response": raw_of(after)})


def with_stream_usage(asked: ParsedRequest, body: bytes | None = None) -> bytes | None:
    """Return the body with `stream_options.include_usage` set, None if it need not be.

    For hosts known to take it: the stream then ends with a chunk that tells the usage. `body` is
    the request's body where it was rewritten before.
    """
    if asked.usage_format not in (UsageFormat.OPENAI_CHAT, UsageFormat.OPENAI_COMPLETIONS):
        return None
    text = asked.body if body is None else body
    if asked.problem is not None or not isinstance(asked.document, dict) or text is None:
        return None
    if not asked.streams:
        return None
    return _in_outline(text, _with_usage)


def _with_usage(text: bytes) -> bytes | None:
    members = members_of(text)
    if members.get("stream") != raw_of(True):
        return None
    options = inner_of(members, "stream_options") or {}
    if options.get("include_usage") == raw_of(True):
        return None
    options["include_usage"] = raw_of(True)
    members["stream_options"] = raw_of(options)
    return msgspec.json.encode(members)


def _alone(asked: ParsedRequest, members: Members) -> ParsedRequest:
    """Return one request of a batch as if it had been sent by itself."""
    return asked._replace(document=msgspec.json.decode(raw_of(members)))


def _keep(problem: str | None) -> None:
    if problem is not None:
        raise RewriteError(problem)


def _with_model(path: str, endpoint: Endpoint, model: str) -> str:
    """Return a path with another model, wherever in it the name stands."""
    name = endpoint.model or ""
    at = path.find(name)
    while at >= 0:
        changed = path[:at] + model + path[at + len(name) :]
        found = endpoint_of(changed)
        if (found.name, found.model) == (endpoint.name, model):
            return changed
        at = path.find(name, at + 1)
    raise RewriteError("the model in the path cannot be changed as obliged")


def _changed(
    members: Members, wanted: Mapping[str, object], asked: ParsedRequest, endpoint: Endpoint
) -> Members:
    """Return settings changed as obliged, and those within them, however deep."""
    after = dict(members)
    disabled, limit = disabled_by(wanted), wanted.get("max_output_tokens")
    if "model" in wanted:
        _everywhere(after, lambda settings: _set_model(settings, wanted["model"]))
    if limit is not None:
        _lower_caps(after, _checked(limit), asked, endpoint)
    if disabled:
        _everywhere(after, lambda settings: _disable(settings, disabled))
    if "model" in wanted and endpoint.model is None:
        _name_model(after, wanted["model"], asked, endpoint)
    if "stream" in disabled and endpoint.name.startswith("/api/"):
        # Hosts of this kind stream unless they are told not to.
        after["stream"] = raw_of(False)
    if limit is not None:
        _cap(after, limit, endpoint)
    return after


def _everywhere(members: Members, change: Callable[[Members], None]) -> None:
    """Change settings, and those within them, however deep."""
    change(members)
    _within(members, change)


def _within(members: Members, change: Callable[[Members], None]) -> None:
    """Change the settings within others, each once, however deep."""
    for name in CONTAINERS:
        raw = members.get(name)
        if raw is not None:
            members[name] = _changed_within(raw, change)


def _changed_within(raw: msgspec.Raw, change: Callable[[Members], None]) -> msgspec.Raw:
    text = bytes(raw)
    if text[:1] == b"[":
        before_each = msgspec.json.decode(text, type=EVERY)
        after_each = [_changed_within(one, change) for one in before_each]
        same = all(old is new for old, new in zip(before_each, after_each, strict=True))
        return raw if same else raw_of(after_each)
    if text[:1] != b"{":
        return raw
    before = members_of(text)
    after = dict(before)
    _everywhere(after, change)
    return raw if alike(before, after) else raw_of(after)


def _name_model(members: Members, model: object, asked: ParsedRequest, endpoint: Endpoint) -> None:
    """Set the model of a request that names none."""
    if any(name in members for name in MODELS):
        return
    if any(members.get(name) is not None for name in _AGENTS):
        raise RewriteError("the model of an agent is stored with the host")
    session = inner_of(members, "session")
    if endpoint.name.startswith(_REALTIME) and _transcribes(session or members, endpoint):
        raise RewriteError("what transcribes is named within it")
    if session is not None and endpoint.name.startswith(_REALTIME):
        members["session"] = raw_of({**session, "model": raw_of(model)})
        return
    known = asked.usage_format is not UsageFormat.NONE or endpoint.name.startswith(_REALTIME)
    if known or endpoint.kind is Kind.EMBED:
        members["model"] = raw_of(model)


def _set_model(settings: Members, model: object) -> None:
    for name in MODELS:
        raw = settings.get(name)
        if raw is not None:
            long = bytes(raw).startswith(b'"models/') and not str(model).startswith("models/")
            settings[name] = raw_of(f"models/{model}" if long else model)
    _drop(settings, (*ALSO_MODELS, *OTHER_MODELS))


def _disable(settings: Members, names: Collection[object]) -> None:
    if "tools" in names:
        _drop(settings, _TOOLS)
        _drop_within(settings, "container", "skills")
        for name in LISTS:
            if name in settings:
                settings[name] = _without_tools(settings[name])
    if "reasoning" in names:
        _drop(settings, _REASONING)
        _drop_within(settings, OUTPUT_CONFIG, "effort")
    if "stream" in names and "stream" in settings:
        settings["stream"] = raw_of(False)
        _drop(settings, ("stream_options",))


def _without_tools(raw: msgspec.Raw) -> msgspec.Raw:
    """Return a list of input without the items that hand over tools."""
    text = bytes(raw)
    if text[:1] != b"[" or b"tools" not in text:
        return raw
    every = msgspec.json.decode(text, type=EVERY)
    left = [one for one in every if bytes(one)[:1] != b"{" or "tools" not in members_of(bytes(one))]
    return raw if len(left) == len(every) else raw_of(left)


def _cap(members: Members, limit: object, endpoint: Endpoint) -> None:
    """Set a cap where a session is to be, as a response of it has one."""
    if not endpoint.name.startswith(_REALTIME):
        return
    session = inner_of(members, "session")
    settings = members if session is None else session
    if _transcribes(settings, endpoint):
        return
    beta = session is None and endpoint.name.endswith("/sessions")
    cap_response(settings, limit, "max_response_output_tokens" if beta else "max_output_tokens")
    if session is not None:
        members["session"] = raw_of(session)


def _transcribes(session: Members, endpoint: Endpoint) -> bool:
    """Whether a session transcribes and no more: nothing caps its output."""
    transcription = endpoint.name.endswith("transcription_sessions")
    return transcription or session.get("type") == raw_of("transcription")


def _drop(members: Members, names: tuple[str, ...]) -> None:
    for name in names:
        members.pop(name, None)


def _drop_within(members: Members, container: str, name: str) -> None:
    inner = inner_of(members, container)
    if inner is not None and name in inner:
        _drop(inner, (name,))
        members[container] = raw_of(inner)


def _lower_caps(members: Members, most: int, asked: ParsedRequest, endpoint: Endpoint) -> None:
    """Lower every cap to a limit, in settings within others too; one is set where none is read.

    Where nothing is known to cap output (pictures, sound, unknown paths), none is set.

    Raises:
        RewriteError: the body's own cap is 0, which hosts read differently.
    """

    def lower(settings: Members) -> None:
        _lower(settings, most)
        _lower_thinking(settings, most)

    _within(members, lower)
    _lower(members, most)
    rules = caps_of(endpoint)
    if endpoint.kind is Kind.UNKNOWN:
        rules = caps_by_usage(asked.usage_format)
    if rules.names and isinstance(asked.document, dict) and not rules.hold(asked.document):
        _set_cap(members, rules, most)
    _lower_thinking(members, most)

"""Changes a body as a decision obliges, and nothing else in it.

Members that stay are copied byte for byte: numbers keep their digits, keys their order. A cap is
only ever lowered, or set where the request has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from guardrail.http.asked.counts import CAPS, FLOORS, WITHIN
from guardrail.http.asked.endpoints import Kind, endpoint_of
from guardrail.http.asked.values import FREE, Asked, RewriteError
from guardrail.http.dialects import Dialect, UsageFormat

Members = dict[str, msgspec.Raw]
"""An object whose members are kept as they were written."""

_LIST = list[msgspec.Raw]
_UNCAPPED = frozenset({UsageFormat.NONE, UsageFormat.OPENAI_MEDIA, UsageFormat.OPENAI_EMBEDDINGS})
_SMALLEST_THINKING = 1024
_TOOLS = (
    "tools",
    "functions",
    "tool_choice",
    "function_call",
    "parallel_tool_calls",
    "max_tool_calls",
    "mcp_servers",
    "mcpServers",
    "web_search_options",
    "toolConfig",
    "tool_config",
    "skills",
)
_REASONING = ("reasoning_effort", "reasoning", "thinking", "think", "thinking_token_budget")
_THINKING = ("thinkingConfig", "thinking_config", "thinking_token_budget")
_STREAMING = ("streamgeneratecontent", "streamrawpredict")


def rewritten(asked: Asked, obligations: Mapping[str, object]) -> bytes | None:
    """Return the body changed as obliged, None if it may stay as it is.

    `model` replaces the model's name; `max_output_tokens` lowers every cap above it, or sets one
    where there is none; `disable` takes out tools, reasoning (what asks for it: a model may do so
    unasked) and the stream. Other obligations are the host's to keep. What a path says is changed
    by `rewritten_path`.

    Raises:
        RewriteError: the body is none that can be changed, or holds many requests.
    """
    wanted = {
        name: obligations[name] for name in _CHANGES if obligations.get(name) not in (None, ())
    }
    endpoint = endpoint_of(asked.path)
    if endpoint.model is not None:
        wanted.pop("model", None)
    if not wanted or (asked.problem is None and dict(asked.estimate) == dict(FREE)):
        return None
    if asked.problem is not None or not isinstance(asked.document, dict) or asked.body is None:
        raise RewriteError("the body is no JSON object that could be changed as obliged")
    if endpoint.kind is Kind.BATCH:
        raise RewriteError("the body holds many requests; they are not changed one by one")
    before = _members(asked.body)
    after = dict(before)
    for name, value in wanted.items():
        _CHANGES[name](after, value, asked)
    return None if _same(before, after) else msgspec.json.encode(after)


def rewritten_path(asked: Asked, obligations: Mapping[str, object]) -> str | None:
    """Return the path changed as obliged where it names model or stream, None if it may stay."""
    endpoint = endpoint_of(asked.path)
    path = asked.path
    model = obligations.get("model")
    if endpoint.model is not None and isinstance(model, str):
        head, found, tail = path.rpartition(endpoint.model)
        path = head + model + tail if found else path
    if endpoint.streams and "stream" in _disabled(obligations):
        head, _, method = path.rpartition(":")
        plain = method[len("stream") :]
        path = f"{head}:{plain[:1].lower()}{plain[1:]}"
    return None if path == asked.path else path


def with_stream_usage(asked: Asked, body: bytes | None = None) -> bytes | None:
    """Return the body with `stream_options.include_usage` set, None if it need not be.

    For hosts known to take it: the stream then ends with a chunk that tells the usage. `body` is
    the request's body where it was rewritten before.
    """
    if asked.usage_format not in (UsageFormat.OPENAI_CHAT, UsageFormat.OPENAI_COMPLETIONS):
        return None
    text = asked.body if body is None else body
    if asked.problem is not None or not isinstance(asked.document, dict) or text is None:
        return None
    members = _members(text)
    if not asked.streams or members.get("stream") != _raw(True):
        return None
    options = _inner(members, "stream_options") or {}
    if options.get("include_usage") == _raw(True):
        return None
    options["include_usage"] = _raw(True)
    members["stream_options"] = _raw(options)
    return msgspec.json.encode(members)


def _set_model(members: Members, model: object, asked: Asked) -> None:
    if "model" in members or asked.usage_format is not UsageFormat.NONE:
        members["model"] = _raw(model)


def _lower_caps(members: Members, cap: object, asked: Asked) -> None:
    if cap.__class__ is not int or cap < 1:
        raise RewriteError(f"a cap of `{cap!r}` is no number of tokens")
    zero_caps = asked.dialect is Dialect.ANTHROPIC
    found = _lower(members, cap, zero_caps)
    for name in WITHIN:
        if name in members:
            members[name], capped = _lowered(members[name], cap, zero_caps)
            found |= capped
    if not found and any(_number(members.get(name)) == 0 for name in CAPS):
        raise RewriteError("the body caps output at 0, which hosts read in different ways")
    if not found and asked.usage_format not in _UNCAPPED:
        _set_cap(members, cap, asked)
    _lower_thinking(members, cap)


def _lowered(raw: msgspec.Raw, limit: int, zero_caps: bool) -> tuple[msgspec.Raw, bool]:
    """Lower caps in an object, or in each of a list; whether each of them has one."""
    text = bytes(raw)
    if text[:1] == b"{":
        before = _members(text)
        after = dict(before)
        found = _lower(after, limit, zero_caps)
        return (raw if _same(before, after) else _raw(after)), found
    if text[:1] == b"[":
        listed = msgspec.json.decode(text, type=_LIST)
        every = [_lowered(each, limit, zero_caps) for each in listed]
        found = bool(every) and all(capped for _, capped in every)
        changed = any(bytes(old) != bytes(new) for old, (new, _) in zip(listed, every, strict=True))
        return (_raw([new for new, _ in every]) if changed else raw), found
    return raw, False


def _lower(members: Members, limit: int, zero_caps: bool) -> bool:
    """Lower what caps and what demands output in one object; whether it has a cap that holds."""
    found = False
    for name in (*CAPS, *FLOORS):
        value = _number(members.get(name))
        if value is None:
            continue
        found |= name in CAPS and (value > 0 or zero_caps)
        if value > limit:
            members[name] = _raw(limit)
    return found


def _number(raw: msgspec.Raw | None) -> int | None:
    """Return a cap as it is written; reading the body has shown that it is one, or null."""
    return None if raw is None else msgspec.json.decode(raw, type=int | None)


def _set_cap(members: Members, limit: int, asked: Asked) -> None:
    name, within = _cap_of(asked)
    if within is None:
        members[name] = _raw(limit)
    else:
        inner = _inner(members, within) or {}
        inner[name] = _raw(limit)
        members[within] = _raw(inner)


def _cap_of(asked: Asked) -> tuple[str, str | None]:
    """Return the member that caps output at this endpoint, and the member it stands in."""
    if asked.dialect is Dialect.GEMINI:
        return "maxOutputTokens", "generationConfig"
    if asked.usage_format is UsageFormat.OPENAI_RESPONSES:
        return "max_output_tokens", None
    if asked.usage_format is UsageFormat.OPENAI_CHAT:
        return "max_completion_tokens", None
    if asked.usage_format is UsageFormat.NATIVE:
        if asked.dialect is Dialect.OTHER:
            return "num_predict", "options"
        vllm = asked.path.rstrip("/").lower().endswith("/v1/generate")
        return "max_tokens" if vllm else "max_new_tokens", "sampling_params"
    return "max_tokens", None


def _lower_thinking(members: Members, limit: int) -> None:
    """Keep a thinking budget below the cap, as its vendor demands, or end the thinking."""
    thinking = _inner(members, "thinking")
    if thinking is None or "budget_tokens" not in thinking:
        return
    budget = msgspec.json.decode(thinking["budget_tokens"])
    if budget is None or budget < limit:
        return
    if limit > _SMALLEST_THINKING:
        thinking["budget_tokens"] = _raw(limit - 1)
        members["thinking"] = _raw(thinking)
    else:
        del members["thinking"]


def _disable(members: Members, disabled: object, asked: Asked) -> None:
    names = _disabled({"disable": disabled})
    if "tools" in names:
        _drop(members, _TOOLS)
        _drop_within(members, ("container",), ("skills",))
    if "reasoning" in names:
        _drop(members, _REASONING)
        _drop_within(members, ("output_config",), ("effort",))
        _drop_within(members, WITHIN, _THINKING)
        _drop_within(members, ("chat_template_kwargs",), ("enable_thinking", "thinking"))
    if "stream" in names and "stream" in members:
        members["stream"] = _raw(False)
        _drop(members, ("stream_options",))


def _disabled(obligations: Mapping[str, object]) -> tuple[object, ...]:
    disabled = obligations.get("disable")
    return tuple(disabled) if isinstance(disabled, list | tuple | set | frozenset) else (disabled,)


def _drop(members: Members, names: tuple[str, ...]) -> None:
    for name in names:
        members.pop(name, None)


def _drop_within(members: Members, containers: tuple[str, ...], names: tuple[str, ...]) -> None:
    for container in containers:
        inner = _inner(members, container)
        if inner is not None and any(name in inner for name in names):
            _drop(inner, names)
            members[container] = _raw(inner)


def _members(text: bytes) -> Members:
    return msgspec.json.decode(text, type=Members)


def _inner(members: Members, name: str) -> Members | None:
    """Return an object within a body, None if there is none, or what is there is another thing."""
    raw = members.get(name)
    if raw is None or bytes(raw)[:1] != b"{":
        return None
    return _members(bytes(raw))


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _same(before: Members, after: Members) -> bool:
    return before.keys() == after.keys() and all(
        bytes(raw) == bytes(after[name]) for name, raw in before.items()
    )


_CHANGES: Mapping[str, Callable[[Members, object, Asked], None]] = {
    "model": _set_model,
    "max_output_tokens": _lower_caps,
    "disable": _disable,
}

"""Changes a body as a decision obliges, and nothing else in it.

Members that stay are copied byte for byte: numbers keep their digits, keys their order. A cap is
only ever lowered, or set where the request has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from guardrail.http.asked.capping import lower_caps
from guardrail.http.asked.counts import WITHIN
from guardrail.http.asked.endpoints import Endpoint, Kind, endpoint_of
from guardrail.http.asked.folding import AT_ONCE, fold, unfold
from guardrail.http.asked.raw import (
    Members,
    alike,
    each_changed,
    inner_of,
    members_of,
    raw_of,
)
from guardrail.http.asked.values import FREE, Asked, RewriteError
from guardrail.http.dialects import UsageFormat

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
        RewriteError: the body is none that can be changed: a form whose model or stream it is
            about, a file of requests, or a batch whose requests were sent before it.
    """
    wanted = {
        name: obligations[name] for name in _CHANGES if obligations.get(name) not in (None, ())
    }
    endpoint = endpoint_of(asked.path)
    if endpoint.model is not None:
        wanted.pop("model", None)
    if endpoint.usage is UsageFormat.OPENAI_MEDIA and asked.problem is None and not asked.document:
        wanted = _of_form(wanted, asked)
    if not wanted or (asked.problem is None and dict(asked.estimate) == dict(FREE)):
        return None
    if asked.problem is not None or not isinstance(asked.document, dict) or asked.body is None:
        raise RewriteError("the body is no JSON object that could be changed as obliged")
    return _in_outline(asked.body, lambda body: _changed(body, asked, endpoint, wanted))


def _changed(
    body: bytes, asked: Asked, endpoint: Endpoint, wanted: Mapping[str, object]
) -> bytes | None:
    before = members_of(body)

    def changed(members: Members, of: Asked) -> Members:
        after = dict(members)
        for name, value in wanted.items():
            _CHANGES[name](after, value, of)
        return after

    if endpoint.kind is Kind.BATCH:
        after = each_changed(before, lambda one: changed(one, _alone(asked, one)))
    else:
        after = changed(before, asked)
    return None if alike(before, after) else msgspec.json.encode(after)


def _in_outline(text: bytes, change: Callable[[bytes], bytes | None]) -> bytes | None:
    """Return a text as changed; of a large one, its outline is, since copies of it would add up."""
    if len(text) <= AT_ONCE:
        return change(text)
    folded = fold(text)
    outline = change(folded.outline)
    return None if outline is None else unfold(outline, text, folded)


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


def _of_form(wanted: dict[str, object], asked: Asked) -> dict[str, object]:
    """Return what of some obligations concerns a form of pictures or sound."""
    streams = asked.streams and "stream" in _disabled(wanted)
    return {
        name: value
        for name, value in wanted.items()
        if name == "model" or (name == "disable" and streams)
    }


def _alone(asked: Asked, members: Members) -> Asked:
    """Return one request of a batch as if it had been sent by itself."""
    return asked._replace(document=msgspec.json.decode(raw_of(members)))


def _set_model(members: Members, model: object, asked: Asked) -> None:
    if "model" in members or asked.usage_format is not UsageFormat.NONE:
        members["model"] = raw_of(model)


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
        members["stream"] = raw_of(False)
        _drop(members, ("stream_options",))


def _disabled(obligations: Mapping[str, object]) -> tuple[object, ...]:
    disabled = obligations.get("disable")
    return tuple(disabled) if isinstance(disabled, list | tuple | set | frozenset) else (disabled,)


def _drop(members: Members, names: tuple[str, ...]) -> None:
    for name in names:
        members.pop(name, None)


def _drop_within(members: Members, containers: tuple[str, ...], names: tuple[str, ...]) -> None:
    for container in containers:
        inner = inner_of(members, container)
        if inner is not None and any(name in inner for name in names):
            _drop(inner, names)
            members[container] = raw_of(inner)


_CHANGES: Mapping[str, Callable[[Members, object, Asked], None]] = {
    "model": _set_model,
    "max_output_tokens": lower_caps,
    "disable": _disable,
}

"""Reads what nearly all chats consist of: a model, messages of text, caps, and settings.

It comes to the same as `reading`, at a fifth of the steps, and leaves to that whatever is more, or
is not as it should be: what is refused is refused there alone, with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from guardrail.http.documents import UNDECODABLE
from guardrail.http.parsing.caps import caps_of
from guardrail.http.parsing.endpoints import DOCUMENTED, PLAIN_NAME, Endpoint
from guardrail.http.parsing.folding import AT_ONCE
from guardrail.http.parsing.json_body import TEXT_BYTES_PER_TOKEN
from guardrail.http.parsing.shape import SYSTEM_ROLES, template_of
from guardrail.http.parsing.values import ParsedRequest, ReadingLimits
from guardrail.model.cells import TOP

PATHS = ("/v1/chat/completions", "/v1/messages")
"""Where such bodies are sent."""

CAPS = frozenset({"max_tokens", "max_completion_tokens"})
"""Members that cap output."""
SETTINGS = frozenset(
    "temperature top_p top_k seed stop user frequency_penalty presence_penalty".split()
)
"""Members that hold one number, one text, true, false or null, and decide nothing."""
_COUNTS = CAPS | {"n"}
_FIELDS = frozenset({b"content-encoding", b"x-body-compressed"})
_USAGE = {"include_usage"}
_MESSAGE = len("role") + len("content")
_LEVELS = 2
"""How deep its objects and lists are in one another, the body at nought."""


class _Way(NamedTuple):
    """What does not change of the requests to an endpoint; `heeded` caps hold there."""

    endpoint: Endpoint
    heeded: tuple[str, ...]
    zero: bool


_WAYS = {path: _Way(DOCUMENTED[path], *caps_of(DOCUMENTED[path])) for path in PATHS}


def read_plainly(
    path: str,
    named: Mapping[bytes, bytes],
    body: bytes,
    hash_key: bytes,
    limits: ReadingLimits,
) -> ParsedRequest | None:
    """Return what a request asks for that has no query, None if it is not a plain chat.

    `named` are its header fields, none of which is there twice.
    """
    way = _WAYS.get(path)
    if (
        way is None
        or named.get(b"content-type") != b"application/json"
        or not _FIELDS.isdisjoint(named)
        or not 0 < len(body) <= AT_ONCE
        or len(body) > limits.max_body
    ):
        return None
    try:
        document = msgspec.json.decode(body)
    except UNDECODABLE:
        return None
    if document.__class__ is not dict:
        return None
    return _asked(document, body, way, hash_key, limits)


def _asked(
    document: dict[str, Any], body: bytes, way: _Way, hash_key: bytes, limits: ReadingLimits
) -> ParsedRequest | None:
    # Without escapes of characters, what is ASCII has a byte for each.
    length = len if body.isascii() and b"\\u" not in body else _bytes_of
    strings = len(document)
    size = nodes = completions = most = 0
    system: list[str] = []
    model: str | None = None
    for name, value in document.items():
        size += len(name)
        kind = value.__class__
        if name == "messages" and kind is list:
            count = len(value)
            nodes += 1 + count
            strings += 4 * count
            size += _MESSAGE * count
            for message in value:
                if message.__class__ is not dict or len(message) != 2:
                    return None
                role, text = message.get("role"), message.get("content")
                if role.__class__ is not str or text.__class__ is not str:
                    return None
                size += length(role) + length(text)
                if role in SYSTEM_ROLES:
                    system.append(text)
        elif name == "model" and kind is str and PLAIN_NAME.fullmatch(value) and _is_one(value):
            model = value
            strings += 1
            size += len(value)
        elif name in _COUNTS and kind is int and 0 <= value <= TOP:
            if name == "n":
                completions = value
            elif value > most:
                most = value
        elif name == "stream" and (kind is bool or value is None):
            pass
        elif name in SETTINGS and kind is not dict and kind is not list:
            if kind is str:
                strings += 1
                size += length(value)
        elif name == "stream_options" and kind is dict and value.keys() == _USAGE:
            if value["include_usage"].__class__ is not bool:
                return None
            nodes += 1
            strings += 1
            size += len("include_usage")
        else:
            return None
    if nodes >= limits.max_nodes or limits.max_depth < _LEVELS or _quotes(body) != 2 * strings:
        return None
    endpoint, heeded, zero = way
    facts: dict[str, object] = {
        "request.capability": endpoint.capability,
        "request.stream": document.get("stream") is True,
        "request.tools": 0,
        "request.reasoning": False,
    }
    if model is not None:
        facts["request.model"] = model
    if system and (template := template_of(system, hash_key)) is not None:
        facts["request.template"] = template
    facts["request.endpoint"] = endpoint.name
    completions = completions or 1
    estimate = {"requests": completions, "input_tokens": -(-size // TEXT_BYTES_PER_TOKEN)}
    for name in heeded:
        if (cap := document.get(name)) is not None and (cap or zero):
            estimate["output_tokens"] = min(most * completions, TOP)
            break
    return tuple.__new__(
        ParsedRequest,
        (
            endpoint.dialect,
            facts,
            estimate,
            endpoint.usage,
            None,
            None,
            None,
            document,
            body,
            endpoint.name,
            False,
        ),
    )


def _is_one(model: str) -> bool:
    """Tell whether a name stands for one model, and that by itself."""
    return "," not in model and ":" not in model and "@" not in model


def _bytes_of(text: str) -> int:
    return len(text if text.isascii() else text.encode())


def _quotes(text: bytes) -> int:
    """Return how many quotes begin or end a string of a JSON text: two for each key and string.

    They are as many as its value has, unless a key is there twice, and lost.
    """
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return text.count(b'"')

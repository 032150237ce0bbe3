"""Keyed hashes of a request's system prompt and of its tools, alike for what is built alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import msgspec

HASHED_CHARACTERS = 32_768
"""How much of a system prompt is hashed: what follows may be padding, and time is bounded."""

HASHED_DESCRIPTIONS = 131_072
"""How much of the descriptions of all tools of a request is hashed, in characters."""

_SIZE = 16
_SHORTEST_DESCRIPTION = 64
_LONGEST_KEY = 64
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_NAMES = (
    r"(?:january|february|march|april|june|july|august|september|october|november|december|"
    rf"{_MONTHS}|sept|monday|tuesday|wednesday|thursday|friday|saturday|sunday|"
    r"mon|tue|wed|thu|fri|sat|sun|am|pm|utc|gmt)"
)
# A word with a digit in it is a number, a date or an id; names of days and months go with one.
# Each starts where a word starts, and each run is taken whole: both take linear time.
_WORD_WITH_DIGIT = re.compile(r"(?<![\w-])(?:[^\W\d]|-)*+\d[\w-]*+")
_PART = rf"(?:#|\b{_NAMES}\b)"
_RUN = re.compile(rf"{_PART}(?:[ .,:/+t-]{{1,3}}{_PART})*+")
_SPACE = re.compile(r"\s+")
_VOLATILE = frozenset({"cache_control", "defer_loading", "headers", "authorization", "strict"})


def normalised(text: str) -> str:
    """Return a text with ids, numbers and dates as `#`, in one case, its spaces single."""
    text = _SPACE.sub(" ", text[:HASHED_CHARACTERS].casefold()).strip()
    text = _WORD_WITH_DIGIT.sub("#", text)
    return _RUN.sub(lambda run: "#" if "#" in run[0] else run[0], text)


def template_of(texts: Iterable[str], hash_key: bytes) -> str | None:
    """Return the hash of a system prompt, None if there is none."""
    joined = "\n".join(texts)
    if not joined:
        return None
    return _keyed(normalised(joined).encode("utf-8", "replace"), b"template", hash_key) or None


def toolset_of(tools: Sequence[object], hash_key: bytes) -> str | None:
    """Return the hash of the tools of a request, whatever their order, None if there are none.

    A function counts by its name, description and parameters, however its vendor wraps it.
    """
    if not tools:
        return None
    # Of many descriptions less of each is looked at: their sum is bounded, whatever their order.
    most = max(HASHED_DESCRIPTIONS // len(tools), _SHORTEST_DESCRIPTION)
    written = sorted(msgspec.json.encode(_essence(tool, most), order="sorted") for tool in tools)
    return _keyed(b"\n".join(written), b"toolset", hash_key) or None


def digest_of(tool: object) -> bytes:
    """Return a digest by which tools are told apart, however their members are ordered."""
    return blake2b(msgspec.json.encode(tool, order="sorted"), digest_size=_SIZE).digest()


def _essence(tool: object, most: int) -> object:
    if not isinstance(tool, dict):
        return tool
    inner = tool.get("function")
    function = inner if isinstance(inner, dict) else tool
    if "name" not in function:
        return {key: value for key, value in tool.items() if key not in _VOLATILE}
    described = function.get("description")
    schema = function.get("parameters", function.get("input_schema"))
    kind = tool.get("type")
    return {
        "type": None if kind in {"function", "custom"} else kind,
        "name": function.get("name"),
        "description": normalised(described[:most]) if isinstance(described, str) else None,
        "schema": schema,
    }


def _keyed(data: bytes, purpose: bytes, key: bytes) -> str:
    if not data:
        return ""
    if len(key) > _LONGEST_KEY:
        key = blake2b(key).digest()
    return blake2b(data, key=key, person=purpose, digest_size=_SIZE).hexdigest()

"""Members of JSON that anybody may have written: of the type that is meant, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

UNDECODABLE = (msgspec.DecodeError, ValueError, RecursionError)
"""What decoding hostile JSON raises."""


def decoded(text: str | bytes | None) -> dict[str, Any] | None:
    """Return a text as an object, None if it is none."""
    try:
        document = None if text is None else msgspec.json.decode(text)
    except UNDECODABLE:
        return None
    return document if isinstance(document, dict) else None


def object_of(document: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return the first object among some members, an empty one if there is none."""
    for name in names:
        inner = document.get(name)
        if isinstance(inner, dict):
            return inner
    return {}


def objects_of(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the objects in a list of a document's, none if it is no list."""
    listed = document.get(name)
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def text_of(document: Mapping[str, Any], *names: str) -> str | None:
    """Return the first text among some members, None if there is none."""
    return next((document[name] for name in names if isinstance(document.get(name), str)), None)


def bytes_in(text: str) -> int:
    """Return how many bytes a text has in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))

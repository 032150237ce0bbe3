"""JSON objects whose members are kept as they were written, byte for byte."""

from __future__ import annotations

import msgspec

Members = dict[str, msgspec.Raw]
"""An object, its members as text."""
EVERY = list[msgspec.Raw]
"""A list, its elements as text."""


def members_of(text: bytes) -> Members:
    """Return the members of an object."""
    return msgspec.json.decode(text, type=Members)


def inner_of(members: Members, name: str) -> Members | None:
    """Return an object within another, None if there is none, or another thing in its place."""
    raw = members.get(name)
    if raw is None or bytes(raw)[:1] != b"{":
        return None
    return members_of(bytes(raw))


def raw_of(value: object) -> msgspec.Raw:
    """Return a value as text."""
    return msgspec.Raw(msgspec.json.encode(value))


def alike(before: Members, after: Members) -> bool:
    """Whether two objects have the same members, each written the same."""
    return before.keys() == after.keys() and all(
        bytes(raw) == bytes(after[name]) for name, raw in before.items()
    )

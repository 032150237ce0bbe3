"""JSON objects whose members are kept as they were written, byte for byte."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from guardrail.http.asked.values import RewriteError

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


def each_changed(batch: Members, change: Callable[[Members], Members]) -> Members:
    """Return a batch with each of its requests changed, wherever its vendor puts them.

    Raises:
        RewriteError: it holds none, or what is no request.
    """
    for name in ("batch", "input_config", "inputConfig", "requests"):
        inner = inner_of(batch, name)
        if inner is not None:
            changed = each_changed(inner, change)
            return batch if changed is inner else {**batch, name: raw_of(changed)}
    listed = batch.get("requests")
    if listed is None or bytes(listed)[:1] != b"[":
        raise RewriteError("the requests of the batch were sent before it")
    before = msgspec.json.decode(listed, type=EVERY)
    after = [_one_changed(one, change) for one in before]
    same = all(old is new for old, new in zip(before, after, strict=True))
    return batch if same else {**batch, "requests": raw_of(after)}


def _one_changed(one: msgspec.Raw, change: Callable[[Members], Members]) -> msgspec.Raw:
    text = bytes(one)
    members = members_of(text) if text[:1] == b"{" else {}
    for name in ("params", "request"):
        body = inner_of(members, name)
        if body is not None:
            after = change(body)
            return one if alike(body, after) else raw_of({**members, name: raw_of(after)})
    raise RewriteError("the batch holds what is no request")


def raw_of(value: object) -> msgspec.Raw:
    """Return a value as text."""
    return msgspec.Raw(msgspec.json.encode(value))


def alike(before: Members, after: Members) -> bool:
    """Whether two objects have the same members, each written the same."""
    return before.keys() == after.keys() and all(
        bytes(raw) == bytes(after[name]) for name, raw in before.items()
    )

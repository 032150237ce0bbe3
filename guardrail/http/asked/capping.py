"""Lowers the caps in a body, and sets one where none is heeded."""

from __future__ import annotations

import msgspec

from guardrail.http.asked.caps import REALTIME, CapRules, caps_by_usage, caps_of
from guardrail.http.asked.counts import CAPS, FLOORS, WITHIN
from guardrail.http.asked.endpoints import Kind, endpoint_of
from guardrail.http.asked.raw import EVERY, Members, alike, inner_of, members_of, raw_of
from guardrail.http.asked.values import Asked, RewriteError

_SMALLEST_THINKING = 1024


def lower_caps(members: Members, limit: object, asked: Asked) -> None:
    """Lower every cap above a limit, and all that asks for more; set one if none is heeded.

    Where nothing is known to cap output (pictures, sound, unknown paths), none is set.

    Raises:
        RewriteError: the limit is none, or the body's own cap is 0, which hosts read differently.
    """
    limit = _checked(limit)
    _lower(members, limit)
    for name in WITHIN:
        if name in members:
            members[name] = _lowered(members[name], limit)
    endpoint = endpoint_of(asked.path)
    rules = caps_of(endpoint)
    if endpoint.kind is Kind.UNKNOWN:
        rules = caps_by_usage(asked.usage_format)
    if rules.names and isinstance(asked.document, dict) and not rules.hold(asked.document):
        _set_cap(members, rules, limit)
    _lower_thinking(members, limit)


def lower_caps_in(members: Members, limit: object) -> None:
    """Lower the caps in settings that stand within others; none is set there."""
    limit = _checked(limit)
    _lower(members, limit)
    _lower_thinking(members, limit)


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


def _lowered(raw: msgspec.Raw, limit: int) -> msgspec.Raw:
    """Return settings with their caps lowered, those of a list each, as they were if none is."""
    text = bytes(raw)
    if text[:1] == b"{":
        before = members_of(text)
        after = dict(before)
        _lower(after, limit)
        return raw if alike(before, after) else raw_of(after)
    if text[:1] == b"[":
        before_each = msgspec.json.decode(text, type=EVERY)
        after_each = [_lowered(each, limit) for each in before_each]
        same = all(old is new for old, new in zip(before_each, after_each, strict=True))
        return raw if same else raw_of(after_each)
    return raw


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

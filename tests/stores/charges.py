"""Requests to a cluster's store: budgets, and a rule with strikes and a ban."""

from __future__ import annotations

from guardrail.model.cells import Charge, Counter, Member

S = 1_000_000
TTL = 3600 * S
BINDING = Charge(True, None)


def now_of(store):
    return int(store.state.server_time * S)


def budget(number, key, ceiling, *, amount=1, spill=None):
    return Counter(number, key, 0, 1, 0, amount, ceiling, TTL, spill)


def charge(store, keys, ceilings, **more):
    cells = [
        budget(i, key, top, **more) for i, (key, top) in enumerate(zip(keys, ceilings, strict=True))
    ]
    return store.acquire([BINDING] * len(keys), cells, now_of(store))


def escalated(now, whose):
    """Return a rule that refuses, its strike and its ban, all of the same key facts."""
    second = str(now // S)
    return [BINDING, Charge(False, 0), Charge(False, 1)], [
        budget(0, f"budget__{whose}", 0),
        Counter(0, f"ban_____{whose}", 0, 1, now, 0, now, TTL),
        Member(1, f"strikes_{whose}", second, now + TTL, 0, TTL),
        Counter(2, f"ban_____{whose}", 0, 1, now, TTL, now + TTL, TTL),
    ]

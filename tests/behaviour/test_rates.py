"""A rate admits at most burst + rate × t, refunds included, and tells the truth about waiting."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import pytest

from guardrail import Guard
from guardrail.engine.verbs.rate import RateLimit
from guardrail.stores import cells as records
from guardrail.testing import MovableClock, guard_of

POLICY = """
guardrail: 1
policy: p
rules:
  - {{id: pace, when: always, rate: {{tokens: {amount}/minute, burst: {burst}, key: account.id}}}}
"""
PACES = [(60, 20), (600, 600), (7, 3), (90_000, 5_000), (1_000_000, 400)]
HISTORIES = 3_000


class Paced(NamedTuple):
    """A guard that holds one pace, and its clock; every history is another account's."""

    amount: int
    burst: int
    clock: MovableClock
    guard: Guard


def paced() -> list[Paced]:
    found = []
    for amount, burst in PACES:
        clock = MovableClock()
        guard = guard_of(POLICY.format(amount=amount, burst=burst), clock=clock)
        found.append(Paced(amount, burst, clock, guard))
    return found


def worst_of(histories: int) -> float:
    """Return by how many units some of random histories pass their bounds, at worst."""
    guards = paced()
    return max(worst(seed, guards) for seed in range(histories))


def worst(seed: int, guards: list[Paced]) -> float:
    """Return by how many units a random history passes its bound, at worst (below 0: never)."""
    rng = Random(seed)
    amount, burst, clock, guard = rng.choice(guards)
    facts = {"account.id": f"a{seed}"}
    kept: list[tuple[float, int]] = []
    open_ = []
    for _ in range(40):
        clock.advance(rng.choice((0, 0, 0.001, 0.3, 2, 9)) * rng.random())
        size = rng.randint(1, burst)
        decision = guard.decide(facts, {"tokens": size})
        if decision.allowed:
            open_.append((len(kept), decision))
            kept.append((clock.now, size))
        if open_ and rng.random() < 0.5:
            place, old = open_.pop(rng.randrange(len(open_)))
            used = rng.randint(0, kept[place][1])
            guard.settle(old, {"tokens": used})
            kept[place] = (kept[place][0], used)
    return max(
        (
            sum(size for _, size in kept[first : last + 1])
            - burst
            - amount / 60 * (kept[last][0] - kept[first][0] + 2e-6)
            for first in range(len(kept))
            for last in range(first, len(kept))
        ),
        default=-1.0,
    )


def test_a_rate_admits_at_most_burst_and_pace_in_any_stretch_with_refunds():
    assert worst_of(HISTORIES) <= 1


def test_the_mutant_that_refunds_what_has_drained_is_found_out(monkeypatch):
    original = records.redrained

    def generous(record, correction, now):
        return original(record, correction._replace(charged=correction.charged + 10**9), now)

    monkeypatch.setattr(records, "redrained", generous)
    monkeypatch.setattr("guardrail.stores.cells.redrained", generous)

    assert worst_of(300) > 1


def test_the_mutant_that_counts_a_request_as_one_is_found_out(monkeypatch):
    original = RateLimit.cells

    def cheap(self, plan, allowances, member):
        plan.amounts["tokens"] = 1
        return original(self, plan, allowances, member)

    monkeypatch.setattr(RateLimit, "cells", cheap)
    monkeypatch.setattr(
        "guardrail.guard.guard.decide_inline", lambda engine, store, steps, source: steps
    )

    assert worst_of(50) > 1


@pytest.mark.parametrize(("amount", "burst"), PACES)
def test_an_idle_client_that_waits_as_told_is_served_and_one_that_waits_less_is_not(amount, burst):
    rng, clock = Random(7), MovableClock()
    guard = guard_of(POLICY.format(amount=amount, burst=burst), clock=clock)
    told = 0
    for _ in range(200):
        size = {"tokens": rng.randint(1, burst)}
        decision = guard.decide({"account.id": "a"}, size)
        if decision.allowed:
            continue
        start, wait = clock.now, decision.retry_after or 0.0
        if wait > 0.002:
            clock.set(start + wait - 0.001)
            assert not guard.decide({"account.id": "a"}, size).allowed
        clock.set(start + wait)
        assert guard.decide({"account.id": "a"}, size).allowed
        told += 1

    assert told > 20


@pytest.mark.parametrize(
    ("verb", "left"), [("rate: {requests: %s", 0), ("budget: {per: 1d, requests: %s", 990)]
)
def test_who_rises_keeps_the_amount_that_a_budget_counted_and_the_time_that_a_rate_did(
    verb: str, left: int
) -> None:
    day = "" if verb.startswith("budget") else "/day"
    amounts = f"{{by: account.tier, email: 10{day}, verified: 1000{day}}}"
    guard = guard_of(
        "guardrail: 1\npolicy: p\n"
        "facts:\n  account.tier: {type: level, values: [email, verified]}\n"
        f"rules:\n  - {{id: r, when: always, {verb % amounts}, key: account.id}}}}\n"
    )
    before = [guard.decide({"account.id": "a", "account.tier": "email"}) for _ in range(11)]
    rises = [guard.decide({"account.id": "a", "account.tier": "verified"}) for _ in range(1000)]

    assert sum(decision.allowed for decision in before) == 10
    assert sum(decision.allowed for decision in rises) == left

"""What `retry_after` tells is true for every kind of limit, alone and together."""

from __future__ import annotations

from random import Random

import pytest

from guardrail.engine import conclude
from guardrail.testing import MovableClock, guard_of

HEAD = "guardrail: 1\npolicy: p\ndefaults: {timezone: Australia/Lord_Howe}\nrules:\n"
RULES = {
    "rate": "rate: {tokens: 90/minute, burst: 40, key: account.id}",
    "hour": "budget: {tokens: 120, per: hour, key: account.id}",
    "day": "budget: {tokens: 700, per: day, key: account.id}",
    "rolling": "budget: {tokens: 100, per: 10m, key: account.id}",
    "steps": (
        "budget: {tokens: 200, per: 1h, key: account.id}, steps: "
        "[{at: 50%, throttle: {}}, {at: 90%, block: {}}]"
    ),
    "ban": (
        "rate: {tokens: 60/minute, burst: 40, key: account.id}, "
        "escalate: {after: 3, within: 10m, block_for: 20m}"
    ),
}
SETS = [[name] for name in RULES] + [["rate", "hour"], ["rolling", "day", "ban"], list(RULES)]


def liars(names: list[str], seed: int) -> tuple[int, int]:
    """Return how often a wait was told, and how often a client that waited was not served."""
    rng, clock = Random(seed), MovableClock("2026-04-04T10:00:00.123Z")
    rules = "".join(f"  - {{id: {name}, when: always, {RULES[name]}}}\n" for name in names)
    guard = guard_of(HEAD + rules, clock=clock)
    told = lies = 0
    for _ in range(150):
        clock.advance(rng.choice((0, 0.2, 1.5, 20, 400)))
        size = {"tokens": rng.randint(1, 40)}
        decision = guard.decide({"account.id": "a"}, size)
        if decision.allowed:
            if rng.random() < 0.3:
                guard.settle(decision, {"tokens": rng.randint(0, 60)})
            continue
        if decision.retry_after is None:
            continue
        told += 1
        clock.advance(decision.retry_after)
        lies += not guard.decide({"account.id": "a"}, size).allowed
    return told, lies


@pytest.mark.parametrize("names", SETS, ids="+".join)
def test_an_idle_client_that_waits_as_told_is_served(names):
    results = [liars(names, seed) for seed in range(8)]

    assert sum(lies for _, lies in results) == 0
    assert sum(told for told, _ in results) > 20


@pytest.mark.parametrize("names", SETS, ids="+".join)
def test_the_mutant_that_tells_half_the_wait_is_found_out(monkeypatch, names):
    original = conclude._ruling

    def hasty(rules, finding, wait, *rest):
        return original(rules, finding, None if wait is None else wait // 2, *rest)

    monkeypatch.setattr(conclude, "_ruling", hasty)

    assert sum(liars(names, seed)[1] for seed in range(8)) > 0


@pytest.mark.parametrize(
    ("ago", "told"),
    [(0.0, "86400 s"), (17362.5, "69038 s"), (86_390.5, "9.5 s"), (86_399.9954, "0.01 s")],
)
def test_the_message_tells_a_wait_in_digits_and_never_a_shorter_one(ago, told):
    guard = guard_of(
        "guardrail: 1\npolicy: p\nrules:\n"
        "  - {id: d, when: always, budget: {requests: 1, per: day, key: account.id}}\n"
    )
    midnight = 1_767_571_200.0
    guard.decide({"account.id": "a"}, now=midnight + ago)
    refused = guard.decide({"account.id": "a"}, now=midnight + ago)

    assert refused.message == f"refused by rule `d`: d; retry in {told}"

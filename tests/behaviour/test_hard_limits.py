"""Hard kinds are never exceeded, and never refuse what fits, under any order of events."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.engine import Decision
from guardrail.engine.verbs.budget import BudgetLimit
from guardrail.testing import MovableClock, guard_of
from tests.behaviour.ledger import Event, Ledger

POLICY = """
guardrail: 1
policy: p
rules:
  - {{id: limit, when: always, {verb}}}
"""
VERBS = {
    "day": "budget: {tokens: 100, per: day, key: account.id}",
    "10m": "budget: {tokens: 100, per: 10m, key: account.id}",
    "lifetime": "budget: {tokens: 100, per: lifetime, key: account.id}",
}
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.integers(1, 60),
        st.sampled_from([0.0, 0.4, 7.0, 61.0, 400.0, 20_000.0, -5.0]),
        st.sampled_from(["keep", "settle", "release", "settle twice"]),
        st.floats(0, 1),
    ),
    min_size=20,
    max_size=80,
)


def window(kind: str, now: float) -> tuple[float, float]:
    if kind == "day":
        return now // 86400 * 86400, now // 86400 * 86400 + 86400
    return (now - 600, now + 1e-9) if kind == "10m" else (0.0, float("inf"))


def overrun(kind: str, actions: list) -> str | None:
    """Return what went wrong in a history of requests, None if nothing did."""
    clock, ledger = MovableClock(), Ledger()
    guard = guard_of(POLICY.format(verb=VERBS[kind]), clock=clock)
    newest = clock.now
    for account, amount, step, action, part in actions:
        clock.advance(step)
        newest = max(newest, clock.now)
        decision = guard.decide({"account.id": account}, {"tokens": amount})
        held = ledger.between(account, *window(kind, newest))
        if decision.allowed and held + amount > 100:
            return f"{held} + {amount} of 100 admitted"
        if not decision.allowed and kind != "10m" and held + amount <= 100:
            return f"{held} + {amount} of 100 refused"
        if not decision.allowed:
            continue
        event = Event(newest, amount)
        ledger.add(account, event)
        used = int(amount * part)
        if action.startswith("settle"):
            guard.settle(decision, {"tokens": used})
            ledger.replace(account, event, Event(newest, used))
        if action == "release":
            guard.release(decision)
            ledger.replace(account, event, None)
        if action == "settle twice":
            guard.settle(decision, {"tokens": 0})
    return None


@pytest.mark.parametrize("kind", VERBS)
@given(actions=ACTIONS)
@settings(max_examples=60, deadline=None)
def test_a_budget_is_never_exceeded_nor_stingy(kind, actions):
    assert overrun(kind, actions) is None


STEADY = [("a", 40, 1.0, "settle twice", 0.5)] * 40


@pytest.mark.parametrize("kind", ["day", "lifetime"])
def test_the_mutant_that_settles_twice_is_found_out(monkeypatch, kind):
    monkeypatch.setattr(Decision, "settled", False)

    assert overrun(kind, STEADY) is not None


@pytest.mark.parametrize("kind", VERBS)
def test_the_mutant_that_refuses_too_late_is_found_out(monkeypatch, kind):
    original = BudgetLimit.cells

    def lenient(self, plan, allowances, member):
        return original(self, plan, tuple(limit + 30 for limit in allowances), member)

    monkeypatch.setattr(BudgetLimit, "cells", lenient)
    monkeypatch.setattr(
        "guardrail.guard.guard.decide_inline", lambda engine, store, steps, source: steps
    )

    assert overrun(kind, [("a", 40, 1.0, "keep", 0.0)] * 10) is not None


def test_no_more_are_in_flight_than_allowed_and_lost_ones_end():
    clock = MovableClock()
    verb = "concurrency: {max: 3, lease: 10m, key: account.id}"
    guard = guard_of(POLICY.format(verb=verb), clock=clock)
    facts = {"account.id": "a"}
    flying = [guard.decide(facts) for _ in range(3)]
    refused = guard.decide(facts)

    assert [d.allowed for d in flying] == [True] * 3
    assert (str(refused.effect), refused.retry_after) == ("throttle", 1.0)
    guard.settle(flying[0], {})
    assert guard.decide(facts).allowed
    clock.advance(599)
    guard.renew(flying[1])
    clock.advance(2)
    assert [guard.decide(facts).allowed for _ in range(3)] == [True, True, False]


def test_members_stay_welcome_and_newcomers_are_refused():
    clock = MovableClock()
    verb = "distinct: {count: account.id, max: 2, per: 30d, key: kyc.subject}"
    guard = guard_of(POLICY.format(verb=verb), clock=clock)

    def seen(account):
        return guard.decide({"account.id": account, "kyc.subject": "id-1"})

    assert seen("a").allowed
    assert seen("b").allowed
    refused = seen("c")
    assert (str(refused.effect), refused.retry_after) == ("block", None)
    clock.advance(29 * 86400)
    assert seen("a").allowed
    clock.advance(2 * 86400)
    assert seen("c").allowed
    assert not seen("b").allowed


@given(st.lists(st.tuples(st.integers(1, 120), st.integers(1, 120)), min_size=1, max_size=25))
@settings(max_examples=50, deadline=None)
def test_several_limits_are_charged_all_or_none(amounts):
    guard = guard_of(
        POLICY.format(verb="budget: {input_tokens: 200, output_tokens: 300, per: day, key: global}")
        + "  - {id: other, when: always, budget: {tokens: 350, per: day, key: account.id}}\n"
    )
    total = [0, 0]
    for incoming, outgoing in amounts:
        fits = (
            total[0] + incoming <= 200
            and total[1] + outgoing <= 300
            and sum(total) + incoming + outgoing <= 350
        )
        estimate = {"input_tokens": incoming, "output_tokens": outgoing}
        assert guard.decide({"account.id": "a"}, estimate).allowed is fits
        if fits:
            total = [total[0] + incoming, total[1] + outgoing]

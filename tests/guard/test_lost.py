"""What may stay charged for nothing is counted, whatever store a host has made itself."""

from __future__ import annotations

from typing import Any

import pytest

from guardrail.model.cells import CounterReply, MemberReply, Outcome
from tests.guard.failing import DOWN, KINDS, KNOWN, LOST, Driver

RULES = """
  - {id: day, when: always, budget: {tokens: 1000, per: day, key: account.id}, on_store_error: deny}
  - {id: places, when: always, concurrency: {max: 5, key: account.id}, on_store_error: deny}
"""
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
@pytest.mark.parametrize(("fault", "lost"), [(DOWN, 0), (LOST, 1), (KeyError("x"), 1)])
def test_a_decision_that_may_have_been_charged_is_counted(kind, fault, lost):
    with Driver(kind, RULES) as driver:
        driver.store.fault = fault
        assert driver.decide(KNOWN).status == 503
        assert (driver.health.lost, driver.health.failures) == (lost, 1)


@kinds
def test_what_a_store_has_lost_by_its_own_count_is_told_and_not_counted_twice(kind):
    with Driver(kind, RULES) as driver:
        driver.store.fault = LOST
        watched: Any = driver.guard._supervisor
        watched._undoes = True
        counting: Any = driver.awaited if kind.startswith("async") else driver.store
        counting.lost = 3
        assert driver.decide(KNOWN).status == 503
        assert driver.health.lost == 3


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_store_that_counts_what_it_lost_is_taken_to_undo_the_rest(kind):
    counting = type("Counting", (), {"lost": 2, "acquire": lambda *_: None})
    with Driver(kind, RULES) as driver:
        shell: Any = type(driver.guard)
        assert not driver.guard._supervisor._undoes
        made = shell(driver.guard._context, counting())
        assert made._supervisor._undoes
        assert made.health.lost == 2


NONSENSE: list[Any] = [
    None, 5, "", "yes", [], [1], [1, 0, 0], ["a"] * 13, [None] * 13, {}, [[1]] * 13, b"x" * 13,
    [1.5] * 13, [1] * 12, [1] * 14,
]  # fmt: skip


@pytest.mark.parametrize("kind", ["sync, in numbers", "async, in numbers"])
@pytest.mark.parametrize("reply", NONSENSE, ids=repr)
def test_a_reply_that_is_none_refuses_and_its_charge_is_counted(kind, reply):
    with Driver(kind, RULES) as driver:

        def answered(form: object, now: int) -> Any:
            return reply

        async def awaited(form: object, now: int) -> Any:
            return reply

        guard: Any = driver.guard
        guard._ask = awaited if kind.startswith("async") else answered
        decision = driver.decide(KNOWN, {"input_tokens": 1, "output_tokens": 1})

        assert decision.status == 503
        assert (driver.health.lost, driver.health.failures) == (1, 1)


NO_OUTCOMES: list[Any] = [
    None, 5, (), Outcome(True, [False], []), Outcome(True, [False, False], [None, None]),  # type: ignore[list-item]
    Outcome(True, [False, False], [CounterReply(0, 0, None, None), MemberReply(0, False, None)]),  # type: ignore[arg-type]
]  # fmt: skip


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("outcome", NO_OUTCOMES, ids=repr)
def test_an_outcome_that_is_none_refuses_and_its_charge_is_counted(kind, outcome):
    with Driver(kind, RULES) as driver:
        inner: Any = driver.store.inner
        inner.acquire = lambda charges, cells, now: outcome
        decision = driver.decide(KNOWN, {"input_tokens": 1, "output_tokens": 1})

        assert decision.status == 503
        assert (driver.health.lost, driver.health.failures) == (1, 1)


@kinds
def test_more_usage_whose_reply_was_lost_is_sent_again_and_counted(kind):
    with Driver(kind, RULES) as driver:
        decision = driver.decide(KNOWN, {"input_tokens": 5, "output_tokens": 5})
        driver.store.fault, driver.store.applied = LOST, True
        driver.settle(decision, {"input_tokens": 5, "output_tokens": 25})
        driver.store.fault, driver.store.applied = None, False
        driver.clock.advance(5)
        driver.release(driver.decide(KNOWN, {"input_tokens": 0, "output_tokens": 0}))

        looked = driver.decide(KNOWN, {"input_tokens": 0, "output_tokens": 0})
        used = {status.rule: status.used for status in looked.limits}
        assert used["day"] == 30 + 20
        assert (driver.health.lost, driver.health.repeated) == (0, 1)

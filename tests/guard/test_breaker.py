"""The circuit breaker: when it opens, whom it lets try, and how long it waits."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import StoreError
from guardrail.guard.breaker import FIRST_PAUSE, LONGEST_PAUSE, Breaker, State
from tests.guard.failing import DOWN, KNOWN, Driver

RULE = "  - {id: r, when: always, rate: {requests: 100000/second, key: account.id}}\n"


def opened(jitter=None, at=0.0) -> Any:
    breaker: Any = Breaker(jitter)
    for _ in range(5):
        breaker.failed(breaker.permit(at), at)
    return breaker


def test_five_failures_in_a_row_open_it_and_four_do_not():
    breaker: Any = Breaker()
    for outcome in (*("failed",) * 4, "succeeded", *("failed",) * 4):
        getattr(breaker, outcome)(breaker.permit(0.0), 0.0)
    assert breaker.state is State.CLOSED

    breaker.failed(breaker.permit(0.0), 0.0)
    assert (breaker.state, breaker.permit(0.0)) == (State.OPEN, None)


@pytest.mark.parametrize(("calls", "failures", "state"), [(20, 10, "open"), (20, 9, "closed")])
def test_half_of_twenty_within_a_second_open_it(calls, failures, state):
    breaker: Any = Breaker()
    pattern = [True, False] * failures + [False] * (calls - 2 * failures)
    for number, fails in enumerate(reversed(pattern)):
        now = number * 0.04
        outcome = breaker.failed if fails else breaker.succeeded
        outcome(breaker.permit(now), now)

    assert breaker.state.value == state


def test_half_of_twenty_over_two_seconds_do_not():
    breaker: Any = Breaker()
    for number in range(60):
        outcome = breaker.succeeded if number % 2 else breaker.failed
        outcome(breaker.permit(number * 0.1), number * 0.1)

    assert breaker.state is State.CLOSED


def test_after_a_pause_one_call_tries_and_its_answer_closes():
    breaker: Any = opened()
    assert breaker.permit(FIRST_PAUSE - 0.001) is None

    probe = breaker.permit(FIRST_PAUSE)
    assert probe is not None
    assert breaker.state.value == "half-open"
    assert breaker.permit(FIRST_PAUSE + 100) is None
    breaker.succeeded(probe, FIRST_PAUSE)
    assert breaker.state.value == "closed"
    assert breaker.permit(FIRST_PAUSE) is not None


def test_pauses_double_up_to_a_bound_and_start_anew_after_a_success():
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(9):
        start = now
        while (probe := breaker.permit(now)) is None:
            now += 0.125
        pauses.append(now - start)
        breaker.failed(probe, now)
    assert pauses == [0.25, 0.5, 1, 2, 4, 8, *(LONGEST_PAUSE,) * 3]

    now += LONGEST_PAUSE
    breaker.succeeded(breaker.permit(now), now)
    for _ in range(5):
        breaker.failed(breaker.permit(now), now)
    assert breaker.permit(now + FIRST_PAUSE) is not None


@pytest.mark.parametrize(("drawn", "pause"), [(0.0, 0.25), (0.5, 0.21875), (1.0, 0.1875)])
def test_jitter_shortens_a_pause_by_up_to_a_quarter(drawn, pause):
    breaker = opened(lambda: drawn)

    assert breaker.permit(pause - 0.001) is None
    assert breaker.permit(pause) is not None


def test_an_abandoned_probe_leaves_its_place_to_the_next():
    breaker: Any = opened()
    breaker.abandoned(breaker.permit(1.0))

    assert breaker.state is State.OPEN
    assert breaker.permit(1.0) is not None


@pytest.mark.parametrize("late", ["succeeded", "failed"])
def test_calls_from_before_it_opened_have_no_say(late):
    breaker: Any = Breaker()
    before = breaker.permit(0.0)
    for _ in range(5):
        breaker.failed(breaker.permit(0.0), 0.0)
    getattr(breaker, late)(before, 0.2)
    assert breaker.state.value == "open"

    assert breaker.permit(FIRST_PAUSE) is not None
    getattr(breaker, late)(before, FIRST_PAUSE)
    assert breaker.state.value == "half-open"


def test_a_clock_that_goes_back_does_not_lengthen_the_pause():
    breaker = opened(at=1000.0)
    assert breaker.permit(10.0) is None

    assert breaker.permit(10.0 + FIRST_PAUSE) is not None


STEPS = st.lists(
    st.tuples(st.sampled_from(["permit", "succeeded", "failed", "abandoned"]), st.floats(0, 20)),
    max_size=120,
)


@given(STEPS)
def test_there_is_never_more_than_one_probe_and_always_one_some_day(steps):
    breaker: Any = Breaker()
    now, out, probes = 0.0, [], set()
    for step, seconds in steps:
        now += seconds / 20
        if step == "permit":
            was = breaker.state
            permit = breaker.permit(now)
            if was is State.OPEN and permit is not None:
                probes.add(permit)
            assert permit is None or was is not State.HALF_OPEN
            out += [] if permit is None else [permit]
        elif out:
            permit = out.pop(0)
            probes.discard(permit)
            arguments = (permit,) if step == "abandoned" else (permit, now)
            getattr(breaker, step)(*arguments)
        assert len(probes) <= 1
    for permit in out:
        breaker.abandoned(permit)
    assert breaker.permit(now + LONGEST_PAUSE) is not None


def test_of_many_threads_one_gets_the_probe():
    for _ in range(20):
        breaker: Any = opened()
        barrier = threading.Barrier(8)
        permits: list[int | None] = []

        def ask(breaker=breaker, barrier=barrier, permits=permits):
            barrier.wait()
            permits.append(breaker.permit(1.0))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sum(permit is not None for permit in permits) == 1


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("fault", [DOWN, KeyError("x")])
def test_while_it_is_open_no_call_is_made_and_a_probe_finds_the_store_again(kind, fault):
    with Driver(kind, RULE) as driver:
        early = driver.decide(KNOWN)
        driver.store.fault = fault
        for _ in range(30):
            driver.decide(KNOWN)
        assert len(driver.store.asked) == 6
        assert (driver.health.breaker, driver.health.unasked) == ("open", 25)
        assert "is not asked, as it failed" in driver.decide(KNOWN).errors[0]
        driver.settle(early, {"requests": 2})
        assert driver.store.sent == []

        driver.store.fault = None
        driver.clock.advance(1)
        assert str(driver.decide(KNOWN).mode) == "normal"
        assert driver.health.breaker == "closed"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_failing_settlements_open_it_too(kind):
    with Driver(kind, RULE) as driver:
        decisions = [driver.decide(KNOWN) for _ in range(9)]
        driver.store.fault = StoreError("OOM")
        for decision in decisions:
            driver.settle(decision, {"requests": 3})

        assert len(driver.store.sent) == 5
        assert driver.health.breaker == "open"


def test_an_interrupt_in_a_probe_frees_its_place():
    with Driver("sync", RULE) as driver:
        driver.store.fault = DOWN
        for _ in range(5):
            driver.decide(KNOWN)
        driver.clock.advance(1)
        driver.store.fault = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            driver.decide(KNOWN)

        driver.store.fault = None
        assert str(driver.decide(KNOWN).mode) == "normal"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_that_a_store_is_asked_no_more_and_asked_again_is_logged_once(kind, caplog):
    with Driver(kind, RULE) as driver:
        driver.store.fault = DOWN
        for _ in range(9):
            driver.decide(KNOWN)
        driver.clock.now += 2 * FIRST_PAUSE
        driver.decide(KNOWN)  # a trial that fails is no news
        logged = [record.getMessage() for record in caplog.records]
        assert logged == [f"the store fails and is not asked for now, rules go without it: {DOWN}"]
        driver.store.fault = None
        driver.clock.now += 4 * LONGEST_PAUSE
        for _ in range(3):
            driver.decide(KNOWN)

    logged = [record.getMessage() for record in caplog.records]
    assert logged[1:] == ["the store answers again; it is asked"]

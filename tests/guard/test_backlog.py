"""What becomes of corrections the store did not take: kept, repeated, given up, and counted."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import StoreError
from guardrail.guard.supervisor import LONGEST_KEPT, MOST_AT_ONCE, MOST_TRIES, Backlog, repeatable
from guardrail.model.amounts import SECOND
from guardrail.model.cells import Adjust, Correction, Drain, Leave, Renew
from guardrail.model.effects import StoreMode
from tests.guard.failing import DOWN, KINDS, KNOWN, LOST, Driver

DAILY = "  - {id: d, when: always, budget: {tokens: 1M, per: day, key: account.id}}\n"
FLIGHT = "  - {id: f, when: always, concurrency: {max: 1000, lease: 1m, key: account.id}}\n"
REFUND, EXTRA = Adjust("idididid=a", 7, -3, 60), Adjust("idididid=a", 7, 3, 60)
LEAVE, RENEWAL = Leave("idididid=a", "m"), Renew("idididid=a", "m", 50 * SECOND, 60)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def used(driver):
    """Return what the store holds of the daily budget, and how many leases live."""
    sent = driver.store.inner
    (ident,) = driver.guard._context.engine.limits[0].idents
    (flight,) = driver.guard._context.engine.limits[1].idents
    now = driver.clock.now * SECOND
    live = [end for end in sent.members(flight + "=a").values() if end > now]
    return sum(sent.slots(ident + "=a").values()), len(live)


def recover(driver):
    driver.store.fault = None
    driver.clock.advance(30)
    for _ in range(40):
        driver.settle(driver.decide(KNOWN, {"tokens": 1}), {"tokens": 1})


def test_only_what_may_be_applied_twice_is_repeated():
    drains = [Drain("k", delta, 0, 0, 0) for delta in (-1, 1)]

    corrections: list[Correction] = [LEAVE, RENEWAL, EXTRA, REFUND, *drains]

    assert [repeatable(correction) for correction in corrections] == [
        *(True,) * 3,
        *(False,) * 2,
        True,
    ]


def test_a_backlog_keeps_order_and_gives_out_so_many_at_once():
    backlog = Backlog({})
    corrections = [Adjust("k", number, -1, 60) for number in range(250)]
    backlog.keep(backlog.wrap(corrections, 0), 0, unsure=False)
    taken = [[entry.correction for entry in backlog.take(1)] for _ in range(4)]

    assert [len(part) for part in taken] == [MOST_AT_ONCE, MOST_AT_ONCE, 50, 0]
    assert [found for part in taken for found in part] == corrections


def test_a_backlog_is_bounded_and_counts_what_it_gives_up():
    backlog = Backlog({}, 3)

    assert backlog.keep(backlog.wrap([REFUND] * 5, 0), 0, unsure=False) == 2
    assert (len(backlog), backlog.lost) == (3, 2)
    assert backlog.keep(backlog.wrap([REFUND, EXTRA, LEAVE], 0), 0, unsure=True) == 3
    assert (len(backlog), backlog.lost) == (3, 5)


def test_what_is_too_old_makes_room_and_is_not_delivered():
    backlog = Backlog({"idididid": 10 * SECOND}, 3)
    backlog.keep(backlog.wrap([LEAVE, RENEWAL, REFUND], 0), 0, unsure=False)

    assert [entry.correction for entry in backlog.take(10 * SECOND)] == [RENEWAL, REFUND]
    assert backlog.lost == 0
    backlog.keep(backlog.wrap([REFUND] * 3, 0), 0, unsure=False)
    assert backlog.keep(backlog.wrap([EXTRA], LONGEST_KEPT), LONGEST_KEPT, unsure=False) == 0
    assert (len(backlog), backlog.lost) == (1, 3)


def test_what_fails_to_arrive_when_its_time_is_over_is_lost_but_for_leases():
    backlog = Backlog({"idididid": 10 * SECOND})
    entries = backlog.wrap([EXTRA, REFUND, LEAVE, RENEWAL], 0)

    assert backlog.keep(entries, LONGEST_KEPT, unsure=False) == 2
    assert (len(backlog), backlog.lost) == (0, 2)


def test_what_the_store_breaks_on_is_not_sent_for_ever():
    backlog = Backlog({})
    entries, sends = backlog.wrap([EXTRA], 0), 0
    while entries:
        sends += 1
        backlog.keep(entries, 0, unsure=True, broke=True)
        entries = backlog.take(0)

    assert (sends, backlog.lost) == (MOST_TRIES, 1)


def test_a_forked_child_leaves_delivery_to_its_parent(monkeypatch):
    backlog = Backlog({})
    backlog.keep(backlog.wrap([EXTRA], 0), 0, unsure=False)
    monkeypatch.setattr(os, "getpid", lambda: -1)

    assert backlog.take(0) == []


def test_a_settlement_waits_for_the_store_and_goes_with_a_later_one(kind):
    with Driver(kind, DAILY + FLIGHT) as driver:
        first = driver.decide(KNOWN, {"tokens": 100})
        driver.store.fault = DOWN
        driver.settle(first, {"tokens": 10})
        assert (driver.health.queued, driver.health.lost, first.errors) == (2, 0, ())
        assert used(driver) == (100, 1)

        driver.store.fault = None
        second = driver.decide(KNOWN, {"tokens": 5})
        driver.settle(second, {"tokens": 6})
        assert (driver.health.queued, used(driver)) == (0, (16, 0))
        assert len(driver.store.sent) == 2


@pytest.mark.parametrize(
    "rule",
    [
        "{id: f, when: always, concurrency: {max: 1, lease: 1h, key: global}}",
        "{id: d, when: always, budget: {tokens: 100, per: day, key: account.id}}",
        "{id: r, when: always, rate: {tokens: 1/minute, burst: 100, key: account.id}}",
    ],
    ids=["a place", "a budget", "a rate"],
)
def test_what_waits_is_delivered_where_nobody_is_served_for_lack_of_it(kind, rule):
    with Driver(kind, f"  - {rule}\n") as driver:
        first = driver.decide(KNOWN, {"tokens": 100})
        driver.store.fault = DOWN
        driver.settle(first, {"tokens": 10})
        driver.store.fault = None

        assert not driver.decide(KNOWN, {"tokens": 50}).allowed
        assert driver.health.queued == 0
        assert driver.decide(KNOWN, {"tokens": 50}).allowed


def test_a_refusal_stands_though_what_waits_cannot_be_delivered_either(kind):
    with Driver(kind, "  - {id: f, when: always, concurrency: {max: 1, key: global}}\n") as driver:
        first = driver.decide(KNOWN, {"tokens": 1})
        driver.store.fault = DOWN
        driver.settle(first)
        driver.store.fault, driver.store.settles = None, False

        refused = driver.decide(KNOWN, {"tokens": 1})
        assert (refused.rule, refused.errors, driver.health.queued) == ("f", (), 1)


def test_what_waits_is_delivered_at_the_end(kind):
    with Driver(kind, DAILY + FLIGHT) as driver:
        decisions = [driver.decide(KNOWN, {"tokens": 100}) for _ in range(150)]
        driver.store.fault = DOWN
        for decision in decisions:
            driver.settle(decision, {"tokens": 1})
        assert driver.health.queued == 300
        driver.store.fault = None
        driver.clock.advance(1)
        driver.close()

        assert (used(driver), driver.health.lost, driver.store.closed) == ((150, 0), 0, 1)


def test_what_cannot_be_delivered_at_the_end_is_counted(kind):
    with Driver(kind, DAILY + FLIGHT) as driver:
        decision = driver.decide(KNOWN, {"tokens": 100})
        driver.store.fault = DOWN
        driver.settle(decision, {"tokens": 1})
        driver.close()

        assert (driver.health.queued, driver.health.lost, driver.store.closed) == (0, 2, 1)


@pytest.mark.parametrize("fault", [LOST, KeyError("x")])
@pytest.mark.parametrize("applied", [False, True])
def test_after_an_unknown_outcome_refunds_are_dropped_and_said_to_be_lost(kind, fault, applied):
    with Driver(kind, DAILY + FLIGHT) as driver:
        refunded, exceeded = (driver.decide(KNOWN, {"tokens": 100}) for _ in range(2))
        driver.store.fault, driver.store.applied = fault, applied
        driver.settle(refunded, {"tokens": 1})
        driver.settle(exceeded, {"tokens": 150})

        assert len(refunded.errors) == 1
        assert "one correction of what was charged is lost" in refunded.errors[0]
        assert exceeded.errors == ()
        assert (driver.health.lost, driver.health.repeated, driver.health.queued) == (1, 1, 3)
        recover(driver)
        assert used(driver) == ((1 + 200 + 40) if applied else (100 + 150 + 40), 0)


def test_renewing_keeps_trying_and_marks_nothing_as_settled(kind):
    with Driver(kind, DAILY + FLIGHT) as driver:
        decision = driver.decide(KNOWN, {"tokens": 1})
        driver.store.fault = DOWN
        driver.clock.advance(30)
        driver.renew(decision)
        driver.store.fault = None
        driver.settle(driver.decide(KNOWN, {"tokens": 1}))
        driver.clock.advance(45)

        assert (used(driver)[1], decision.settled) == (1, False)


def test_a_release_waits_as_well_and_happens_once(kind):
    with Driver(kind, DAILY + FLIGHT) as driver:
        decision = driver.decide(KNOWN, {"tokens": 100})
        driver.store.fault = DOWN
        driver.release(decision)
        driver.release(decision)
        driver.settle(decision, {"tokens": 9})
        recover(driver)

        assert used(driver) == (40, 0)


def test_an_admission_whose_reply_was_lost_leaves_no_place_taken(kind):
    with Driver(kind, DAILY + FLIGHT) as driver:
        driver.store.fault, driver.store.applied = LOST, True
        driver.release(driver.decide(KNOWN, {"tokens": 100}))
        assert used(driver) == (100, 1)
        recover(driver)

        assert used(driver) == (140, 0)


FAULTS = st.sampled_from([None, None, "down", "lost", "late", "broken"])
SETTLES = st.lists(st.tuples(FAULTS, FAULTS, st.integers(0, 30), st.integers(0, 9)), max_size=60)


@pytest.mark.parametrize("kind", ["sync"])
@given(steps=SETTLES)
def test_the_store_never_holds_less_than_was_used_and_exactly_that_after_sure_failures(kind, steps):
    faults = {"down": DOWN, "lost": LOST, "late": LOST, "broken": KeyError("x"), None: None}
    ledger, sure, open_decisions = 0, True, []
    with Driver(kind, DAILY + FLIGHT) as driver:
        for asking, settling, amount, seconds in steps:
            driver.store.fault, driver.store.applied = faults[asking], asking == "late"
            decision = driver.decide(KNOWN, {"tokens": 10})
            if decision.mode is StoreMode.NORMAL:
                ledger += amount
            else:
                sure = sure and asking in (None, "down")
            open_decisions.append((decision, amount))
            driver.clock.advance(seconds / 10)
            driver.store.fault, driver.store.applied = faults[settling], settling == "late"
            if seconds % 3:
                sure = sure and settling in (None, "down")
                settled, amount = open_decisions.pop(0)
                driver.settle(settled, {"tokens": amount})
        driver.store.fault = None
        driver.clock.advance(20)
        for settled, amount in open_decisions:
            driver.settle(settled, {"tokens": amount})
        recover(driver)
        held, live = used(driver)

        assert live == 0
        assert held >= ledger + 40
        assert driver.health.queued == 0
        # Whatever may stay charged for nothing is counted.
        assert sure <= ((driver.health.lost, driver.health.repeated) == (0, 0))
        assert held == ledger + 40 or driver.health.lost + driver.health.repeated


def test_an_interrupted_settlement_keeps_what_may_be_repeated():
    with Driver("sync", DAILY + FLIGHT) as driver:
        decision = driver.decide(KNOWN, {"tokens": 100})
        driver.store.fault = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            driver.settle(decision, {"tokens": 1})

        assert (driver.health.lost, driver.health.queued, driver.health.failures) == (1, 1, 0)


def test_failures_are_counted_and_named(kind):
    with Driver(kind, DAILY + FLIGHT) as driver:
        assert (driver.health.failures, driver.health.problem) == (0, None)
        driver.store.fault = StoreError("LOADING")
        driver.decide(KNOWN)

        assert (driver.health.failures, driver.health.problem) == (1, "LOADING")

"""The store contract, behaviour by behaviour, over every store of `stores.py`."""

from __future__ import annotations

import pytest

from guardrail.errors import StoreError
from guardrail.model.cells import (
    TOP,
    Adjust,
    Charge,
    Counter,
    Drain,
    Leave,
    Member,
    MemberReply,
    Renew,
)
from guardrail.stores.cells import form_of
from tests.cells.stores import STORES

S = 1_000_000
NOW = 1_700_000_000 * S
TTL = 3600 * S
BINDING = [Charge(True, None)]
KEY, OTHER, LINE, SET = "budget__=a", "budget__=b", "pace____=a", "flight__=a"
NEXT = "strikes_=a"
"""Another counter of the same key facts: what follows a charge has those of the charge."""


@pytest.fixture(params=STORES)
def store(request):
    opened = STORES[request.param]()
    yield opened
    opened.close()


def counter(amount=1, ceiling=10, *, charge=0, key=KEY, slot=0, span=1, floor=0):
    return Counter(charge, key, slot, span, floor, amount, ceiling, TTL)


def member(name, ceiling=2, *, expires=NOW + 10 * S, key=SET):
    return Member(0, key, name, expires, ceiling, TTL)


def used(store, key=KEY, slot=0, span=1, floor=0, now=NOW):
    """Look without charging: amount 0 never writes."""
    looked = Counter(0, key, slot, span, floor, 0, None, TTL)
    return store.acquire(BINDING, [looked], now).replies[0].used


def test_a_charge_that_fits_exactly_is_admitted_and_one_more_is_not(store):
    assert store.acquire(BINDING, [counter(10)], NOW).admitted
    assert not store.acquire(BINDING, [counter(1)], NOW).admitted
    assert used(store) == 10


def test_a_refused_charge_charges_nothing_in_any_of_its_cells(store):
    outcome = store.acquire(BINDING, [counter(1), counter(11, key=OTHER)], NOW)

    assert not outcome.admitted
    assert outcome.refused == [True]
    assert (used(store), used(store, OTHER)) == (0, 0)


def test_one_refused_rule_keeps_all_others_from_charging(store):
    charges = [Charge(True, None), Charge(True, None)]
    outcome = store.acquire(charges, [counter(1), counter(11, charge=1, key=OTHER)], NOW)

    assert outcome.refused == [False, True]
    assert used(store) == 0


def test_every_cell_is_answered_also_after_a_refusal(store):
    store.acquire(BINDING, [counter(4, key=OTHER)], NOW)
    outcome = store.acquire(BINDING, [counter(11), counter(1, key=OTHER)], NOW)

    assert [reply.used for reply in outcome.replies] == [0, 4]


def test_a_charge_that_does_not_bind_refuses_no_request_and_is_left_out(store):
    charges = [Charge(True, None), Charge(False, None)]
    outcome = store.acquire(charges, [counter(1), counter(11, charge=1, key=OTHER)], NOW)

    assert outcome.admitted
    assert (used(store), used(store, OTHER)) == (1, 0)


def test_a_charge_after_another_is_applied_only_if_that_one_was_refused(store):
    charges = [Charge(True, None), Charge(False, 0)]
    strike = counter(1, None, charge=1, key=NEXT)
    store.acquire(charges, [counter(1), strike], NOW)
    assert used(store, NEXT) == 0

    store.acquire(charges, [counter(11), strike], NOW)
    assert used(store, NEXT) == 1


def test_what_comes_after_a_charge_that_was_never_tried_is_not_applied(store):
    charges = [Charge(True, None), Charge(False, 0), Charge(False, 1)]
    full = counter(1, 0, charge=1, key=NEXT)
    ban = counter(5, None, charge=2, key=LINE, floor=NOW)

    assert store.acquire(charges, [counter(1), full, ban], NOW).refused == [False] * 3
    assert used(store, LINE, floor=1) == 1


def test_an_amount_of_nothing_never_writes(store):
    store.acquire(BINDING, [counter(0, slot=5)], NOW)

    assert store.acquire(BINDING, [counter(1, slot=3)], NOW).replies[0].slot == 3


def test_a_value_stops_at_the_largest_exact_one(store):
    store.acquire(BINDING, [counter(TOP, None)], NOW)
    store.acquire(BINDING, [counter(5, None)], NOW)

    assert used(store) == TOP


@pytest.mark.parametrize("odd", [{"expires": TOP + 1}, {"expires": 1.5}, {"ceiling": TOP + 1}])
def test_a_member_with_a_number_that_cannot_be_counted_is_refused_before_it_is_sent(odd):
    form_of(BINDING, [member("m", expires=TOP, ceiling=TOP)])

    with pytest.raises(StoreError, match="cannot be counted"):
        form_of(BINDING, [member("m", **{"ceiling": 2, **odd})])


def test_a_clock_that_steps_back_reopens_no_window(store):
    store.acquire(BINDING, [counter(10, slot=60)], NOW)
    outcome = store.acquire(BINDING, [counter(1, slot=0)], NOW - 60 * S)

    assert not outcome.admitted
    assert outcome.replies[0].slot == 60


def test_a_ring_of_61_slots_never_holds_more_than_its_ceiling(store):
    admitted = []
    for slot in range(0, 400, 3):
        for _ in range(7):
            if store.acquire(BINDING, [counter(1, 20, slot=slot, span=61)], NOW).admitted:
                admitted.append(slot)

    assert all(sum(s <= a < s + 60 for a in admitted) <= 20 for s in range(400))
    assert len(admitted) > 100


def test_a_refusal_tells_the_slot_whose_leaving_makes_room(store):
    for slot, amount in ((0, 3), (10, 5), (20, 2)):
        store.acquire(BINDING, [counter(amount, slot=slot, span=61)], NOW)

    for amount, frees in ((1, 0), (3, 0), (4, 10), (9, 20)):
        reply = store.acquire(BINDING, [counter(amount, slot=30, span=61)], NOW).replies[0]
        assert reply.frees == (30 if amount > 10 else frees)


def test_a_draining_counter_never_lags_behind_its_floor(store):
    line = counter(3 * S, NOW + 5 * S, key=LINE, floor=NOW)
    assert store.acquire(BINDING, [line], NOW).admitted
    assert not store.acquire(BINDING, [line], NOW).admitted
    later = counter(3 * S, NOW + 65 * S, key=LINE, floor=NOW + 60 * S)

    assert store.acquire(BINDING, [later], NOW + 60 * S).replies[0].used == NOW + 60 * S


def test_members_are_renewed_and_never_refused_while_newcomers_are(store):
    for name in "ab":
        assert store.acquire(BINDING, [member(name)], NOW).admitted
    outcome = store.acquire(BINDING, [member("c")], NOW)

    assert not outcome.admitted
    assert outcome.replies[0] == MemberReply(2, False, NOW + 10 * S)
    assert store.acquire(BINDING, [member("a", expires=NOW + 90 * S)], NOW).admitted
    assert store.acquire(BINDING, [member("c", expires=NOW + 90 * S)], NOW + 10 * S).admitted
    assert not store.acquire(BINDING, [member("b")], NOW + 10 * S).admitted


def test_a_refund_lowers_its_own_slot_and_never_creates_one(store):
    store.acquire(BINDING, [counter(6, slot=60)], NOW)
    store.settle(
        [Adjust(KEY, 60, -4, TTL), Adjust(KEY, 0, -4, TTL), Adjust(OTHER, 0, -4, TTL)], NOW
    )

    assert (used(store, slot=60), used(store, OTHER)) == (2, 0)


def test_a_refund_takes_no_more_than_there_is(store):
    store.acquire(BINDING, [counter(3)], NOW)
    store.settle([Adjust(KEY, 0, -100, TTL)], NOW)

    assert used(store) == 0


def test_what_was_used_above_the_estimate_goes_to_the_newest_slot_whatever_the_ceiling(store):
    store.acquire(BINDING, [counter(1, slot=60)], NOW)
    store.settle([Adjust(KEY, 0, 50, TTL)], NOW)

    assert used(store, slot=60) == 51
    assert not store.acquire(BINDING, [counter(1, slot=60)], NOW).admitted


def test_a_rate_is_refunded_at_most_what_has_not_drained(store):
    line = counter(10 * S, NOW + 10 * S, key=LINE, floor=NOW)
    store.acquire(BINDING, [line], NOW)
    store.settle([Drain(LINE, -10 * S, NOW + 10 * S, 0, TTL)], NOW + 4 * S)

    assert used(store, LINE, floor=1) == NOW + 4 * S
    store.settle([Drain(LINE, -10 * S, NOW + 10 * S, 0, TTL)], NOW + 4 * S)
    assert used(store, LINE, floor=1) == NOW + 4 * S


def test_a_lease_ends_and_makes_room_at_once(store):
    for name in "ab":
        store.acquire(BINDING, [member(name)], NOW)
    store.settle([Leave(SET, "a"), Leave(SET, "nobody"), Leave(OTHER, "a")], NOW)

    assert store.acquire(BINDING, [member("c")], NOW).admitted


def test_only_a_live_lease_is_renewed(store):
    store.acquire(BINDING, [member("a", 1)], NOW)
    store.settle([Renew(SET, "a", NOW + 60 * S, TTL)], NOW + 5 * S)
    assert not store.acquire(BINDING, [member("b", 1)], NOW + 30 * S).admitted

    store.settle([Renew(SET, "a", NOW + 600 * S, TTL)], NOW + 60 * S)
    assert store.acquire(BINDING, [member("b", 1, expires=NOW + 90 * S)], NOW + 60 * S).admitted


@pytest.mark.parametrize(
    ("ttl", "kept"), [(0, 1), (1, 1), (1000, 1), (1001, 2), (60_000_000, 60_000)]
)
def test_a_call_as_numbers_keeps_a_record_for_whole_milliseconds_one_at_least(ttl, kept):
    # A record without a time to live would not be written, and what it charges be free.
    form = form_of([Charge(True, None)], [Counter(0, "counter_=a", 0, 1, 0, 7, None, ttl)])

    assert form.cells[3] == kept

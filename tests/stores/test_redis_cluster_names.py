"""A cluster at its bound, where unknown keys spill, and over a new hash key: records move."""

from __future__ import annotations

from typing import Any

import pytest

from guardrail.model.cells import LEFT_OUT, Adjust, Charge, Counter, Member
from tests.cells.redis_stores import HASH_KEY
from tests.stores.charges import BINDING, TTL, S, budget, charge, escalated, now_of
from tests.stores.clusters import CLUSTERS
from tests.stores.servers import binaries
from tests.stores.spreads import Spread, key_in

OLD = b"the old key, long enough"


@pytest.fixture(params=binaries())
def cluster(request):
    return CLUSTERS.empty(request.param)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def crowded(request, cluster):
    """A store whose servers are at their bound, and one that was there before."""
    before = Spread(cluster)
    store = Spread(cluster, is_async=request.param, bound=0)
    yield before, store
    before.close()
    store.close()


def spilling(store, whose, ceiling, *, number=0):
    """Return a budget and its overflow counter, on two servers."""
    key = f"budget__{whose}"
    spill = key_in(store, "budget__", lambda slot: store.cluster.owner(slot) != store.owner(key))
    return budget(number, key, ceiling, spill=spill), spill


def test_at_the_bound_unknown_keys_use_the_overflow_counter_in_its_own_slot(crowded):
    _, store = crowded
    cell, spill = spilling(store, "=guest", 2)
    outcomes = [store.acquire([BINDING], [cell], now_of(store)) for _ in range(3)]

    assert [outcome.admitted for outcome in outcomes] == [True, True, False]
    assert all(outcome.replies[0].spilled for outcome in outcomes)
    assert store.slots(spill) == {0: 2}
    assert store.slots(cell.key) == {}


def test_of_a_rule_that_is_partly_known_at_the_bound_the_known_part_is_charged_too(crowded):
    before, store = crowded
    known = budget(0, "tokens__=guest", 2, spill="tokens__~1")
    before.acquire([BINDING], [known], now_of(before))
    cell, spill = spilling(store, "=guest", 9)
    outcomes = [store.acquire([BINDING], [known, cell], now_of(store)) for _ in range(2)]

    assert [outcome.admitted for outcome in outcomes] == [True, False]
    assert [reply.spilled for reply in outcomes[0].replies] == [False, True]
    assert (store.slots(known.key), store.slots(spill)) == ({0: 2}, {0: 1})


def test_at_the_bound_a_banned_key_stays_banned_and_takes_no_one_else_s_room(crowded):
    before, store = crowded
    now = now_of(store)
    before.acquire(*escalated(now, "=guest"), now)
    cell, spill = spilling(store, "=guest", 9)
    ban = Counter(0, "ban_____=guest", 0, 1, now, 0, now, TTL)
    outcome = store.acquire([BINDING], [ban, cell], now)

    assert (outcome.admitted, outcome.refused) == (False, [True])
    assert store.slots(spill) == {}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_at_the_bound_a_refusal_leaves_no_strikes_of_an_unknown_key(is_async):
    full = Spread(CLUSTERS.empty("valkey 9"), bound=0, is_async=is_async)
    stranger, spill = "budget__=stranger", "budget__~7"
    strikes = "strikes_=stranger"
    now = now_of(full)
    charges = [BINDING, Charge(False, 0)]
    cells = [
        budget(0, stranger, 3, spill=spill),
        Member(1, strikes, "1", now + S, 5, TTL, LEFT_OUT),
    ]
    outcomes = [full.acquire(charges, cells, now).admitted for _ in range(4)]
    assert outcomes == [True, True, True, False]
    assert full.slots(spill) == {0: 3}
    assert full.members(strikes) == {}
    full.close()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_spent_lifetime_limit_stays_spent_over_a_new_hash_key_and_its_new_slot(cluster, is_async):
    time = [1_700_000_000.0]
    settings: dict[str, Any] = {"overlap": 60 * S, "host_clock": True, "clock": lambda: time[0]}
    keys = ["lifetime=somebody", "lifetime=other"]
    before = Spread(cluster, keys=(OLD,), **settings)
    assert [charge(before, keys[:1], [4]).admitted for _ in range(5)] == [True] * 4 + [False]
    old = before.slot(keys[0])
    before.close()
    store = Spread(cluster, is_async=is_async, keys=(HASH_KEY, OLD), **settings)
    assert not charge(store, keys[:1], [4]).admitted
    assert store.slot(keys[0]) == old

    time[0] += 61
    store.state.invalidate()  # the clock that it goes by has moved: look again
    assert charge(store, keys, [4, 9]).refused == [True, False]
    assert store.slot(keys[0]) != old
    refund = Adjust(keys[0], 0, -1, TTL)
    store.settle([refund], now_of(store))
    assert [charge(store, keys[:1], [4]).admitted for _ in range(2)] == [True, False]
    assert store.slots(keys[0]) == {0: 4}
    store.close()

"""A cluster whose servers die, stall, or hand over slots; cancelled calls; keys that change."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

from guardrail.errors import SettingError, StoreError
from guardrail.model.cells import LEFT_OUT, Charge, Member
from guardrail.stores.redis.dialogue import slot_of
from tests.cells.redis_stores import Shown, empty_cluster, redis_store
from tests.stores.clusters import Cluster
from tests.stores.servers import eventually
from tests.stores.spreading import BINDING, NOW, THREE, TTL, S, budget, chores, in_different_slots


def test_a_primary_that_dies_fails_its_slots_alone_and_its_replica_takes_over():
    with Cluster(replica=True) as cluster:
        store = redis_store(cluster.uri, deadline=0.3)
        store.open()
        shown = Shown(cluster)
        first, second, _ = in_different_slots(shown)
        eventually(lambda: passes(store, first) and passes(store, second))
        cluster.servers[0].kill()
        began = time.monotonic()
        with pytest.raises(StoreError):
            store.acquire(THREE[:2], [budget(second), budget(first, charge=1)], NOW)
        assert time.monotonic() - began < 1.0
        assert passes(store, second)
        with suppress(Exception):
            cluster.servers[3].client.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
        eventually(lambda: passes(store, first), 20)
        store.close()
        shown.close()


def passes(store, key):
    try:
        return store.acquire(BINDING, [budget(key, 0)], NOW).admitted
    except StoreError:
        return False


def test_a_time_out_in_the_second_slot_takes_back_what_the_first_charged():
    with Cluster() as cluster:
        store = redis_store(cluster.uri, deadline=0.3)
        store.open()
        shown = Shown(cluster)
        first, _, third = in_different_slots(shown)
        eventually(lambda: passes(store, first) and passes(store, third))
        cluster.servers[2].pause()
        with pytest.raises(StoreError):
            store.acquire(THREE[:2], [budget(first), budget(third, charge=1)], NOW)
        cluster.servers[2].resume()
        eventually(lambda: passes(store, first) and passes(store, third))
        eventually(lambda: passes(store, first) and not any(shown.slots(first).values()))
        eventually(lambda: passes(store, third) and not any(shown.slots(third).values()))
        store.close()
        shown.close()


def test_a_decision_cancelled_between_two_slots_leaves_nothing_charged():
    cluster = empty_cluster()
    shown = Shown(cluster)
    first, second, third = in_different_slots(shown)
    cells = [budget(key, charge=n) for n, key in enumerate((first, second, third))]

    async def cancelled(turns):
        store = redis_store(cluster.uri).awaited()
        for key in (first, second, third):
            await store.acquire(BINDING, [budget(key, 0)], NOW)
        task = asyncio.ensure_future(store.acquire(THREE, cells, NOW))
        for _ in range(turns):
            await asyncio.sleep(0)
        done = not task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        await chores(store)
        await store.close()
        return done and not isinstance(outcome, BaseException) and outcome.admitted

    admitted = sum(asyncio.run(cancelled(turns)) for turns in range(0, 60, 3))
    held = [sum(shown.slots(key).values()) for key in (first, second, third)]
    assert held == [admitted] * 3
    shown.close()


def test_slots_that_move_under_load_lose_nothing():
    with Cluster() as cluster:
        shown, stop = Shown(cluster), threading.Event()
        keys, admitted, failed = in_different_slots(shown), [], []
        slots = [slot_of(shown.bearings.speech().names.tag(key)) for key in keys]

        def work():
            store = redis_store(cluster.uri, deadline=1.0)
            store.open()
            while not stop.is_set():
                try:
                    cells = [budget(key, ceiling=None, charge=n) for n, key in enumerate(keys)]
                    store.acquire(THREE, cells, NOW)
                    admitted.append(1)
                except StoreError as problem:
                    failed.append(problem)
            store.close()

        workers = [threading.Thread(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        for turn in range(6):
            slot = slots[turn % 3]
            target = next(s for s in cluster.primaries if s is not cluster.owner(slot))
            cluster.opened(slot, target)
            more(admitted, failed, count=5)
            cluster.moved(slot, target)
            more(admitted, count=10)
        stop.set()
        for worker in workers:
            worker.join()
        counted = [sum(shown.slots(key).values()) for key in keys]
        assert len(set(counted)) == 1
        assert len(admitted) <= counted[0] <= len(admitted) + len(failed)
        shown.close()


def more(*lists: list[Any], count: int) -> None:
    """Wait until so many have been added."""
    enough = sum(map(len, lists)) + count
    eventually(lambda: sum(map(len, lists)) >= enough, 20)


@pytest.mark.parametrize("is_async", [False, True])
def test_at_the_bound_unknown_keys_count_together_in_a_slot_of_their_own(is_async):
    full = Shown(empty_cluster(), bound=0, is_async=is_async)
    known, stranger, other = in_different_slots(full)
    spill = "budget__~7"
    assert full.acquire(BINDING, [budget(known)], NOW).admitted
    answers = [
        full.acquire(BINDING, [budget(key, 1, 3, spill=spill)], NOW)
        for key in (stranger, other, stranger, other)
    ]
    assert [answer.admitted for answer in answers] == [True, True, True, False]
    assert all(answer.replies[0].spilled for answer in answers)
    assert full.slots(spill) == {0: 3}
    assert (full.slots(stranger), full.slots(known)) == ({}, {0: 1})

    charges = [Charge(True, None), Charge(False, 0)]
    strikes = stranger.replace("budget__", "strikes_")
    cells = [
        budget(stranger, 1, 3, spill=spill),
        Member(1, strikes, "1", NOW + S, 5, TTL, LEFT_OUT),
    ]
    assert not full.acquire(charges, cells, NOW).admitted
    assert full.members(strikes) == {}
    full.close()


def test_a_rotated_hash_key_finds_what_lies_in_other_slots():
    cluster = empty_cluster()
    old, new = b"the first hash key", b"the second hash key"
    before = redis_store(cluster.uri, keys=(old,))
    before.open()
    assert before.acquire(BINDING, [budget("lifetime=a", 10)], NOW).admitted
    rolled = redis_store(cluster.uri, keys=(new, old), overlap=0)
    rolled.open()
    rolled.bearings.doubt()
    assert not rolled.acquire(BINDING, [budget("lifetime=a")], NOW).admitted
    alone = redis_store(cluster.uri, keys=(new,))
    with pytest.raises(SettingError, match="give it as the previous hash key"):
        alone.open()
    for opened in (before, rolled, alone):
        opened.close()

"""Counters on a cluster of three primaries: where they are, and what is exact across them."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

from guardrail import Guard
from guardrail.errors import SettingError, StoreError
from guardrail.loading import load_text
from guardrail.model.cells import LEFT_OUT, Charge, Counter, Member
from guardrail.stores.redis.dialogue import slot_of
from tests.cells.awaited import Awaited
from tests.cells.definition import Definition
from tests.cells.redis_stores import HASH_KEY, Shown, empty_cluster, redis_store
from tests.cells.steps import Steps
from tests.stores.clusters import Cluster
from tests.stores.servers import binaries, eventually

S = 1_000_000
NOW = 1_700_000_000 * S
TTL = 10**12
BINDING = [Charge(True, None)]
THREE = [Charge(True, None)] * 3

POLICY = """
guardrail: 1
policy: p
rules:
  - id: pace
    when: always
    rate: {requests: 2/minute, burst: 2, key: account.id}
    escalate: {after: 2, within: 1m, block_for: 1h}
  - id: tokens
    when: always
    budget: {tokens: 1k, output_tokens: 1k, per: day, key: account.id}
  - id: organisation
    when: always
    budget: {tokens: 1M, per: day, key: account.org}
  - id: flight
    when: always
    concurrency: {max: 9, key: [account.org, account.id]}
"""


def budget(name, amount=1, ceiling=10, *, charge=0, spill=None):
    return Counter(charge, name, 0, 1, 0, amount, ceiling, TTL, spill)


def in_different_slots(store, count=3):
    """Return keys of one counter, each on another primary."""
    names = store.bearings.speech().names
    found: dict[int, str] = {}
    for number in range(200):
        key = f"budget__=k{number}"
        found.setdefault(slot_of(names.tag(key)) * 3 // 16384, key)
    return [key for _, key in sorted(found.items())][:count]


@pytest.fixture(params=["sync", "async"])
def store(request):
    opened = Shown(empty_cluster(), is_async=request.param == "async")
    yield opened
    opened.close()


@pytest.mark.parametrize("kind", binaries())
def test_all_counters_of_the_same_key_facts_share_a_slot_and_none_crosses(kind):
    cluster = empty_cluster(kind)
    facts = {"account.id": "a{b}c", "account.org": "o{b}"}
    with Guard.from_policies(
        load_text(POLICY), store=f"{cluster.uri}?deadline=2s", hash_key=HASH_KEY, environ={}
    ) as guard:
        decisions = [guard.decide(facts, {"input_tokens": 1, "output_tokens": 1}) for _ in range(8)]
    names = cluster.names()

    assert {d.mode.value for d in decisions} == {"normal"}
    assert [str(d.effect) for d in decisions[:3]] == ["allow", "allow", "throttle"]
    # The pace, its strikes, and two units of the account; one of the organisation; one of both.
    tags = [name[: name.index(b"}")] for name in names]
    assert sorted(tags.count(tag) for tag in set(tags)) == [1, 1, 4]
    assert all(server.client.pttl(name) > 0 for name, server in names.items())
    assert not any(b"a{b}c" in name or b"o{b}" in name for name in names)


class Windowed(Steps):
    """Steps on windowed counters alone, of charges that nothing follows.

    On a cluster a refusal further on takes rates and leases back as far as that goes: what was
    refunded to a rate is kept on record, a lease that was renewed stays so, and a window that was
    opened stays open, so that debt goes there. So time does not step back here, and debt is left
    out.
    """

    def _cell(self, charge):
        while True:
            cell = super()._cell(charge)
            if isinstance(cell, Counter) and not cell.floor:
                return cell

    def _correction(self):
        while True:
            correction = super()._correction()
            if getattr(correction, "delta", 0) < 0:
                return correction

    def draw(self):
        while True:
            before, step = self.now, super().draw()
            if self.now < before:
                self.now = before
            elif all(charge.after is None for charge in step.charges):
                return step


@pytest.mark.parametrize("seed", range(4))
def test_budgets_count_what_the_definition_says_after_every_step(store, seed):
    steps, definition = Windowed(seed), Definition()
    for _ in range(150):
        step = steps.draw()
        if step.corrections:
            store.settle(step.corrections, step.now)
            definition.settle(step.corrections, step.now)
            continue
        wanted = definition.acquire(step.charges, step.cells, step.now)
        found = store.acquire(step.charges, step.cells, step.now)
        rest(store)
        steps.note(step, wanted)
        assert found.admitted == wanted.admitted
        looks = [cell._replace(charge=0, amount=0, ceiling=None) for cell in step.cells]
        held, shown = (
            counted.acquire([Charge(False, None)], looks, step.now).replies
            for counted in (definition, store)
        )
        assert [reply[0] for reply in shown] == [reply[0] for reply in held]


def rest(store: Any) -> None:
    """Wait until what has to be taken back is."""
    if isinstance(store.store, Awaited):
        store.store.runner.run(chores(store.store.store))
    assert not getattr(store.store, "store", store.store)._undo


async def chores(store: Any) -> None:
    while store._chores is not None and not store._chores.done():
        await store._chores


def test_a_refusal_in_a_later_slot_gives_back_what_the_first_charged(store):
    first, second, third = in_different_slots(store)
    cells = [
        budget(first),
        Member(0, first.replace("budget__", "flight__"), "x", NOW + 60 * S, 5, TTL),
        Counter(1, second, 0, 1, NOW, S, NOW + 9 * S, TTL),
        budget(third, 11, charge=2),
    ]
    outcome = store.acquire(THREE, cells, NOW)

    assert (outcome.admitted, outcome.refused) == (False, [False, False, True])
    rest(store)
    assert store.slots(first) in ({}, {0: 0})
    assert store.members(first.replace("budget__", "flight__")) == {}
    assert store.drained(second)[0] <= NOW


def test_a_refusal_in_an_earlier_slot_charges_nothing_later_and_answers_all(store):
    first, second, _ = in_different_slots(store)
    store.acquire(BINDING, [budget(second, 4)], NOW)
    outcome = store.acquire(THREE[:2], [budget(first, 11), budget(second, 1, charge=1)], NOW)

    assert outcome.refused == [True, False]
    assert [reply.used for reply in outcome.replies] == [0, 4]
    assert store.slots(second) == {0: 4}


def test_no_limit_is_exceeded_by_threads_that_use_up_three_slots_at_once():
    shown = Shown(empty_cluster())
    keys, admitted = in_different_slots(shown), []

    def work():
        store = redis_store(shown.server.uri)
        store.open()
        for _ in range(60):
            cells = [budget(key, ceiling=40 + n, charge=n) for n, key in enumerate(keys)]
            if store.acquire(THREE, cells, NOW).admitted:
                admitted.append(1)
        store.close()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(admitted) == 40
    assert [shown.slots(key) for key in keys] == [{0: 40}] * 3
    shown.close()


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

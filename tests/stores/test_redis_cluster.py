"""A cluster of three primaries: where keys lie, what is taken back, how names and bounds change."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter as Tally

import pytest

from guardrail.errors import SettingError, StoreError
from guardrail.model.cells import Charge, Counter, Member
from guardrail.stores.redis.address import Place
from guardrail.stores.redis.cluster import SlotTable
from guardrail.stores.redis.protocol import slot_of
from tests.cells.redis_stores import redis_store
from tests.stores.charges import BINDING, TTL, S, budget, charge, escalated, now_of
from tests.stores.clusters import CLUSTERS, low_port
from tests.stores.servers import Server, binaries, eventually
from tests.stores.spreads import Spread, key_in, three_keys


@pytest.fixture(params=binaries())
def cluster(request):
    return CLUSTERS.empty(request.param)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def store(request, cluster):
    opened = Spread(cluster, is_async=request.param)
    yield opened
    opened.close()


@pytest.fixture
def valkey():
    return CLUSTERS.empty("valkey 9")


def test_a_rule_s_limit_strikes_and_ban_share_a_slot_and_every_record_ends(store):
    now = now_of(store)
    whoever = ["=plain", "={braces}", "=}{", "={}x", "={x}other{y}", "=é\ud800"]
    for whose in whoever:
        charges, cells = escalated(now, whose)
        strike = cells[2]._replace(ceiling=None)
        store.acquire(charges, [*cells[:2], strike, cells[3]], now)  # a strike, no ban yet
        store.acquire(*escalated(now + S, whose), now + S)  # the ban
        charge(store, [f"other___{whose}"], [5])

    slots: dict[bytes, list[int]] = {}
    for name in store.cluster.names():
        assert (name.count(b"{"), name.count(b"}")) == (1, 1)
        slots.setdefault(name[: name.index(b"}")], []).append(slot_of(name))
    assert len(slots) == len(whoever)
    for found in slots.values():
        assert len(found) == 3
        assert len(set(found)) == 1
    for client in (server.client for server in store.cluster.servers):
        assert all(client.pttl(n) > 0 for n in client.keys("*") if b"{meta}" not in n)


def test_rules_of_different_key_facts_are_decided_together_wherever_their_slots_are(store):
    keys = three_keys(store, "budget__")
    assert len({store.owner(key).port for key in keys}) == 3

    assert [charge(store, keys, [2, 3, 4]).refused for _ in range(3)] == [
        [False] * 3,
        [False] * 3,
        [True, False, False],
    ]
    assert [store.slots(key) for key in keys] == [{0: 2}] * 3


@pytest.mark.parametrize("refusing", [0, 1, 2])
def test_what_other_slots_charged_for_a_refused_request_is_taken_back(store, refusing):
    keys = three_keys(store, "budget__")
    charge(store, keys, [9] * 3)
    now = now_of(store)
    line = Counter(3, key_in(store, "pace____", lambda slot: slot < 100), 0, 1, now, S, None, TTL)
    place = Member(4, key_in(store, "flight__", lambda slot: slot < 100), "m", now + TTL, 1, TTL)
    cells = [budget(i, key, 1 if i == refusing else 9) for i, key in enumerate(keys)]
    outcome = store.acquire([BINDING] * 5, [*cells, line, place], now)

    assert not outcome.admitted
    assert outcome.refused == [i == refusing for i in range(5)]
    assert [reply.used for reply in outcome.replies[:3]] == [1] * 3
    assert [store.slots(key) for key in keys] == [{0: 1}] * 3
    assert store.drained(line.key)[0] in (0, now)
    assert store.members(place.key) == {}


def test_a_shadow_rule_refused_in_one_slot_is_taken_back_in_the_other(store):
    first, second, third = three_keys(store, "budget__")
    cells = [budget(0, first, 9), budget(0, second, 0), budget(1, third, 9)]
    outcome = store.acquire([Charge(False, None), BINDING], cells, now_of(store))

    assert outcome.admitted
    assert outcome.refused == [True, False]
    assert store.slots(first) in ({}, {0: 0})
    assert (store.slots(second), store.slots(third)) == ({}, {0: 1})


def test_a_strike_stands_though_another_slot_refuses_as_well(store):
    now = now_of(store)
    for number in range(8):
        charges, cells = escalated(now, f"=struck{number}")
        full = budget(3, f"budget__=full{number}", 0)
        assert not store.acquire([*charges, BINDING], [*cells, full], now).admitted
        assert store.drained(f"ban_____=struck{number}")[0] > now


@pytest.mark.parametrize("late", [False, True], ids=["never", "late"])
def test_a_slot_that_does_not_answer_in_time_leaves_the_others_as_they_were(valkey, late):
    store = Spread(valkey, deadline=0.2)
    keys = three_keys(store, "budget__")
    charge(store, keys, [9] * 3)
    store.owner(keys[1]).pause()
    try:
        with pytest.raises(StoreError, match="did not answer within 200 ms") as caught:
            charge(store, keys, [9] * 3)
        assert caught.value.unsure
        assert charge(store, keys[2:], [9]).admitted  # another server, and what is owed goes out
        assert store.slots(keys[0]) == {0: 1}
    finally:
        store.owner(keys[1]).resume()
    if late:
        eventually(lambda: charge(store, keys[2:], [99]) and store.slots(keys[1]) == {0: 1})
    store.close()
    assert store.slots(keys[0]) == {0: 1}


def test_a_decision_cancelled_between_two_slots_is_taken_back(valkey):
    store = Spread(valkey)
    keys = three_keys(store, "budget__")
    now = now_of(store)
    cells = [budget(i, key, 9) for i, key in enumerate(keys)]
    awaited = store.store.awaited()

    async def cancelled() -> None:
        await awaited.acquire([BINDING] * 3, cells, now)
        second = store.owner(keys[1])
        second.pause()
        try:
            task = asyncio.ensure_future(awaited.acquire([BINDING] * 3, cells, now))
            async with asyncio.timeout(5):
                while not awaited._servers.at(store.slot(keys[1]))._owed:
                    await asyncio.sleep(0)
            assert store.slots(keys[0]) == {0: 2}
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        finally:
            second.resume()
        async with asyncio.timeout(5):
            while [store.slots(key) for key in keys] != [{0: 1}] * 3:
                await asyncio.sleep(0.005)
        await awaited.close()

    asyncio.run(cancelled())


def test_no_limit_is_exceeded_by_threads_that_exhaust_three_in_different_slots(cluster):
    store = Spread(cluster, deadline=10.0)
    keys, ceilings, every = three_keys(store, "budget__"), [60, 40, 50], Tally[str]()

    def ask() -> None:
        admitted = sum(charge(store, keys, ceilings).admitted for _ in range(40))
        every.update(admitted=admitted)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.store.close()

    assert every["admitted"] <= 40
    assert [store.slots(key) for key in keys] == [{0: every["admitted"]}] * 3
    # What was taken and given back left room: nobody who comes later finds less.
    assert sum(charge(store, keys, ceilings).admitted for _ in range(41)) == 40 - every["admitted"]


def test_a_rate_is_not_worn_down_by_requests_that_another_slot_refuses_at_once(valkey):
    store = Spread(valkey, deadline=10.0)
    now = now_of(store)
    pace = key_in(store, "pace____", lambda slot: slot < 5000)
    full = key_in(store, "budget__", lambda slot: slot > 6000)
    cells = [Counter(0, pace, 0, 1, now, S, now + 900 * S, TTL), budget(1, full, 0)]

    def ask() -> None:
        for _ in range(40):
            assert not store.acquire([BINDING] * 2, cells, now).admitted

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.store.close()
    assert store.drained(pace)[0] == now


def test_a_uri_that_says_another_kind_of_server_is_told_what_to_write(valkey):
    with pytest.raises(SettingError, match="is part of a cluster: write `redis\\+cluster://`"):
        redis_store(valkey.servers[0].uri).open()
    with Server() as single, pytest.raises((SettingError, StoreError), match="cluster"):
        redis_store(f"redis+cluster://127.0.0.1:{single.port}").open()


def test_a_cluster_is_found_though_the_first_server_named_is_gone(valkey):
    uri = valkey.uri.replace("redis+cluster://", "redis+cluster://127.0.0.1:1,")
    for is_async in (False, True):
        store = redis_store(uri)
        store.open()
        if is_async:
            asyncio.run(awaited_once(store.awaited()))
        else:
            assert charge_once(store).admitted
            store.close()


def test_a_server_that_knows_no_slots_yet_is_passed_over_for_the_next_named(valkey):
    with Server(port=low_port(), cluster_enabled="yes") as fresh:
        uri = valkey.uri.replace("redis+cluster://", f"redis+cluster://127.0.0.1:{fresh.port},")
        store = redis_store(uri)
        store.open()
        assert charge_once(store).admitted
        store.close()
        alone = redis_store(f"redis+cluster://127.0.0.1:{fresh.port}")
        with pytest.raises(StoreError, match="has no slots yet"):
            alone.open()
        alone.close()


def charge_once(store):
    return store.acquire([BINDING], [budget(0, "budget__=a", 9)], 1_700_000_000 * S)


async def awaited_once(store):
    assert (await charge_once(store)).admitted
    await store.close()


@pytest.mark.parametrize(
    "reply", [5, None, [5], [[0, 16383, [b"h", 1]], [1]], [[0, 1, [b"h", b"x"]]]]
)
def test_an_answer_that_is_no_table_of_slots_is_none_not_even_in_part(reply):
    with pytest.raises(StoreError, match="`a:6379` does not tell its slots: is it a cluster"):
        SlotTable.read(reply, Place("a"))


@pytest.mark.parametrize(
    ("told", "host"),
    [
        ([b"h", 7, b"id"], "h"),
        ([b"", 7, b"id"], "a"),
        ([None, 7, b"id", [b"hostname", b"h"]], "a"),
        ([b"?", 7, b"id", [b"ip", b"10.0.0.7"]], "10.0.0.7"),
        ([b"?", 7, b"id", [b"hostname", b"", b"ip"]], "a"),
        ([b"?", 7], "a"),
    ],
)
def test_a_server_without_a_name_is_found_by_its_address_or_beside_the_one_that_was_asked(
    told, host
):
    assert SlotTable.read([[0, 16383, told]], Place("a")).place(5) == Place(host, 7)

"""A primary and its replica under sentinels: decisions follow the primary."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from typing import Any

import pytest
from msgspec.msgpack import decode

from guardrail.errors import StoreError
from guardrail.model.cells import Charge, Counter
from tests.cells.awaited import Awaited
from tests.cells.redis_stores import redis_store
from tests.stores.deciding import HANG
from tests.stores.sentinels import Sentinels
from tests.stores.servers import binaries, eventually

S = 1_000_000
TTL = 3600 * S
KEY = "budget__=a"
DEADLINE = 1.0


class Served:
    """A store on a service of sentinels, sync or awaited, behind the sync contract."""

    def __init__(self, service: Sentinels, *, is_async: bool, **settings) -> None:
        store = redis_store(service.uri, **{"deadline": DEADLINE, **settings})
        store.open()
        self.state = store.state
        self.store: Any = Awaited(store.awaited()) if is_async else store
        self.unsure = 0

    def charge(self, ceiling=10**9):
        cell = Counter(0, KEY, 0, 1, 0, 1, ceiling, TTL)
        now = int(self.state.server_time * S)
        return self.store.acquire([Charge(True, None)], [cell], now).admitted

    def used(self):
        looked = Counter(0, KEY, 0, 1, 0, 0, None, TTL)
        now = int(self.state.server_time * S)
        return self.store.acquire([Charge(True, None)], [looked], now).replies[0].used

    def rest(self):
        """Let what an event loop has yet to do be done."""
        if isinstance(self.store, Awaited):
            self.store.runner.run(asyncio.sleep(0))

    def charges(self):
        try:
            return self.charge()
        except StoreError as error:
            self.unsure += error.unsure
            return False


@pytest.fixture(params=[("valkey 9", 1, ""), ("redis 6.2", 1, "secret:@/"), ("valkey 9", 3, "s")])
def service(request):
    kind, count, password = request.param
    if kind not in binaries():
        pytest.skip(f"no {kind} for this machine")
    opened = Sentinels(kind, count=count, password=password)
    yield opened
    opened.close()


@pytest.fixture
def both():
    """Open a store for threads and one for event loops, closed also where the test fails."""
    opened: list[Served] = []

    def opening(service):
        opened.extend(Served(service, is_async=is_async) for is_async in (False, True))
        return opened

    yield opening
    for store in opened:
        store.store.close()


def counts_on(store, client, name, before):
    return store.charges() and decode(client.get(name))[1] > before


def has_fewer(store, server, before):
    store.rest()
    return len(server.held()) < before


def test_after_a_failover_by_order_decisions_go_to_the_new_primary(service, both):
    stores = both(service)
    assert all(store.charge() for store in stores for _ in range(5))
    assert service.primary.client.info("replication")["role"] == "master"
    name = stores[0].state.context().names[KEY]
    new = service.replica.client
    # What was not replicated before an ordered failover is lost by it.
    eventually(lambda: decode(new.get(name) or b"\x90") == [0, 10])
    service.fail_over()
    # The old primary is demoted only seconds later: until then it answers as if it still counted.
    for store in stores:
        before = decode(new.get(name))[1]
        assert before >= 10
        eventually(partial(counts_on, store, new, name, before))
    assert {store.used() for store in stores} == {decode(new.get(name))[1]}


def test_decisions_come_back_after_the_primary_was_killed(service, both):
    stores = both(service)
    assert all(store.charge() for store in stores)
    name = stores[0].state.context().names[KEY]
    new = service.replica.client
    eventually(lambda: decode(new.get(name) or b"\x90") == [0, 2])
    service.primary.kill()
    for store in stores:
        began = time.monotonic()
        with pytest.raises(StoreError):
            store.charge()
        assert time.monotonic() - began < HANG

    for store in stores:
        eventually(store.charges)
    assert new.info("replication")["role"] == "master"
    # What was asked and not answered in time may have been counted.
    (used,) = {store.used() for store in stores}
    assert 4 <= used <= 4 + sum(store.unsure for store in stores)


@pytest.fixture
def alone():
    """A service of one sentinel, that leaves everything as it is unless it is told."""
    opened = Sentinels(patience=10_000)
    yield opened
    opened.close()


def test_a_demoted_primary_is_left_at_once_and_looked_up_anew(alone, both):
    stores = both(alone)
    assert all(store.charge() for store in stores)
    alone.sentinels[0].client.execute_command("SENTINEL", "REMOVE", "service")
    alone.primary.client.replicaof("127.0.0.1", alone.replica.port)
    alone.replica.client.replicaof("NO", "ONE")
    for store in stores:
        before = len(alone.primary.held())
        with pytest.raises(StoreError, match="ReadOnly") as caught:
            store.charge()
        assert not caught.value.unsure
        eventually(partial(has_fewer, store, alone.primary, before))

    watched = ("service", "127.0.0.1", alone.replica.port, 1)
    alone.sentinels[0].client.execute_command("SENTINEL", "MONITOR", *watched)
    for store in stores:
        assert store.charge()


def test_threads_follow_a_failover_by_order_and_nothing_is_counted_twice(alone):
    store = Served(alone, is_async=False)
    admitted, ending = [0] * 4, threading.Event()

    def ask(number: int) -> None:
        while not ending.is_set():
            admitted[number] += store.charges()

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: min(admitted) > 20)
        alone.fail_over()
        then = list(admitted)
        eventually(
            lambda: all(now > before + 20 for now, before in zip(admitted, then, strict=True))
        )
    finally:
        ending.set()
        for thread in threads:
            thread.join()
    # An ordered failover waits for nobody: what the old primary was told meanwhile may be gone.
    assert store.used() <= sum(admitted) + store.store.lost
    store.store.close()


def test_the_sentinels_are_asked_until_one_answers(alone):
    store = redis_store(alone.uri.replace("sentinel://", "sentinel://127.0.0.1:1,"))
    store.open()
    store.close()
    wrong = redis_store(alone.uri.replace("/service", "/another"))
    with pytest.raises(StoreError, match="`another` of the sentinels"):
        wrong.open()
    wrong.close()

"""A cluster whose slots move and whose servers die: what is counted stays exact, and goes on."""

from __future__ import annotations

import threading
import time
from collections import Counter as Tally
from functools import partial

import pytest
from msgspec.msgpack import decode

from guardrail.errors import StoreError
from guardrail.model.cells import Charge, Counter
from guardrail.stores.redis.server_state import REFRESH, STALE
from tests.cells.awaited import Awaited
from tests.stores.clusters import CLUSTERS, Cluster, node_id
from tests.stores.deciding import HANG
from tests.stores.servers import binaries, eventually
from tests.stores.spreads import Spread, three_keys

S = 1_000_000
TTL = 3600 * S
BINDING = Charge(True, None)
DEADLINE = 0.5


@pytest.fixture(params=binaries())
def cluster(request):
    """A cluster that others use as well: whoever moves a slot leaves it with one server."""
    return CLUSTERS.empty(request.param)


@pytest.fixture(params=binaries())
def own_cluster(request):
    """A cluster to do harm to."""
    opened = Cluster(request.param)
    yield opened
    opened.close()


def both(cluster):
    """Return a store for threads and one for event loops."""
    return [Spread(cluster, is_async=is_async, deadline=DEADLINE) for is_async in (False, True)]


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def store(request, cluster):
    opened = Spread(cluster, is_async=request.param, deadline=DEADLINE)
    yield opened
    opened.close()


def charge(store, *keys, ceiling=1_000_000, now=0):
    cells = [Counter(i, key, 0, 1, 0, 1, ceiling, TTL) for i, key in enumerate(keys)]
    now = now or int(store.state.server_time * S)
    return store.acquire([BINDING] * len(keys), cells, now).admitted


def beside(key):
    """Return another counter of the same key facts."""
    return "second__" + key[8:]


def elsewhere(cluster, store, key):
    return next(s for s in cluster.servers if s is not store.owner(key))


def test_a_call_follows_records_that_are_on_their_way_and_waits_for_those_between(cluster, store):
    key = "budget__=a"
    charge(store, key)
    slot, target = store.slot(key), elsewhere(cluster, store, key)
    source = cluster.begin_move(slot, target)
    assert charge(store, key)  # still here
    names = source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1)
    source.client.migrate("127.0.0.1", target.port, names, 0, 1000)
    assert charge(store, key)  # ASK

    began = time.monotonic()
    with pytest.raises(StoreError, match="TryAgain") as caught:
        charge(store, key, beside(key))  # one is there, and nobody knows where the other is
    assert 0.5 * DEADLINE < time.monotonic() - began < HANG
    assert not caught.value.unsure

    cluster.end_move(slot, source, target)
    assert charge(store, key, beside(key))  # MOVED
    assert (store.slots(key), store.slots(beside(key))) == ({0: 4}, {0: 1})


@pytest.fixture(params=["unknown-endpoint", "hostname"])
def nameless(request):
    """A cluster whose servers tell the ports of others, and no names of their hosts."""
    cluster, setting = CLUSTERS.empty("valkey 9"), "cluster-preferred-endpoint-type"
    for server in cluster.servers:
        server.client.config_set(setting, request.param)
    yield cluster
    for server in cluster.servers:
        server.client.config_set(setting, "ip")


def test_a_call_follows_a_slot_to_a_server_of_which_only_the_port_is_told(nameless):
    for store in both(nameless):
        key = "budget__=a" if isinstance(store.store, Awaited) else "budget__=b"
        charge(store, key)
        slot, target = store.slot(key), elsewhere(nameless, store, key)
        nameless.end_move(slot, nameless.begin_move(slot, target), target)

        assert charge(store, key)
        assert store.slots(key) == {0: 2}
        store.close()


def test_a_call_that_two_servers_send_to_each_other_is_given_up_after_five_times(cluster, store):
    key = "budget__=nobody"
    slot, owner, other = store.slot(key), store.owner(key), elsewhere(cluster, store, key)
    for server, told in ((owner, other), (other, owner)):
        server.client.cluster("SETSLOT", slot, "NODE", node_id(told))
        server.client.config_resetstat()
    try:
        with pytest.raises(StoreError, match="sent a call on too often") as caught:
            charge(store, key)
    finally:
        for server in cluster.servers:
            server.client.cluster("SETSLOT", slot, "NODE", node_id(owner))

    assert not caught.value.unsure
    assert sum(map(rejected, (owner, other))) == 5


def rejected(server):
    """Return how many calls of scripts a server has sent on."""
    return server.client.info("commandstats")["cmdstat_evalsha"]["rejected_calls"]


class Load:
    """Threads that decide on keys of different slots, and what they were told."""

    def __init__(self, store, keys) -> None:
        self.store, self.keys = store, keys
        self.admitted: Tally[str] = Tally()
        self.problems: list[Exception] = []
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(4)]

    def _ask(self, number: int) -> None:
        turn = number
        while not self.ending.is_set():
            turn += 1
            pair = self.keys[turn % len(self.keys)], self.keys[(turn * 7 + 3) % len(self.keys)]
            asked = list(dict.fromkeys((*pair, *map(beside, pair))))
            try:
                if charge(self.store, *asked):
                    self.admitted.update(asked)
            except StoreError as problem:
                self.problems.append(problem)

    @property
    def told(self) -> int:
        return sum(self.admitted.values()) + len(self.problems)

    def past(self, number: int) -> bool:
        return self.told > number

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self.ending.set()
        for thread in self.threads:
            thread.join()


def test_slots_that_move_under_load_lose_nothing_that_is_not_told(cluster):
    store = Spread(cluster)
    keys = [f"budget__=u{number}" for number in range(6)]
    for key in keys:
        charge(store, key, beside(key))
    with Load(store, keys) as load:
        eventually(lambda: sum(load.admitted.values()) > 50)
        for key in (*keys, *keys):
            slot, target = store.slot(key), elsewhere(cluster, store, key)
            source = cluster.begin_move(slot, target)
            before = load.told
            eventually(partial(load.past, before + 2))
            cluster.end_move(slot, source, target)
    store.close()

    unsure = [problem for problem in load.problems if problem.unsure]
    assert not unsure
    assert store.store.lost == 0
    for key in (*keys, *map(beside, keys)):
        assert store.slots(key) == {0: 1 + load.admitted[key]}
    last = Spread(cluster)
    assert all(charge(last, key, beside(key)) for key in keys)
    last.close()


def test_an_atomic_move_of_slots_is_followed_without_a_failed_decision():
    cluster = CLUSTERS.empty("valkey 9")
    store = Spread(cluster)
    keys = [f"budget__=u{number}" for number in range(6)]
    with Load(store, keys) as load:
        eventually(lambda: sum(load.admitted.values()) > 50)
        slot, target = store.slot(keys[0]), elsewhere(cluster, store, keys[0])
        store.owner(keys[0]).client.execute_command(
            *("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE"), node_id(target)
        )
        eventually(lambda: cluster.owner(slot, anew=True) is target)
        before = load.admitted[keys[0]]
        eventually(lambda: load.admitted[keys[0]] > before + 5)
    store.close()
    assert not load.problems
    for key in keys:
        assert store.slots(key) == {0: load.admitted[key]}


def test_without_one_primary_its_slots_fail_in_time_and_the_others_go_on(own_cluster):
    stores = both(own_cluster)
    keys = three_keys(stores[0], "budget__")
    meta = own_cluster.owner(stores[0].state.slot)
    living = [key for key in keys if stores[0].owner(key) is not meta]
    now = int(stores[0].state.server_time * S)
    for store in stores:
        charge(store, *keys)
        # It is time to ask the server of the store's own record again.
        store.state._steady = lambda: time.monotonic() + REFRESH + 5
    meta.kill()

    for store in stores:
        asked, began = sampled(store), time.monotonic()
        for _ in range(10):
            fails_in_time(store, *keys, now=now)
            assert charge(store, *living, now=now)
        # Decisions are not held up by asking every time.
        assert len(asked) <= 2 + time.monotonic() - began
        # What was under way when it died is all that is lost.
        assert getattr(store.store, "store", store.store).lost <= 1
        # By now the names may have changed, and nobody is there to tell.
        store.state._steady = lambda: time.monotonic() + STALE + 5
        fails_in_time(store, *living, now=now)
    for store in stores:
        store.close()
    assert [stores[0].slots(key) for key in living] == [{0: 22}] * 2


def sampled(store):
    """Return a list that grows by one whenever a store asks for its own record."""
    asked, refresh = [], store.state.refresh

    def counted():
        asked.append(time.monotonic())
        return refresh()

    store.state.refresh = counted
    return asked


def fails_in_time(store, *keys, now):
    began = time.monotonic()
    with pytest.raises(StoreError):
        charge(store, *keys, now=now)
    assert time.monotonic() - began < HANG


def test_decisions_come_back_once_a_replica_takes_over_with_what_was_counted():
    cluster = Cluster("valkey 9")
    stores = both(cluster)
    keys = three_keys(stores[0], "budget__")
    primary = stores[0].owner(keys[1])
    replica = cluster.replica_of(primary)
    assert [charge(store, *keys, ceiling=2) for store in (*stores, *stores)] == [
        *(True, True),
        *(False, False),
    ]
    name = stores[0].state.context().names[keys[1]]
    with replica.client.client() as reader:
        reader.execute_command("READONLY")
        eventually(lambda: decode(reader.get(name) or b"\x90") == [0, 2])
    primary.kill()
    for store in stores:
        with pytest.raises(StoreError):
            charge(store, *keys)
    replica.client.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")

    for store in stores:
        eventually(partial(refuses, store, keys[1], ceiling=2), 3)
        assert charge(store, keys[1], ceiling=4)
        store.close()
    cluster.close()


def refuses(store, key, ceiling):
    try:
        return not charge(store, key, ceiling=ceiling)
    except StoreError:
        return False


def test_a_slot_that_nobody_had_is_found_once_somebody_has_it(cluster):
    key = "budget__=nobody"
    first = Spread(cluster)
    slot, owner = first.slot(key), first.owner(key)
    first.close()
    for server in cluster.servers:
        server.client.cluster("DELSLOTS", slot)
    stores = both(cluster)
    for store in stores:
        with pytest.raises(StoreError):
            charge(store, key)
    for server in cluster.servers:
        server.client.cluster("SETSLOT", slot, "NODE", node_id(owner))
    for store in stores:
        eventually(partial(charges, store, key))
        store.close()


def charges(store, key):
    try:
        return charge(store, key)
    except StoreError:
        return False

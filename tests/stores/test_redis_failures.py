"""What a store on a server does when the server, or the way to it, fails; sync and awaited."""

from __future__ import annotations

import socket
import time
from contextlib import contextmanager
from typing import Any

import pytest

from guardrail.errors import SettingError, StoreError
from guardrail.model.cells import Adjust, Charge, Counter, Drain, Leave, Member
from tests.cells.awaited import Awaited
from tests.cells.redis_stores import SERVERS, redis_store
from tests.stores.proxies import Proxy
from tests.stores.servers import Server, binaries, eventually

S = 1_000_000
NOW = 1_700_000_000 * S
TTL = 10**12
BINDING = [Charge(True, None)]
DEADLINE = 0.05
GRACE = 0.05
"""What a busy machine may take longer than a deadline before a test calls it a hang."""


def budget(amount=1, ceiling=100, *, key="budget__=a"):
    return Counter(0, key, 0, 1, 0, amount, ceiling, TTL)


def pace(amount=1, *, key="pace____=a"):
    return Counter(0, key, 0, 1, NOW, amount * S, NOW + 100 * S, TTL)


def lease(name, *, key="flight__=a"):
    return Member(0, key, name, NOW + 60 * S, 100, TTL)


def decide(store, *cells):
    return store.acquire(BINDING, list(cells) or [budget()], NOW)


def used(store, cell=None):
    """Look without charging."""
    cell = cell or budget()
    looked = cell._replace(ceiling=None) if isinstance(cell, Member) else cell._replace(amount=0)
    reply = store.acquire([Charge(False, None)], [looked._replace(ceiling=0)], NOW).replies[0]
    return reply.live if isinstance(cell, Member) else reply.used


@pytest.fixture(params=["sync", "async"])
def opened(request):
    """Open a store of either kind; those opened are closed at the end."""
    made = []

    def make(uri, **settings):
        store: Any = redis_store(uri, **{"deadline": DEADLINE, **settings})
        store.open()
        if request.param == "async":
            store = Awaited(store.awaited())
            eventually(lambda: warm(store))
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


def warm(store):
    """Tell whether the connection stands: it may take longer than one deadline."""
    try:
        used(store)
    except StoreError:
        return False
    return True


def inner(store):
    return store.store if isinstance(store, Awaited) else store


@contextmanager
def failing(fragment=None, *, unsure=None, within=DEADLINE):
    """Expect a StoreError within the deadline."""
    began = time.monotonic()
    with pytest.raises(StoreError, match=fragment) as caught:
        yield
    assert time.monotonic() - began < within + GRACE
    if unsure is not None:
        assert caught.value.unsure is unsure


def test_a_server_that_is_gone_fails_at_once_and_is_found_again(opened):
    with Server() as server:
        store = opened(server.uri)
        server.kill()
        with failing():
            decide(store)
        with failing(unsure=False):
            decide(store)
        server.restart()
        eventually(lambda: warm(store))
        assert decide(store).admitted


def test_a_server_that_stalls_fails_within_the_deadline_and_what_it_did_late_is_undone(opened):
    with Server() as server:
        store = opened(server.uri)
        server.pause()
        with failing("did not answer within 50 ms", unsure=True):
            decide(store)
        server.resume()
        eventually(lambda: warm(store) and used(store) == 0)


def test_a_reply_that_comes_late_is_undone_in_every_kind_of_cell(opened):
    server = SERVERS.empty("valkey 9")
    with Proxy(server.port) as proxy:
        store = opened(proxy.uri)
        proxy.delay = 0.06
        cells = [budget(), pace(), lease("x")]
        with failing(unsure=True):
            decide(store, *cells)
        proxy.delay = 0.0
        eventually(lambda: warm(store) and all(used(store, cell) in (0, NOW) for cell in cells))
        assert inner(store).lost == 0


def test_a_late_refusal_is_not_undone(opened):
    server = SERVERS.empty("valkey 9")
    with Proxy(server.port) as proxy:
        store = opened(proxy.uri)
        decide(store, budget(100))
        proxy.delay = 0.06
        with failing():
            decide(store, budget(1))
        proxy.delay = 0.0
        eventually(lambda: warm(store))
        assert used(store) == 100


def test_one_late_reply_does_not_cost_the_connection_and_silence_does(opened):
    server = SERVERS.empty("valkey 9")
    with Proxy(server.port) as proxy:
        store = opened(proxy.uri)
        before = proxy.accepted
        proxy.delay = 0.06
        with failing():
            decide(store)
        proxy.delay = 0.0
        eventually(lambda: warm(store) and used(store) == 0)
        assert proxy.accepted == before

        proxy.silent = True
        with failing(unsure=True):
            decide(store)
        began = time.monotonic()
        eventually(lambda: fails(store) and proxy.accepted > before)
        assert time.monotonic() - began < 1.0
        proxy.silent = False
        eventually(lambda: warm(store))
        assert inner(store).lost >= 1


def fails(store):
    try:
        decide(store)
    except StoreError:
        return True
    return False


def test_a_lost_reply_leaves_the_estimate_charged_and_is_counted(opened):
    server = SERVERS.empty("valkey 9")
    with Proxy(server.port) as proxy:
        store = opened(proxy.uri)
        proxy.silent = True
        with failing(unsure=True):
            decide(store, budget(7))
        proxy.reset()
        proxy.silent = False
        eventually(lambda: warm(store))
        assert used(store) == 7
        assert inner(store).lost >= 1


def test_a_reply_cut_in_half_is_an_unsure_failure(opened):
    server = SERVERS.empty("valkey 9")
    with Proxy(server.port) as proxy:
        store = opened(proxy.uri)
        proxy.cut_after = 0
        with failing(unsure=True):
            decide(store)
        proxy.cut_after = None
        eventually(lambda: warm(store))


def test_a_server_that_takes_no_connection_makes_nobody_wait_longer_than_the_deadline(opened):
    with Server() as server:
        store = opened(server.uri)
        server.kill()
        # A full backlog: the kernel drops what asks for a connection, as a black hole does.
        with socket.create_server(("127.0.0.1", server.port), backlog=0) as hole:
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(hole.getsockname())
            for _ in range(8):
                with failing():
                    decide(store)
            for filler in fillers:
                filler.close()


def test_scripts_that_the_server_forgot_are_sent_again(opened):
    server = SERVERS.empty("valkey 9")
    store = opened(server.uri)
    for _ in range(20):
        server.client.script_flush()
        assert decide(store).admitted
        store.settle([Adjust("budget__=a", 0, 1, TTL)], NOW)
    assert used(store) == 40


@pytest.mark.parametrize("kind", binaries())
def test_a_full_server_refuses_before_anything_is_written(opened, kind):
    with Server(kind) as server:
        store = opened(server.uri)
        decide(store, budget(50), lease("x"))
        client = server.client
        client.config_set("maxmemory", 1)
        with failing("OutOfMemory", unsure=False):
            decide(store, budget(1), budget(1, key="budget__=b"), lease("y"))
        if kind != "redis 6.2":
            # From version 7 on, scripts may say that they give back: leases end all the same.
            store.settle([Adjust("budget__=a", 0, -20, TTL), Leave("flight__=a", "x")], NOW)
            client.config_set("maxmemory", 0)
            assert (used(store), used(store, lease("z"))) == (30, 0)
        client.config_set("maxmemory", 0)
        assert used(store, budget(key="budget__=b")) == 0


def test_a_server_that_loads_is_a_failure_and_nothing_is_counted(opened):
    with Server(
        save="3600 1", key_load_delay=2000, loading_process_events_interval_bytes=1024
    ) as server:
        store = opened(server.uri)
        server.client.mset({f"filler{i}": "x" * 100 for i in range(3000)})
        server.client.save()
        server.kill()
        server.process = server.spawned()
        eventually(lambda: said(store, "LOADING|loading|BusyLoading"))
        eventually(lambda: warm(store), 30)


def said(store, fragment):
    import re

    try:
        decide(store)
    except StoreError as problem:
        return re.search(fragment, str(problem))
    return False


@pytest.mark.parametrize("kind", binaries())
def test_a_primary_that_became_a_replica_is_left_and_refuses_nothing_silently(opened, kind):
    with Server(kind) as primary, Server() as other:
        store = opened(primary.uri)
        primary.client.replicaof("127.0.0.1", other.port)
        eventually(lambda: primary.client.info("replication")["role"] == "slave")
        with failing("ReadOnly", unsure=False):
            decide(store)
        primary.client.replicaof("NO", "ONE")
        eventually(lambda: warm(store))
        assert decide(store).admitted


def test_a_server_that_evicts_is_refused_unless_that_is_accepted():
    with Server(maxmemory="64mb", maxmemory_policy="volatile-lru") as server:
        store = redis_store(server.uri)
        with pytest.raises(SettingError, match="`maxmemory-policy` is `volatile-lru`"):
            store.open()
        store.close()
        told = redis_store(server.uri, evicting=True)
        told.open()
        assert decide(told).admitted
        told.close()


def test_a_wrong_password_and_missing_rights_are_told(opened):
    with Server(requirepass="secret") as server:
        uri = f"redis://:wrong@127.0.0.1:{server.port}"
        store = redis_store(uri)
        with pytest.raises(StoreError, match=r"(?i)invalid|WRONGPASS") as caught:
            store.open()
        assert "wrong" not in str(caught.value).replace("WRONGPASS", "")
        store.close()
        right = opened(f"redis://:secret@127.0.0.1:{server.port}")
        assert decide(right).admitted


def test_every_record_has_an_end_also_after_a_foreign_write(opened):
    server = SERVERS.empty("valkey 9")
    store = opened(server.uri)
    decide(store, budget(), pace(), lease("x"))
    client = server.client
    records = [key for key in client.keys("*") if b"meta" not in key]
    assert len(records) == 3
    for key in records:
        client.persist(key)
    decide(store, budget(), pace(), lease("y"))
    store.settle([Drain("pace____=a", -S, NOW + 2 * S, 0, TTL)], NOW)
    assert all(client.pttl(key) > 0 for key in records)


def test_numbers_that_cannot_be_counted_are_refused_before_they_are_sent(opened):
    server = SERVERS.empty("valkey 9")
    store = opened(server.uri)
    for amount in (2**53, -5, 1.5, float("nan"), True):
        with pytest.raises(StoreError, match="cannot be counted"):
            decide(store, budget(amount))
    assert used(store) == 0


def test_the_script_itself_refuses_what_is_no_whole_number():
    import msgspec

    from guardrail.stores.redis.scripts import load_scripts

    server = SERVERS.empty("valkey 9")
    script = load_scripts().acquire.text
    for amount in (1.5, float("nan"), float("inf"), 2.0**60):
        packed = [NOW, -1, -1, 0, 1, 1, 0, 1, 0, 1, 1, 1000, 0, 0, 1, 0, amount, 100]
        with pytest.raises(Exception, match="not a whole number"):
            server.client.eval(script, 1, "record", msgspec.msgpack.encode(packed))
    assert not server.client.exists("record")

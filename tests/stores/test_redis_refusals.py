"""What a store does when its server refuses, has forgotten, or is not fit; sync and awaited."""

from __future__ import annotations

import msgspec
import pytest

from guardrail.errors import SettingError, StoreError
from guardrail.model.cells import Adjust, Drain, Leave
from guardrail.stores.redis.protocol import load_scripts
from tests.cells.redis_stores import SERVERS, redis_store
from tests.stores.deciding import (
    NOW,
    TTL,
    S,
    budget,
    decide,
    failing,
    lease,
    pace,
    said,
    used,
    warm,
)
from tests.stores.servers import Server, binaries, eventually


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
        server.client.mset({f"filler{i}": "x" * 100 for i in range(2000)})
        server.client.save()
        server.kill()
        server.process = server.spawned()
        eventually(lambda: said(store, "LOADING|loading|BusyLoading"))
        server.client.config_set("key-load-delay", 0)
        eventually(lambda: warm(store), 30)


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


@pytest.mark.parametrize("part", ["ttl", "slot", "floor", "amount", "ceiling", "expiry"])
def test_the_script_itself_refuses_what_is_no_whole_number(part):
    server = SERVERS.empty("valkey 9")
    script = load_scripts().acquire.text
    for wrong in (1.5, float("nan"), float("inf"), 2.0**60):
        told = dict.fromkeys(("ttl", "slot", "floor", "amount", "ceiling", "expiry"), 1.0)
        told[part] = wrong if part != "ttl" else min(wrong, 1000.5)
        ttl, slot, floor, amount, ceiling, expiry = told.values()
        counter = [0, 1, 1, ttl, 0, slot, 1, floor, amount, ceiling]
        member = [1, 1, 2, ttl, 0, "who", expiry, 0, 0, ceiling]
        packed = [NOW, -1, -1, -1, 0, 1, 1, 0, 2, *counter, *member]
        with pytest.raises(Exception, match="not a whole number"):
            server.client.eval(script, 2, "record", "other", msgspec.msgpack.encode(packed))
    assert not server.client.exists("record")

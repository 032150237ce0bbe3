"""Real clusters of three primaries, and stores on them."""

from __future__ import annotations

import atexit
import os
import socket
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import msgspec
import redis

from guardrail.model.cells import Cell, Charge, Correction, Outcome
from guardrail.stores.redis.dialogue import SLOTS
from tests.cells.awaited import Awaited
from tests.cells.redis_stores import redis_store
from tests.stores.servers import Server, eventually

NODE_TIMEOUT = 400
"""Milliseconds of silence after which the servers of a cluster give one of them up."""


PORTS = count(20_000 + os.getpid() % 240 * 50)
"""Ports low enough for a cluster's own ones, 10,000 above; neighbouring processes have others."""


def low_port() -> int:
    """Return a port that nobody listens on, and none on the cluster's own."""
    for port in PORTS:
        try:
            for each in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", each))
        except OSError:
            continue
        return port
    raise AssertionError("no port is free")


class Cluster:
    """Three primaries that share the slots evenly; more servers may join as replicas."""

    def __init__(self, kind: str = "valkey 9", **options: Any) -> None:
        self.kind = kind
        self.options = {
            "cluster_enabled": "yes",
            "cluster_node_timeout": NODE_TIMEOUT,
            "cluster_require_full_coverage": "no",
            "repl_diskless_sync_delay": 0,
            **options,
        }
        self.servers = [self._server() for _ in range(3)]
        self.clients = [server.client for server in self.servers]
        self.owners: dict[int, Server] = {}
        bounds = [SLOTS * i // 3 for i in range(4)]
        for i, server in enumerate(self.servers):
            server.client.execute_command("CLUSTER", "ADDSLOTS", *range(bounds[i], bounds[i + 1]))
            server.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            self.servers[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", server.port)
        eventually(lambda: all(self._ready(server, 3) for server in self.servers))

    def _server(self) -> Server:
        return Server(self.kind, port=low_port(), **self.options)

    @staticmethod
    def _ready(server: Server, nodes: int) -> bool:
        about = server.client.execute_command("CLUSTER INFO")
        return about["cluster_state"] == "ok" and int(about["cluster_known_nodes"]) == nodes

    @property
    def uri(self) -> str:
        """How guardrail reaches it."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{s.port}" for s in self.servers[:3])

    def owner(self, slot: int, *, anew: bool = False) -> Server:
        """Return the server that has a slot, as the servers alive see it."""
        if slot in self.owners and not anew:
            return self.owners[slot]
        living = [server for server in self.servers if server.process.poll() is None]
        for first, last, primary, *_ in living[0].client.execute_command("CLUSTER SLOTS"):
            if first <= slot <= last:
                owner = next(s for s in self.servers if s.port == primary[1])
                self.owners[slot] = owner
                return owner
        raise AssertionError(f"nobody has slot {slot}")

    def replica_of(self, primary: Server) -> Server:
        """Add a server that follows a primary; it is in step when this returns."""
        replica = self._server()
        self.servers.append(replica)
        self.clients.append(replica.client)
        self.servers[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", replica.port)
        known = len(self.servers)
        eventually(lambda: all(self._ready(server, known) for server in self.servers))
        name = node_id(primary)
        eventually(lambda: done(replica, "CLUSTER", "REPLICATE", name))
        eventually(lambda: replica.client.info("replication")["master_link_status"] == "up")
        return replica

    def begin_move(self, slot: int, target: Server) -> Server:
        """Open a slot for its way to another server; return the one it leaves."""
        source = self.owner(slot)
        target.client.cluster("SETSLOT", slot, "IMPORTING", node_id(source))
        source.client.cluster("SETSLOT", slot, "MIGRATING", node_id(target))
        return source

    def end_move(self, slot: int, source: Server, target: Server) -> None:
        """Move a slot's records one by one, then the slot."""
        while names := source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1):
            source.client.migrate("127.0.0.1", target.port, names, 0, 1000)
        self.owners.clear()
        for server in (target, source, *self.servers):
            if server.process.poll() is None:
                server.client.cluster("SETSLOT", slot, "NODE", node_id(target))

    def empty(self) -> None:
        """Remove every record."""
        for client in self.clients:
            client.flushall()

    def names(self) -> list[bytes]:
        """Return the name of every record but the store's own."""
        found = [name for client in self.clients for name in client.keys("*")]
        return [name for name in found if b"{meta}" not in name]

    def close(self) -> None:
        """End its servers."""
        for client in self.clients:
            client.close()
        for server in self.servers:
            server.close()


def node_id(server: Server) -> str:
    """Return the name that a server has in its cluster."""
    return str(server.client.execute_command("CLUSTER MYID"), "ascii")


def done(server: Server, *command: str) -> bool:
    """Tell whether a server did what it was told."""
    try:
        server.client.execute_command(*command)
    except redis.ResponseError:
        return False
    return True


class Clusters:
    """Clusters that the tests of one process share; each user starts with an empty one."""

    def __init__(self) -> None:
        self.kept: dict[str, Cluster] = {}
        atexit.register(self.close)

    def empty(self, kind: str) -> Cluster:
        """Return the shared cluster of a kind, emptied."""
        if kind not in self.kept:
            self.kept[kind] = Cluster(kind)
        self.kept[kind].empty()
        return self.kept[kind]

    def close(self) -> None:
        """End them all."""
        for cluster in self.kept.values():
            cluster.close()
        self.kept = {}


CLUSTERS = Clusters()


class Spread:
    """A store on a cluster behind the sync contract, and the records it keeps there."""

    def __init__(self, cluster: Cluster, *, is_async: bool = False, **settings: Any) -> None:
        store = redis_store(cluster.uri, **settings)
        store.open()
        self.cluster = cluster
        self.bearings = store.bearings
        self.store: Any = Awaited(store.awaited()) if is_async else store

    def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Charge, and let what a refusal left be taken back."""
        outcome: Outcome = self.store.acquire(charges, cells, now)
        self.tidied()
        return outcome

    def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Correct."""
        self.store.settle(corrections, now)

    def tidied(self) -> None:
        """Wait until the async store has taken back what it owes; the sync one has by now."""
        if isinstance(self.store, Awaited):
            chores = getattr(self.store.store, "_chores", None)
            if chores is not None:
                self.store.runner.run(ended(chores))

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def slot(self, key: str) -> int:
        """Return the slot of a key's record."""
        return self.bearings.speech().slot(key)

    def owner(self, key: str) -> Server:
        """Return the server that has a key's record."""
        return self.cluster.owner(self.slot(key))

    def record(self, key: str) -> list[Any]:
        """Return a record as it lies on its server."""
        name = self.bearings.speech().names.record(key)
        owner = self.cluster.servers.index(self.owner(key))
        value = self.cluster.clients[owner].get(name)
        found: list[Any] = [] if value is None else msgspec.msgpack.decode(value)
        return found

    def slots(self, key: str) -> dict[int, int]:
        """Return a windowed counter's slots and values."""
        record = self.record(key)
        return dict(zip(record[::2], record[1::2], strict=True))

    def drained(self, key: str) -> tuple[int, int]:
        """Return a draining counter's value and all that was refunded to it."""
        value, refunded = self.record(key) or (0, 0)
        return value, refunded

    def members(self, key: str) -> dict[str, int]:
        """Return a set's members, by their hashes, and their expiries."""
        return self.slots(key)  # type: ignore[return-value]

    def member_name(self, member: str) -> str:
        """Return the hash that stands for a member."""
        return self.bearings.speech().names.naming.member(member).decode()


async def ended(task: Any) -> None:
    """Wait for a task."""
    await task


def key_in(store: Spread, ident: str, wanted: Callable[[int], bool], start: int = 0) -> str:
    """Return a key of a counter whose slot is as wanted."""
    for number in range(start, start + 100_000):
        key = f"{ident}=x{number}"
        if wanted(store.slot(key)):
            return key
    raise AssertionError("no key has such a slot")


def three_keys(store: Spread, ident: str) -> list[str]:
    """Return three keys of a counter, one on each primary, in the order of their slots."""
    thirds = [(SLOTS * i // 3, SLOTS * (i + 1) // 3) for i in range(3)]
    return [key_in(store, ident, lambda s, a=a, b=b: a <= s < b) for a, b in thirds]  # type: ignore[misc]

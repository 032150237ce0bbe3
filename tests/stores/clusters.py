"""Real clusters of three primaries."""

from __future__ import annotations

import atexit
import os
import socket
from collections.abc import Sequence
from itertools import count
from typing import Any

import redis

from guardrail.stores.redis.protocol import SLOTS, slot_of
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
        for server in self.servers:
            server.client.flushall()

    def names(self) -> list[bytes]:
        """Return the name of every record but the store's own."""
        found = [name for server in self.servers for name in server.client.keys("*")]
        return [name for name in found if b"{meta}" not in name]

    def get(self, name: bytes) -> Any:
        """Return a record as it lies on its server."""
        return self.owner(slot_of(name)).get(name)

    def get_all(self, names: Sequence[bytes]) -> list[Any]:
        """Return some records as they lie on their servers, each of which is asked once."""
        owners = [self.owner(slot_of(name)) for name in names]
        found: dict[bytes, Any] = {}
        for server in set(owners):
            its = [name for name, owner in zip(names, owners, strict=True) if owner is server]
            # One command for all of them may not name records of several slots.
            asking = server.client.pipeline(transaction=False)
            for name in its:
                asking.get(name)
            found.update(zip(its, asking.execute(), strict=True))
        return [found[name] for name in names]

    def close(self) -> None:
        """End its servers."""
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

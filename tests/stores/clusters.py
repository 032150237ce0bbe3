"""Real clusters of three primaries, and what is needed to move their slots about."""

from __future__ import annotations

import time
from typing import Any

from guardrail.stores.redis.dialogue import SLOTS
from tests.stores.servers import Server, eventually

TIMEOUT = 2000
"""Milliseconds after which a cluster takes a server for dead."""


class Cluster:
    """Three primaries that share the slots, and perhaps a replica of the first."""

    def __init__(self, kind: str = "valkey 9", *, replica: bool = False) -> None:
        options: dict[str, Any] = {"cluster_enabled": "yes", "cluster_node_timeout": TIMEOUT}
        self.servers = [Server(kind, **options) for _ in range(3 + replica)]
        self._introduced = 0.0
        share = -(-SLOTS // 3)
        for number, server in enumerate(self.primaries):
            own = range(number * share, min(SLOTS, (number + 1) * share))
            server.client.execute_command("CLUSTER", "ADDSLOTS", *own)
            # Epochs of their own, or the servers would have to settle them by contest.
            server.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        eventually(self._met, 30)
        if replica:
            self._follow()

    @property
    def primaries(self) -> list[Server]:
        """The three servers that have slots at first."""
        return self.servers[:3]

    @property
    def uri(self) -> str:
        """How guardrail reaches it: by one server, which tells of the others."""
        return f"redis+cluster://127.0.0.1:{self.servers[0].port}"

    def empty(self) -> None:
        """Forget all that is counted."""
        for server in self.primaries:
            server.client.flushall()

    def names(self) -> dict[bytes, Server]:
        """Return every record's name, and who has it."""
        return {
            name: server
            for server in self.primaries
            for name in server.client.keys("*")
            if not name.endswith(b"{meta}")
        }

    def get(self, name: bytes) -> Any:
        """Return a record as it lies on its server."""
        holder = self.names().get(name)
        return None if holder is None else holder.client.get(name)

    def identity(self, server: Server) -> str:
        """Return a server's id in the cluster."""
        said = server.client.execute_command("CLUSTER", "MYID")
        return said.decode() if isinstance(said, bytes) else str(said)

    def owner(self, slot: int) -> Server:
        """Return who has a slot."""
        for first, last, primary, *_ in self._rows():
            if first <= slot <= last:
                return next(s for s in self.servers if s.port == primary[1])
        raise AssertionError(f"nobody has slot {slot}")

    def opened(self, slot: int, target: Server) -> Server:
        """Start moving a slot, without moving its keys yet; return who has it."""
        source = self.owner(slot)
        setting = ("CLUSTER", "SETSLOT", slot)
        target.client.execute_command(*setting, "IMPORTING", self.identity(source))
        source.client.execute_command(*setting, "MIGRATING", self.identity(target))
        return source

    def moved(self, slot: int, target: Server) -> None:
        """Move a slot with its keys."""
        source = self.opened(slot, target)
        while keys := source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10):
            to = ("MIGRATE", "127.0.0.1", target.port, "", 0, 2000, "KEYS")
            source.client.execute_command(*to, *keys)
        for server in (target, *(s for s in self.primaries if s is not target)):
            server.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", self.identity(target))

    def close(self) -> None:
        """End all servers."""
        for server in self.servers:
            server.close()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _rows(self) -> list[Any]:
        client = self.servers[0].client
        client.connection_pool.connection_kwargs["decode_responses"] = True
        rows: list[Any] = client.execute_command("CLUSTER SLOTS")
        if isinstance(rows, dict):
            return [(*span, row["primary"]) for span, row in rows.items()]
        return rows

    def _met(self) -> bool:
        """Tell whether all have met; those that have not are introduced again."""
        if all(self._sees_all(server) for server in self.servers):
            return True
        if not self._introduced or time.monotonic() - self._introduced > 2:
            self._introduced = time.monotonic()
            for server in self.servers[1:]:
                server.client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port)
        return False

    def _sees_all(self, server: Server) -> bool:
        told = server.client.execute_command("CLUSTER INFO")
        facts = told if isinstance(told, dict) else {}
        known = int(facts.get("cluster_known_nodes", 0)) == len(self.servers)
        return known and facts.get("cluster_state") == "ok"

    def _follow(self) -> None:
        replica, primary = self.servers[3], self.servers[0]
        name = self.identity(primary)
        eventually(lambda: replica.client.execute_command("CLUSTER", "REPLICATE", name), 10)
        eventually(lambda: replica.client.info("replication").get("master_link_status") == "up", 20)

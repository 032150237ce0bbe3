"""Counters on whichever server the sentinels call the primary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from guardrail.errors import StoreError
from guardrail.model.cells import Charge, Counter
from tests.cells.awaited import Awaited
from tests.cells.redis_stores import redis_store
from tests.stores.servers import Server, binaries, eventually

NOW = 1_700_000_000_000_000
SECRET = "a-long-secret"


class Watched:
    """A primary, its replica, and a sentinel that watches over them."""

    def __init__(self, kind: str) -> None:
        login: dict[str, Any] = {"requirepass": SECRET, "masterauth": SECRET}
        self.servers = [Server(kind, **login) for _ in range(2)]
        self.servers[1].client.replicaof("127.0.0.1", self.servers[0].port)
        # A sentinel keeps what it learns in the file that it was started with.
        file = Path(self.servers[0].folder, "sentinel.conf")
        file.write_text(
            f"sentinel monitor counters 127.0.0.1 {self.servers[0].port} 1\n"
            f"sentinel auth-pass counters {login['requirepass']}\n"
            "sentinel down-after-milliseconds counters 500\n"
            "sentinel failover-timeout counters 3000\n"
        )
        self.sentinel = Server(kind, arguments=(str(file), "--sentinel"), save=None)
        eventually(lambda: self.told().get("num-slaves") == 1, 30)
        self.uri = (
            f"redis+sentinel://:{login['requirepass']}@127.0.0.1:{self.sentinel.port}/counters"
        )

    def told(self) -> dict[str, object]:
        """Return what the sentinel knows of the primary."""
        found: dict[str, object] = self.sentinel.client.sentinel_master("counters")
        return found

    def failed_over(self) -> bool:
        """Start a failover; the sentinel refuses until it knows the replica well enough."""
        try:
            self.sentinel.client.sentinel_failover("counters")
        except redis.ResponseError:
            return False
        return True

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *unused: object) -> None:
        for server in (self.sentinel, *self.servers):
            server.close()


def decide(store):
    cell = Counter(0, "budget__=a", 0, 1, 0, 1, None, 10**12)
    return store.acquire([Charge(True, None)], [cell], NOW)


def passes(store):
    try:
        return decide(store).admitted
    except StoreError:
        return False


def role(server):
    """Return what a server is; one that is just demoted cuts its clients."""
    try:
        return server.client.info("replication")["role"]
    except redis.ConnectionError:
        return None


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", binaries())
def test_decisions_follow_the_primary_through_a_failover(kind, is_async):
    with Watched(kind) as watched:
        opened = redis_store(watched.uri, deadline=0.2)
        opened.open()
        store = Awaited(opened.awaited()) if is_async else opened
        eventually(lambda: passes(store))
        first, second = watched.servers
        eventually(watched.failed_over, 30)
        eventually(lambda: role(first) == "slave", 30)
        # The old primary still answers: it says that it may not write, and is left.
        eventually(lambda: passes(store), 10)
        before = int(second.client.info("commandstats")["cmdstat_evalsha"]["calls"])
        decide(store)
        assert int(second.client.info("commandstats")["cmdstat_evalsha"]["calls"]) > before
        store.close()

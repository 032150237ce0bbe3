"""Real services of sentinels."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from redis.exceptions import ResponseError

from tests.stores.servers import Server, eventually

LIVELY = {"ping-period": 200, "ask-period": 100, "publish-period": 200}
"""How often sentinels look and tell, in milliseconds, where they let that be set."""


FRESH = 60_000
"""Milliseconds since a replica told of itself, if it ever did."""


def _facts(told: Any) -> dict[str, Any]:
    """Return what a sentinel tells of the first server of those it was asked about."""
    first = told[0] if told else []
    pairs = first.items() if isinstance(first, dict) else zip(first[::2], first[1::2], strict=True)
    return {str(name, "ascii") if isinstance(name, bytes) else name: value for name, value in pairs}


class Sentinels:
    """A primary, its replica, and sentinels that watch them under the name `service`.

    They take a primary for dead after `patience` milliseconds of silence.
    """

    def __init__(
        self,
        kind: str = "valkey 9",
        *,
        count: int = 1,
        password: str = "",
        patience: int = 1000,
    ) -> None:
        both: dict[str, Any] = {"requirepass": password, "masterauth": password} if password else {}
        both["repl_diskless_sync_delay"] = "0"
        self.password = password
        self.primary = Server(kind, **both)
        self.replica = Server(kind, replicaof=("127.0.0.1", self.primary.port), **both)
        login = f"sentinel auth-pass service {password}" if password else ""
        conf = (
            f"sentinel monitor service 127.0.0.1 {self.primary.port} {count // 2 + 1}\n"
            f"sentinel down-after-milliseconds service {patience}\n"
            f"sentinel failover-timeout service 3000\n{login}\n"
        )
        self._folders: list[TemporaryDirectory[str]] = []
        self.sentinels = [self._sentinel(kind, conf) for _ in range(count)]
        for sentinel in self.sentinels:
            eventually(partial(self._complete, sentinel, count))

    def _sentinel(self, kind: str, conf: str) -> Server:
        # A sentinel keeps what it learns in the file that it was started with.
        folder = TemporaryDirectory(prefix="guardrail-sentinel-")
        self._folders.append(folder)
        file = Path(folder.name) / "sentinel.conf"
        file.write_text(conf)
        server = Server(kind, arguments=(str(file), "--sentinel"))
        if kind != "redis 6.2":
            for name, period in LIVELY.items():
                server.client.execute_command("SENTINEL", "DEBUG", name, period)
        return server

    def _complete(self, sentinel: Server, count: int) -> bool:
        facts = _facts(sentinel.client.execute_command("SENTINEL", "MASTERS"))
        replica = _facts(sentinel.client.execute_command("SENTINEL", "REPLICAS", "service"))
        link = self.replica.client.info("replication")["master_link_status"]
        others = int(facts["num-other-sentinels"]) == count - 1
        # Only a replica that told of itself can be made the primary.
        told = "info-refresh" in replica and int(replica["info-refresh"]) < FRESH
        return link == "up" and int(facts["num-slaves"]) == 1 and others and told

    def fail_over(self) -> None:
        """Make the replica the primary, by an order that is given until it was followed."""
        eventually(self._followed)

    def _followed(self) -> bool:
        # A sentinel takes no order while it finds no replica good, and may give one up half done:
        # both happen where it was kept from its work for seconds.
        if self.replica.client.info("replication")["role"] == "master":
            return True
        with suppress(ResponseError):
            self.sentinels[0].client.execute_command("SENTINEL", "FAILOVER", "service")
        return False

    @property
    def uri(self) -> str:
        """How guardrail reaches it."""
        login = f":{quote(self.password, safe='')}@" if self.password else ""
        places = ",".join(f"127.0.0.1:{s.port}" for s in self.sentinels)
        return f"redis+sentinel://{login}{places}/service"

    def close(self) -> None:
        """End all of them."""
        for server in (*self.sentinels, self.replica, self.primary):
            server.close()
        for folder in self._folders:
            folder.cleanup()

"""Real services of sentinels."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from tests.stores.servers import Server, eventually


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
        self.replica = Server(kind, replicaof=f"127.0.0.1 {self.primary.port}", **both)
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
        return Server(kind, arguments=(str(file), "--sentinel"))

    def _complete(self, sentinel: Server, count: int) -> bool:
        known = sentinel.client.execute_command("SENTINEL", "MASTERS")[0]
        facts = (
            dict(zip(known[::2], known[1::2], strict=True)) if isinstance(known, list) else known
        )
        facts = {str(k, "ascii") if isinstance(k, bytes) else k: v for k, v in facts.items()}
        link = self.replica.client.info("replication")["master_link_status"]
        others = int(facts["num-other-sentinels"]) == count - 1
        return link == "up" and int(facts["num-slaves"]) == 1 and others

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

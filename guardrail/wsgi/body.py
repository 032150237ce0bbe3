"""A request's body over WSGI, read within bounds (PEP 3333)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

CHUNK = 1 << 16


class TooLargeError(Exception):
    """The body is longer than the bound."""


class TooSlowError(Exception):
    """The body did not arrive in time."""


def read_body(
    environ: Mapping[str, Any],
    most: int,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
) -> bytes:
    """Return the whole body: at most `most` bytes, no more than `Content-Length` states.

    The time is looked at between two pieces of 64 KiB; a client that sends nothing at all is
    ended by the server's own timeout.

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

    The time is looked at as in `read_body`.
    """
    # It was answered: whatever goes wrong now changes nothing.
    with suppress(Exception):
        for _ in _pieces(environ, timeout, clock):
            pass


def _pieces(
    environ: Mapping[str, Any], timeout: float, clock: Callable[[], float]
) -> Iterator[bytes]:
    stated = str(environ.get("CONTENT_LENGTH") or "")
    left = int(stated) if stated.isdigit() else None
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

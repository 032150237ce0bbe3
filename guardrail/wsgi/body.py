"""A request's body over WSGI, read within bounds (PEP 3333)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
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
    stated = str(environ.get("CONTENT_LENGTH") or "")
    left = int(stated) if stated.isdigit() else None
    if left is None and not environ.get("wsgi.input_terminated"):
        return b""
    source = environ["wsgi.input"]
    deadline = clock() + timeout
    chunks: list[bytes] = []
    length = 0
    while left is None or length < left:
        chunk = source.read(CHUNK if left is None else min(CHUNK, left - length))
        if not chunk:
            break
        length += len(chunk)
        if length > most:
            raise TooLargeError
        if clock() > deadline:
            raise TooSlowError
        chunks.append(chunk)
    return b"".join(chunks)

"""A request's body over ASGI: read within bounds, and given to the host once more."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from guardrail.asgi.types import Message, Receive


class ClientLeftError(Exception):
    """The client disconnected before its body was complete."""


class TooLargeError(Exception):
    """The body is longer than the bound."""


class TooSlowError(Exception):
    """The body did not arrive in time."""


async def read_body(receive: Receive, most: int, timeout: float) -> bytes:
    """Return the whole body: at most `most` bytes within `timeout` seconds.

    Raises:
        ClientLeftError: the client disconnected.
        TooLargeError: there is more.
        TooSlowError: it takes longer.
    """
    chunks: list[bytes] = []
    length = 0
    try:
        async with asyncio.timeout(timeout):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientLeftError
                chunk = message.get("body", b"")
                length += len(chunk)
                if length > most:
                    raise TooLargeError
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    except TimeoutError:
        raise TooSlowError from None


async def discard_body(receive: Receive, timeout: float) -> None:
    """Take what a client still sends until it ends, leaves, or `timeout` seconds are over.

    A connection closed on unread bytes is reset, and the answer on its way to the client lost.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            message = await receive()
            while message["type"] == "http.request" and message.get("more_body", False):
                message = await receive()


class Replay:
    """The `receive` of a host whose request was read before: the body once, then what comes.

    What comes after it is awaited from the server itself: a host that waits for a disconnect
    gets it when it happens, and not before.
    """

    def __init__(self, receive: Receive, body: bytes | None) -> None:
        self._receive = receive
        self._body = body
        self.left = False

    async def __call__(self) -> Message:
        """Return the body if it was read and not given yet, else the server's next message."""
        body = self._body
        if body is not None:
            self._body = None
            return {"type": "http.request", "body": body, "more_body": False}
        message = await self._receive()
        self.left = self.left or message["type"] == "http.disconnect"
        return message

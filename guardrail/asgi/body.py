"""A request's body over ASGI: read within bounds, and given to the host once more."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Generator
from contextlib import suppress
from typing import Any, cast

from guardrail.asgi.types import Message, Receive
from guardrail.http.flow import TooLargeError, TooSlowError


class ClientLeftError(Exception):
    """The client disconnected before its body was complete."""


async def read_body(receive: Receive, most: int, timeout: float) -> bytes:
    """Return the whole body: at most `most` bytes within `timeout` seconds.

    Raises:
        ClientLeftError: the client disconnected.
        TooLargeError: there is more.
        TooSlowError: it takes longer.
    """
    pieces = _Pieces(most)
    # What is there already needs no timer, which would cost more than all the rest.
    while True:
        steps = receive().__await__()
        try:
            waited = next(steps)
        except StopIteration as end:
            if pieces.take(end.value):
                return pieces.whole
            continue
        break
    try:
        async with asyncio.timeout(timeout):
            complete = pieces.take(await _resumed(steps, waited))
            while not complete:
                complete = pieces.take(await receive())
    except TimeoutError:
        raise TooSlowError from None
    return pieces.whole


class _Pieces:
    """The pieces of a body that have come."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._taken: list[bytes] = []

    def take(self, message: Message) -> bool:
        """Take a message in, and tell whether the body is complete."""
        if message["type"] != "http.request":
            raise ClientLeftError
        piece = message.get("body", b"")
        self._left -= len(piece)
        if self._left < 0:
            raise TooLargeError
        self._taken.append(piece)
        return not message.get("more_body", False)

    @property
    def whole(self) -> bytes:
        """All of them, joined."""
        taken = self._taken
        return taken[0] if len(taken) == 1 else b"".join(taken)


@types.coroutine
def _resumed(
    steps: Generator[Any, Any, Message], waited: object
) -> Generator[object, object, Message]:
    """Go on with an awaitable that was started, and waits for something."""
    try:
        while True:
            try:
                sent = yield waited
            except BaseException as problem:
                waited = steps.throw(problem)
            else:
                waited = steps.send(sent)
    except StopIteration as end:
        return cast(Message, end.value)


async def discard_body(receive: Receive, timeout: float) -> None:
    """Take what a client still sends until it ends, leaves, or `timeout` seconds are over."""
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

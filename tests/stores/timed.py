"""A real server whose replies come when a test says: time stands still but for what is waited for.

Commands reach the server at once, and are answered; what is held back is the reply. Neither the
machine's speed nor its load has a part in what happens.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from redis import exceptions as said

from guardrail.stores.redis import opening
from guardrail.stores.redis.link import ANSWERS, read

NEVER = float("inf")


class Hand:
    """Time in seconds, moved by whoever waits; `delay` is how long the next replies take.

    While `cut` is set, a connection breaks once its command was carried out; while `answers` is,
    that is what comes back instead of every reply. `opened` counts connections.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.delay = 0.0
        self.cut = False
        self.answers: Exception | None = None
        self.opened = 0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    monotonic = __call__

    def sleep(self, seconds: float) -> None:
        """Move on."""
        self.now += seconds


class Held:
    """A connection to a server whose replies are held back; for threads."""

    def __init__(self, hand: Hand, real: Any) -> None:
        self._hand = hand
        hand.opened += 1
        self._real = real
        self._sock = self
        self._timeout = 0.0
        self._held: deque[tuple[float, object]] = deque()

    def settimeout(self, seconds: float) -> None:
        """Bound every read from here on: it is its own socket."""
        self._timeout = seconds

    def send_packed_command(self, pieces: Sequence[bytes], check_health: bool = True) -> None:
        """Have commands carried out."""
        for piece in pieces:
            self._real.send_packed_command([piece], check_health=False)
            try:
                reply = read(self._real, 30)
            except ANSWERS as answer:
                reply = answer
            if self._hand.answers is not None:
                reply = self._hand.answers
            self._held.append((self._hand.now + self._hand.delay, reply))
        if self._hand.cut:
            raise said.ConnectionError("the connection broke")

    def can_read(self, timeout: float = 0) -> bool:
        """Tell whether a reply has come; a look that finds none takes its time."""
        if self._held and self._held[0][0] <= self._hand.now:
            return True
        self._hand.now += 0.001
        return False

    def read_response(self, **_: object) -> object:
        """Return the next reply, or wait for it in vain."""
        until = self._hand.now + self._timeout
        if not self._held or self._held[0][0] > until:
            self._hand.now = until
            raise said.TimeoutError("no reply")
        due, reply = self._held.popleft()
        self._hand.now = max(self._hand.now, due)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def disconnect(self) -> None:
        """Close the connection: what is held back will never come."""
        self._real.disconnect()


class HeldAwaited:
    """The same, for an event loop."""

    def __init__(self, hand: Hand, real: Any) -> None:
        self._hand = hand
        self._held = Held(hand, real)
        self._more = asyncio.Event()

    async def send_packed_command(self, pieces: Sequence[bytes], check_health: bool = True) -> None:
        """Have commands carried out."""
        self._held.send_packed_command(pieces)
        self._more.set()

    async def read_response(self, **_: object) -> object:
        """Return the next reply, once it comes."""
        while not self._held._held:
            self._more.clear()
            await self._more.wait()
        due = self._held._held[0][0]
        if due == NEVER:
            await asyncio.get_running_loop().create_future()
        if due > self._hand.now:
            await asyncio.sleep(due - self._hand.now)
        return self._held.read_response()

    async def disconnect(self, nowait: bool = False) -> None:
        """Close the connection."""
        self._held.disconnect()


class HandLoop(asyncio.SelectorEventLoop):
    """An event loop by a hand's time: where all wait, it moves on to whoever waits least."""

    def __init__(self, hand: Hand) -> None:
        super().__init__()
        self._hand = hand

    def time(self) -> float:
        """Return the time."""
        return self._hand.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._hand.now = max(self._hand.now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    """Have the stores on Redis go by a time moved by hand, and their replies held back."""
    moved = Hand()
    for name in ("pool", "link", "servers"):
        monkeypatch.setattr(f"guardrail.stores.redis.{name}.monotonic", moved)
    for name in ("store", "base"):
        monkeypatch.setattr(f"guardrail.stores.redis.{name}.time", moved)
    greeted: Callable[..., Any] = opening.greeted

    async def awaited(*arguments: Any) -> HeldAwaited:
        return HeldAwaited(moved, greeted(*arguments))

    monkeypatch.setattr(
        "guardrail.stores.redis.servers.greeted",
        lambda *arguments: Held(moved, greeted(*arguments)),
    )
    monkeypatch.setattr("guardrail.stores.redis.async_servers.greeted", awaited)
    return moved

"""A real server whose replies come when a test says: time stands still but for what is waited for.

Commands reach the server at once, and are answered; what is held back is the reply. Neither the
machine's speed nor its load has a part in what happens.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import pytest
from redis import exceptions as said

from guardrail.stores.redis import blocking, store
from guardrail.stores.redis.address import Place
from guardrail.stores.redis.blocking import BlockingConnection, BlockingServers
from guardrail.stores.redis.pipelined import OnEnd, OnReply, PipelinedServers

NEVER = inf


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


class Held(BlockingConnection):
    """A connection to a server whose replies are held back; for threads."""

    def __init__(self, hand: Hand, real: BlockingConnection) -> None:
        self.opened = self._used = hand.now
        self.owed = deque()
        self.on_late = real.on_late
        self._hand = hand
        hand.opened += 1
        self._real = real
        self.held: deque[tuple[float, object]] = deque()

    def send(self, commands: Sequence[bytes], until: float) -> None:
        """Have commands carried out."""
        for command in commands:
            reply = self._real.exchange(command, 30)
            if self._hand.answers is not None:
                reply = self._hand.answers
            self.held.append((self._hand.now + self._hand.delay, reply))
        if self._hand.cut:
            raise said.ConnectionError("the connection broke")

    def receive(self, until: float) -> object:
        """Return the next reply, or wait for it in vain; a look that finds none takes its time."""
        until = max(until, self._hand.now)
        if not self.held or self.held[0][0] > until:
            self._hand.now = max(until, self._hand.now + 0.001)
            raise said.TimeoutError("no reply")
        due, reply = self.held.popleft()
        self._hand.now = max(self._hand.now, due)
        return reply

    def usable(self) -> bool:
        """Tell that the connection stands."""
        return True

    def close(self) -> None:
        """Close the connection: what is held back will never come."""
        self._real.close()


class HeldAwaited:
    """The same, for an event loop."""

    is_full = False
    ended = None

    def __init__(self, hand: Hand, real: BlockingConnection) -> None:
        self._hand = hand
        self._held = Held(hand, real)
        self._more = asyncio.Event()
        self._heard: asyncio.Task[None] | None = None

    def listen(self, on_reply: OnReply, on_end: OnEnd, _: Callable[[], None]) -> None:
        """Have replies handed over as they come."""
        self._on_end = on_end
        self._heard = asyncio.get_running_loop().create_task(self._hear(on_reply))

    def send(self, commands: Sequence[bytes]) -> None:
        """Have commands carried out."""
        try:
            self._held.send(commands, inf)
        except said.ConnectionError as problem:
            self._on_end(problem)
        self._more.set()

    def close(self) -> None:
        """Close the connection."""
        self._held.close()
        if self._heard is not None:
            self._heard.cancel()

    async def _hear(self, on_reply: OnReply) -> None:
        while True:
            while not self._held.held:
                self._more.clear()
                await self._more.wait()
            due = self._held.held[0][0]
            if due == NEVER:
                await asyncio.get_running_loop().create_future()
            if due > self._hand.now:
                await asyncio.sleep(due - self._hand.now)
            on_reply(self._held.receive(self._hand.now))


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
    monkeypatch.setattr(blocking, "monotonic", moved)
    monkeypatch.setattr(blocking, "time", moved)
    monkeypatch.setattr(store, "time", moved)
    opened: Callable[[Any, Place], BlockingConnection] = BlockingServers.open

    async def awaited(servers: Any, place: Place) -> HeldAwaited:
        settings = servers.address, servers.state, servers.deadline, servers.timeout
        return HeldAwaited(moved, opened(BlockingServers(*settings, servers.on_late), place))

    monkeypatch.setattr(
        BlockingServers, "open", lambda servers, place: Held(moved, opened(servers, place))
    )
    monkeypatch.setattr(PipelinedServers, "open", awaited)
    return moved

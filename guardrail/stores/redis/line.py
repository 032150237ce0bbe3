"""One connection that all tasks of an event loop share: concurrent decisions leave in one piece."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis import exceptions as said

from guardrail.errors import StoreError
from guardrail.stores.redis.dialogue import Call
from guardrail.stores.redis.faults import (
    MOVED_AWAY,
    overdue,
    unasked,
    unconnected,
    unreachable,
    unwrapped,
)
from guardrail.stores.redis.link import ANSWERS
from guardrail.stores.redis.pool import PATIENCE, lost_among

Opener = Callable[[], Awaitable[Any]]
OnLate = Callable[[Call, object], None]

LOOK_EVERY = 0.001
MOST_WAITING = 10_000
"""Calls that wait for a server at once; one more is refused."""


class Entry:
    """One call on its way: `replies` are still to come, the last of them is the call's."""

    __slots__ = ("call", "commands", "future", "replies", "sent", "until")

    def __init__(
        self, commands: Sequence[bytes], call: Call, until: float, future: asyncio.Future[object]
    ) -> None:
        self.commands = commands
        self.call = call
        self.until = until
        self.future = future
        self.sent = 0.0
        self.replies = len(commands)


class Line:
    """A connection shared by all tasks of one event loop.

    A call that is cancelled or overdue before it was sent is never sent; after that its reply is
    still waited for and handed to `on_late`. `lost` counts the replies that never came.
    """

    def __init__(self, opener: Opener, where: str, deadline: float, on_late: OnLate) -> None:
        self.where = where
        self.lost = 0
        self._opener = opener
        self._deadline = deadline
        self._on_late = on_late
        self._loop = asyncio.get_running_loop()
        self._connection: Any = None
        self._unsent: list[Entry] = []
        self._owed: deque[Entry] = deque()
        self._heard = 0.0
        self._doubted = False
        self._opening: asyncio.Task[Any] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def ask(self, commands: Sequence[bytes], call: Call, until: float) -> object:
        """Return the reply to the last of some packed commands; an error it answers is returned.

        Raises:
            StoreError: it did not come until then, by the loop's clock.
        """
        if self._connection is None:
            await self._connected(until)
        if self._loop.time() >= until:
            raise unasked(self.where)
        if len(self._unsent) + len(self._owed) >= MOST_WAITING:
            raise StoreError(f"{MOST_WAITING:,} calls wait for {self.where} already")
        entry = Entry(commands, call, until, self._loop.create_future())
        self._unsent.append(entry)
        if self._writer is None:
            self._writer = self._loop.create_task(self._write())
        if self._timer is None:
            self._timer = self._loop.call_at(until, self._expire)
        try:
            return await entry.future
        except asyncio.CancelledError:
            # The reply may have come in the same turn: then nobody else will hear of it.
            if not entry.future.cancelled() and entry.future.exception() is None:
                self._on_late(call, entry.future.result())
            raise

    @property
    def owed(self) -> int:
        """How many replies are still to come that tell what was charged."""
        return lost_among([entry.call for entry in self._owed])

    async def drain(self) -> None:
        """Wait for what is owed, no longer than a deadline."""
        until = self._loop.time() + self._deadline
        while self._owed and self._loop.time() < until:
            await asyncio.sleep(LOOK_EVERY)

    async def close(self) -> None:
        """Close the connection; what waits is told so."""
        if self._opening is not None:
            self._opening.cancel()
        self._break(StoreError(f"the connection to {self.where} was closed", unsure=True))
        if self._reader is not None:
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _connected(self, until: float) -> None:
        if self._opening is None:
            self._opening = self._loop.create_task(self._open())
        opening = self._opening
        await asyncio.wait((opening,), timeout=until - self._loop.time())
        if not opening.done():
            raise unconnected(self.where, self._deadline)
        problem = None if opening.cancelled() else opening.exception()
        if isinstance(problem, StoreError):
            raise problem
        if problem is not None:
            raise unreachable(problem, self.where) from problem

    async def _open(self) -> None:
        try:
            self._connection = await self._opener()
        finally:
            self._opening = None
        self._heard = self._loop.time()
        self._reader = self._loop.create_task(self._read(self._connection))

    async def _write(self) -> None:
        """Send what has gathered, as often as something has, in one piece each time."""
        try:
            while self._unsent:
                entries, self._unsent = self._unsent, []
                leaving = [entry for entry in entries if not entry.future.done()]
                connection = self._connection
                if connection is None:
                    self._unsent = leaving + self._unsent
                    self._break(StoreError(f"{self.where} is not connected"))
                    return
                now = self._loop.time()
                for entry in leaving:
                    entry.sent = now
                self._owed.extend(leaving)
                pieces = [piece for entry in leaving for piece in entry.commands]
                if pieces:
                    await connection.send_packed_command(pieces, check_health=False)
        except (said.RedisError, OSError) as problem:
            self._break(unreachable(problem, self.where, unsure=True))
        finally:
            self._writer = None

    async def _read(self, connection: Any) -> None:
        """Hand every reply to its call, in order, until the connection ends."""
        try:
            while True:
                try:
                    reply = await connection.read_response(
                        disable_decoding=True, timeout=math.inf, disconnect_on_error=False
                    )
                except ANSWERS as answer:
                    reply = unwrapped(answer)
                self._heard, self._doubted = self._loop.time(), False
                self._deliver(reply)
                if isinstance(reply, MOVED_AWAY):
                    gone = f"{self.where} is not the one to write to any more"
                    self._break(StoreError(gone, unsure=True))
                    return
        except (said.RedisError, OSError) as problem:
            if connection is self._connection:
                self._break(unreachable(problem, self.where, unsure=True))

    def _deliver(self, reply: object) -> None:
        entry = self._owed[0]
        entry.replies -= 1
        if entry.replies:
            return
        self._owed.popleft()
        if entry.future.done():
            self._on_late(entry.call, reply)
        else:
            entry.future.set_result(reply)

    def _expire(self) -> None:
        """Tell the calls whose time is over, and give up a connection that has gone silent."""
        self._timer = None
        now = self._loop.time()
        ends = []
        for entry in (*self._owed, *self._unsent):
            if entry.future.done():
                continue
            if entry.until <= now:
                entry.future.set_exception(overdue(self.where, self._deadline))
            else:
                ends.append(entry.until)
        if self._owed:
            silence = max(self._owed[0].sent, self._heard) + PATIENCE * self._deadline
            if now >= silence and not self._doubted:
                # A loop that was held up for so long may not have read yet what has come.
                self._doubted, silence = True, now + LOOK_EVERY
            elif now >= silence:
                gone = f"nothing was heard for {PATIENCE} deadlines"
                self._break(StoreError(f"{self.where} is silent: {gone}", unsure=True))
                return
            ends.append(silence)
        if ends:
            self._timer = self._loop.call_at(min(ends), self._expire)

    def _break(self, problem: StoreError) -> None:
        """Give up the connection: nobody will hear of what is owed any more."""
        connection, self._connection = self._connection, None
        self._doubted = False
        owed, self._owed = self._owed, deque()
        unsent, self._unsent = self._unsent, []
        self.lost += lost_among([entry.call for entry in owed])
        for entry in (*owed, *unsent):
            if not entry.future.done():
                entry.future.set_exception(
                    StoreError(str(problem), unsure=problem.unsure and bool(entry.sent))
                )
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if connection is not None:
            if self._reader is not None:
                self._reader.cancel()
            self._loop.create_task(_closed(connection))


async def _closed(connection: Any) -> None:
    try:
        await connection.disconnect(nowait=True)
    except (said.RedisError, OSError):
        return

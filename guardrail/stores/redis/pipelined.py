"""Connections that all tasks of an event loop share: concurrent decisions leave in one piece."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hiredis import Reader
from redis import exceptions as said
from redis.asyncio import connection as connections
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel

from guardrail.errors import StoreError
from guardrail.stores.redis.faults import (
    MOVED_AWAY,
    overdue,
    unasked,
    unconnected,
    unreachable,
    unwrapped,
)
from guardrail.stores.redis.protocol import Call
from guardrail.stores.redis.servers import LOOK_EVERY, PATIENCE, Library, OnLate, Servers
from guardrail.stores.steps import Steps, awaited

AT_ONCE = 65536
"""Bytes read at once, and bytes that may wait to leave before more calls do."""
MOST_WAITING = 10_000
"""Calls that wait for a server at once; one more is refused."""


class Stream:
    """What is sent and received over one connection.

    redis-py has opened it and logged in; its streams are ours from then on.
    """

    def __init__(self, connection: Any) -> None:
        self._source, connection._reader = connection._reader, None
        self._sink, connection._writer = connection._writer, None
        self._replies = Reader(
            protocolError=said.InvalidResponse, replyError=connection._parser.parse_error
        )

    @property
    def is_full(self) -> bool:
        """Whether so much waits to leave that no more should be sent."""
        return bool(self._sink.transport.get_write_buffer_size() > AT_ONCE)

    def send(self, commands: Sequence[bytes]) -> None:
        """Send packed commands in one piece, without waiting for it to leave."""
        self._sink.write(b"".join(commands))

    async def drained(self) -> None:
        """Wait until more may be sent."""
        await self._sink.drain()

    async def receive(self) -> object:
        """Return the next reply, also if it is an error.

        Raises:
            RedisError, OSError: the connection broke.
        """
        while (reply := self._replies.gets()) is False:
            piece = await self._source.read(AT_ONCE)
            if not piece:
                raise said.ConnectionError("the server closed the connection")
            self._replies.feed(piece)
        return reply

    async def exchange(self, command: bytes, timeout: float) -> object:
        """Send a command; return its reply, within so many seconds."""
        self.send((command,))
        return await asyncio.wait_for(self.receive(), timeout)

    def close(self) -> None:
        """Close the connection at once, whatever waits to leave; closing twice is harmless."""
        self._sink.transport.abort()


@dataclass(slots=True, eq=False)
class Entry:
    """One call on its way: `replies` are still to come, the last of them is the call's."""

    commands: Sequence[bytes]
    call: Call
    until: float
    future: asyncio.Future[object]
    replies: int
    sent: float = 0.0


Opener = Callable[[], Awaitable[Stream]]


class PipelinedConnection:
    """A connection to one server, shared by all tasks of an event loop.

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
        self._stream: Stream | None = None
        self._opened = 0.0
        self._unsent: list[Entry] = []
        self._owed: deque[Entry] = deque()
        self._heard = 0.0
        self._doubted = False
        self._opening: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._leaving = False
        self._timer: asyncio.TimerHandle | None = None

    async def ask(self, commands: Sequence[bytes], call: Call, until: float) -> object:
        """Send packed commands; return the reply to the last, also if it is an error.

        Raises:
            StoreError: it did not come until then, by the loop's clock.
        """
        if self._stream is None:
            await self._connected(until)
        if self._loop.time() >= until:
            raise unasked(self.where)
        if len(self._unsent) + len(self._owed) >= MOST_WAITING:
            raise StoreError(f"{MOST_WAITING:,} calls wait for {self.where} already")
        entry = Entry(commands, call, until, self._loop.create_future(), len(commands))
        self._unsent.append(entry)
        if not self._leaving:
            self._leaving = True
            self._loop.call_soon(self._send)
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
        return sum(entry.call.asked is not None for entry in self._owed)

    def owes(self) -> bool:
        """Tell whether replies are still to come."""
        return bool(self._owed)

    def retire(self, moment: float) -> None:
        """Close the connection if it was opened by a moment (the loop's seconds)."""
        if self._opened <= moment:
            self._break(self._closed())

    async def close(self) -> None:
        """Close the connection; what waits is told so."""
        if self._opening is not None:
            self._opening.cancel()
        self._break(self._closed())
        if self._reader is not None:
            await asyncio.gather(self._reader, return_exceptions=True)

    def _closed(self) -> StoreError:
        return StoreError(f"the connection to {self.where} was closed", unsure=True)

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
            self._stream = await self._opener()
        finally:
            self._opening = None
        self._opened = self._heard = self._loop.time()
        self._reader = self._loop.create_task(self._receive(self._stream))

    def _send(self) -> None:
        """Send what has gathered in one piece; what gathers while it leaves is sent after that."""
        self._leaving = False
        leaving = [entry for entry in self._unsent if not entry.future.done()]
        stream = self._stream
        if stream is None:
            self._break(StoreError(f"{self.where} is not connected"))
            return
        self._unsent = []
        now = self._loop.time()
        for entry in leaving:
            entry.sent = now
        self._owed.extend(leaving)
        try:
            stream.send([command for entry in leaving for command in entry.commands])
        except (said.RedisError, OSError) as problem:
            self._break(unreachable(problem, self.where, unsure=True))
            return
        if stream.is_full:
            self._leaving = True
            self._writer = self._loop.create_task(self._drained(stream))

    async def _drained(self, stream: Stream) -> None:
        try:
            await stream.drained()
        except (said.RedisError, OSError) as problem:
            self._broken(stream, problem)
        else:
            self._writer = None
            self._send()

    async def _receive(self, stream: Stream) -> None:
        """Hand every reply to its call, in order, until the connection ends."""
        try:
            while True:
                reply = await stream.receive()
                if isinstance(reply, Exception):
                    reply = unwrapped(reply)
                self._heard, self._doubted = self._loop.time(), False
                self._deliver(reply)
                if isinstance(reply, MOVED_AWAY):
                    gone = f"{self.where} is not the one to write to any more"
                    self._break(StoreError(gone, unsure=True))
                    return
        except (said.RedisError, OSError) as problem:
            self._broken(stream, problem)

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

    def _broken(self, stream: Stream, problem: BaseException) -> None:
        if stream is self._stream:
            self._break(unreachable(problem, self.where, unsure=True))

    def _break(self, problem: StoreError) -> None:
        """Give up the connection: nobody will hear of what is owed any more."""
        stream, self._stream = self._stream, None
        self._doubted = False
        self.lost += self.owed
        owed, self._owed = self._owed, deque()
        unsent, self._unsent = self._unsent, []
        for entry in (*owed, *unsent):
            if not entry.future.done():
                entry.future.set_exception(
                    StoreError(str(problem), unsure=problem.unsure and bool(entry.sent))
                )
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writer is not None:
            self._writer.cancel()
            self._writer, self._leaving = None, False
        if stream is not None:
            if self._reader is not None:
                self._reader.cancel()
            stream.close()


class PipelinedServers(Servers[PipelinedConnection]):
    """Shared connections, one a server, all of one event loop."""

    library = Library(connections, Retry, Sentinel, "aclose")
    adopt, connected, performed = Stream, PipelinedConnection, staticmethod(awaited)

    def __init__(self, *settings: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self._background: asyncio.Task[None] | None = None
        super().__init__(*settings, time=self.loop.time, sleep=asyncio.sleep)

    @property
    def lost_with_loop(self) -> int:
        """Replies that never came, and those that never will, as nobody listens any more."""
        return self.lost + sum(connection.owed for connection in self.every())

    def in_background(self, steps: Steps[None]) -> None:
        """Have steps performed in a task."""
        self._background = self.loop.create_task(awaited(steps))

    async def close(self) -> None:
        """Close every connection."""
        if self._background is not None:
            self._background.cancel()
            await asyncio.gather(self._background, return_exceptions=True)
        for connection in self.every():
            await connection.close()

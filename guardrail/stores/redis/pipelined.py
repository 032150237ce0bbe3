"""Connections that all tasks of an event loop share: concurrent decisions leave in one piece."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
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

MOST_AT_ONCE = 16
"""Calls that leave in one piece, though more may gather: the server answers them meanwhile."""
MOST_WAITING = 10_000
"""Calls that wait for a server at once; one more is refused."""

OnReply = Callable[[object], None]
OnEnd = Callable[[BaseException], None]


class Stream(asyncio.Protocol):
    """What is sent and received over one connection.

    redis-py has opened it and logged in; its transport is ours from then on. While so much waits
    to leave that no more should be sent, it `is_full`. `ended` is what ended it, None before.
    """

    def __init__(self, connection: Any) -> None:
        # Its transport is closed with the writer, which is kept for as long therefore.
        self._writer, connection._writer, connection._reader = connection._writer, None, None
        self._transport = self._writer.transport
        self._replies = Reader(
            protocolError=said.InvalidResponse, replyError=connection._parser.parse_error
        )
        self.is_full = False
        self.ended: BaseException | None = None
        self._on_reply: OnReply = _ignored
        self._on_end: OnEnd = _ignored
        self._on_room: Callable[[], None] | None = None
        self._transport.set_protocol(self)

    def listen(
        self, on_reply: OnReply, on_end: OnEnd, on_room: Callable[[], None] | None = None
    ) -> None:
        """Have each reply, also if it is an error, handed to `on_reply` from now on.

        `on_end` is told what ended the connection, `on_room` that it is no longer full.
        """
        self._on_reply, self._on_end, self._on_room = on_reply, on_end, on_room

    def send(self, commands: Sequence[bytes]) -> None:
        """Send packed commands in one piece, without waiting for it to leave."""
        self._transport.write(b"".join(commands))

    async def exchange(self, command: bytes, timeout: float) -> object:
        """Send a command; return its reply, within so many seconds.

        Raises:
            RedisError, OSError: the connection broke.
        """
        if self.ended is not None:
            raise self.ended
        told: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def hear(reply: object) -> None:
            if not told.done():
                told.set_result(reply)

        def end(problem: BaseException) -> None:
            if not told.done():
                told.set_exception(problem)

        self.listen(hear, end)
        self.send((command,))
        try:
            return await asyncio.wait_for(told, timeout)
        finally:
            self.listen(_ignored, _ignored)

    def close(self) -> None:
        """Close the connection at once, whatever waits to leave; closing twice is harmless."""
        self.listen(_ignored, _ignored)
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take what the server sent, of one reply or of many."""
        replies = self._replies
        replies.feed(data)
        try:
            while (reply := replies.gets()) is not False:
                self._on_reply(reply)
        except said.RedisError as problem:
            self._end(problem)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that the connection has ended."""
        self._end(exc or said.ConnectionError("the server closed the connection"))

    def pause_writing(self) -> None:
        """Note that enough waits to leave."""
        self.is_full = True

    def resume_writing(self) -> None:
        """Note that more may be sent."""
        self.is_full = False
        if self._on_room is not None:
            self._on_room()

    def _end(self, problem: BaseException) -> None:
        self.ended = problem
        self._on_end(problem)


def _ignored(_: object) -> None:
    """Take what nobody waits for."""


class Entry:
    """One call on its way, and until when its reply is waited for by the loop's clock."""

    __slots__ = ("call", "commands", "future", "sent", "until")

    def __init__(
        self,
        commands: Sequence[bytes],
        call: Call,
        until: float,
        future: asyncio.Future[object],
    ) -> None:
        self.commands = commands
        self.call = call
        self.until = until
        self.future = future
        self.sent = 0.0


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
        # None stands for a reply that tells nothing: a call of several commands has the last.
        self._owed: deque[Entry | None] = deque()
        self._heard = 0.0
        self._doubted = False
        self._opening: asyncio.Task[None] | None = None
        self._before: str | None = None
        self._leaving = False
        self._timer: asyncio.TimerHandle | None = None

    async def ask(self, commands: Sequence[bytes], call: Call, until: float) -> object:
        """Send packed commands; return the reply to the last, also if it is an error.

        Raises:
            StoreError: it did not come until then, by the loop's clock.
        """
        loop, unsent = self._loop, self._unsent
        if self._stream is None:
            await self._connected(until)
            unsent = self._unsent
        if loop.time() >= until:
            raise unasked(self.where)
        if len(unsent) + len(self._owed) >= MOST_WAITING:
            raise StoreError(f"{MOST_WAITING:,} calls wait for {self.where} already")
        future: asyncio.Future[object] = loop.create_future()
        unsent.append(Entry(commands, call, until, future))
        if not self._leaving:
            self._leaving = True
            loop.call_soon(self._send)
        elif len(unsent) == MOST_AT_ONCE:
            self._send()
        if self._timer is None:
            self._timer = loop.call_at(until, self._expire)
        try:
            return await future
        except asyncio.CancelledError:
            # The reply may have come in the same turn: then nobody else will hear of it.
            if not future.cancelled() and future.exception() is None:
                self._on_late(call, future.result())
            raise

    @property
    def owed(self) -> int:
        """How many replies are still to come that tell what was charged."""
        return sum(entry is not None and entry.call.asked is not None for entry in self._owed)

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
        # The transport lets go of its socket in the loop's next turn.
        await asyncio.sleep(0)

    def _closed(self) -> StoreError:
        return StoreError(f"the connection to {self.where} was closed", unsure=True)

    async def _connected(self, until: float) -> None:
        if self._opening is None:
            self._opening = self._loop.create_task(self._open())
            self._opening.add_done_callback(self._tried)
        opening = self._opening
        await asyncio.wait((opening,), timeout=until - self._loop.time())
        if not opening.done():
            raise unconnected(self.where, self._deadline, self._before)
        problem = self._failure(opening)
        if problem is not None:
            raise problem

    def _tried(self, opening: asyncio.Task[None]) -> None:
        """Keep why a connection could not be opened: nobody may wait for it any more."""
        problem = self._failure(opening)
        self._before = None if problem is None else str(problem)

    def _failure(self, opening: asyncio.Task[None]) -> StoreError | None:
        problem = None if opening.cancelled() else opening.exception()
        if problem is None or isinstance(problem, StoreError):
            return problem
        return unreachable(problem, self.where)

    async def _open(self) -> None:
        try:
            stream = await self._opener()
        finally:
            self._opening = None
        if stream.ended is not None:
            raise stream.ended
        self._opened = self._heard = self._loop.time()
        stream.listen(self._deliver, self._broken, self._send)
        self._stream = stream

    def _send(self) -> None:
        """Send what has gathered in one piece; what gathers while it is full, once it is not."""
        stream = self._stream
        self._leaving = stream is not None and stream.is_full
        if stream is None:
            self._break(StoreError(f"{self.where} is not connected"))
        if stream is None or stream.is_full:
            return
        pieces: list[bytes] = []
        owed, now = self._owed, self._loop.time()
        for entry in self._unsent:
            if not entry.future.done():
                entry.sent = now
                pieces += entry.commands
                owed.extend([None] * (len(entry.commands) - 1))
                owed.append(entry)
        self._unsent.clear()
        if pieces:
            stream.send(pieces)

    def _deliver(self, reply: object) -> None:
        """Hand a reply to its call: they come in the order of the calls."""
        self._heard, self._doubted = self._loop.time(), False
        if not self._owed:
            self._broken(said.ConnectionError("the server answered what nobody had asked"))
            return
        entry, moved_away = self._owed.popleft(), False
        if isinstance(reply, Exception):
            reply = unwrapped(reply)
            moved_away = isinstance(reply, MOVED_AWAY)
        if entry is not None:
            if entry.future.done():
                self._on_late(entry.call, reply)
            else:
                entry.future.set_result(reply)
        if moved_away:
            gone = f"{self.where} is not the one to write to any more"
            self._break(StoreError(gone, unsure=True))

    def _expire(self) -> None:
        """Tell the calls whose time is over, and give up a connection that has gone silent."""
        self._timer = None
        now = self._loop.time()
        ends = []
        for entry in (*self._owed, *self._unsent):
            if entry is None or entry.future.done():
                continue
            if entry.until <= now:
                entry.future.set_exception(overdue(self.where, self._deadline))
            else:
                ends.append(entry.until)
        sent = next((entry.sent for entry in self._owed if entry is not None), None)
        if sent is not None:
            silence = max(sent, self._heard) + PATIENCE * self._deadline
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

    def _broken(self, problem: BaseException) -> None:
        self._break(unreachable(problem, self.where, unsure=True))

    def _break(self, problem: StoreError) -> None:
        """Give up the connection: nobody will hear of what is owed any more."""
        stream, self._stream = self._stream, None
        self._doubted = self._leaving = False
        self.lost += self.owed
        owed, self._owed = self._owed, deque()
        unsent, self._unsent = self._unsent, []
        for entry in (*owed, *unsent):
            if entry is not None and not entry.future.done():
                entry.future.set_exception(
                    StoreError(str(problem), unsure=problem.unsure and bool(entry.sent))
                )
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if stream is not None:
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

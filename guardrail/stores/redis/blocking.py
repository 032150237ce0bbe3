"""Connections for threads, held open to be used again, each by one thread at a time.

Opening one takes name resolution, TLS and a log-in, which are not a decision's time to spend: it
happens in a thread of its own, started when a connection is missing, while whoever needs it waits
no longer than its own deadline.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from ssl import SSLWantReadError
from time import monotonic
from typing import Any

from hiredis import Reader
from redis import connection as connections
from redis import exceptions as said
from redis.retry import Retry
from redis.sentinel import Sentinel

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
from guardrail.stores.redis.servers import PATIENCE, Library, OnLate, Servers
from guardrail.stores.steps import Steps, performed

RESTED = 0.5
"""Seconds of rest after which a connection is looked at before use: it may have been closed."""
AT_ONCE = 65536
"""Bytes read at once."""
CLOSE_ENOUGH = 0.001
"""Seconds by which a wait may miss its end, where setting it anew would cost a system call."""


class BlockingConnection:
    """A connection used by one thread at a time.

    redis-py opens it, logs in and closes it; between, its socket is ours. Replies come in the
    order of the commands: those that are `owed`, to a call (None if it does not matter) that was
    sent at a moment, come first, and are handed to `on_late`.
    """

    def __init__(self, connection: Any) -> None:
        self.opened = self._used = monotonic()
        self.owed: deque[tuple[Call | None, float]] = deque()
        self.on_late: OnLate | None = None
        self._connection = connection
        self._socket = connection._sock
        self._bound = 0.0
        self._replies = Reader(
            protocolError=said.InvalidResponse, replyError=connection._parser.parse_error
        )

    def usable(self) -> bool:
        """Tell whether the connection still stands, as far as can be told without asking."""
        if self.owed or monotonic() - self._used < RESTED:
            return True
        try:
            return not self._filled(0.0)
        except (said.RedisError, OSError):
            return False

    def silent(self, patience: float) -> bool:
        """Tell whether an owed reply is older than `patience` seconds."""
        return bool(self.owed) and monotonic() - self.owed[0][1] > patience

    def ask(self, commands: Sequence[bytes], until: float) -> object:
        """Send packed commands; return the reply to the last, also if it is an error.

        Raises:
            TimeoutError (of redis): it did not come until then, by the monotonic clock.
            RedisError, OSError: the connection broke; the commands may or may not have left.
        """
        for _ in commands[1:]:
            self.owe(None)
        self.send(commands, until)
        while self.owed:
            self._deliver(self.receive(until))
        reply = self.receive(until)
        self._used = monotonic()
        return reply

    def exchange(self, command: bytes, timeout: float) -> object:
        """Send a command; return its reply, within so many seconds."""
        return self.ask((command,), monotonic() + timeout)

    def owe(self, call: Call | None) -> None:
        """Note that the reply to the last command is still to come."""
        self.owed.append((call, monotonic()))

    def poll(self) -> None:
        """Take what has come of the owed replies, without waiting.

        Raises:
            RedisError, OSError: the connection broke.
        """
        with suppress(said.TimeoutError):
            while self.owed:
                self._deliver(self.receive(0.0))

    def send(self, commands: Sequence[bytes], until: float) -> None:
        """Send packed commands in one piece."""
        if not self._bound:
            self._wait(until)
        self._socket.sendall(b"".join(commands))

    def receive(self, until: float) -> object:
        """Return the next reply; what has come is returned even if it is too late to wait."""
        while (reply := self._replies.gets()) is False:
            if not self._filled(until):
                raise said.TimeoutError("no reply")
        return reply

    def close(self) -> None:
        """Close the connection; closing twice is harmless."""
        with suppress(said.RedisError, OSError):
            self._connection.disconnect()

    def _deliver(self, reply: object) -> None:
        call, _ = self.owed.popleft()
        if call is not None and self.on_late is not None:
            self.on_late(call, reply)

    def _filled(self, until: float) -> bool:
        """Wait for a piece of a reply; tell whether one came."""
        self._wait(until)
        try:
            piece = self._socket.recv(AT_ONCE)
        except (TimeoutError, BlockingIOError, SSLWantReadError):
            return False
        if not piece:
            raise said.ConnectionError("the server closed the connection")
        self._replies.feed(piece)
        return True

    def _wait(self, until: float) -> None:
        """Have the socket wait until a moment (monotonic seconds), or not at all after it."""
        left = max(0.0, until - monotonic())
        if not (left and self._bound and abs(self._bound - left) < CLOSE_ENOUGH):
            self._socket.settimeout(left)
            self._bound = left


Opener = Callable[[], BlockingConnection]


class Pool:
    """Held connections to the server that `opener` reaches; safe to share between threads.

    `lost` counts the calls whose replies will never come.
    """

    def __init__(self, opener: Opener, where: str, deadline: float, on_late: OnLate) -> None:
        self.where = where
        self.lost = 0
        self.owing = 0
        self._on_late = on_late
        self._opener = opener
        self._deadline = deadline
        self._lock = threading.RLock()
        # Told of each connection that is free, where somebody waits for one.
        self._free = threading.Condition(self._lock)
        self._waiting = 0
        self._idle: list[BlockingConnection] = []
        self._retired = 0.0
        self._connecting = self._closed = False
        self._problem: StoreError | None = None
        self._before: str | None = None

    def ask(self, commands: Sequence[bytes], call: Call, until: float) -> object:
        """Send packed commands; return the reply to the last, also if it is an error.

        Raises:
            StoreError: it did not come until then, by the monotonic clock.
        """
        connection = self.take(until)
        if monotonic() >= until:
            self.give(connection)
            raise unasked(self.where)
        try:
            reply = connection.ask(commands, until)
        except said.TimeoutError as problem:
            connection.owe(call)
            self.give(connection)
            raise overdue(self.where, self._deadline) from problem
        except BaseException as problem:
            self._drop(connection, call)
            if isinstance(problem, (said.RedisError, OSError)):
                raise unreachable(problem, self.where, unsure=True) from problem
            raise
        if isinstance(reply, Exception):
            reply = unwrapped(reply)
            if isinstance(reply, MOVED_AWAY):
                # It is not the one to write to any more: older connections lead there as well.
                self._drop(connection)
                self.retire(connection.opened)
                return reply
        self.give(connection)
        return reply

    def retire(self, moment: float) -> None:
        """Have no connection used any more that was opened by a moment (monotonic seconds)."""
        with self._lock:
            self._retired = max(self._retired, moment)
            older = [each for each in self._idle if each.opened <= moment]
            self._idle = [each for each in self._idle if each.opened > moment]
        for each in older:
            self._drop(each)

    def close(self) -> None:
        """Close every connection that nobody uses, and the one that is being opened."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            self._drop(connection)

    def owes(self) -> bool:
        """Tell whether replies are still to come, after taking in those that have come."""
        with self._lock:
            if self.owing:
                self._poll()
            return bool(self.owing)

    def take(self, until: float) -> BlockingConnection:
        """Return a connection that nobody uses, to be given back.

        Raises:
            StoreError: there is none until then (monotonic seconds).
        """
        with self._lock:
            self._closed = False
            if self.owing:
                self._poll()
            while True:
                while self._idle:
                    connection = self._idle.pop()
                    if connection.usable():
                        return connection
                    connection.close()
                self._connect()
                self._waiting += 1
                try:
                    came = self._free.wait(until - monotonic())
                finally:
                    self._waiting -= 1
                if not came and not self._idle:
                    raise unconnected(self.where, self._deadline, self._before)
                if self._problem is not None and not self._idle:
                    raise self._problem

    def give(self, connection: BlockingConnection) -> None:
        """Put a connection back."""
        if connection.opened <= self._retired or self._closed:
            self._drop(connection)
            return
        with self._lock:
            if connection.owed:
                self.owing += 1
            self._idle.append(connection)
            if self._waiting:
                self._free.notify()

    def _drop(self, connection: BlockingConnection, call: Call | None = None) -> None:
        """Close a connection that is of no more use, and will not answer a call."""
        with self._lock:
            self.lost += sum(
                each is not None and each.asked is not None
                for each in (call, *(owed for owed, _ in connection.owed))
            )
        connection.close()

    def _poll(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            try:
                connection.poll()
                broken = connection.silent(PATIENCE * self._deadline)
            except (said.RedisError, OSError):
                broken = True
            if broken:
                self._drop(connection)
            else:
                self._idle.append(connection)
        self.owing = sum(bool(connection.owed) for connection in self._idle)

    def _connect(self) -> None:
        if self._connecting:
            return
        self._connecting = True
        self._problem = None
        try:
            threading.Thread(target=self._open, name="guardrail-connect", daemon=True).start()
        except BaseException as problem:
            # The system has no thread to give now; the next call asks it again.
            self._connecting = False
            if isinstance(problem, RuntimeError):
                raise unreachable(problem, self.where) from problem
            raise

    def _open(self) -> None:
        connection: BlockingConnection | None = None
        problem: StoreError | None = None
        try:
            connection = self._opener()
            connection.on_late = self._on_late
        except Exception as error:  # whatever it is, those who wait must hear of it
            problem = error if isinstance(error, StoreError) else unreachable(error, self.where)
        with self._lock:
            self._connecting = False
            self._problem = problem
            self._before = None if problem is None else str(problem)
            unwanted = connection if self._closed else None
            if connection is not None and unwanted is None:
                self._idle.append(connection)
            self._free.notify_all()
        if unwanted is not None:
            unwanted.close()


class BlockingServers(Servers[Pool]):
    """Pools of held connections, one a server; safe to share between threads."""

    library = Library(connections, Retry, Sentinel, "close")
    adopt, connected, performed = BlockingConnection, Pool, staticmethod(performed)

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings, time=monotonic, sleep=time.sleep)

    def in_background(self, steps: Steps[None]) -> None:
        """Have steps performed in a thread."""
        work = partial(performed, steps)
        # Where the system has no thread to give now, a later call looks.
        with suppress(RuntimeError):
            threading.Thread(target=work, name="guardrail-look", daemon=True).start()

    def look(self) -> None:
        """Take the replies that have come since, and look whether the primary is another one."""
        super().look()
        for pool in self.every():
            if pool.owing:
                pool.owes()

    def close(self) -> None:
        """Close every connection."""
        for pool in self.every():
            pool.close()

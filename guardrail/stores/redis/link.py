"""One held connection to a server, and the replies it still owes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import NamedTuple, Protocol, cast

from hiredis import pack_command
from redis import exceptions as said

from guardrail.stores.redis.dialogue import Call

RESTED = 0.5
"""Seconds of rest after which a connection is looked at before use: it may have been closed."""


ANSWERS = (said.ResponseError, said.BusyLoadingError, said.AuthenticationError)
"""Errors that a server answers with; the connection stands."""


def command(parts: Sequence[bytes | str | int]) -> bytes:
    """Return a command as it is sent."""
    return cast(bytes, pack_command(tuple(parts)))  # type: ignore[arg-type]


class Socket(Protocol):
    """What is used of a connection's socket."""

    def settimeout(self, seconds: float, /) -> None:
        """Bound every read from here on."""
        ...


class Connection(Protocol):
    """What is used of a connection of redis-py, version 5 and later.

    How long a read may take is said to its socket: `read_response` takes a `timeout` from version
    8 on only.
    """

    _sock: Socket

    def send_packed_command(self, command: Sequence[bytes], check_health: bool = True) -> None:
        """Send packed commands."""
        ...

    def can_read(self, timeout: float = 0) -> bool:
        """Tell whether something has come; raises if the connection was closed."""
        ...

    def read_response(
        self, disable_decoding: bool = False, *, disconnect_on_error: bool = True
    ) -> object:
        """Return the next reply."""
        ...

    def disconnect(self) -> None:
        """Close the connection."""
        ...


def read(connection: Connection, timeout: float) -> object:
    """Return the next reply; `timeout` in seconds bounds each wait for a piece of it.

    Raises:
        RedisError, OSError: it did not come, or the connection broke.
    """
    connection._sock.settimeout(timeout)
    return connection.read_response(disable_decoding=True, disconnect_on_error=False)


class Owed(NamedTuple):
    """A reply that did not come in time: to which call (None if it does not matter), sent when."""

    call: Call | None
    sent: float


class Late(NamedTuple):
    """A reply that came after all."""

    call: Call
    reply: object


class Link:
    """A connection used by one thread at a time.

    Replies come in the order of the commands: those that are owed come first, and are kept as
    `late`. It is `silent` once nothing was heard of an owed reply for a while.
    """

    __slots__ = ("_connection", "_used", "late", "opened", "owed")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.opened = self._used = monotonic()
        self.owed: deque[Owed] = deque()
        self.late: list[Late] = []

    def usable(self) -> bool:
        """Tell whether the connection still stands, as far as can be told without asking."""
        if self.owed or monotonic() - self._used < RESTED:
            return True
        try:
            return not self._connection.can_read(0)
        except (said.RedisError, OSError):
            return False

    def silent(self, patience: float) -> bool:
        """Tell whether an owed reply is older than `patience` seconds."""
        return bool(self.owed) and monotonic() - self.owed[0].sent > patience

    def send(self, command: Sequence[bytes]) -> None:
        """Send packed commands.

        Raises:
            RedisError, OSError: they may or may not have left.
        """
        self._connection.send_packed_command(command, check_health=False)

    def receive(self, until: float) -> object:
        """Return the reply to the command just sent; an error it was answered with is returned.

        Raises:
            TimeoutError (of redis): it did not come until then, by the monotonic clock.
            RedisError, OSError: the connection broke.
        """
        while self.owed:
            self._settle_owed(self._read(until))
        reply = self._read(until)
        self._used = monotonic()
        return reply

    def owe(self, call: Call | None) -> None:
        """Note that the reply to the last command is still to come."""
        self.owed.append(Owed(call, monotonic()))

    def poll(self) -> None:
        """Take what has come of the owed replies, without waiting.

        Raises:
            RedisError, OSError: the connection broke.
        """
        while self.owed and self._connection.can_read(0):
            self._settle_owed(self._read(monotonic() + 0.001))

    def close(self) -> None:
        """Close the connection; closing twice is harmless."""
        try:
            self._connection.disconnect()
        except (said.RedisError, OSError):
            return

    def _settle_owed(self, reply: object) -> None:
        call = self.owed.popleft().call
        if call is not None:
            self.late.append(Late(call, reply))

    def _read(self, until: float) -> object:
        left = until - monotonic()
        if left <= 0 and not self._connection.can_read(0):
            raise said.TimeoutError("no time left")
        try:
            return read(self._connection, max(left, 0.001))
        except ANSWERS as answer:
            return answer

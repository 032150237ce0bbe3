"""The held connections to one server: no lap through a client for each command.

Opening one takes name resolution, TLS and a log-in, which are not a decision's time to spend: it
happens in a thread of its own, started when a connection is missing, while whoever needs it waits
no longer than its own deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import monotonic

from redis import exceptions as said

from guardrail.errors import StoreError
from guardrail.stores.redis.dialogue import ACQUIRE, Call
from guardrail.stores.redis.faults import unconnected, unreachable
from guardrail.stores.redis.link import Connection, Late, Link

Opener = Callable[[], Connection]

LOOK_EVERY = 0.001
PATIENCE = 2
"""Deadlines of silence after which a connection that owes a reply is given up."""


class Pool:
    """Held connections to the server that `opener` reaches; safe to share between threads.

    `late` collects replies that came after their deadline; `lost` counts those that never will.
    """

    def __init__(self, opener: Opener, where: str, deadline: float) -> None:
        self.where = where
        self.lost = 0
        self.late: list[Late] = []
        self._opener = opener
        self._deadline = deadline
        self._free = threading.Condition()
        self._idle: list[Link] = []
        self._owing = 0
        self._retired = 0.0
        self._connecting = self._closed = False
        self._problem: StoreError | None = None

    def take(self, until: float) -> Link:
        """Return a connection that nobody uses; give it back, or drop it.

        Raises:
            StoreError: there is none until then (monotonic seconds); nothing was sent.
        """
        with self._free:
            self._closed = False
            if self._owing:
                self._poll()
            while True:
                while self._idle:
                    link = self._idle.pop()
                    if link.usable():
                        return link
                    link.close()
                self._connect()
                if not self._free.wait(until - monotonic()) and not self._idle:
                    raise unconnected(self.where, self._deadline)
                if self._problem is not None and not self._idle:
                    raise self._problem

    def give(self, link: Link) -> None:
        """Put a connection back."""
        if link.opened <= self._retired or self._closed:
            self.drop(link)
            return
        with self._free:
            self._owing += bool(link.owed)
            self.late += link.late
            link.late = []
            self._idle.append(link)
            self._free.notify()

    def drop(self, link: Link, call: Call | None = None) -> None:
        """Close a connection that is of no more use, and will not answer a call."""
        with self._free:
            self.late += link.late
            self.lost += lost_among([call, *(owed.call for owed in link.owed)])
        link.close()

    def leave(self, link: Link) -> None:
        """Close a connection to a server that is not the one any more, and all older ones."""
        self.drop(link)
        self.retire(link.opened)

    def retire(self, moment: float) -> None:
        """Have no connection used any more that was opened by a moment (monotonic seconds)."""
        with self._free:
            self._retired = max(self._retired, moment)
            older = [each for each in self._idle if each.opened <= moment]
            self._idle = [each for each in self._idle if each.opened > moment]
        for each in older:
            self.drop(each)

    def close(self) -> None:
        """Close every connection that nobody uses, and the one that is being opened."""
        with self._free:
            self._closed = True
            idle, self._idle = self._idle, []
        for link in idle:
            self.drop(link)

    def collect(self) -> None:
        """Take the replies that have come since, and give up on those that will not."""
        if self._owing:
            with self._free:
                self._poll()

    def late_replies(self) -> list[Late]:
        """Return the replies that came after their deadline, each once."""
        with self._free:
            late, self.late = self.late, []
            return late

    def drain(self) -> None:
        """Wait for the replies that are owed, no longer than a deadline."""
        until = monotonic() + self._deadline
        with self._free:
            self._poll()
            while self._owing and monotonic() < until:
                self._free.wait(LOOK_EVERY)
                self._poll()

    def _poll(self) -> None:
        kept = []
        for link in self._idle:
            try:
                link.poll()
                broken = link.silent(PATIENCE * self._deadline)
            except (said.RedisError, OSError):
                broken = True
            self.late += link.late
            link.late = []
            if broken:
                self.lost += lost_among([owed.call for owed in link.owed])
                link.close()
            else:
                kept.append(link)
        self._idle = kept
        self._owing = sum(bool(link.owed) for link in kept)

    def _connect(self) -> None:
        if self._connecting:
            return
        self._connecting = True
        self._problem = None
        threading.Thread(target=self._opened, name="guardrail-connect", daemon=True).start()

    def _opened(self) -> None:
        link: Link | None = None
        problem: StoreError | None = None
        try:
            link = Link(self._opener())
        except Exception as error:  # whatever it is, those who wait must hear of it
            problem = error if isinstance(error, StoreError) else unreachable(error, self.where)
        with self._free:
            self._connecting = False
            self._problem = problem
            unwanted = link if self._closed else None
            if link is not None and unwanted is None:
                self._idle.append(link)
            self._free.notify_all()
        if unwanted is not None:
            unwanted.close()


def lost_among(calls: Sequence[Call | None]) -> int:
    """Count the calls whose outcome nobody will know: what they charged stays charged."""
    return sum(call is not None and call.kind == ACQUIRE for call in calls)

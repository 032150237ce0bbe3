"""Keeps the places in flight of requests alive while they are served: when, and what sees to it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from enum import Enum
from typing import Protocol
from weakref import WeakSet, finalize, ref

from guardrail.model.amounts import SECOND
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Concurrency

LOG = logging.getLogger("guardrail")
THREAD = "guardrail-leases"
RENEWALS_PER_LEASE = 3


class Renewal(Enum):
    """What a request that is still being served needs for its places in flight.

    `EXTEND` its leases, or `REACQUIRE` its places, which others may have taken since the leases
    ran out: the process was suspended, say.
    """

    EXTEND = "extend"
    REACQUIRE = "reacquire"


class Lease:
    """When the places in flight of a decision are to be renewed, or taken anew."""

    __slots__ = ("_lapsed", "_renewed", "_seconds", "every")

    def __init__(self, seconds: float, now: float) -> None:
        """Take how long a lease lasts that begins `now`, in seconds."""
        self.every = seconds / RENEWALS_PER_LEASE
        """How many seconds pass between two renewals."""
        self._seconds = seconds
        self._renewed = now
        self._lapsed = False

    def due(self, now: float) -> Renewal | None:
        """Return what is needed at `now`, None if nothing, and take it that it is done."""
        if now - self._renewed < self.every:
            return None
        self._lapsed = self._lapsed or now - self._renewed >= self._seconds
        self._renewed = now
        return Renewal.REACQUIRE if self._lapsed else Renewal.EXTEND

    def taken(self, now: float) -> None:
        """Take that another decision took the places at `now`."""
        self._renewed = now
        self._lapsed = False

    def reacquired(self) -> None:
        """Take that the places were taken anew."""
        self._lapsed = False


def lease_of(policies: PolicySet) -> float | None:
    """Return the shortest lease that a policy set gives, in seconds, None if it gives none."""
    leases = [rule.verb.lease for rule in policies.rules if isinstance(rule.verb, Concurrency)]
    return min(leases, default=0) / SECOND or None


class LeaseTimer:
    """Calls `renew` every so many seconds of the event loop's time, until it is cancelled."""

    __slots__ = ("_every", "_renew", "_timer")

    def __init__(self, every: float | None, renew: Callable[[], object]) -> None:
        """Begin; there is nothing to do where `every` is None."""
        self._every = every
        self._renew = renew
        self._timer: asyncio.TimerHandle | None = None
        self.start()

    def start(self) -> None:
        """Begin anew: `renew` is called after a whole interval."""
        self.cancel()
        if self._every is not None:
            self._timer = asyncio.get_running_loop().call_later(self._every, self._tick)

    def cancel(self) -> None:
        """Stop."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._renew()
        self.start()


class Renewable(Protocol):
    """A request that is being served."""

    def renew_if_due(self) -> None:
        """Extend its leases if they are due."""
        ...


class LeaseThread:
    """Looks after the requests of one process that hold leases, until each is dropped.

    Its one thread starts with the first of them and sleeps between rounds; it keeps neither a
    process nor this alive. A request that its server neither ends nor holds any more is
    forgotten, and its leases with it.
    """

    def __init__(self) -> None:
        self._open: WeakSet[Renewable] = WeakSet()
        # A request that is collected as garbage may end within a call of the same thread.
        self._lock = threading.RLock()
        self._woken = threading.Event()
        self._pause: float | None = None
        self._closed = False

    def watch(self, served: Renewable, every: float) -> None:
        """Look after a request whose leases are due every so many seconds.

        Raises:
            RuntimeError: the system has no thread to give; the next request asks it again.
        """
        with self._lock:
            if self._pause is None:
                self._start(every)
            elif every < self._pause:
                self._pause = every
                self._woken.set()
            self._open.add(served)

    def _start(self, pause: float) -> None:
        # The thread ends where it finds no pause: it is there before, and gone if none started.
        self._pause = pause
        try:
            threading.Thread(
                target=_rounds, args=(ref(self), self._woken), name=THREAD, daemon=True
            ).start()
        except BaseException:
            self._pause = None
            raise
        finalize(self, self._woken.set).atexit = False

    def drop(self, served: Renewable) -> None:
        """Forget a request that has ended."""
        with self._lock:
            self._open.discard(served)

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._woken.set()

    @property
    def pause(self) -> float | None:
        """How many seconds the thread sleeps between rounds; None once it is to end."""
        return None if self._closed else self._pause

    def renew(self) -> None:
        """Make one round."""
        with self._lock:
            every = list(self._open)
        for served in every:
            try:
                served.renew_if_due()
            except Exception:
                LOG.exception("a lease was not renewed")


def _rounds(of: ref[LeaseThread], woken: threading.Event) -> None:
    """Make rounds until what they are for is closed, or gone."""
    # A round comes before a lease is two thirds over, whenever in a pause it began.
    while (pause := _pause_of(of)) is not None:
        if woken.wait(pause):
            woken.clear()
        renewals = of()
        if renewals is not None and renewals.pause is not None:
            renewals.renew()
        del renewals


def _pause_of(of: ref[LeaseThread]) -> float | None:
    renewals = of()
    return None if renewals is None else renewals.pause

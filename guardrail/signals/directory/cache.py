"""Answers of a slow source: cached for a while, asked for once at a time, used on when it fails."""

from __future__ import annotations

import asyncio
import enum
import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Expired
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Generic, NamedTuple, TypeVar

from cachetools import LRUCache

from guardrail.signals.addresses import network_of
from guardrail.signals.directory.identity import SourceError
from guardrail.signals.directory.queueing import Queue
from guardrail.signals.directory.reports import Reports, place_of

V = TypeVar("V")

_WAITING = 10  # how many wait for each place, at most

Ask = Callable[[], "Future[object]"]
"""Begins a call of the source; its future holds what the source told, or what went wrong."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long answers count (seconds), and how many are kept.

    An answer is used for `ttl`; that there is none for a key, for `unknown_ttl`. While the source
    fails, the last answer is used until it is `stale` old. A request waits for the source at most
    `timeout`. A key whose call failed is not asked for again within `retry`. Keys known to the
    source, and keys unknown to it, are kept apart, so that invented ones displace no known one;
    at most `calls` are under way at once for either. Keys not seen before wait for their place,
    fairly between the networks they come from, those last that sent unknown ones lately.
    """

    ttl: float = 30.0
    unknown_ttl: float = 10.0
    stale: float = 3600.0
    timeout: float = 1.0
    retry: float = 1.0
    most_known: int = 100_000
    most_unknown: int = 10_000
    calls: int = 100


class Age(enum.Enum):
    """How an answer stands: to be used, to be used while the source fails, too old, or none."""

    FRESH = "fresh"
    STALE = "stale"
    EXPIRED = "expired"
    NONE = "none"


class Standing(NamedTuple, Generic[V]):
    """An answer and how it stands; a fresh None says that the source knows no such key.

    `at` is when it was asked for, in seconds since the epoch.
    """

    value: V | None
    age: Age
    at: float = 0.0


class _Flight:
    """One call, under way or to begin: since when it is waited for, by the process's own clock.

    `start` begins it where it belongs, on the event loop of who asked say.
    """

    __slots__ = ("begun", "ended", "known", "now", "origin", "overdue", "process", "start")

    def __init__(self, now: float, known: bool, origin: str) -> None:
        self.now = now
        self.known = known
        self.origin = origin
        self.start: Callable[[], object] = _nothing
        self.begun = time.monotonic()
        self.ended: Future[None] = Future()
        self.overdue = False
        self.process = os.getpid()

    @property
    def lasted(self) -> float:
        return time.monotonic() - self.begun


def _nothing() -> None:
    return None


def _failed(problem: BaseException) -> Future[object]:
    failed: Future[object] = Future()
    failed.set_exception(problem)
    return failed


class Kept(Generic[V]):
    """Keeps answers by key; threads and tasks of any loop share one call for a key.

    `read` turns what the source told into an answer (None: no such key), or raises. A caller that
    is cancelled, or tired of waiting, does not end the call that others wait for.
    """

    def __init__(
        self,
        read: Callable[[object], V | None],
        freshness: Freshness,
        breaker: Breaker | None = None,
        reports: Reports | None = None,
    ) -> None:
        self.freshness = freshness
        self._reports = reports
        self.breaker = breaker or Breaker()
        self.last_failure = ""
        self._read = read
        self._lock = Lock()
        self._known: LRUCache[str, tuple[V, float]] = LRUCache(freshness.most_known)
        self._unknown: LRUCache[str, float] = LRUCache(freshness.most_unknown)
        self._failed: LRUCache[str, float] = LRUCache(freshness.most_unknown)
        self._flights: dict[str, _Flight] = {}
        self._waiting: Queue[tuple[str, _Flight]] = Queue(freshness.calls * _WAITING)
        self._busy = {True: 0, False: 0}
        self._process = os.getpid()
        self._advancing = False
        self.turned_away = 0

    def get(
        self,
        key: str,
        ask: Ask,
        now: float,
        *,
        at_most_every: float | None = None,
        origin: str | None = None,
    ) -> Standing[V]:
        """Return how a key's answer stands at `now`, after asking for it if it is not fresh.

        `at_most_every` (seconds) stands for `ttl` and `retry`, where another age counts. `origin`
        is the address of who asks, where that is known.
        """
        flight = self._flight(key, ask, now, at_most_every, origin)
        if flight is not None:
            try:
                flight.ended.result(self.freshness.timeout - flight.lasted)
            except Expired:
                self._overdue(key, flight)
        return self._standing(key, now, at_most_every)

    async def find(
        self,
        key: str,
        ask: Ask,
        now: float,
        *,
        at_most_every: float | None = None,
        origin: str | None = None,
    ) -> Standing[V]:
        """Return the same without blocking the event loop."""
        loop = asyncio.get_running_loop()
        flight = self._flight(key, ask, now, at_most_every, origin, loop)
        if flight is not None:
            left = self.freshness.timeout - flight.lasted
            await asyncio.wait({asyncio.wrap_future(flight.ended)}, timeout=left)
            if not flight.ended.done():
                self._overdue(key, flight)
        return self._standing(key, now, at_most_every)

    def forget(self, key: str) -> None:
        """Drop what is known of a key; a call under way for it no longer counts."""
        with self._lock:
            for answers in (self._known, self._unknown, self._failed):
                answers.pop(key, None)
            self._flights.pop(key, None)

    def _flight(
        self,
        key: str,
        ask: Ask,
        now: float,
        at_most_every: float | None,
        origin: str | None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> _Flight | None:
        """Return the call to wait for, begun if it can be; None if there is none to wait for."""
        dropped: tuple[str, _Flight] | None = None
        with self._lock:
            if self._stand(key, now, at_most_every).age is Age.FRESH:
                return None
            flight = self._flights.get(key)
            # A call of the process this one was forked from never ends here.
            if flight is not None and flight.process == os.getpid():
                return None if flight.overdue else flight
            retry = self.freshness.retry if at_most_every is None else at_most_every
            if key in self._failed and abs(now - self._failed[key]) < retry:
                return None
            self._forked()
            known = key in self._known
            full = self._busy[known] >= self.freshness.calls
            if (known and full) or not self.breaker.may_call(now):
                return None
            flight = _Flight(now, known, network_of(origin) or "")
            flight.start = partial(self._begin, key, flight, ask)
            if full:
                begin = flight.start
                if loop is not None:
                    flight.start = partial(loop.call_soon_threadsafe, begin)
                dropped = self._waiting.add(flight.origin, (key, flight))
            else:
                self._busy[known] += 1
            if dropped is None or dropped[1] is not flight:
                self._flights[key] = flight
        if dropped is not None:
            self._turn_away(*dropped)
        if not full:
            flight.start()
        return flight

    def _begin(self, key: str, flight: _Flight, ask: Ask) -> None:
        try:
            ask().add_done_callback(lambda told: self._landed(key, flight, told))
        except Exception as problem:  # whatever the source is: it failed
            self._landed(key, flight, _failed(problem))

    def _forked(self) -> None:
        """Forget what was under way in the process that this one was forked from."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._busy = {True: 0, False: 0}
            self._waiting = Queue(self.freshness.calls * _WAITING)
            self._advancing = False

    def _turn_away(self, key: str, flight: _Flight) -> None:
        """End a call that never began: it says nothing about the source."""
        with self._lock:
            if flight.ended.done():
                return
            self.turned_away += 1
            if self._flights.get(key) is flight:
                del self._flights[key]
            flight.ended.set_result(None)

    def _advance(self) -> None:
        """Begin the calls that wait, as far as there are places."""
        while True:
            with self._lock:
                # One at a time: a call that ends at once comes here again, and deeper each time.
                if self._advancing or self._busy[False] >= self.freshness.calls:
                    return
                waiting = self._waiting.next()
                if waiting is None:
                    return
                key, flight = waiting
                self._advancing = True
                self._busy[False] += 1
            try:
                if not self.breaker.may_call(flight.now + flight.lasted):
                    with self._lock:
                        self._busy[False] -= 1
                    self._turn_away(key, flight)
                    continue
                flight.start()
            except RuntimeError as problem:  # the event loop of who asked is closed
                self._landed(key, flight, _failed(problem))
            finally:
                with self._lock:
                    self._advancing = False

    def _landed(self, key: str, flight: _Flight, told: Future[object]) -> None:
        """Keep what a call brought, and let go those who wait for it."""
        answer: V | None = None
        failure = None
        try:
            answer = self._read(told.result())
        except BaseException as problem:  # a call that was cancelled brought nothing either
            failure = str(problem) if isinstance(problem, SourceError) else type(problem).__name__
            if self._reports is not None:
                known = isinstance(problem, SourceError)
                said = str(problem) if known else place_of(problem)
                self._reports.heard(said, flight.now + flight.lasted)
        with self._lock:
            self._busy[flight.known] = max(self._busy[flight.known] - 1, 0)
            if failure is None and not flight.known:
                self._waiting.told(flight.origin, doubtful=answer is None)
            current = self._flights.get(key) is flight
            if current:
                del self._flights[key]
                self._keep(key, answer, failure, flight)
        if failure is None:
            self.breaker.succeeded()
            if self._reports is not None:
                self._reports.heard(None, flight.now + flight.lasted)
        elif not flight.overdue:
            self.last_failure = failure
            self.breaker.failed(flight.now + flight.lasted)
        if not flight.ended.done():
            flight.ended.set_result(None)
        self._advance()

    def _keep(self, key: str, answer: V | None, failure: str | None, flight: _Flight) -> None:
        if failure is not None:
            self._failed[key] = flight.now + flight.lasted
            return
        self._failed.pop(key, None)
        if answer is None:
            self._known.pop(key, None)
            self._unknown[key] = flight.now
        else:
            self._unknown.pop(key, None)
            self._known[key] = answer, flight.now

    def _overdue(self, key: str, flight: _Flight) -> None:
        """Note, once, that a call lasts longer than anyone waits."""
        with self._lock:
            waits = self._waiting.remove(flight.origin, (key, flight))
        if waits:
            self._turn_away(key, flight)
            return
        with self._lock:
            if flight.overdue or flight.ended.done():
                return
            flight.overdue = True
        self.last_failure = f"no answer within {self.freshness.timeout:g} s"
        if self._reports is not None:
            self._reports.heard(self.last_failure, flight.now + flight.lasted)
        self.breaker.failed(flight.now + flight.lasted)

    def _standing(self, key: str, now: float, at_most_every: float | None) -> Standing[V]:
        with self._lock:
            return self._stand(key, now, at_most_every)

    def _stand(self, key: str, now: float, at_most_every: float | None) -> Standing[V]:
        # A clock that was set back by more than a while makes answers old, not fresh for longer.
        times = self.freshness
        known = self._known.get(key)
        if known is not None:
            value, at = known
            age = abs(now - at)
            if age <= (times.ttl if at_most_every is None else at_most_every):
                return Standing(value, Age.FRESH, at)
            return Standing(value, Age.STALE if age <= times.stale else Age.EXPIRED, at)
        told = self._unknown.get(key)
        if told is not None and abs(now - told) <= times.unknown_ttl:
            return Standing(None, Age.FRESH, told)
        return Standing(None, Age.NONE)


_SET_BACK = 10.0
"""Seconds by which the times of requests may differ, for those that wait, without more meaning."""


class Breaker:
    """Counts a source's failures in a row; once it is open, one trial a pause is let through.

    It opens after `failures` of them, for `pause` seconds; each trial that brings no answer
    doubles the pause, up to `longest`.
    """

    __slots__ = ("_first", "_lock", "_longest", "_most", "_pause", "_until", "failures")

    def __init__(self, failures: int = 5, pause: float = 1.0, longest: float = 30.0) -> None:
        self._lock = Lock()
        self._most = failures
        self._first = self._pause = pause
        self._longest = longest
        self._until: float | None = None
        self.failures = 0

    def may_call(self, now: float) -> bool:
        """Tell whether the source may be called at `now`; while open, true once a pause."""
        with self._lock:
            if self._until is None:
                return True
            # A clock that was set back by much does not keep the source shut until it is past it.
            if self._until - self._pause - _SET_BACK <= now < self._until:
                return False
            # The next pause is taken now, so that no second trial begins before this one ends.
            self._pause = min(self._pause * 2, self._longest)
            self._until = now + self._pause
            return True

    def succeeded(self) -> None:
        """Note an answer: the source is well."""
        with self._lock:
            self.failures = 0
            self._pause = self._first
            self._until = None

    def failed(self, now: float) -> None:
        """Note a call that ended at `now` without an answer."""
        with self._lock:
            self.failures += 1
            if self.failures >= self._most and self._until is None:
                self._until = now + self._pause

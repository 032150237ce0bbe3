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
"""Begins a call of the source; its future holds what the source answered, or what went wrong."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long answers count (seconds), and how many are cached.

    An answer is used for `ttl`; that there is none for a key, for `unknown_ttl`. While the source
    fails, the last answer is used until it is `stale` old. A request waits for the source at most
    `timeout`. A key whose call failed is not asked for again within `retry`. Keys known to the
    source, and keys unknown to it, are cached apart, so that invented ones displace no known one;
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
    """What an answer is good for: use, use while the source fails, nothing; or there is none."""

    FRESH = "fresh"
    STALE = "stale"
    EXPIRED = "expired"
    NONE = "none"


class Cached(NamedTuple, Generic[V]):
    """An answer and its age; a fresh None says that the source knows no such key.

    `at` is when it was asked for, in seconds since the epoch.
    """

    value: V | None
    age: Age
    at: float = 0.0


class Backoff:
    """Keeps requests from waiting, one after another, for a source that does not answer.

    After `failures` in a row, one trial a pause is let through; each that brings no answer doubles
    the pause, up to `longest`. Unlike the circuit breaker of stores, any answer ends it, however
    late, since it is cached for the next request; and no trial has to be handed back, since a
    host's function may never return.
    """

    __slots__ = ("_first", "_lock", "_longest", "_most", "_pause", "_until", "failures")

    # Times of requests may differ by so many seconds, for those that wait, and mean nothing by it.
    _SET_BACK = 10.0

    def __init__(self, failures: int = 5, pause: float = 1.0, longest: float = 30.0) -> None:
        self._lock = Lock()
        self._most = failures
        self._first = self._pause = pause
        self._longest = longest
        self._until: float | None = None
        self.failures = 0

    def may_call(self, now: float) -> bool:
        """Tell whether the source may be called at `now`; while it fails, true once a pause."""
        with self._lock:
            if self._until is None:
                return True
            # A clock that was set back by much does not keep the source shut until it is past it.
            if self._until - self._pause - self._SET_BACK <= now < self._until:
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


class _Call:
    """One call of the source, under way or waiting for its place.

    `start` begins it where it belongs, on the event loop of who asked say. `completed` is set, to
    nothing, when there is no more to wait for; what came of it is in the cache by then.
    """

    __slots__ = ("begun", "completed", "known", "now", "origin", "overdue", "process", "start")

    def __init__(self, now: float, known: bool, origin: str) -> None:
        self.now = now
        self.known = known
        self.origin = origin
        self.start: Callable[[], object] = lambda: None
        self.begun = time.monotonic()
        self.completed: Future[None] = Future()
        self.overdue = False
        self.process = os.getpid()

    @property
    def lasted(self) -> float:
        return time.monotonic() - self.begun

    @property
    def present(self) -> float:
        """The time of its request, carried on by the process's own clock."""
        return self.now + self.lasted


class Cache(Generic[V]):
    """Caches answers by key; threads and tasks of any loop share one call for a key.

    `read` turns what the source answered into a value (None: no such key), or raises. A caller that
    is cancelled, or tired of waiting, does not end the call that others wait for.

    One lock guards all tables and counts. It is held for no call of the source, of `read`, of the
    reports or of another's callback: any of these may come back here in the same thread.
    """

    def __init__(
        self,
        read: Callable[[object], V | None],
        freshness: Freshness,
        backoff: Backoff | None = None,
        reports: Reports | None = None,
        notice: Callable[[V, float], None] | None = None,
    ) -> None:
        """Take what reads an answer, and who is told of failures and of each value."""
        self.freshness = freshness
        self.backoff = backoff or Backoff()
        self.last_failure = ""
        self.rejected = 0
        self._reports = reports
        self._notice = notice
        self._read = read
        self._lock = Lock()
        self._known: LRUCache[str, tuple[V, float]] = LRUCache(freshness.most_known)
        self._unknown: LRUCache[str, float] = LRUCache(freshness.most_unknown)
        self._failed: LRUCache[str, float] = LRUCache(freshness.most_unknown)
        self._calls: dict[str, _Call] = {}
        self._reset()

    def _reset(self) -> None:
        """Start with nothing under way: what is, in the process this was forked from, is not here.

        `_busy` counts the calls under way for known and for unknown keys.
        """
        self._process = os.getpid()
        self._busy = {True: 0, False: 0}
        self._waiting: Queue[tuple[str, _Call]] = Queue(self.freshness.calls * _WAITING)
        self._advancing = False

    def get(
        self,
        key: str,
        ask: Ask,
        now: float,
        *,
        at_most_every: float | None = None,
        origin: str | None = None,
    ) -> Cached[V]:
        """Return a key's answer at `now`, after asking for it if it is not fresh.

        `at_most_every` (seconds) stands for `ttl` and `retry`, where another age counts. `origin`
        is the address of who asks, where that is known.
        """
        call = self._call(key, ask, now, at_most_every, origin)
        if call is not None:
            try:
                call.completed.result(self.freshness.timeout - call.lasted)
            except Expired:
                self._late(key, call)
        return self._cached(key, now, at_most_every)

    async def find(
        self,
        key: str,
        ask: Ask,
        now: float,
        *,
        at_most_every: float | None = None,
        origin: str | None = None,
    ) -> Cached[V]:
        """Return the same without blocking the event loop."""
        loop = asyncio.get_running_loop()
        call = self._call(key, ask, now, at_most_every, origin, loop)
        if call is not None:
            left = self.freshness.timeout - call.lasted
            await asyncio.wait({asyncio.wrap_future(call.completed)}, timeout=left)
            if not call.completed.done():
                self._late(key, call)
        return self._cached(key, now, at_most_every)

    def forget(self, key: str) -> None:
        """Drop what is known of a key; a call under way for it no longer counts."""
        with self._lock:
            for answers in (self._known, self._unknown, self._failed):
                answers.pop(key, None)
            self._calls.pop(key, None)

    def _call(
        self,
        key: str,
        ask: Ask,
        now: float,
        at_most_every: float | None,
        origin: str | None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> _Call | None:
        """Return the call to wait for, begun if it can be; None if there is none to wait for."""
        displaced: tuple[str, _Call] | None = None
        with self._lock:
            if self._look_up(key, now, at_most_every).age is Age.FRESH:
                return None
            call = self._calls.get(key)
            # A call of the process this one was forked from never ends here.
            if call is not None and call.process == os.getpid():
                return None if call.overdue else call
            retry = self.freshness.retry if at_most_every is None else at_most_every
            if key in self._failed and abs(now - self._failed[key]) < retry:
                return None
            if self._process != os.getpid():
                self._reset()
            known = key in self._known
            full = self._busy[known] >= self.freshness.calls
            if (known and full) or not self.backoff.may_call(now):
                return None
            call = _Call(now, known, network_of(origin) or "")
            call.start = partial(self._begin, key, call, ask)
            if full:
                if loop is not None:
                    call.start = partial(loop.call_soon_threadsafe, call.start)
                displaced = self._waiting.add(call.origin, (key, call))
            else:
                self._busy[known] += 1
            if displaced is None or displaced[1] is not call:
                self._calls[key] = call
        if displaced is not None:
            self._reject(*displaced)
        if not full:
            call.start()
        return call

    def _begin(self, key: str, call: _Call, ask: Ask) -> None:
        try:
            ask().add_done_callback(lambda answer: self._completed(key, call, answer))
        except Exception as problem:  # whatever the source is: it failed
            self._completed(key, call, _failure(problem))

    def _reject(self, key: str, call: _Call) -> None:
        """End a call that never began: it says nothing about the source."""
        with self._lock:
            if call.completed.done():
                return
            self.rejected += 1
            if self._calls.get(key) is call:
                del self._calls[key]
            call.completed.set_result(None)

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
                key, call = waiting
                self._advancing = True
                self._busy[False] += 1
            try:
                if not self.backoff.may_call(call.present):
                    with self._lock:
                        self._busy[False] -= 1
                    self._reject(key, call)
                    continue
                call.start()
            except RuntimeError as problem:  # the event loop of who asked is closed
                self._completed(key, call, _failure(problem))
            finally:
                with self._lock:
                    self._advancing = False

    def _completed(self, key: str, call: _Call, answer: Future[object]) -> None:
        """Cache what a call brought, and let go those who wait for it."""
        value: V | None = None
        failure = None
        try:
            value = self._read(answer.result())
        except SourceError as problem:
            failure = str(problem)
            self._report(failure, call)
        except BaseException as problem:  # a call that was cancelled brought nothing either
            failure = type(problem).__name__
            self._report(place_of(problem), call)
        with self._lock:
            self._busy[call.known] = max(self._busy[call.known] - 1, 0)
            if failure is None and not call.known:
                self._waiting.note(call.origin, doubtful=value is None)
            if self._calls.get(key) is call:
                del self._calls[key]
                self._store(key, value, failure, call)
        if failure is None:
            self.backoff.succeeded()
            self._report(None, call)
            if self._notice is not None and value is not None:
                self._notice(value, call.present)
        elif not call.overdue:
            self.last_failure = failure
            self.backoff.failed(call.present)
        if not call.completed.done():
            call.completed.set_result(None)
        self._advance()

    def _store(self, key: str, value: V | None, failure: str | None, call: _Call) -> None:
        if failure is not None:
            self._failed[key] = call.present
            return
        self._failed.pop(key, None)
        if value is None:
            self._known.pop(key, None)
            self._unknown[key] = call.now
        else:
            self._unknown.pop(key, None)
            self._known[key] = value, call.now

    def _late(self, key: str, call: _Call) -> None:
        """Note, once, that a call lasts longer than anyone waits."""
        with self._lock:
            waits = self._waiting.remove(call.origin, (key, call))
            noted = call.overdue or call.completed.done()
            if not waits and not noted:
                call.overdue = True
        if waits:
            self._reject(key, call)
        elif not noted:
            self.last_failure = f"no answer within {self.freshness.timeout:g} s"
            self._report(self.last_failure, call)
            self.backoff.failed(call.present)

    def _report(self, failure: str | None, call: _Call) -> None:
        if self._reports is not None:
            self._reports.record(failure, call.present)

    def _cached(self, key: str, now: float, at_most_every: float | None) -> Cached[V]:
        with self._lock:
            return self._look_up(key, now, at_most_every)

    def _look_up(self, key: str, now: float, at_most_every: float | None) -> Cached[V]:
        # A clock that was set back by more than a while makes answers old, not fresh for longer.
        times = self.freshness
        known = self._known.get(key)
        if known is not None:
            value, at = known
            age = abs(now - at)
            if age <= (times.ttl if at_most_every is None else at_most_every):
                return Cached(value, Age.FRESH, at)
            return Cached(value, Age.STALE if age <= times.stale else Age.EXPIRED, at)
        unknown_at = self._unknown.get(key)
        if unknown_at is not None and abs(now - unknown_at) <= times.unknown_ttl:
            return Cached(None, Age.FRESH, unknown_at)
        return Cached(None, Age.NONE)


def _failure(problem: BaseException) -> Future[object]:
    failed: Future[object] = Future()
    failed.set_exception(problem)
    return failed

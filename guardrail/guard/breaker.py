"""A circuit breaker: stops asking a store that does not answer, and finds out when it does again.

Pure but for its lock: the time is an argument, in seconds of any one clock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from enum import Enum

IN_A_ROW = 5
"""So many failures one after another open it."""
LEAST_CALLS, WORST_SHARE, WITHIN = 20, 0.5, 1.0
"""So does this share of failures, once there were so many calls within so many seconds."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 15.0
"""The pause before the first probe, in seconds; a probe that fails doubles it, up to the bound."""
MOST_JITTER = 0.25

_SLICES = 10


class State(Enum):
    """Whether calls pass (closed), none does (open), or one of them tries (half-open)."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Tells before each call whether to make it, and is told after each how it went.

    Safe to share between threads and tasks. `jitter` returns numbers from 0 up to 1, by which a
    pause is shortened, up to a quarter: processes that lost a store together do not all try it at
    once. None leaves pauses as they are.
    """

    def __init__(self, jitter: Callable[[], float] | None = None) -> None:
        self._jitter = jitter
        self.free()
        self._state = State.CLOSED
        self._round = 1
        self._row = 0
        # Slice of time, calls in it, failures in it.
        self._slices: deque[list[int]] = deque()
        self._backoff = 0.0
        self._pause = 0.0
        self._since = 0.0

    def free(self) -> None:
        """Hold nothing: in a forked child nobody else is left to let go of what is held.

        Within a call the collector of garbage may settle, in the same thread.
        """
        self._lock = threading.RLock()

    @property
    def state(self) -> State:
        """What it lets pass now."""
        return self._state

    def permit(self, now: float) -> int | None:
        """Return a permit for one call, None if it must not be made.

        Whoever takes one hands it back, to `succeeded`, `failed` or `abandoned`.
        """
        current = self.passing()
        if current is not None:
            return current
        with self._lock:
            if self._state is State.OPEN:
                # A clock that went back must not make the pause longer.
                self._since = min(self._since, now)
                if now - self._since < self._pause:
                    return None
                self._state = State.HALF_OPEN
                self._round += 1
                return self._round
            return self._round if self._state is State.CLOSED else None

    def passing(self) -> int | None:
        """Return a permit if all calls pass now, which needs no time to be told; else None."""
        # Read in this order, a permit of a round that is over is the worst that a race can give.
        current, state = self._round, self._state
        return current if state is State.CLOSED else None

    def succeeded(self, permit: int, now: float) -> bool:
        """Note that a call was answered; the probe's answer closes the breaker, which is told."""
        with self._lock:
            if permit != self._round:
                return False
            closes = self._state is State.HALF_OPEN
            if closes:
                self._state = State.CLOSED
                self._round += 1
                self._backoff = 0.0
            self._row = 0
            self._count(now, 0)
            return closes

    def failed(self, permit: int, now: float) -> bool:
        """Note that a call failed, and tell whether that opens the breaker, which was closed.

        What was let through before the last change has no say.
        """
        with self._lock:
            if permit != self._round or self._state is State.OPEN:
                return False
            if self._state is State.HALF_OPEN:
                self._open(now)
                return False
            self._row += 1
            self._count(now, 1)
            calls = sum(entry[1] for entry in self._slices)
            failures = sum(entry[2] for entry in self._slices)
            mostly = calls >= LEAST_CALLS and failures >= calls * WORST_SHARE
            opens = self._row >= IN_A_ROW or mostly
            if opens:
                self._open(now)
            return opens

    def abandoned(self, permit: int) -> None:
        """Note that a call ended without telling anything of the store: it was cancelled.

        A probe's place is free again at once.
        """
        with self._lock:
            if permit == self._round and self._state is State.HALF_OPEN:
                self._state = State.OPEN

    def _open(self, now: float) -> None:
        self._state = State.OPEN
        self._round += 1
        self._row = 0
        self._slices.clear()
        self._since = now
        self._backoff = min(max(FIRST_PAUSE, self._backoff * 2), LONGEST_PAUSE)
        early = 0.0 if self._jitter is None else self._jitter() * MOST_JITTER
        self._pause = self._backoff * (1 - early)

    def _count(self, now: float, failures: int) -> None:
        number = int(now / WITHIN * _SLICES)
        slices = self._slices
        if not slices or slices[-1][0] != number:
            slices.append([number, 0, 0])
            while slices[0][0] <= number - _SLICES or slices[0][0] > number:
                slices.popleft()
        latest = slices[-1]
        latest[1] += 1
        latest[2] += failures

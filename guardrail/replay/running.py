"""Replaying recorded traffic through a guard, on the recorded clock.

Each request is decided at its own time and settled `duration` later, in the order of time. The
clock that settles never goes back: a request older than one already seen (logs are often written
when a request ends) is still decided at its own time, which time conditions read, and the store
counts it in the newest window it has, so that no limit is overrun; replays count such requests.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass

from guardrail.engine import Decision
from guardrail.guard import Guard
from guardrail.model.effects import Effect
from guardrail.traffic.reading import Recorded
from guardrail.traffic.requests import Amounts, Request

Replayed = tuple[int, float, Request, Decision]
"""A request with its line and its time in seconds since the epoch, and what was decided."""

DAY = 86_400.0
RENEWAL = 60.0
"""How often, in seconds, a long request renews its leases, as a streaming host does."""

_NOTHING: Amounts = {}


@dataclass(slots=True)
class Course:
    """How a replay's clock went: first and newest time in seconds, and what came late.

    `late` counts the requests older than the newest before them, `furthest` is the longest such
    step back in seconds.
    """

    first: float | None = None
    newest: float = 0.0
    late: int = 0
    furthest: float = 0.0

    def merge(self, other: Course) -> Course:
        """Return the longer of two courses through the same traffic, one of which was stopped."""
        return max(self, other, key=lambda course: (course.newest, course.late))


class Begun:
    """Notes when traffic begins, and until when a replay of it warms up; `warmup` is in seconds."""

    def __init__(self, warmup: float) -> None:
        self.warm_until = float("-inf")
        self._warmup = warmup

    def of(self, traffic: Iterable[Recorded]) -> Iterator[Recorded]:
        """Pass on traffic."""
        coming = iter(traffic)
        if self._warmup:
            for recorded in coming:
                self.warm_until = recorded[1] + self._warmup
                yield recorded
                break
        yield from coming


class Replay:
    """A replay through one guard; `course` tells afterwards how its clock went.

    Of the traffic only the requests are decided whose facts are `mine`; the clock goes by all.
    """

    def __init__(
        self, guard: Guard, mine: Callable[[Mapping[str, object]], bool] | None = None
    ) -> None:
        self.course = Course()
        self._mine = mine
        self._guard = guard
        # due, order of entry, decision, usage, end of the request
        self._pending: list[tuple[float, int, Decision, Amounts, float]] = []
        self._entered = 0

    def run(self, traffic: Iterable[Recorded]) -> Generator[Replayed, None, None]:
        """Yield every request with its decision, in the order of the traffic.

        A request without an estimate is reserved as its like would be (`Request.reserved`), one
        without a usage settles at its estimate. A decision is not settled before the next one is
        asked for.
        """
        decide, settle = self._guard.decide, self._guard.settle
        course, pending, refusing = self.course, self._pending, Effect.THROTTLE
        newest, next_day, mine = -1.0, 0.0, self._mine
        for line, ts, request in traffic:
            if ts < newest:
                self._note_late(ts)
            else:
                newest = course.newest = ts
                if course.first is None:
                    course.first = ts
                if pending and pending[0][0] <= ts:
                    self._settle_due(ts)
                if ts >= next_day:
                    self._guard.begin_day(ts)
                    next_day = (ts // DAY + 1) * DAY
            if mine is not None and not mine(request.facts):
                continue
            usage = request.usage
            decision = decide(request.facts, request.reserved, now=ts)
            yield line, ts, request, decision
            if decision.effect < refusing:
                if request.released:
                    self._guard.release(decision, now=ts)
                elif request.duration:
                    self._enter(ts, ts + request.duration, decision, usage or _NOTHING)
                else:
                    settle(decision, usage or _NOTHING, now=ts)

    def finish(self) -> None:
        """Settle what is still in flight at the end of the traffic."""
        self._settle_due(float("inf"))

    def _note_late(self, ts: float) -> None:
        course = self.course
        course.late += 1
        course.furthest = max(course.furthest, course.newest - ts)
        course.first = ts if course.first is None else min(course.first, ts)

    def _enter(self, now: float, end: float, decision: Decision, usage: Amounts) -> None:
        self._entered += 1
        due = min(end, now + RENEWAL)
        heapq.heappush(self._pending, (due, self._entered, decision, usage, end))

    def _settle_due(self, now: float) -> None:
        pending = self._pending
        while pending and pending[0][0] <= now:
            due, _, decision, usage, end = heapq.heappop(pending)
            if due >= end:
                self._guard.settle(decision, usage, now=due)
            else:
                self._guard.renew(decision, now=due)
                self._enter(due, end, decision, usage)

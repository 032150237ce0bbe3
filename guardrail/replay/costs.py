"""What decisions cost: recorded traffic decided over and over, each decision timed."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import NamedTuple, cast

from guardrail.engine import Decision
from guardrail.guard import Guard
from guardrail.model.effects import Effect
from guardrail.model.policy import PolicySet
from guardrail.replay.running import Replay
from guardrail.traffic.reading import Recorded

Timer = Callable[[], int]
"""Returns a time in nanoseconds that only grows."""

PERCENTILES = (50, 95, 99)
ALL = "all"


class Cost(NamedTuple):
    """What the decisions of one outcome cost: how many there were, and percentiles in µs."""

    requests: int
    p50: float
    p95: float
    p99: float


class _Timed:
    """A guard that notes what each decision takes, in nanoseconds."""

    def __init__(self, guard: Guard, timer: Timer) -> None:
        self.taken: list[int] = []
        self.settle, self.release, self.renew = guard.settle, guard.release, guard.renew
        self.begin_day = guard.begin_day
        self._decide, self._timer = guard.decide, timer

    def decide(
        self, facts: Mapping[str, object], estimate: Mapping[str, object] | None, *, now: float
    ) -> Decision:
        decide, timer = self._decide, self._timer
        began = timer()
        decision = decide(facts, estimate, now=now)
        self.taken.append(timer() - began)
        return decision


def costs_by_effect(
    policies: PolicySet, traffic: Sequence[Recorded], rounds: int, timer: Timer
) -> dict[Effect, list[float]]:
    """Return what each decision took, in nanoseconds, by effect.

    The traffic is replayed by a fresh guard in memory once unmeasured and then `rounds` times. Of
    each request the median over the rounds is taken, so that the machine's own pauses are no tail.

    Raises:
        RuntimeError: a round decided otherwise than the one before.
    """
    taken = [_replayed(policies, traffic, timer) for _ in range(rounds + 1)][1:]
    effects = taken[0][0]
    if any(others != effects for others, _ in taken):
        raise RuntimeError("the same traffic was decided otherwise")
    found: dict[Effect, list[float]] = {}
    for effect, *nanos in zip(effects, *(nanos for _, nanos in taken), strict=True):
        found.setdefault(effect, []).append(median(nanos))
    return {effect: sorted(found[effect]) for effect in sorted(found)}


def summed_up(costs: Mapping[Effect, Sequence[float]]) -> dict[str, Cost]:
    """Return the cost of all decisions, and of each outcome, in microseconds."""
    every = sorted(nanos for found in costs.values() for nanos in found)
    named = {ALL: every, **{str(effect): found for effect, found in costs.items()}}
    return {
        name: Cost(len(found), *(percentile(found, percent) / 1e3 for percent in PERCENTILES))
        for name, found in named.items()
        if found
    }


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Return the least value that `percent` of some ordered values do not exceed."""
    return ordered[max(0, math.ceil(percent * len(ordered) / 100) - 1)]


def _replayed(
    policies: PolicySet, traffic: Sequence[Recorded], timer: Timer
) -> tuple[list[Effect], list[int]]:
    """Return how each request was decided by a fresh guard, and what that took."""
    gc.collect()
    guard = Guard.from_policies(policies, store="memory://", environ={})
    timed = _Timed(guard, timer)
    replay = Replay(cast(Guard, timed))
    effects = [decision.effect for _, _, _, decision in replay.run(traffic)]
    replay.finish()
    guard.close()
    return effects, timed.taken

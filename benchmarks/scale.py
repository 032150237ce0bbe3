"""T11: a million live accounts: what a decision then costs, and the longest it ever pauses."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from time import perf_counter, perf_counter_ns
from typing import Any

from benchmarks.populous import populous_costs
from benchmarks.results import Result
from benchmarks.timing import Contender, interleaved, micros, ratio
from benchmarks.workload import TOKENS, Clock, one_of_many, r5_guard
from guardrail import Guard

SCALE_MOST, PAUSE_MOST = 3.0, 2.0
BATCH = 10_000
QUICK = 1e-5
"""Seconds between requests while accounts arrive: all of them stay live."""
SLOW = 0.01
"""Seconds between requests while records expire: half an hour in 200,000 requests."""


def scale_costs(rounds: int, scale: float) -> list[Result]:
    """Return T11: one decision among a million accounts, and the pauses on the way there."""
    accounts = int(1_000_000 * scale)
    guard, clock = r5_guard(), Clock(QUICK)
    gc.collect()  # What was made before is not to be gone through within a decision here.
    pauses = sorted(_timed(guard, clock, range(accounts)))
    clock.step = SLOW
    expiring = sorted(_timed(guard, clock, range(0, accounts, 5)))
    noise = sorted(_noise(accounts))
    clock.step = QUICK
    few, few_clock = r5_guard(), Clock(QUICK)
    for _ in _timed(guard, clock, range(accounts)):
        pass
    costs = interleaved(
        {
            "few": _at_random(few, few_clock, 1000, BATCH),
            "many": _at_random(guard, clock, accounts, BATCH),
        },
        rounds,
    )
    note = f"{micros(costs, 'many'):.2f} µs against {micros(costs, 'few'):.2f}"
    what = f"R5 with {accounts:,} live accounts, against 1,000"
    value = ratio(costs, "many", "few")
    return [
        Result(target="T11", what=what, value=value, bound=SCALE_MOST, note=note),
        _pause(f"longest decision while {accounts:,} accounts arrive", pauses, PAUSE_MOST),
        _pause("longest decision while records expire", expiring, PAUSE_MOST),
        _pause("longest turn of an empty loop (this machine's own pauses)", noise, None),
        *populous_costs(rounds, scale),
    ]


def _pause(what: str, nanos: list[int], bound: float | None) -> Result:
    note = f"99.99 % within {nanos[int(len(nanos) * 0.9999)] / 1e6:.2f} ms"
    return Result(target="T11", what=what, value=nanos[-1] / 1e6, unit="ms", bound=bound, note=note)


def _timed(guard: Guard, clock: Clock, numbers: range) -> Iterator[int]:
    """Yield what each decision took in nanoseconds; facts are made outside of it."""
    decide = guard.decide
    for first in range(0, len(numbers), BATCH):
        batch = [one_of_many(number) for number in numbers[first : first + BATCH]]
        now, step = clock.now, clock.step
        taken = []
        for facts in batch:
            now += step
            began = perf_counter_ns()
            decide(facts, TOKENS, now=now)
            taken.append(perf_counter_ns() - began)
        clock.now = now
        yield from taken


def _noise(count: int) -> Iterator[int]:
    """Yield how long the same stretch of nothing took, `count` times, in nanoseconds."""
    idle: Callable[[Any], object] = _idle
    for _ in range(0, count, BATCH):
        taken = []
        for _ in range(BATCH):
            began = perf_counter_ns()
            idle(None)
            taken.append(perf_counter_ns() - began)
        yield from taken


def _idle(argument: object) -> None:
    for _ in range(200):
        pass


def _at_random(guard: Guard, clock: Clock, accounts: int, count: int) -> Contender:
    draw = random.Random(11)

    def run() -> float:
        batch = [one_of_many(draw.randrange(accounts)) for _ in range(count)]
        decide, now, step = guard.decide, clock.now, clock.step
        began = perf_counter()
        for facts in batch:
            now += step
            decide(facts, TOKENS, now=now)
        took = perf_counter() - began
        clock.now = now
        return took / count

    return run

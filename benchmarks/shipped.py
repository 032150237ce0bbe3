"""T13: the shipped policies on the sample week, by outcome: what a refusal costs beside an allow.

The first decision of a process is measured in one of its own: `python -m benchmarks.shipped`.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median, median_low
from time import thread_time_ns

from benchmarks.results import Result
from guardrail import Effect, Guard
from guardrail.loading import load_policies
from guardrail.model.policy import PolicySet
from guardrail.replay.costs import costs_by_effect
from guardrail.traffic.lines import LineSource
from guardrail.traffic.reading import Recorded, recorded_requests
from guardrail.traffic.requests import BadLines

ROOT = Path(__file__).parents[1]
POLICIES = ROOT / "policies"
WEEK = ROOT / "examples" / "traffic" / "sample-week.jsonl.gz"

REFUSED_MOST, TAIL_MOST, FIRST_MOST = 1.5, 3.0, 20.0
SHORTENED = 500
"""Requests of the week where little work is wanted."""
FIRST, FEW, WARM = 20, 3, 40
"""Requests that are the first of a guard, all and a few; and how often each of them then comes."""


def outcome_costs(rounds: int, scale: float) -> list[Result]:
    """Return T13: each outcome's median and tail against the median allow, and the first of all.

    Who is refused is mostly without an ID, for whom three times as many counters are looked at as
    for others: these accounts have rows of their own, where like is measured against like.
    """
    policies = load_policies([POLICIES])
    week = sample_week(None if scale == 1 else SHORTENED)
    rows = _outcomes("a week", policies, week, rounds)
    without = [one for one in week if one[2].facts.get("account.tier") == "email"]
    rows += _outcomes("no ID shown", policies, without, rounds)
    return [*rows, *_first(policies, week, rounds)]


def _outcomes(
    whose: str, policies: PolicySet, week: Sequence[Recorded], rounds: int
) -> list[Result]:
    by_effect = costs_by_effect(policies, week, rounds, thread_time_ns)
    allowed = median(by_effect[Effect.ALLOW])
    return [
        row
        for effect in sorted(by_effect)
        for row in _rows(whose, effect, by_effect[effect], allowed)
    ]


def sample_week(most: int | None = None) -> list[Recorded]:
    """Return the requests of the sample week, which `make demo` replays, or the first of them."""
    with LineSource(str(WEEK)) as source:
        return list(islice(recorded_requests(source, BadLines()), most))


def _fresh(policies: PolicySet) -> Guard:
    return Guard.from_policies(policies, store="memory://", environ={})


def _rows(whose: str, effect: Effect, nanos: list[float], allowed: float) -> list[Result]:
    middle, tail = median(nanos), nanos[int(len(nanos) * 0.99)]
    note = f"{len(nanos):,} of them, {middle / 1e3:.1f} µs"
    what = f"shipped policies, {whose}, {effect}: median, against the median allow"
    bound = None if effect is Effect.ALLOW else REFUSED_MOST
    return [
        Result(target="T13", what=what, value=middle / allowed, bound=bound, note=note),
        Result(
            target="T13",
            what=f"… {effect}: 99 % within, against its own median",
            value=tail / middle,
            bound=TAIL_MOST,
            note=f"{tail / allowed:.2f} × the median allow",
        ),
    ]


def _first(policies: PolicySet, week: Sequence[Recorded], rounds: int) -> list[Result]:
    """Return what the first decision takes, by fresh guards and in processes of their own."""
    sample = week[:: -(-len(week) // (FIRST if len(week) > SHORTENED else FEW))]
    loaded = [[first_and_warm(policies, one) for one in sample] for _ in range(rounds)]
    each = [_median_pair([pairs[place] for pairs in loaded]) for place in range(len(sample))]
    started = [_in_own_process() for _ in range(rounds)]
    worst = max(first / warm for first, warm in each)
    return [
        _against_warm(
            f"first decision after loading, against the same warm: {len(sample)} requests",
            [(first / warm, first, warm) for first, warm in each],
            FIRST_MOST,
            f"; the worst {worst:.0f} ×",
        ),
        _against_warm(
            "… in a process that has decided nothing before",
            [(first / warm, first, warm) for first, warm in started],
        ),
    ]


def _against_warm(
    what: str, taken: list[tuple[float, float, float]], bound: float | None = None, more: str = ""
) -> Result:
    value, first, warm = median_low(taken)
    note = f"{first / 1e6:.2f} ms against {warm / 1e3:.1f} µs{more}"
    return Result(target="T13", what=what, value=value, bound=bound, note=note)


def _median_pair(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return median(first for first, _ in pairs), median(warm for _, warm in pairs)


def first_and_warm(policies: PolicySet, recorded: Recorded) -> tuple[float, float]:
    """Return what a fresh guard's first decision takes, and the same once warm; in nanoseconds.

    The request comes once an hour, and gives back what it was charged.
    """
    guard = _fresh(policies)
    _, now, request = recorded
    facts, estimate = request.facts, request.reserved
    gc.collect()
    taken = []
    for hour in range(WARM):
        moment = now + 3600 * hour
        began = thread_time_ns()
        decision = guard.decide(facts, estimate, now=moment)
        taken.append(thread_time_ns() - began)
        if decision.allowed:
            guard.release(decision, now=moment)
    return taken[0], median(taken[WARM // 2 :])


def _in_own_process() -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.shipped"]
    run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    first, warm = map(float, run.stdout.split())
    return first, warm


if __name__ == "__main__":
    print(*first_and_warm(load_policies([POLICIES]), sample_week(1)[0]))

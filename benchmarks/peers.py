"""T2: the same decision against R5's three limits counted by the package `limits`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from benchmarks.results import Result
from benchmarks.timing import Contender, interleaved, micros, ratio
from benchmarks.workload import Clock, deciding, r5_guard, r5_requests

BARE_LEAST, INFORMED_LEAST = 7.0, 17.0

# Its clock cannot be moved, so limits that would fill up within a round are out of reach here.
PER_MINUTE = RateLimitItemPerMinute(1 << 40)
PER_DAY = RateLimitItemPerDay(1 << 50, namespace="tpd")
PER_ORG_DAY = RateLimitItemPerDay(1 << 50, namespace="org")

Asked = tuple[RateLimitItem, tuple[str, ...], int]
"""A limit, whose it is, and what is asked of it."""


def peer_costs(rounds: int, scale: float) -> list[Result]:
    """Return T2: how much quicker a decision is than three limits, bare and with what they know."""
    requests = r5_requests(int(10_000 * scale))
    storage = MemoryStorage()
    limiter = FixedWindowRateLimiter(storage)
    try:
        costs = interleaved(
            {
                "decide": deciding(r5_guard(), requests.stated, Clock()),
                "bare": _counting(limiter, storage, requests.positional, bare),
                "informed": _counting(limiter, storage, requests.positional, informed),
            },
            rounds,
        )
    finally:
        quiet(storage)
    rows = (
        ("bare", "decisions in the time of `limits` in memory, three bare counts", BARE_LEAST),
        ("informed", "… of test, count and statistics of the three", INFORMED_LEAST),
    )
    return [
        Result(
            target="T2",
            what=what,
            value=ratio(costs, name, "decide"),
            bound=bound,
            at_least=True,
            note=f"{micros(costs, 'decide'):.2f} µs against {micros(costs, name):.1f}",
        )
        for name, what, bound in rows
    ]


def _counting(
    limiter: FixedWindowRateLimiter,
    storage: MemoryStorage,
    positional: Sequence[tuple[Any, ...]],
    count: Callable[[FixedWindowRateLimiter, tuple[Asked, ...]], object],
) -> Contender:
    def run() -> float:
        began = perf_counter()
        for account, org, _, _, capability, tokens in positional:
            count(
                limiter,
                (
                    (PER_MINUTE, (account,), 1),
                    (PER_DAY, (account,), tokens),
                    (PER_ORG_DAY, (org, capability), tokens),
                ),
            )
        took = perf_counter() - began
        quiet(storage)
        return took / len(positional)

    return run


def bare(limiter: FixedWindowRateLimiter, asked: tuple[Asked, ...]) -> object:
    """Count each limit, as long as none refuses."""
    return all(limiter.hit(limit, *whose, cost=cost) for limit, whose, cost in asked)


def informed(limiter: FixedWindowRateLimiter, asked: tuple[Asked, ...]) -> object:
    """Count what fits all limits, and return what is left of each."""
    if not all(limiter.test(limit, *whose, cost=cost) for limit, whose, cost in asked):
        return None
    bare(limiter, asked)
    return [limiter.get_window_stats(limit, *whose) for limit, whose, _ in asked]


def quiet(storage: MemoryStorage) -> None:
    """Stop the thread that the storage clears up in: it would slow whoever runs next."""
    storage.timer.cancel()
    storage.timer.join()

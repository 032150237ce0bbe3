"""T16: a flood of which seven in ten are refused, against the same requests all admitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter_ns, thread_time_ns
from typing import NamedTuple

from benchmarks.results import Result
from benchmarks.timing import interleaved, micros, ratio
from benchmarks.workload import Clock, r5_guard, r5_requests
from guardrail import Guard, StoreMode
from guardrail.model.amounts import DAY
from guardrail.stores.lmdb.store import LmdbStore
from tests.stores.servers import Server

REFUSED_MOST = 1.5
REFUSED, WITHIN = 0.7, 0.05
"""The share that is refused, and how far from it a round may be."""
ACCOUNTS, A_MINUTE = 40, 10
STEP = 60 / (ACCOUNTS * A_MINUTE) * (1 - REFUSED)
"""Seconds between requests: those that the rate admits, and seven more for three of them."""
TOKENS: dict[str, object] = {"input_tokens": 1, "output_tokens": 1}
"""Few, so that the rate refuses and never the day's budget."""
HASH_KEY = b"a hash key for benchmarks"
PATIENT = "?deadline=5s"
NEVER = 1000 * DAY
"""Between copies of the file: the clock of the requests runs faster than theirs would."""

LEAST = 10 * ACCOUNTS
"""Requests of a round at least: with fewer the share refused is not the same in every round."""

Timer = Callable[[], int]
"""Gives nanoseconds."""
COUNTS = {"memory": 10_000, "lmdb": 3_000, "Redis": 1_000}
"""Where counters are, and the requests of a round there."""


def flood_costs(rounds: int, scale: float) -> list[Result]:
    """Return T16: what a decision takes where most are refused, in memory, a file and a server."""
    rows = []
    for place, full in COUNTS.items():
        count = max(LEAST, int(full * scale))
        with _counted(place) as (one, another):
            flood = _Crowd(one, "anon", count, REFUSED)
            calm = _Crowd(another, "enterprise", count, 0.0)
            costs = interleaved(
                {
                    "flood": flood.cost,
                    "calm": calm.cost,
                    "flood's tail": flood.tail,
                    "calm's tail": calm.tail,
                },
                rounds,
            )
        flooded, calmed = (1e6 / micros(costs, name) for name in ("flood", "calm"))
        tails = (micros(costs, name) for name in ("flood's tail", "calm's tail"))
        rows += [
            Result(
                target="T16",
                what=f"a decision of a flood, {REFUSED:.0%} refused, {place}, against all admitted",
                value=ratio(costs, "flood", "calm"),
                bound=REFUSED_MOST,
                note=f"{flooded:,.0f} a second of CPU against {calmed:,.0f}",
            ),
            Result(
                target="T16",
                what=f"… {place}: 99 % within, against all admitted",
                value=ratio(costs, "flood's tail", "calm's tail"),
                note="{:.0f} µs against {:.0f}".format(*tails),
            ),
        ]
    return rows


class _Counted(NamedTuple):
    """A guard for R5, what times the cost of its decisions, and what times each of them.

    Costs are CPU, with the server's where there is one: half of the work is done there.
    """

    guard: Guard
    cost: Timer = thread_time_ns
    each: Timer = thread_time_ns


@contextmanager
def _counted(place: str) -> Iterator[tuple[_Counted, _Counted]]:
    """Give two guards with counters of their own in one kind of place."""
    if place == "memory":
        yield _Counted(r5_guard()), _Counted(r5_guard())
    elif place == "lmdb":
        with TemporaryDirectory(prefix="guardrail-") as folder:
            stores = []
            for name in ("one", "another"):
                Path(folder, name).mkdir()
                stores.append(LmdbStore(Path(folder, name), copy_every=NEVER))
            yield _Counted(r5_guard(store=stores[0])), _Counted(r5_guard(store=stores[1]))
            for store in stores:
                store.close()
    else:
        with Server() as one, Server() as another:
            counted = (_on(one), _on(another))
            yield counted
            for each in counted:
                each.guard.close()


def _on(server: Server) -> _Counted:
    guard = r5_guard(store=server.uri + PATIENT, hash_key=HASH_KEY)

    def cost() -> int:
        used = server.client.info("cpu")
        theirs = used["used_cpu_user"] + used["used_cpu_sys"]
        return thread_time_ns() + int(theirs * 1e9)

    return _Counted(guard, cost, perf_counter_ns)


class _Crowd:
    """Accounts of one tier that ask in turn, ever on; another share refused than stated raises."""

    def __init__(self, counted: _Counted, tier: str, count: int, refused: float) -> None:
        requests = r5_requests(count, accounts=ACCOUNTS, tier=tier)
        self._facts = [facts for facts, _ in requests.stated]
        self._counted = counted
        self._decide = counted.guard.decide
        self._refused = refused
        self._clock = Clock(STEP)
        # What a quiet minute left them is used up before anything is measured.
        for _ in range(-(-2 * ACCOUNTS * A_MINUTE // count)):
            self._decided()

    def cost(self) -> float:
        """Decide every request; return seconds a request."""
        began = self._counted.cost()
        allowed = self._decided()
        took = self._counted.cost() - began
        self._check(allowed)
        return took / len(self._facts) / 1e9

    def tail(self) -> float:
        """Decide every request; return the seconds in which 99 of 100 were decided."""
        decide, clock, timer = self._decide, self._clock, self._counted.each
        allowed, taken = 0, []
        for facts in self._facts:
            clock.now += clock.step
            began = timer()
            decision = decide(facts, TOKENS, now=clock.now)
            taken.append(timer() - began)
            allowed += decision.allowed
            if decision.mode is not StoreMode.NORMAL:
                raise RuntimeError(f"the store did not answer: {decision.errors}")
        self._check(allowed)
        return sorted(taken)[int(len(taken) * 0.99)] / 1e9

    def _decided(self) -> int:
        decide, clock, facts_of_all = self._decide, self._clock, self._facts
        allowed, now, step = 0, clock.now, clock.step
        for facts in facts_of_all:
            now += step
            allowed += decide(facts, TOKENS, now=now).allowed
        clock.now = now
        return allowed

    def _check(self, allowed: int) -> None:
        refused = 1 - allowed / len(self._facts)
        if abs(refused - self._refused) > WITHIN:
            raise RuntimeError(f"{refused:.0%} are refused, not {self._refused:.0%}")

"""T4: R5 with its counters in a file: one process against memory, four processes against one."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from benchmarks.results import Result
from benchmarks.timing import Contender, interleaved, micros, ratio
from benchmarks.workload import Clock, deciding, r5_guard, r5_requests
from guardrail.model.amounts import DAY
from guardrail.model.cells import Charge, Counter
from guardrail.stores.lmdb import LmdbStore

ALONE_MOST, SHARED_LEAST = 6.0, 1.0
PROCESSES = 4
PATIENCE = 10_000_000
"""The deadline, in microseconds: on a busy machine a turn may be late, and here none is lost."""
NOW = 1_767_600_000 * 1_000_000
CHARGES = [Charge(True, None)] * 3
FEW = 1000
NEVER = 1000 * DAY
"""Between copies: the clock of the requests runs thousands of times as fast as theirs would."""


def sharing_costs(rounds: int, scale: float) -> list[Result]:
    """Return T4: what a decision costs in a file, and what four processes do together."""
    count = int(10_000 * scale)
    requests = r5_requests(count)
    with TemporaryDirectory(prefix="guardrail-") as folder:
        store = LmdbStore(folder, deadline=PATIENCE, copy_every=NEVER)
        guard = r5_guard(store=store)
        costs = interleaved(
            {
                "memory": deciding(r5_guard(), requests.stated, Clock()),
                "file": deciding(guard, requests.stated, Clock()),
                "store": _acquiring(guard, store, requests.stated),
            },
            rounds,
        )
        store.close()
    note = f"{micros(costs, 'file'):.1f} µs against {micros(costs, 'memory'):.2f}"
    alone = ratio(costs, "file", "memory")
    part = f"{micros(costs, 'store'):.1f} µs: the rest is planning and concluding"
    share = ratio(costs, "store", "memory")
    return [
        Result(
            target="T4",
            what="R5 in a file, against memory",
            value=alone,
            bound=ALONE_MOST,
            note=note,
        ),
        Result(target="T4", what="… of which the store's call", value=share, note=part),
        *_together(rounds, count),
        *_scaled(rounds, int(1_000_000 * scale)),
    ]


def _acquiring(guard: Any, store: LmdbStore, stated: Sequence[tuple[Any, Any]]) -> Any:
    """Return a contender that only charges what the guard planned for every request."""
    clock = Clock()

    def run() -> float:
        plans = []
        for facts, estimate in stated:
            clock.now += clock.step
            plans.append(guard._context.plan(facts, estimate, clock.now))
        ask = store.ask
        began = perf_counter()
        for plan in plans:
            ask(plan.form, plan.now)
        return (perf_counter() - began) / len(stated)

    return run


def _scaled(rounds: int, accounts: int) -> list[Result]:
    """Return what R5's three counters cost a store with many accounts, in time and on the disk."""
    with TemporaryDirectory(prefix="guardrail-") as folder:
        for name in ("many", "few"):
            Path(folder, name).mkdir()
        many = LmdbStore(Path(folder, "many"), copy_every=NEVER)
        few = LmdbStore(Path(folder, "few"), copy_every=NEVER)
        for number in range(accounts):
            many.acquire(CHARGES, _cells(number), NOW)
        for number in range(FEW):
            few.acquire(CHARGES, _cells(number), NOW)
        size = many.connection.used_bytes / len(many)
        costs = interleaved(
            {"few": _at_random(few, FEW), "many": _at_random(many, accounts)}, rounds
        )
        many.close()
        few.close()
    what = f"R5's counters of {accounts:,} accounts in a file, against {FEW:,}"
    note = f"{micros(costs, 'many'):.1f} µs against {micros(costs, 'few'):.1f}"
    return [
        Result(target="T4", what=what, value=ratio(costs, "many", "few"), note=note),
        Result(target="T4", what="… of the file for a counter", value=size, unit="bytes"),
    ]


def _at_random(store: LmdbStore, accounts: int) -> Contender:
    draw = random.Random(4)

    def run() -> float:
        asked = [_cells(draw.randrange(accounts)) for _ in range(FEW)]
        began = perf_counter()
        for cells in asked:
            store.acquire(CHARGES, cells, NOW)
        return (perf_counter() - began) / FEW

    return run


def _cells(number: int) -> list[Counter]:
    account, org = f"=acct_{number:07}", f"=org_{number // 4:06}"
    return [
        Counter(0, "rate____" + account, 0, 1, NOW, 1000, NOW + 60_000_000, DAY),
        Counter(1, "budget__" + account, NOW // DAY, 1, 0, 100, 50_000_000, 2 * DAY),
        Counter(2, "org_____" + org, NOW // DAY, 1, 0, 100, 500_000_000, 2 * DAY),
    ]


def _together(rounds: int, count: int) -> list[Result]:
    with TemporaryDirectory(prefix="guardrail-") as folder:
        crew = [_Process(folder, number, count) for number in range(PROCESSES)]
        alone, shared, over = [], [], 0
        for number in range(rounds + 1):
            alone.append(_rate(crew[:1], count))
            shared.append(_rate(crew, count))
            for process in crew:
                process.pipe.send(("exhaust", f"limit___={number}", count))
            over += sum(process.pipe.recv() for process in crew) - count
        for process in crew:
            process.end()
    value = median(b / a for a, b in zip(alone[1:], shared[1:], strict=True))
    note = f"{median(shared[1:]):,.0f} decisions/s against {median(alone[1:]):,.0f}"
    what = f"{PROCESSES} processes on one file, together, against one"
    return [
        Result(target="T4", what=what, value=value, bound=SHARED_LEAST, at_least=True, note=note),
        Result(target="T4", what="… admitted beyond a limit", value=over, unit="", bound=0),
    ]


class _Process:
    def __init__(self, folder: str, number: int, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, folder, number, count))
        self._process.start()
        self.pipe.recv()

    def end(self) -> None:
        self.pipe.send(("end", "", 0))
        self._process.join()


def _rate(crew: Sequence[_Process], count: int) -> float:
    """Return how many decisions a second some processes make, all at once."""
    for process in crew:
        process.pipe.send(("decide", "", 0))
    spans: list[tuple[float, float]] = [process.pipe.recv() for process in crew]
    return len(crew) * count / (max(end for _, end in spans) - min(start for start, _ in spans))


def _serve(pipe: Connection, folder: str, number: int, count: int) -> None:
    store = LmdbStore(folder, deadline=PATIENCE, copy_every=NEVER)
    stated = r5_requests(count).stated
    half = len(stated) * number // PROCESSES
    run = deciding(r5_guard(store=store), stated[half:] + stated[:half], Clock())
    run()
    pipe.send("ready")
    while True:
        work, key, limit = pipe.recv()
        if work == "end":
            break
        if work == "decide":
            began = perf_counter()
            run()
            pipe.send((began, perf_counter()))
        else:
            cell = Counter(0, key, 0, 1, 0, 1, limit, DAY)
            admitted = 0
            while store.acquire([Charge(True, None)], [cell], 1).admitted:
                admitted += 1
            pipe.send(admitted)
    store.close()

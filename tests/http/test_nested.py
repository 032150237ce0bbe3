"""What ends within a call of the same thread, as abandoned requests do, waits for no lock of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guardrail.decisionlog import JsonLines
from guardrail.http.counts import Counts, SharedCounts
from guardrail.http.delays import DelaySlots, Threads
from guardrail.http.leases import LeaseThread
from guardrail.http.response import BackgroundWork

ENDS: dict[str, tuple[Callable[[Path], Any], Callable[[Any], object]]] = {
    "log": (lambda folder: JsonLines(folder / "log"), lambda log: log.write({"a": 1})),
    "counts": (lambda folder: Counts(), lambda counts: counts.counter("a_total", "a")()),
    "shared counts": (SharedCounts, lambda counts: counts.counter("a_total", "a")()),
    "delays": (lambda folder: DelaySlots(4), lambda slots: slots.take("a") and slots.give("a")),
    "threads": (lambda folder: Threads(0), lambda threads: threads.seen()),
    "leases": (lambda folder: LeaseThread(), lambda leases: leases.drop(leases)),
    "background": (lambda folder: BackgroundWork(), lambda work: work.take("a")),
}


@pytest.mark.parametrize("what", ENDS)
def test_what_ends_within_a_call_of_its_thread_waits_for_nothing(what: str, tmp_path: Path) -> None:
    made, end = ENDS[what]
    part, ended = made(tmp_path), []

    def within() -> None:
        with part._lock:
            end(part)
        ended.append(what)

    thread = threading.Thread(target=within, daemon=True)
    thread.start()
    thread.join(30)
    assert ended == [what]
    if hasattr(part, "close"):
        part.close()

"""Replaying traffic in several processes of one machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar

from guardrail.model.policy import PolicySet
from guardrail.replay.parts import Job, StopReplay, found_in, replayed_part
from guardrail.replay.records import DecisionFile
from guardrail.replay.results import TrafficRun, merged
from guardrail.replay.ties import Found, Parts, parts_of

Result = TypeVar("Result")


class Workers:
    """So many processes; each reads all of the traffic, and decides a part of it.

    `found` says what ties the accounts of the traffic, once it was looked for.
    """

    def __init__(self, job: Job, policies: PolicySet, count: int) -> None:
        self._job = job
        self._policies = policies
        self._count = count
        self.found = Found()

    def run(
        self,
        decisions: DecisionFile | None = None,
        told: Callable[[Found], None] = lambda found: None,
    ) -> TrafficRun:
        """Return what came of the traffic; `told` is called with what ties its accounts.

        Interrupted, it returns what all processes saw so far.

        Raises:
            GuardrailError: a process met what the command would have met by itself.
        """
        with (
            tempfile.TemporaryDirectory(prefix="guardrail-") as folder,
            process_pool(self._count) as pool,
        ):
            self.found = self._look(pool)
            told(self.found)
            parts = parts_of(self.found, self._policies, self._count)
            paths = [str(Path(folder) / f"part-{part}") for part in range(self._count)]
            waiting = [
                pool.submit(_replayed, self._job, parts, part, paths[part] if decisions else None)
                for part in range(self._count)
            ]
            runs = awaited(pool, waiting)
            if decisions is not None:
                decisions.merge(paths)
        return merged(runs, self._policies)

    def _look(self, pool: ProcessPoolExecutor) -> Found:
        looking = [
            pool.submit(found_in, self._job, share, self._count) for share in range(self._count)
        ]
        found = Found()
        for share in looking:
            found.merge(share.result())
        return found


def awaited(pool: ProcessPoolExecutor, waiting: Sequence[Future[Result]]) -> list[Result]:
    """Return all results; an interrupt is passed on once, and then waited for."""
    try:
        return [future.result() for future in waiting]
    except KeyboardInterrupt:
        for process in list(pool._processes.values()):
            if process.pid is not None:
                os.kill(process.pid, signal.SIGINT)
        return [future.result() for future in waiting]


@contextmanager
def process_pool(count: int) -> Iterator[ProcessPoolExecutor]:
    """Give so many fresh processes, which end with whatever goes wrong."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=fresh, initializer=_wait_to_stop) as pool:
        try:
            yield pool
        except BaseException:
            for process in list(pool._processes.values()):
                process.terminate()
            raise


def _wait_to_stop() -> None:
    """Let an interrupt end no process before it has told what it saw."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def stoppable(run: Callable[[Callable[[], None]], Result]) -> Result:
    """Return what a replay comes to in a process that an interrupt stops at its next tick."""
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    def tick() -> None:
        if stopped:
            raise StopReplay

    former = signal.signal(signal.SIGINT, stop)
    try:
        return run(tick)
    finally:
        signal.signal(signal.SIGINT, former)


def _replayed(job: Job, parts: Parts, part: int, decisions: str | None) -> TrafficRun:
    return stoppable(lambda tick: replayed_part(job, parts, part, tick, decisions))

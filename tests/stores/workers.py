"""Real processes that share a store: started quickly, told what to do, stopped and killed."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from guardrail.errors import GuardrailError
from guardrail.model.cells import Adjust, Charge, Counter, Leave, Member
from guardrail.stores.lmdb.store import LmdbStore

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.stores.workers"])

S = 1_000_000
NOW = 1_700_000_000 * S
TTL = 10**15
BINDING = [Charge(True, None)]
LEASE = 60 * S


def charge(store, key, amount=1, *, ceiling=None, now=NOW, ttl=TTL, spill=None):
    """Charge one windowed counter, and return whether it was admitted."""
    cell = Counter(0, key, 0, 1, 0, amount, ceiling, ttl, spill)
    return store.acquire(BINDING, [cell], now).admitted


class FailedError(Exception):
    """What a worker's call raised: the name of the error, and its text."""


class Worker:
    """A process of its own with a store, opened at the first call."""

    def __init__(self, path: Any, store: type[LmdbStore] = LmdbStore, **settings: Any) -> None:
        self.ours, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(
            target=_serve, args=(theirs, store, path, settings), daemon=True
        )
        self.process.start()
        theirs.close()

    def ask(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Have the process call `work(store, *arguments)`, without waiting for it."""
        self.ours.send((work, arguments))

    def answer(self, seconds: float = 30) -> Any:
        """Return what the last call returned, or raise `FailedError`."""
        if not self.ours.poll(seconds):
            raise TimeoutError("the worker does not answer")
        worked, value = self.ours.recv()
        if not worked:
            raise FailedError(value)
        return value

    def call(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Ask, and return the answer."""
        self.ask(work, *arguments)
        return self.answer()

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        os.kill(self.process.pid or 0, number)

    def stopped(self) -> bool:
        """Tell whether the process is stopped by a signal."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] == "T"

    def end(self) -> None:
        """Let the process close its store and leave."""
        self.ours.close()
        self.process.join(10)
        self.kill()

    def kill(self) -> None:
        """Kill the process, whatever it does."""
        self.process.kill()
        self.process.join()


def _serve(pipe: Connection, kind: type[LmdbStore], path: Any, settings: dict[str, Any]) -> None:
    store: LmdbStore | None = None
    while True:
        try:
            work, arguments = pipe.recv()
        except EOFError:
            break
        try:
            store = store or kind(path, **settings)
            pipe.send((True, work(store, *arguments)))
        except GuardrailError as problem:
            pipe.send((False, f"{type(problem).__name__}: {problem}"))
    if store is not None:
        store.close()


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until a condition holds, at most so long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.001)


def exhaust(store, key: str, limit: int, threads: int) -> int:
    """Charge a key from several threads until it is refused; return how often it was not."""
    admitted = [0] * threads

    def work(number: int) -> None:
        while charge(store, key, ceiling=limit):
            admitted[number] += 1

    running = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return sum(admitted)


def tally(path: Any) -> memoryview:
    """Return four numbers in a file, shared by all who open it."""
    with open(path, "a+b") as file:
        file.truncate(32)
        return memoryview(mmap.mmap(file.fileno(), 32)).cast("q")


def live_for_ever(store, path: Any, ceiling: int) -> None:
    """Decide, settle and lease until killed.

    The tally counts begun and done acquisitions, then begun and done settlements.
    """
    counts = tally(path)
    counter = Counter(0, "acquired=a", 0, 1, 0, 2, ceiling, TTL)
    number = 0
    while True:
        number += 1
        name = f"{os.getpid()}.{number}"
        lease = Member(1, "leases__=a", name, NOW + LEASE, None, TTL)
        counts[0] += 1
        admitted = store.acquire([*BINDING, Charge(False, None)], [counter, lease], NOW).admitted
        if not admitted:
            counts[0] -= 1
            return
        counts[1] += 1
        counts[2] += 1
        store.settle([Adjust("acquired=a", 0, -1, TTL), Leave("leases__=a", name)], NOW)
        counts[3] += 1


class StopsWithin(LmdbStore):
    """Stops its own process in the middle of a transaction, if the key says so."""

    def _acquire(self, ledger: Any, charges: Sequence[Charge], cells: Any) -> Any:
        if cells[0].key.endswith("stop"):
            os.kill(os.getpid(), signal.SIGSTOP)
        return super()._acquire(ledger, charges, cells)

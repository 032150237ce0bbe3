"""Real processes that share a store: started quickly, told what to do, stopped and killed."""

from __future__ import annotations

import asyncio
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
from guardrail.stores.lmdb import LmdbStore
from tests.cells.redis_stores import redis_store

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


Opener = Callable[..., Any]


def open_at(where: Any, **settings: Any) -> Any:
    """Return the store in a folder, or on the server that a URI names."""
    return redis_store(where, **settings) if "://" in str(where) else LmdbStore(where, **settings)


class Worker:
    """A process of its own with a store, opened at the first call, in a folder or at a URI."""

    def __init__(self, where: Any, store: Opener = open_at, **settings: Any) -> None:
        self.ours, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(
            target=_serve, args=(theirs, store, where, settings), daemon=True
        )
        self.process.start()
        theirs.close()

    def ask(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Have the process call `work(store, *arguments)`, without waiting for it."""
        self.ours.send((work, arguments))

    def answer(self, seconds: float = 120) -> Any:
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
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

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


def _serve(pipe: Connection, opened: Opener, where: Any, settings: dict[str, Any]) -> None:
    store: Any = None
    while True:
        try:
            work, arguments = pipe.recv()
        except EOFError:
            break
        try:
            if store is None:
                store = opened(where, **settings)
            pipe.send((True, work(store, *arguments)))
        except GuardrailError as problem:
            pipe.send((False, f"{type(problem).__name__}: {problem}"))
    if store is not None:
        store.close()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
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


def exhaust_awaited(store, key: str, limit: int, tasks: int) -> int:
    """Charge a key from several tasks until it is refused; return how often it was not."""

    async def work(twin) -> int:
        admitted = 0
        cell = Counter(0, key, 0, 1, 0, 1, limit, TTL)
        while (await twin.acquire(BINDING, [cell], NOW)).admitted:
            admitted += 1
        return admitted

    async def run() -> int:
        twin = store.awaited()
        admitted = await asyncio.gather(*(work(twin) for _ in range(tasks)))
        await twin.close()
        return sum(admitted)

    return asyncio.run(run())


def fork_and_charge(store, key: str, limit: int) -> int:
    """Charge before and after a fork, in parent and child; return how many were admitted."""
    admitted: int = sum(charge(store, key, ceiling=limit) for _ in range(3))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        inner = sum(charge(store, key, ceiling=limit) for _ in range(50))
        os.write(writing, str(inner).encode())
        os._exit(0)
    admitted += sum(charge(store, key, ceiling=limit) for _ in range(50))
    os.waitpid(child, 0)
    return admitted + int(os.read(reading, 10))


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

    def _acquire(self, transaction: Any, charges: Sequence[Charge], cells: Any) -> Any:
        if cells[0].key.endswith("stop"):
            os.kill(os.getpid(), signal.SIGSTOP)
        return super()._acquire(transaction, charges, cells)

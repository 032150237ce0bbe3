"""Locks between the processes that share a store: held by whoever lives, and never waited for long.

LMDB's own writer lock has no time-out. Whoever wants to write takes a file lock first, by asking
again and again until a deadline; so only its holder ever asks LMDB, and a holder that is stopped
keeps the others from writing, but not from answering. The kernel lets go of a dead holder's locks.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import random
from time import monotonic, sleep

from guardrail.errors import StoreError

AT_ONCE = 40
"""How often a lock is asked for before it is slept on: for about as long as two decisions hold it.

A sleep takes three times as long as one, however short it was meant to be.
"""
SHORTEST_PAUSE, LONGEST_PAUSE = 20e-6, 500e-6
"""Seconds between two questions for a lock, from then on."""


class FileLock:
    """A lock on a file, held by a process; the file is left where it is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def attempt(self, *, shared: bool = False) -> bool:
        """Take the lock if it is free, and tell whether it was; one's own is taken anew."""
        try:
            fcntl.flock(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def acquire(self, seconds: float) -> bool:
        """Take the lock, waiting for it at most so long, and tell whether it was taken."""
        if self.attempt():
            return True
        until = monotonic() + seconds
        for pause in pauses():
            if monotonic() > until:
                break
            if pause:
                sleep(pause)
            else:
                os.sched_yield()
            if self.attempt():
                return True
        return False

    def release(self) -> None:
        """Release the lock."""
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Release the lock and close the file."""
        os.close(self._file)

    @contextmanager
    def held(self, seconds: float) -> Iterator[None]:
        """Hold the lock, waiting for it at most so long.

        Raises:
            StoreError: another process holds it.
        """
        if not self.acquire(seconds):
            raise StoreError(f"`{self.path}` is locked by another process")
        try:
            yield
        finally:
            self.release()


def pauses() -> Iterator[float]:
    """Yield how long to wait between two questions, in seconds; never two processes in step.

    Nought means to let others go first who can: tasks of a loop, or processes.
    """
    for _ in range(AT_ONCE):
        yield 0.0
    pause = SHORTEST_PAUSE
    while True:
        yield pause * (0.5 + random())
        pause = min(pause * 1.5, LONGEST_PAUSE)

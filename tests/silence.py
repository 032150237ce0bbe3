"""What fails tests that no assertion fails: what asyncio only logs, what is left behind or on."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import shutil
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.util import Finalize
from pathlib import Path

import pytest

SIGNS = ("never retrieved", "was destroyed but it is pending", "was never awaited")
"""What asyncio logs of a task or a future that nobody looked after."""

OTHERS = ("pytest-of-", "pymp-", "gr-")
"""What pytest, multiprocessing and the workers have there, and remove themselves.

A worker looks at its own; one that ends slowly, on a busy machine, is ended before it is gone.
"""

BUSY = 5.0
"""How many seconds of a processor a thread may have taken that is still there at the end."""

KEPT = {"tests.cells.redis_stores": "SERVERS", "tests.stores.clusters": "CLUSTERS"}
"""Where the servers are that all tests of a process share: they end with it."""


class Overheard(logging.Handler):
    """Keeps what asyncio logs of tasks that nobody looked after."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line that is one of them."""
        line = record.getMessage()
        if any(sign in line for sign in SIGNS):
            self.told.append(line)

    def fail(self) -> None:
        """Fail if anything was kept since."""
        told, self.told = self.told, []
        if told:
            pytest.fail("\n".join(told), pytrace=False)


class Loops:
    """Counts the event loops that were made: only tests that made one can have lost a task."""

    def __init__(self) -> None:
        self.made = 0
        make = asyncio.BaseEventLoop.__init__

        def counted(loop: asyncio.BaseEventLoop) -> None:
            self.made += 1
            make(loop)

        asyncio.BaseEventLoop.__init__ = counted  # type: ignore[method-assign, assignment]


OVERHEARD, LOOPS = Overheard(), Loops()
logging.getLogger("asyncio").addHandler(OVERHEARD)


@pytest.fixture(autouse=True)
def _no_task_is_lost() -> Iterator[None]:
    """Fail a test after which asyncio told of a task that nobody looked after."""
    made = LOOPS.made
    yield
    if LOOPS.made != made:
        # What a test has just made is young; all of it is looked at when its module ends.
        gc.collect(1)
    OVERHEARD.fail()


@pytest.fixture(autouse=True, scope="module")
def _no_task_was_lost() -> Iterator[None]:
    """The same for all of a module, old or young.

    What is in use still is not gone through again for each module that follows, but at the end.
    """
    made = LOOPS.made
    yield
    if LOOPS.made != made:
        gc.collect()
        gc.freeze()
    OVERHEARD.fail()


def tasks_lost_since() -> list[str]:
    """Return what asyncio tells of tasks that outlived their module, once all is gone through."""
    gc.unfreeze()
    gc.collect()
    # What is left, pytest need not go through five times more.
    gc.freeze()
    return OVERHEARD.told


@pytest.fixture(autouse=True)
def _nothing_watches_on() -> Iterator[None]:
    """Fail a test after which the process is watched still: all tests after it would be slow."""
    before = sys.gettrace(), sys.getprofile(), tracemalloc.is_tracing()
    yield
    after = sys.gettrace(), sys.getprofile(), tracemalloc.is_tracing()
    if after[2] and not before[2]:
        tracemalloc.stop()
    if after != before:
        pytest.fail(f"watched by {after}, which was {before}", pytrace=False)


def threads_busy_since() -> list[str]:
    """Return the threads that outlived the tests and took long: every test beside them was slow.

    What a thread took is only told by Linux; elsewhere there are none.
    """
    found = []
    for thread in threading.enumerate():
        with suppress(OSError):
            told = Path(f"/proc/self/task/{thread.native_id}/stat").read_text("ascii")
            # The name of a process, in brackets, may hold blanks.
            user, system = told.rpartition(")")[2].split()[11:13]
            seconds = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
            if thread is not threading.main_thread() and seconds > BUSY:
                found.append(f"thread `{thread.name}`, which took {seconds:.0f} s")
    return found


class Scratch:
    """The temporary folder of this process and of all that it starts, which they leave empty."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gr-"))
        os.environ["TMPDIR"] = str(self.folder)
        tempfile.tempdir = None
        # After what multiprocessing has in it, which it removes by itself when the process ends.
        Finalize(None, shutil.rmtree, args=(self.folder, True), exitpriority=-200)

    def left(self) -> list[str]:
        """Return what was left in it."""
        for module, kept in KEPT.items():
            if module in sys.modules:
                getattr(sys.modules[module], kept).close()
        names = [path.name for path in self.folder.iterdir()]
        return sorted(name for name in names if not name.startswith(OTHERS))

"""How much work something takes, in counts that do not depend on the machine."""

from __future__ import annotations

import cProfile
import gc
import sys
from collections.abc import Callable


def calls_of(work: Callable[[], object]) -> int:
    """Return how many calls of functions, also of C, some work takes."""
    # Python's own profiler counts in C, ten times as fast as a function of Python would.
    profiler = cProfile.Profile(subcalls=False)
    gc.disable()
    profiler.enable()
    try:
        work()
    finally:
        profiler.disable()
        gc.enable()
    return sum(entry.callcount for entry in profiler.getstats())


def lines_of(work: Callable[[], object]) -> int:
    """Return how many lines of guardrail's own some work runs."""
    run = 0

    def counted(frame, event, _):
        nonlocal run
        run += "guardrail" in frame.f_code.co_filename
        return counted

    before = sys.gettrace()
    sys.settrace(counted)
    try:
        work()
    finally:
        sys.settrace(before)
    return run

"""How much work something takes, in counts that do not depend on the machine."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable


def calls_of(work: Callable[[], object]) -> int:
    """Return how many calls of functions, also of C, some work takes."""
    count = 0

    def counted(*_: object) -> None:
        nonlocal count
        count += 1

    gc.disable()
    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


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

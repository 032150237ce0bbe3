"""Long runs over random sets, each known by its seed."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable


def over_seeds(look: Callable[[int, Counter[str]], Iterable[str]]) -> None:
    """Look at so many seeds from one on, as the command line says: COUNT SEED.

    `look` returns what is wrong with a seed and counts what it saw; both are printed.
    """
    count, first = map(int, sys.argv[1:3])
    started, counts = time.perf_counter(), Counter[str]()
    for seed in range(first, first + count):
        problems = list(look(seed, counts))
        counts["wrong"] += bool(problems)
        for problem in problems:
            print(f"seed {seed}: {problem}")
    print(dict(counts), f"{time.perf_counter() - started:.0f} s")

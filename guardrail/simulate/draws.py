"""Random draws: a stream of its own for each purpose, and the distributions the models need."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from random import Random

_NORMAL_FROM = 40.0


def stream(seed: int, *purpose: object) -> Random:
    """Return the generator of one purpose of a seed; purposes do not disturb each other."""
    return Random(":".join(map(str, (seed, *purpose))))


def poisson(random: Random, mean: float) -> int:
    """Return a Poisson number; above a mean of 40 a rounded normal one."""
    if mean <= 0:
        return 0
    if mean > _NORMAL_FROM:
        return max(0, round(random.gauss(mean, math.sqrt(mean))))
    limit, count, product = math.exp(-mean), 0, random.random()
    while product > limit:
        count += 1
        product *= random.random()
    return count


def log_normal(random: Random, median: float, sigma: float, cut: float = 3.0) -> float:
    """Return a log-normal number, its tails cut off at `cut` sigmas."""
    return median * math.exp(sigma * max(-cut, min(cut, random.gauss(0.0, 1.0))))


def pareto(random: Random, shape: float, least: float, most: float) -> float:
    """Return a Pareto number of at least `least`, cut off at `most`."""
    return min(most, least * random.paretovariate(shape))


class Zipf:
    """Ranks from 0 whose odds fall with a power of the rank."""

    def __init__(self, count: int, power: float) -> None:
        self._sums = list(accumulate(1 / rank**power for rank in range(1, count + 1)))

    def draw(self, random: Random) -> int:
        """Return a rank."""
        return bisect_left(self._sums, random.random() * self._sums[-1])


def whole_counts(random: Random, total: int, shares: Sequence[float]) -> list[int]:
    """Return whole counts in the given shares that sum up to `total`, remainders at random."""
    scale = total / sum(shares)
    counts = [math.floor(share * scale) for share in shares]
    rests = [share * scale - count for share, count in zip(shares, counts, strict=True)]
    for _ in range(total - sum(counts)):
        at = random.choices(range(len(rests)), rests)[0]
        counts[at] += 1
        rests[at] = 0.0 if sum(rests) - rests[at] > 0 else rests[at]
    return counts

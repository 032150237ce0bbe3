"""How contenders are timed: in turn, round by round, so that a busy machine slows all alike."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from statistics import median

Contender = Callable[[], float]
"""One round of a contender's work; it returns what the round cost, in seconds a request."""

Rounds = dict[str, list[float]]
"""What each round cost, by contender; the same place in two lists is the same round."""


def interleaved(contenders: Mapping[str, Contender], rounds: int) -> Rounds:
    """Run every contender once unmeasured, then all of them in turn, `rounds` times.

    Every other round runs backwards, so that no contender always follows the same one.
    """
    order = list(contenders)
    for name in order:
        contenders[name]()
    costs: Rounds = {name: [] for name in order}
    for number in range(rounds):
        gc.collect()
        for name in order if number % 2 == 0 else reversed(order):
            costs[name].append(contenders[name]())
    return costs


def ratio(costs: Rounds, name: str, yardstick: str) -> float:
    """Return how many times the yardstick a contender costs: the median over the rounds."""
    return median(a / b for a, b in zip(costs[name], costs[yardstick], strict=True))


def added(costs: Rounds, more: str, less: str, yardstick: str) -> float:
    """Return what `more` costs beyond `less`, in yardsticks: the median over the rounds."""
    rows = zip(costs[more], costs[less], costs[yardstick], strict=True)
    return median((a - b) / c for a, b, c in rows)


def micros(costs: Rounds, name: str) -> float:
    """Return a contender's median cost in microseconds a request."""
    return median(costs[name]) * 1e6

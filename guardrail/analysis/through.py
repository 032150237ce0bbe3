"""How much a limit lets through in a time, for each of its keys.

A time may be one of the calendar, which begins where its windows do, or any time of a length. It
touches whole windows of a budget, each of which allows all of it; a pace lets through what is due
in the time, and what may come at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from guardrail.engine import pace_increment, pace_room
from guardrail.model.amounts import DAY, HOUR
from guardrail.model.rules import Budget, Rate, Window

LONGEST_CHANGE = 2 * HOUR
"""By how much clocks are set back, at most."""

LONGEST = {"hour": HOUR, "day": DAY, "week": 7 * DAY, "month": 31 * DAY}
SHORTEST = {**LONGEST, "month": 28 * DAY}
"""How long windows of the calendar are, in microseconds, where no clock is changed."""


@dataclass(frozen=True, slots=True)
class Time:
    """A time in which something is asked for.

    `length` is in microseconds, without a change of the clocks; None is for ever. `begins` says at
    the beginning of what it begins, None if anywhere.
    """

    length: int | None
    begins: Literal["hour", "day", "week", "month"] | None = None

    def longest(self, zone: str) -> int | None:
        """Return how long it can be, in microseconds, as clocks may be set back; None for ever."""
        if self.length is None:
            return None
        return self.length + (LONGEST_CHANGE if self.begins and zone != "UTC" else 0)


def days(count: int | None) -> Time:
    """Return the time of so many whole days, None for ever."""
    return Time(None) if count is None else Time(count * DAY, "day")


def time_of(window: Window) -> Time:
    """Return the time that a window covers."""
    if window.kind == "lifetime":
        return Time(None)
    if window.kind == "rolling":
        return Time(window.length)
    return Time(LONGEST[window.kind], window.kind)


def windows(window: Window, time: Time, zone: str) -> int | None:
    """Return how many windows a time can touch, None if any number."""
    longest = time.longest(zone)
    if window.kind == "lifetime":
        return 1
    if time.length is None or longest is None:
        return None
    if window.length is not None:
        return -(-longest // window.length)
    if window.kind == time.begins:
        return -(-time.length // LONGEST[window.kind])
    if time.begins == "hour":
        return 1
    if time.begins is None:
        change = 0 if zone == "UTC" or window.kind == "hour" else LONGEST_CHANGE
        return -(-longest // (SHORTEST[window.kind] - change)) + 1
    if window.kind == "hour":
        # Where clocks change by half an hour, hours begin elsewhere after it.
        return -(-longest // HOUR) + (longest > time.length)
    # Whole days: they may begin on the last day of a week, or of a February.
    count = time.length // DAY
    touched = {"day": count, "week": (count + 5) // 7 + 1, "month": (count - 2) // 28 + 2}
    return max(1, touched[window.kind])


@dataclass(frozen=True, slots=True)
class Through:
    """What a limit lets through: `each` in a window or at once, so many `times`, and `due`."""

    each: int
    times: int = 1
    due: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.each * self.times + self.due


def of_budget(budget: Budget, most: int, time: Time, zone: str) -> Through | None:
    """Return what a budget of an amount lets through, None if any amount."""
    times = windows(budget.window, time, zone)
    if times is None:
        return None
    percent = min(step.percent for step in budget.steps if step.verdict.effect.refuses)
    return Through(most * percent // 100, times)


def of_rate(
    rate: Rate, amounts: Sequence[tuple[int, int]], time: Time, zone: str
) -> Through | None:
    """Return what a pace lets through, None if any amount; `amounts` are limits and their bursts.

    Of several amounts that share a counter, that is the quickest and the longest line.
    """
    longest = time.longest(zone)
    if longest is None:
        return None
    limit = max(limit for limit, _ in amounts)
    line = max(pace_increment(burst, limit, rate.period) for limit, burst in amounts)
    most = pace_room(longest + line, limit, rate.period)
    due = most - line * limit // rate.period
    return Through(most - due, due=due)

"""The arithmetic of windows, and of what makes room in them again; pure functions of time.

All times, spans and widths are whole microseconds unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from guardrail.model.amounts import DAY, HOUR, MINUTE, SECOND

ROLLING_SLOTS = 60
ROLLING_SPAN = ROLLING_SLOTS + 1
"""A rolling window keeps one slot more than it has, so that it never admits more than its limit:
the oldest slot counts whole until all of it is past."""

LIFETIME_TTL = 400 * DAY
CalendarKind = Literal["hour", "day", "week", "month"]


def rolling_width(length: int) -> int:
    """Return how long one slot of a rolling window is: a sixtieth, rounded up."""
    return -(-length // ROLLING_SLOTS)


def rolling_frees_at(slot: int, width: int) -> int:
    """Return when a rolling window no longer counts a slot."""
    return (slot + ROLLING_SPAN) * width


@dataclass(frozen=True, slots=True)
class Bounds:
    """A calendar window: its first instant, and the first one after it."""

    start: int
    end: int

    @property
    def slot(self) -> int:
        """The window's slot: its start in whole seconds."""
        return self.start // SECOND


def calendar_window(kind: CalendarKind, now: int, zone: ZoneInfo | None) -> Bounds:
    """Return the calendar window that `now` falls in; `zone` None is UTC.

    Weeks start on Monday. Windows tile the time line: a day the clocks change on has 23 or 25
    hours, and one whose midnight does not exist starts at its first instant.
    """
    if zone is None and kind != "month":
        return _utc_window(kind, now)
    local = datetime.fromtimestamp(now // SECOND, zone or UTC)
    if kind == "hour":
        return _local_hour(local, now, zone)
    first = local.date()
    if kind == "day":
        after = first + timedelta(days=1)
    elif kind == "week":
        first -= timedelta(days=first.weekday())
        after = first + timedelta(days=7)
    else:
        first = first.replace(day=1)
        after = (first + timedelta(days=31)).replace(day=1)
    return Bounds(_midnight(first, zone), _midnight(after, zone))


def _utc_window(kind: CalendarKind, now: int) -> Bounds:
    # The epoch was a Thursday: weeks from Monday start three days before a multiple of seven.
    length, shift = {"hour": (HOUR, 0), "day": (DAY, 0), "week": (7 * DAY, 3 * DAY)}[kind]
    start = now - (now + shift) % length
    return Bounds(start, start + length)


def _midnight(day: date, zone: ZoneInfo | None) -> int:
    moment = datetime(day.year, day.month, day.day, tzinfo=zone or UTC)
    return int(moment.timestamp()) * SECOND


def _local_hour(local: datetime, now: int, zone: ZoneInfo | None) -> Bounds:
    start = now - now % SECOND - local.minute * MINUTE - local.second * SECOND
    end = start + HOUR
    # A change of offset within the hour (Lord Howe moves by 30 minutes) cuts the window in two.
    offset = local.utcoffset()
    if _offset_at(start, zone) != offset:
        start = _transition(start, now, zone)
    if _offset_at(end - 1, zone) != offset:
        end = _transition(now, end - 1, zone)
    return Bounds(start, end)


def _offset_at(moment: int, zone: ZoneInfo | None) -> timedelta | None:
    return datetime.fromtimestamp(moment // SECOND, zone or UTC).utcoffset()


def _transition(before: int, after: int, zone: ZoneInfo | None) -> int:
    """Return the first second whose offset is that of `after`, searching between the two."""
    low, high, wanted = before // SECOND, after // SECOND, _offset_at(after, zone)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset_at(middle * SECOND, zone) == wanted:
            high = middle
        else:
            low = middle
    return high * SECOND

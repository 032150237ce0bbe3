"""How many windows a time touches, held against the calendar day by day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from guardrail.analysis.through import Time, days, of_rate, time_of, windows
from guardrail.loading import load_text
from guardrail.model.amounts import DAY, HOUR, SECOND
from guardrail.model.rules import Rate, Window

HOURS = {kind: Window(kind, kind) for kind in ("hour", "day", "week", "month")}
SINCE = datetime(2026, 1, 1, tzinfo=UTC)


def begins(kind: str, zone: str, years: int = 3) -> list[int]:
    """Return when windows of the calendar begin, in microseconds."""
    found, own = [], ZoneInfo(zone)
    if kind == "hour":
        count = 24 * 366 * years
        return [round((SINCE + timedelta(hours=n)).timestamp()) * SECOND for n in range(count)]
    for number in range(366 * years):
        day = datetime(2026, 1, 1, tzinfo=own) + timedelta(days=number)
        if {"day": True, "week": day.weekday() == 0, "month": day.day == 1}[kind]:
            found.append(round(day.timestamp()) * SECOND)
    return found


def touched(starts: list[int], times: Iterator[tuple[int, int]]) -> int:
    """Return the most windows that one of some times touches."""
    most = 0
    for begin, end in times:
        within = sum(1 for start in starts if begin < start < end)
        most = max(most, within + 1)
    return most


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize("kind", ["day", "week", "month"])
@pytest.mark.parametrize("count", [1, 2, 6, 7, 8, 29, 30, 31])
def test_whole_days_touch_as_many_windows_as_the_calendar_has(kind, count, zone):
    firsts, starts = begins("day", zone), begins(kind, zone)
    times = ((firsts[n], firsts[n + count]) for n in range(len(firsts) - count))

    assert windows(HOURS[kind], days(count), zone) == touched(starts, times)


@pytest.mark.parametrize("over", ["day", "week", "month"])
@pytest.mark.parametrize("kind", ["day", "week", "month"])
def test_a_window_of_the_calendar_touches_as_many_others_as_it_does_there(kind, over):
    firsts, starts = begins(over, "UTC"), begins(kind, "UTC")
    times = pairwise(firsts)

    assert windows(HOURS[kind], time_of(HOURS[over]), "UTC") == touched(starts, times)


def test_hours_of_a_day_are_more_where_clocks_are_set_back():
    assert windows(HOURS["hour"], days(1), "UTC") == 24
    assert windows(HOURS["hour"], days(1), "Europe/Berlin") == 27
    assert windows(HOURS["day"], time_of(HOURS["hour"]), "UTC") == 1


@pytest.mark.parametrize("length", [HOUR, 30 * HOUR, 7 * DAY, 30 * DAY, 35 * DAY])
@pytest.mark.parametrize("kind", ["day", "week", "month"])
def test_a_time_that_begins_anywhere_never_touches_more_than_is_said(kind, length):
    starts = begins(kind, "UTC")
    times = (
        (start - SECOND, start - SECOND + length)
        for start in starts[: -40 if kind == "day" else -7]
    )
    said = windows(HOURS[kind], Time(length), "UTC")

    assert said is not None
    assert touched(starts, times) <= said


def test_what_lasts_for_ever_touches_any_number_and_is_itself_touched_once():
    ever = Window("lifetime", "lifetime")

    assert windows(HOURS["month"], Time(None), "UTC") is None
    assert windows(ever, Time(None), "UTC") == 1
    assert windows(Window("rolling", "7d", 7 * DAY), days(30), "UTC") == 5


def test_a_pace_lets_through_its_burst_and_what_is_due():
    rule = load_text(
        "guardrail: 1\npolicy: p\nrules:\n  - {id: r, when: always, rate: {requests: 60/minute, "
        "burst: 20, key: account.id}}\n"
    ).rules[0]
    assert isinstance(rule.verb, Rate)
    through = of_rate(rule.verb, [(60, 20)], days(1), "UTC")

    assert through is not None
    assert (through.each, through.due, through.total) == (20, 86_400, 86_420)
    assert of_rate(rule.verb, [(60, 20)], Time(None), "UTC") is None

"""Calendar windows tile the time line in every zone, and paces round to the safe side."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.engine import pace_increment, pace_room, windows
from guardrail.engine.windows import (
    ROLLING_SPAN,
    calendar_window,
    rolling_frees_at,
    rolling_width,
)
from guardrail.model.amounts import DAY, HOUR, MINUTE, SECOND

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/Santiago",
    "America/Havana",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "Africa/Cairo",
]
KINDS = ["hour", "day", "week", "month"]
MOMENTS = st.integers(1_577_836_800, 1_924_991_999)


def broken(kind, zone, moment):
    """Return what is wrong with the windows around a moment (seconds), None if nothing is."""
    zone = None if zone == "UTC" else ZoneInfo(zone)
    now = moment * SECOND
    window = calendar_window(kind, now, zone)
    if not window.start <= now < window.end:
        return "the moment is outside its window"
    if calendar_window(kind, window.start, zone) != window:
        return "the first instant belongs to another window"
    if calendar_window(kind, window.end - 1, zone) != window:
        return "the last instant belongs to another window"
    after = calendar_window(kind, window.end, zone)
    return None if after.start == window.end else "the next window starts elsewhere"


@pytest.mark.parametrize("kind", KINDS)
@given(zone=st.sampled_from(ZONES), moment=MOMENTS)
def test_windows_tile_the_time_line(kind, zone, moment):
    assert broken(kind, zone, moment) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("zone", ZONES)
def test_windows_tile_the_days_on_which_clocks_change(kind, zone):
    moment, last = datetime(2026, 1, 1, tzinfo=UTC), None
    for _ in range(365 * 24 * 2):
        offset = moment.astimezone(ZoneInfo(zone)).utcoffset()
        if last is not None and offset != last:
            for minutes in range(-300, 301, 10):
                assert broken(kind, zone, int(moment.timestamp()) + minutes * 60) is None
        last = offset
        moment += timedelta(minutes=30)


def test_the_mutant_whose_hours_ignore_a_change_within_them_is_found_out(monkeypatch):
    monkeypatch.setattr(windows, "_offset_at", lambda moment, zone: timedelta(hours=11))
    change = int(datetime(2026, 4, 4, 15, tzinfo=UTC).timestamp())

    wrong = [broken("hour", "Australia/Lord_Howe", change + m * 60) for m in range(-90, 91, 5)]
    assert any(wrong)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("America/Santiago", "2026-09-06", 23),
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
    ],
)
def test_a_day_on_which_clocks_change_is_as_long_as_it_is(zone, day, hours):
    noon = datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=ZoneInfo(zone))
    window = calendar_window("day", int(noon.timestamp()) * SECOND, ZoneInfo(zone))

    assert window.end - window.start == hours * HOUR


@pytest.mark.parametrize(
    ("kind", "start", "end"),
    [
        ("week", "2026-02-23", "2026-03-02"),
        ("month", "2026-02-01", "2026-03-01"),
        ("day", "2026-02-28", "2026-03-01"),
    ],
)
def test_weeks_start_on_monday_and_months_on_their_first(kind, start, end):
    now = int(datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC).timestamp()) * SECOND
    window = calendar_window(kind, now, None)

    assert window.start == int(datetime.fromisoformat(f"{start}T00:00Z").timestamp()) * SECOND
    assert window.end == int(datetime.fromisoformat(f"{end}T00:00Z").timestamp()) * SECOND


@given(st.integers(1, 10**12), st.integers(1, 10**12), st.sampled_from([SECOND, MINUTE, HOUR, DAY]))
def test_a_pace_never_gives_more_than_its_limit_in_its_period(amount, limit, period):
    increment = pace_increment(amount, limit, period)

    assert increment * limit >= amount * period
    assert pace_room(increment, limit, period) >= amount
    assert pace_room(increment - 1, limit, period) <= amount


@given(st.integers(60 * SECOND, 366 * DAY), st.integers(0, 2**50))
def test_a_rolling_slot_counts_for_at_least_the_whole_window(length, now):
    width = rolling_width(length)
    slot = now // width

    assert rolling_frees_at(slot, width) - now >= length
    assert rolling_frees_at(slot, width) - slot * width == ROLLING_SPAN * width

"""Figures of a report as a person reads them: shares, counts, differences, moments, lengths."""

from __future__ import annotations

from datetime import UTC, datetime

from guardrail.pages import label


def many(count: int, noun: str) -> str:
    """Return a count with its noun: `no request`, `1 request`, `2,000 requests`."""
    if not count:
        return f"no {noun}"
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def ratio(part: float, whole: float) -> float:
    """Return what part of a whole something is, 0 of nothing."""
    return part / whole if whole else 0.0


def share(part: float, whole: float) -> str:
    """Return what part of a whole something is in percent, a dash of nothing."""
    if not whole:
        return "–"
    value = 100 * part / whole
    return f"{value:.3f}%" if 0 < value < 0.1 else f"{value:.1f}%"


def change(before: int, after: int) -> str:
    """Return by how much a count changed: `+20`, `−3`, `none`."""
    return f"{after - before:+,}".replace("-", "−") if after != before else "none"


def moment(seconds: float) -> str:
    """Return a time, given in seconds since the epoch, to the minute in UTC."""
    return f"{datetime.fromtimestamp(int(seconds), UTC):%Y-%m-%d %H:%M}"


def length(seconds: int) -> str:
    """Return a length of time in its largest whole unit: `day`, `3 hours`, `15 seconds`."""
    for size, name in ((604800, "week"), (86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds % size == 0:
            number = seconds // size
            return name if number == 1 else f"{number} {name}s"
    return "second" if seconds == 1 else f"{label(seconds, '')} seconds"

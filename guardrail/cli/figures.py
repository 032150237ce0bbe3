"""Numbers, times and tables as text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from guardrail.cli.inert import padded, width

NONE = "–"
_DAY = 86400.0


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 rule`, `2 rules`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def share(part: float, whole: float) -> str:
    """Return a share in percent, with two decimals."""
    return f"{100 * part / whole:.2f}%" if whole else NONE


def length(seconds: float) -> str:
    """Return a length of time in its two largest units: `1h20m`, `1d`, `7d12h`, `1.5s`."""
    whole = round(seconds)
    if seconds < 60:
        return f"{seconds:.3g}s"
    if whole >= 2 * _DAY or whole == _DAY:
        days, rest = divmod(whole, int(_DAY))
        return f"{days}d{rest // 3600}h" if rest >= 3600 else f"{days}d"
    if whole >= 3600:
        hours, rest = divmod(whole, 3600)
        return f"{hours}h{rest // 60}m" if rest >= 60 else f"{hours}h"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest}s" if rest else f"{minutes}m"


def period(first: float, last: float) -> str:
    """Return a period of time, by its dates if it spans days, in UTC."""
    start, end = (datetime.fromtimestamp(int(moment), UTC) for moment in (first, last))
    if last - first >= 2 * _DAY:
        return f"{start:%Y-%m-%d} → {end:%Y-%m-%d}"
    return f"{start:%Y-%m-%dT%H:%M:%SZ} → {end:%Y-%m-%dT%H:%M:%SZ}"


def moment(seconds: float) -> str:
    """Return a time in UTC."""
    return f"{datetime.fromtimestamp(int(seconds), UTC):%Y-%m-%dT%H:%M:%SZ}"


def columns(rows: Sequence[Sequence[str]], right: Sequence[bool], gap: str = "  ") -> list[str]:
    """Return rows of cells as lines, each column as wide as its widest cell."""
    widths = [max((width(row[at]) for row in rows), default=0) for at in range(len(right))]
    return [
        gap.join(
            padded(cell, cells, right=to_right)
            for cell, cells, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]


def beside(left: Sequence[str], right: Sequence[str], gap: int) -> list[str]:
    """Return two blocks of lines side by side."""
    cells = max((width(line) for line in left), default=0) + gap
    tall = max(len(left), len(right))
    first = [*left, *[""] * (tall - len(left))]
    second = [*right, *[""] * (tall - len(right))]
    return [f"{padded(a, cells)}{b}".rstrip() for a, b in zip(first, second, strict=True)]

"""Numbers, times and tables as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from guardrail.cli.inert import padded, width, wrapped

NONE = "–"
_DAY = 86400.0
LEAST = 10
"""How narrow a column of text may become."""


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


def columns(
    rows: Sequence[Sequence[str]], right: Sequence[bool], gap: str = "  ", cells: int = 0
) -> list[str]:
    """Return rows as lines of aligned columns; `right` says which are aligned to the right.

    With `cells` they take no more than that: texts, the widest first, go on in further lines.
    """
    if not rows:
        return []
    widths = [max(width(row[place]) for row in rows) for place in range(len(right))]
    if cells:
        gap = _narrowed(rows, widths, right, gap, cells)
    return [
        gap.join(
            padded(cell, cells, right=to_right)
            for cell, cells, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for row in rows
        for line in _broken(row, widths)
    ]


def _narrowed(
    rows: Sequence[Sequence[str]], widths: list[int], right: Sequence[bool], gap: str, cells: int
) -> str:
    """Make the widest columns of text narrower until the whole fits; return the gap to use.

    Where that is not enough, the first row breaks above columns of numbers, between its words.
    """
    over = sum(widths) + len(gap) * (len(widths) - 1) - cells
    texts = [place for place, to_right in enumerate(right) if not to_right]
    while over > 0 and texts:
        widest = max(texts, key=lambda place: widths[place])
        if widths[widest] <= LEAST:
            break
        widths[widest] -= 1
        over -= 1
    if over <= 0:
        return gap
    over -= (len(gap) - 1) * (len(widths) - 1)
    head, *others = rows
    for place, to_right in enumerate(right):
        if over > 0 and to_right:
            least = max(
                map(width, [*head[place].split(), *(row[place] for row in others)]), default=0
            )
            over -= max(0, widths[place] - least)
            widths[place] = min(widths[place], least)
    return " "


def _broken(row: Sequence[str], widths: Sequence[int]) -> Iterator[tuple[str, ...]]:
    parts = [wrapped(cell, max(1, cells)) for cell, cells in zip(row, widths, strict=True)]
    for number in range(max(map(len, parts))):
        yield tuple(part[number] if number < len(part) else "" for part in parts)

"""Numbers, times and tables as text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from guardrail.cli.inert import padded, width, wrapped

NONE = "–"
_DAY = 86400.0
LEAST = 10
"""How narrow a column of text may become."""


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 rule`, `2 rules`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def first_of(names: Sequence[str], most: int, separator: str = ", ") -> str:
    """Return the first few of some names, and how many more there are: `a, b and 7 more`."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


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
    """Make columns narrower until the whole fits; return the gap to use.

    First texts break between their words, the widest first. Where that is not enough columns stand
    closer, and the first row breaks above columns of numbers; only then words are broken.
    """
    over = sum(widths) + len(gap) * (len(widths) - 1) - cells
    texts = [place for place, to_right in enumerate(right) if not to_right]
    whole = {place: max(LEAST, max(_longest(row[place]) for row in rows)) for place in texts}
    over = _less_text(widths, whole, over)
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
    _less_text(widths, dict.fromkeys(texts, LEAST), over)
    return " "


def _less_text(widths: list[int], least: Mapping[int, int], over: int) -> int:
    """Make the widest columns of text narrower, to what is the least of each; return what is over.

    What is over is in cells.
    """
    while over > 0:
        wide = [place for place in least if widths[place] > least[place]]
        if not wide:
            break
        widths[max(wide, key=lambda place: widths[place])] -= 1
        over -= 1
    return over


def _longest(text: str) -> int:
    """Return how many cells the longest part of a text takes that nothing inside breaks."""
    return max((width(part) for part in re.findall(r"[^ \-/_.]+[\-/_.]?", text)), default=0)


def stacked(rows: Sequence[Sequence[str]], right: Sequence[bool], cells: int) -> list[str]:
    """Return rows as `columns` does, in two tables beneath each other where one has no room.

    Each has the first column, and one half of the others.
    """
    lines = columns(rows, right)
    if not rows or max(map(width, lines)) <= cells:
        return lines
    half = (len(right) + 2) // 2
    parts: list[str] = []
    for places in (range(1, half), range(half, len(right))):
        shown = [[row[0], *(row[place] for place in places)] for row in rows]
        parts += ["", *columns(shown, [right[0], *(right[place] for place in places)], cells=cells)]
    return parts[1:]


def _broken(row: Sequence[str], widths: Sequence[int]) -> Iterator[tuple[str, ...]]:
    parts = [wrapped(cell, max(1, cells)) for cell, cells in zip(row, widths, strict=True)]
    for number in range(max(map(len, parts))):
        yield tuple(part[number] if number < len(part) else "" for part in parts)

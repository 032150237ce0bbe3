"""Plots as HTML with inline SVG: lines over time and bars by name, coloured by the page's style.

Each has its figures as a table too: bars are one, lines have one behind them. Series differ in
their strokes, not in colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from guardrail.pages.document import shown, table

WIDTH, HEIGHT = 720, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 34
_TICKS = 6
_MOST_DOTS = 400


@dataclass(frozen=True, slots=True)
class Line:
    """One series: its name, its style (a class of the style sheet), its values in order."""

    name: str
    style: str
    values: Sequence[float]
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its name, its style, its value, and the value as text."""

    name: str
    style: str
    value: float
    text: str


def lines_plot(title: str, unit: str, names: Sequence[str], lines: Sequence[Line]) -> str:
    """Return a plot of series over places in time, each of which has a name, and its table.

    Values are counts of `unit`, or shares of 0 to 1 where the unit is `%`.
    """
    count = len(names)
    top = nice(max((value for line in lines for value in line.values), default=0.0))
    if unit == "%":
        top = min(1.0, top)
    wide, tall = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def x(at: float) -> float:
        return _LEFT + wide * (at / max(1, count - 1))

    def y(value: float) -> float:
        return _TOP + tall * (1 - value / top)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{shown(title)}">'
        f"<desc>{shown(_described(unit, names, lines), 600)}</desc>"
    ]
    for step in range(5):
        value = top * step / 4
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(value):.1f}" '
            f'y2="{y(value):.1f}"/><text text-anchor="end" x="{_LEFT - 8}" '
            f'y="{y(value) + 4:.1f}">{label(value, unit)}</text>'
        )
    for at in range(0, count, max(1, math.ceil(count / _TICKS))):
        anchor = "middle" if x(at) < WIDTH - 60 else "end"
        parts.append(
            f'<text text-anchor="{anchor}" x="{x(at):.1f}" y="{HEIGHT - 12}">'
            f"{shown(names[at])}</text>"
        )
    for line in lines:
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in enumerate(line.values))
        if line.filled and line.values:
            end = x(len(line.values) - 1)
            parts.append(
                f'<polygon class="{line.style} fill" '
                f'points="{_LEFT},{y(0):.1f} {points} {end:.1f},{y(0):.1f}"/>'
            )
        parts.append(f'<polyline class="{line.style} line" points="{points}"/>')
        if len(line.values) > _MOST_DOTS:
            continue
        for at, value in enumerate(line.values):
            told = f"{names[at]}, {line.name}: {label(value, unit)}"
            parts.append(
                f'<circle class="{line.style} dot" cx="{x(at):.1f}" cy="{y(value):.1f}" r="4">'
                f"<title>{shown(told)}</title></circle>"
            )
    parts.append("</svg>")
    key = "".join(
        f'<span class="key"><svg viewBox="0 0 32 10" aria-hidden="true"><line class="{line.style} '
        f'line" x1="0" x2="32" y1="5" y2="5"/></svg>{shown(line.name)}</span>'
        for line in lines
    )
    rows = [
        [name, *(label(line.values[at], unit) for line in lines)] for at, name in enumerate(names)
    ]
    behind = table(["", *(line.name for line in lines)], rows, caption=title)
    return (
        f"<figure><figcaption>{shown(title)} {key}</figcaption>"
        f'<div class="plot" tabindex="0" role="region" aria-label="{shown(title)}: plot">'
        f"{''.join(parts)}</div>"
        f"<details><summary>These figures as a table</summary>{behind}</details></figure>"
    )


def bars_plot(
    title: str,
    bars: Sequence[Bar],
    head: tuple[str, str] = ("", ""),
    whole: float | None = None,
) -> str:
    """Return a table with a bar in each row, that of `whole` as wide as its column.

    `head` names what the bars stand for, and their values. Without a `whole` the longest bar fills
    its column.
    """
    most = whole or max((bar.value for bar in bars), default=0.0) or 1.0
    rows = "".join(
        f'<tr><th scope="row">{shown(bar.name)}</th>'
        '<td class="bar"><svg viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="back" x="0" y="0" width="1000" height="10"/>'
        f'<rect class="{bar.style}" x="0" y="0" width="{_width(bar.value, most):.1f}" '
        f'height="10"/></svg></td><td>{shown(bar.text)}</td></tr>'
        for bar in bars
    )
    first, last = head
    opening = ""
    if first or last:
        opening = (
            f'<thead><tr><th scope="col">{shown(first)}</th><td></td>'
            f'<th scope="col">{shown(last)}</th></tr></thead>'
        )
    return (
        f'<div class="wide"><table class="bars"><caption>{shown(title)}</caption>{opening}'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _width(value: float, most: float) -> float:
    """Return how wide a bar is, of 1,000; what is there at all can be seen."""
    return 0.0 if value <= 0 else max(4.0, 1000 * value / most)


def times_axis(starts: Sequence[float], width: float) -> list[str]:
    """Return the names of bins of `width` seconds that start at some times, in UTC."""
    pattern = "%Y-%m-%d"
    if width < 86400:
        same_day = len({int(start // 86400) for start in starts}) == 1
        clock = "%H:%M:%S" if width < 60 else "%H:%M"
        pattern = clock if same_day else f"%m-%d {clock}"
    return [f"{datetime.fromtimestamp(int(start), UTC):{pattern}}" for start in starts]


def nice(most: float) -> float:
    """Return the next number of 1, 2, 2.5 or 5 times a power of ten; 1 for nothing."""
    if most <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(most))
    return next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= most * 0.999999)


def label(value: float, unit: str) -> str:
    """Return a value as an axis names it: a share in percent, a count in thousands or millions."""
    if unit == "%":
        return f"{100 * value:.3g}%"
    for size, name in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{name}"
    return f"{value:.3g}"


def _described(unit: str, names: Sequence[str], lines: Sequence[Line]) -> str:
    told = []
    for line in lines:
        if not line.values:
            continue
        at = max(range(len(line.values)), key=lambda place: line.values[place])
        told.append(
            f"{line.name}: {label(line.values[0], unit)} at first, at most "
            f"{label(line.values[at], unit)} ({names[at]}), {label(line.values[-1], unit)} at last."
        )
    return " ".join(told)

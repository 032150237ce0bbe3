"""Plots as inline SVG: lines over days and bars by name, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 34
_BAR, _GAP, _LABELS = 16, 8, 190


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


def lines_plot(title: str, unit: str, first: int, lines: Sequence[Line]) -> str:
    """Return a plot of series over days, the first of which has the number `first`.

    Values are counts of `unit`, or shares of 0 to 1 where the unit is `%`.
    """
    count = max(len(line.values) for line in lines)
    top = nice(max((value for line in lines for value in line.values), default=0.0))
    if unit == "%":
        top = min(1.0, top)
    wide, tall = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def x(at: float) -> float:
        return _LEFT + wide * (at / max(1, count - 1))

    def y(value: float) -> float:
        return _TOP + tall * (1 - value / top)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for step in range(5):
        value = top * step / 4
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(value):.1f}" '
            f'y2="{y(value):.1f}"/><text class="axis" text-anchor="end" x="{_LEFT - 8}" '
            f'y="{y(value) + 4:.1f}">{label(value, unit)}</text>'
        )
    for at in range(0, count, max(1, math.ceil(count / 9))):
        parts.append(
            f'<text class="axis" text-anchor="middle" x="{x(at):.1f}" y="{HEIGHT - 12}">'
            f"{first + at}</text>"
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
        for at, value in enumerate(line.values):
            told = f"day {first + at}, {line.name}: {label(value, unit)}"
            parts.append(
                f'<circle class="{line.style} dot" cx="{x(at):.1f}" cy="{y(value):.1f}" r="3">'
                f"<title>{escape(told)}</title></circle>"
            )
    parts.append("</svg>")
    key = "".join(f'<span class="key {line.style}">{escape(line.name)}</span>' for line in lines)
    return f"<figure><figcaption>{escape(title)} {key}</figcaption>{''.join(parts)}</figure>"


def bars_plot(title: str, bars: Sequence[Bar]) -> str:
    """Return horizontal bars, the longest as wide as the plot."""
    height = len(bars) * (_BAR + _GAP) + _GAP
    most = max((bar.value for bar in bars), default=0.0) or 1.0
    wide = WIDTH - _LABELS - 90
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">']
    for number, bar in enumerate(bars):
        y = _GAP + number * (_BAR + _GAP)
        length = max(0.0, wide * bar.value / most)
        parts.append(
            f'<text class="name" text-anchor="end" x="{_LABELS - 8}" y="{y + 12}">'
            f"{escape(bar.name)}</text>"
            f'<rect class="{bar.style}" x="{_LABELS}" y="{y}" width="{length:.1f}" '
            f'height="{_BAR}"/><text class="axis" x="{_LABELS + length + 6:.1f}" y="{y + 12}">'
            f"{escape(bar.text)}</text>"
        )
    parts.append("</svg>")
    return f"<figure><figcaption>{escape(title)}</figcaption>{''.join(parts)}</figure>"


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

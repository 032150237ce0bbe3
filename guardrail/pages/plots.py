"""Plots as HTML: lines over time and bars by name, drawn by Vega-Lite, each with its table.

Series differ in their strokes, not in colour alone. What is drawn depends on the figures alone:
sizes are fixed, and no text is measured.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from guardrail.pages.document import shown, table
from guardrail.pages.drawing import drawn
from guardrail.pages.inert import shortened

_WIDTH, _HEIGHT = 640, 210
_LINES_PADDING = {"left": 58, "right": 22, "top": 36, "bottom": 30}
_TICKS = 6
_MOST_POINTS = 400
_BARS_WIDTH, _BAR_STEP = 360, 38
_LETTERS, _SHORTEST_NAME = 46, 12
"""How many letters fit above a bar, and how many its name may have at least."""
_LEAST = 0.004
"""How much of a column a bar is wide at least, so that what is there at all can be seen."""
_DASHES = {"a": [1, 0], "b": [7, 3], "c": [2, 3], "d": [9, 3, 2, 3]}
"""How the line of each style is broken: lengths drawn and left out, in turn."""
_KEY = {
    "orient": "none",
    "direction": "horizontal",
    "legendX": 0,
    "legendY": -34,
    "columnPadding": 28,
    "symbolType": "stroke",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One series: its name, its style (a colour of the style sheet), its values in order."""

    name: str
    style: str
    values: Sequence[float]
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its name, its style, its value, the value as text, and where it ended before.

    `before` is None where there is no before to show.
    """

    name: str
    style: str
    value: float
    text: str
    before: float | None = None


def lines_plot(
    title: str,
    unit: str,
    names: Sequence[str],
    lines: Sequence[Line],
    times: Sequence[float] | None = None,
    marks: Sequence[tuple[float, str]] = (),
) -> str:
    """Return a plot of series over places that have names, and its table.

    Values are counts of `unit`, or shares of 0 to 1 where the unit is `%`. Places stand where
    `times` has them, in seconds since the epoch; without times they are as far apart as each other.
    `marks` are upright lines with names, each at a place counted from 0.
    """
    rows = [
        [name, *(label(line.values[at], unit) for line in lines)] for at, name in enumerate(names)
    ]
    behind = table(["", *(line.name for line in lines)], rows, caption=title)
    spec = _lines_spec(unit, names, lines, times)
    spec["layer"] += _marks(marks)
    name = shortened(title, 200)
    return (
        f"<figure><figcaption>{shown(title)}</figcaption>"
        f'<div class="plot" tabindex="0" role="region" aria-label="{shown(title)}: plot">'
        f"{drawn(spec, name, shortened(_described(unit, names, lines), 600))}</div>"
        f"{_behind(behind)}</figure>"
    )


def _lines_spec(
    unit: str, names: Sequence[str], lines: Sequence[Line], times: Sequence[float] | None
) -> dict[str, Any]:
    places = [1000.0 * time for time in times] if times is not None else list(range(len(names)))
    values = [
        {
            "x": places[at],
            "y": value,
            "line": shortened(line.name),
            "told": shortened(f"{names[at]}, {line.name}: {label(value, unit)}"),
            "filled": line.filled,
            "color": f"var(--{line.style})",
        }
        for line in lines
        for at, value in enumerate(line.values)
    ]
    most = max((row["y"] for row in values), default=0.0)
    domain = [shortened(line.name) for line in lines]
    colours = [f"var(--{line.style})" for line in lines]
    coloured = {
        **_field("line"),
        "scale": {"domain": domain, "range": colours},
        "legend": _KEY,
    }
    dashed = {
        **_field("line"),
        "scale": {"domain": domain, "range": [_DASHES[line.style] for line in lines]},
        "legend": _KEY,
    }
    plain = {**_field("color"), "scale": None}
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "area", "fillOpacity": 0.13, "line": False},
            "transform": [{"filter": "datum.filled"}],
            "encoding": {"color": plain, "y": {"stack": None}},
        },
        {
            "mark": {"type": "line", "strokeWidth": 2.2, "strokeCap": "butt"},
            "encoding": {"color": coloured, "strokeDash": dashed},
        },
    ]
    if len(names) <= _MOST_POINTS:
        layers.append(
            {
                "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
                "encoding": {"color": plain, "description": _field("told")},
            }
        )
    for layer in layers:
        layer["encoding"]["y"] = {
            **_measured("y"),
            **layer["encoding"].get("y", {}),
            "scale": {"zero": True, "nice": 4} if most else {"domain": [0, 1]},
            "axis": {"format": "~%" if unit == "%" else "~s", "tickCount": 4, "ticks": False}
            | ({} if unit == "%" else {"tickMinStep": 1}),
        }
        layer["encoding"]["x"] = _places(names, timed=times is not None)
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "autosize": "none",
        "padding": _LINES_PADDING,
        "data": {"values": values},
        "layer": layers,
    }


def _marks(marks: Sequence[tuple[float, str]]) -> list[dict[str, Any]]:
    """Return upright lines, each with its name beside it, one name below the other."""
    layers: list[dict[str, Any]] = []
    for number, (place, name) in enumerate(marks):
        at = {"x": {"datum": place, "type": "quantitative"}}
        rule = {"type": "rule", "color": "var(--ink)", "strokeDash": [1, 0] if number else [4, 3]}
        text = {"type": "text", "align": "left", "dx": 5, "fontSize": 12, "color": "var(--ink)"}
        shown_at = {"y": {"value": 10 + 16 * number}, "text": {"value": shortened(name)}}
        once: dict[str, Any] = {"data": {"values": [{}]}}
        layers += [
            {**once, "mark": rule, "encoding": at},
            {**once, "mark": text, "encoding": {**at, **shown_at}},
        ]
    return layers


def _places(names: Sequence[str], *, timed: bool) -> dict[str, Any]:
    if timed:
        axis = {
            "grid": False,
            "tickCount": _TICKS,
            "format": {
                "year": "%Y",
                "quarter": "%b %Y",
                "month": "%b %Y",
                "week": "%b %d",
                "date": "%b %d",
                "day": "%b %d",
                "hours": "%H:%M",
                "minutes": "%H:%M",
                "seconds": "%H:%M:%S",
            },
        }
        return {"field": "x", "type": "temporal", "scale": {"type": "utc"}, "axis": axis}
    told = json.dumps([shortened(name, 24) for name in names])
    step = next(step for step in _steps() if len(names) <= _TICKS * step + 1)
    axis = {
        "grid": False,
        "values": list(range(0, len(names), step)),
        "labelExpr": f"{told}[datum.value]",
    }
    return {**_measured("x"), "scale": {"nice": False, "zero": False}, "axis": axis}


def _steps() -> Iterator[int]:
    """Yield 1, 2, 5, 10, 20, 50 and so on."""
    for power in itertools.count():
        yield from (10**power, 2 * 10**power, 5 * 10**power)


def bars_plot(
    title: str,
    bars: Sequence[Bar],
    head: tuple[str, str] = ("", ""),
    whole: float | None = None,
) -> str:
    """Return a plot with a bar for each name, that of `whole` as wide as there is room.

    `head` names what the bars stand for, and their values. Without a `whole` the longest bar fills
    its row. What was before is marked on a bar.
    """
    most = whole or max((max(bar.value, bar.before or 0.0) for bar in bars), default=0.0) or 1.0
    behind = table(head, [[bar.name, bar.text] for bar in bars], caption=title)
    told = " ".join(f"{shortened(bar.name)}: {shortened(bar.text)}." for bar in bars)
    return (
        f'<figure class="bars"><figcaption>{shown(title)}</figcaption>'
        f"{drawn(_bars_spec(bars, most), shortened(title, 200), shortened(told, 600))}"
        f"{_behind(behind)}</figure>"
    )


def _bars_spec(bars: Sequence[Bar], most: float) -> dict[str, Any]:
    values = [
        {
            "at": at,
            "name": shortened(bar.name, max(_SHORTEST_NAME, _LETTERS - len(bar.text))),
            "share": max(_LEAST, min(1.0, bar.value / most)) if bar.value > 0 else 0.0,
            "text": shortened(bar.text),
            "color": f"var(--{bar.style})",
            "before": None if bar.before is None else min(1.0, bar.before / most),
        }
        for at, bar in enumerate(bars)
    ]
    across = {
        "field": "share",
        "type": "quantitative",
        "axis": None,
        "scale": {"domain": [0, 1], "nice": False},
    }
    tick = {"type": "tick", "size": 18, "thickness": 2.5, "yOffset": 9, "color": "var(--ink)"}
    earlier = [{"mark": tick, "encoding": {"x": {**across, "field": "before"}}}]
    if all(bar.before is None for bar in bars):
        earlier = []
    bar = {"type": "bar", "height": 10, "yOffset": 9}
    text = {"type": "text", "yOffset": -7, "fontSize": 13}
    coloured = {**_field("color"), "scale": None}
    return {
        "width": _BARS_WIDTH,
        "height": {"step": _BAR_STEP},
        "autosize": "none",
        "padding": 0,
        "data": {"values": values},
        "encoding": {"y": {"field": "at", "type": "ordinal", "axis": None}},
        "layer": [
            {
                "mark": {**bar, "color": "var(--panel)"},
                "encoding": {"x": {**across, "field": None, "datum": 0}, "x2": {"datum": 1}},
            },
            {"mark": bar, "encoding": {"x": across, "color": coloured}},
            *earlier,
            {
                "mark": {**text, "align": "left", "x": 0, "color": "var(--ink)"},
                "encoding": {"text": _field("name")},
            },
            {
                "mark": {**text, "align": "right", "x": _BARS_WIDTH, "color": "var(--soft)"},
                "encoding": {"text": _field("text")},
            },
        ],
    }


def _field(name: str) -> dict[str, Any]:
    return {"field": name, "type": "nominal"}


def _measured(name: str) -> dict[str, Any]:
    return {"field": name, "type": "quantitative"}


def _behind(figures: str) -> str:
    return f"<details><summary>These figures as a table</summary>{figures}</details>"


def times_axis(starts: Sequence[float], width: float) -> list[str]:
    """Return the names of bins of `width` seconds that start at some times, in UTC."""
    pattern = "%Y-%m-%d"
    if width < 86400:
        same_day = len({int(start // 86400) for start in starts}) == 1
        clock = "%H:%M:%S" if width < 60 else "%H:%M"
        pattern = clock if same_day else f"%m-%d {clock}"
    return [f"{datetime.fromtimestamp(int(start), UTC):{pattern}}" for start in starts]


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

"""One page about a replay: what the policies did to the traffic, to read, to print, to hand on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from guardrail.pages import (
    Bar,
    Line,
    bars_plot,
    document,
    label,
    lines_plot,
    shown,
    table,
    times_axis,
)

Fields = Mapping[str, Any]

REFUSING = ("throttle", "block")
_ALLOW, _DEGRADE, _THROTTLE, _BLOCK = range(4)
_MOST_VALUES = 12
"""How many values of a fact are shown; the rest are counted together."""
_NEAR = 0.8
"""From which share of a limit on a key is near it."""


def report_page(told: Fields, before: Fields | None = None) -> str:
    """Return the page on the figures of a replay, beside those of the policies before.

    Both are `ReportFigures.fields` of the same traffic; `told` may also have `traffic` (names of
    files), `notes` (what a reader must know), `ending` and `findings`, lists of sentences.
    """
    body = _body(told, before)
    return document(f"What {told['policy']} does to this traffic", body)


def _body(told: Fields, before: Fields | None) -> str:
    sections = [
        section for section in _sections(told, before) if section is not None and section[2]
    ]
    links = "".join(f'<li><a href="#{name}">{shown(title)}</a></li>' for name, title, _ in sections)
    parts = "".join(
        f'<section aria-labelledby="{name}"><h2 id="{name}">{shown(title)}</h2>{html}</section>'
        for name, title, html in sections
    )
    return (
        '<a class="skip" href="#main">Skip to the figures</a>'
        f"<header><h1>What <code>{shown(told['policy'])}</code> does to this traffic</h1>"
        f"{_heading(told)}</header>"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav><main id="main">{parts}</main>'
    )


def _sections(told: Fields, before: Fields | None) -> Iterator[tuple[str, str, str] | None]:
    yield "short", "In short", _in_short(told)
    if before is not None:
        yield "before", "Before and after", "".join(_before_and_after(told, before))
    yield "time", "Over time", "".join(_over_time(told, before))
    yield "rules", "By rule", "".join(_by_rule(told))
    yield "segments", "By segment", "".join(_by_segment(told))
    yield "limits", "Each limit, and what meets it", "".join(_limits(told))
    yield "accounts", "Who is hurt most", "".join(_worst(told))
    yield "shadow", "Shadow rules", "".join(_shadow(told))
    yield "unknown", "Decided on a missing fact", "".join(_unknown(told))
    yield "steps", "Steps without effect", "".join(_steps(told))
    yield "ends", "What ends soon", _list(told.get("ending", ()))
    yield "findings", "What check found", _list(told.get("findings", ()))
    yield "reading", "How to read this", _reading(told)


def _heading(told: Fields) -> str:
    series = told["series"]
    parts = [f"Revision <code>{shown(told['revision'][:23])}…</code>"]
    if series:
        first, last = series[0][0], series[-1][0] + told["bin"]
        parts.append(f"traffic from {_moment(first)} to {_moment(last)} (UTC)")
    if told.get("traffic"):
        parts.append("of " + ", ".join(f"<code>{shown(name)}</code>" for name in told["traffic"]))
    return f'<p class="soft">{", ".join(parts)}.</p>'


def _in_short(told: Fields) -> str:
    return "".join(_boxes(told)) + f'<p class="lead">{" ".join(_summary(told))}</p>'


def _boxes(told: Fields) -> Iterator[str]:
    refused = _refused(told)
    boxes = [
        (_share(refused, told["requests"]), f"of {told['requests']:,} requests refused"),
    ]
    if told["accounts"]:
        boxes.append(
            (
                _share(told["accounts_refused"], told["accounts"]),
                f"of {told['accounts']:,} accounts refused at least once",
            )
        )
    degraded = told["effects"]["degrade"]["requests"]
    boxes.append((_share(degraded, told["requests"]), "of requests served with less (degraded)"))
    inner = "".join(f"<div><b>{value}</b>{shown(text)}</div>" for value, text in boxes)
    yield f'<div class="three">{inner}</div>'


def _summary(told: Fields) -> Iterator[str]:
    requests, refused = told["requests"], _refused(told)
    effects = told["effects"]
    if not requests:
        yield "There was no request to decide."
        return
    if not refused:
        yield f"None of {requests:,} requests would have been refused."
    else:
        yield (
            f"Of {requests:,} requests, {refused:,} ({_share(refused, requests)}) are refused: "
            f"{effects['block']['requests']:,} blocked and {effects['throttle']['requests']:,} "
            "told to wait."
        )
    if told["accounts"] and refused:
        yield f"That meets {told['accounts_refused']:,} of {told['accounts']:,} accounts."
        worst = told["worst"]
        most = sum(row["refused"] for row in worst)
        if 1 < len(worst) < told["accounts_refused"]:
            yield (
                f"The {len(worst)} accounts hurt most carry {_share(most, refused)} of the "
                "refusals."
            )
    ranked = _ranked(told["rules"])
    if ranked and refused:
        named = " and ".join(
            f"<code>{shown(row['rule'])}</code> ({_share(_by(row), refused)})" for row in ranked[:2]
        )
        yield f"The rule{'s' if len(ranked) > 1 else ''} that refuse most: {named}."
    spread = next((found for found in told["segments"] if found["fact"] == "account.tier"), None)
    if spread is not None and refused:
        shares = ", ".join(
            f"{shown(row[0])} {_share(row[1 + _THROTTLE] + row[1 + _BLOCK], sum(row[1:]))}"
            for row in spread["rows"][:6]
        )
        yield f"Refused by tier: {shares}."
    would = sum(told["shadow"]["requests"].values())
    if any(row["mode"] == "shadow" for row in told["rules"]):
        yield f"Shadow rules, if enforced, would treat {_many(would, 'request')} more strictly."
    hinged = sum(row["requests"] for row in told["unknown"])
    if hinged:
        were = "was" if hinged == 1 else "were"
        yield f"{_many(hinged, 'request')} {were} decided on a fact that was missing."
    if told.get("ending"):
        yield f"Of exemptions and rules, {len(told['ending'])} end within two weeks."


def _before_and_after(told: Fields, before: Fields) -> Iterator[str]:
    rows = [
        [
            effect,
            f"{before['effects'][effect]['requests']:,}",
            f"{told['effects'][effect]['requests']:,}",
            _change(before["effects"][effect]["requests"], told["effects"][effect]["requests"]),
        ]
        for effect in ("allow", "degrade", *REFUSING)
    ]
    rows.append(
        [
            "accounts refused",
            f"{before['accounts_refused']:,}",
            f"{told['accounts_refused']:,}",
            _change(before["accounts_refused"], told["accounts_refused"]),
        ]
    )
    head = ["requests", "before", "after", "change"]
    yield table(head, rows, caption=f"Before: revision {before['revision'][:23]}…")
    old, new = ({row["rule"]: row for row in each["rules"]} for each in (before, told))
    changed = []
    for name in [*new, *(name for name in old if name not in new)]:
        counts = [_by(each[name]) if name in each else None for each in (old, new)]
        if counts[0] != counts[1]:
            told_counts = ["no such rule" if count is None else f"{count:,}" for count in counts]
            changed.append([name, *told_counts, _change(counts[0] or 0, counts[1] or 0)])
    if changed:
        yield table(
            ["rule", "before", "after", "change"],
            changed,
            caption="Requests refused, by rules whose figure differs",
        )
    else:
        yield "<p>Each rule refuses as many requests as before.</p>"


def _over_time(told: Fields, before: Fields | None) -> Iterator[str]:
    series = told["series"]
    if len(series) < 2:
        return
    starts = [row[0] for row in series]
    names = times_axis(starts, told["bin"])
    # Bins that do not follow each other stand side by side: years between them would hide all.
    times = starts if all(b - a == told["bin"] for a, b in pairwise(starts)) else None
    wide = _length(told["bin"])
    lines = [
        Line("blocked", "b", _shares(series, _BLOCK), filled=True),
        Line("told to wait", "a", _shares(series, _THROTTLE)),
        Line("served with less", "d", _shares(series, _DEGRADE)),
    ]
    if before is not None and before["bin"] == told["bin"]:
        old = {row[0]: row for row in before["series"]}
        rows = [old.get(row[0], [row[0], 0, 0, 0, 0]) for row in series]
        lines = [
            Line("refused", "b", _shares(series, _THROTTLE, _BLOCK), filled=True),
            Line("refused before", "c", _shares(rows, _THROTTLE, _BLOCK)),
        ]
    lines = [line for line in lines if any(line.values)]
    if lines:
        yield lines_plot(f"Share of requests by {wide}", "%", names, lines, times)
    else:
        yield "<p>No request was refused, or served with less.</p>"
    asked = [float(sum(row[1:])) for row in series]
    line = Line("requests", "c", asked, filled=True)
    yield lines_plot(f"Requests by {wide}", "", names, [line], times)


def _by_rule(told: Fields) -> Iterator[str]:
    ranked = _ranked(told["rules"])
    refused = _refused(told)
    if ranked:
        yield bars_plot(
            "Requests refused, by the rule that decided",
            [
                Bar(row["rule"], "b", _by(row), f"{_by(row):,} ({_share(_by(row), refused)})")
                for row in ranked
            ],
            ("rule", "refused"),
        )
    acting = [row for row in told["rules"] if _acts(row)]
    if acting:
        yield table(
            ["rule", "kind", "mode", "applied to", "degraded", "told to wait", "blocked"],
            [
                [
                    row["rule"],
                    row["verb"],
                    row["mode"],
                    f"{row['matched']:,}",
                    *(f"{row[effect]:,}" if row[effect] else "–" for effect in _EFFECTS),
                ]
                for row in sorted(acting, key=lambda row: (row["mode"] == "shadow", -_by(row)))
            ],
            caption="Rules that decided; of a shadow rule, what it would have done",
            texts=(1, 2),
        )
    if told["by_no_rule"]:
        yield (
            f"<p>{told['by_no_rule']:,} requests were refused by no rule: see what check found.</p>"
        )
    quiet = [row["rule"] for row in told["rules"] if not _acts(row) and row["mode"] != "off"]
    if quiet:
        named = ", ".join(f"<code>{shown(name)}</code>" for name in quiet)
        yield f'<p class="soft">Rules that decided nothing here ({len(quiet)}): {named}.</p>'


_EFFECTS = ("degrade", *REFUSING)
_PAST = {"degrade": "degraded", "throttle": "told to wait", "block": "blocked"}


def _by_segment(told: Fields) -> Iterator[str]:
    if not _refused(told):
        return
    plots = [_segment_plot(found) for found in told["segments"] if len(found["rows"]) > 1]
    if plots:
        yield f'<div class="pair">{"".join(plots)}</div>'


def _segment_plot(found: Fields) -> str:
    rows, rest = found["rows"][:_MOST_VALUES], found["rows"][_MOST_VALUES:]
    if rest:
        rest_counts = [sum(column) for column in zip(*(row[1:] for row in rest), strict=True)]
        rows = [*rows, [f"({len(rest):,} others)", *rest_counts]]
    bars = []
    for value, *counts in rows:
        refused, asked = counts[_THROTTLE] + counts[_BLOCK], sum(counts)
        text = f"{_share(refused, asked)} of {asked:,}"
        bars.append(Bar(value, "b", _part(refused, asked), text))
    title = f"Share of requests refused, by {found['fact']}"
    return bars_plot(title, bars, (found["fact"], "refused"), whole=1.0)


def _limits(told: Fields) -> Iterator[str]:
    rows = [row for row in told["limits"] if row["keys"]]
    if not rows:
        return
    met = [row for row in rows if _met(row, told["bands"])]
    yield (
        "<p>For each limit: how its keys (accounts, devices, …) are spread by the most they asked "
        "of it, in percent of the limit, what was turned away included; and what the rule would "
        "refuse were the limit so many times as large. These are <strong>first-order</strong> "
        "estimates from the fill: other rules stay as they are, and nobody reacts. Compare the "
        "estimate for ×1 with what was measured before you trust the others.</p>"
    )
    for row in sorted(met, key=lambda row: (-row["refused"], -_near(row, told["bands"]))):
        yield _limit(row, told["bands"])
    idle = [row for row in rows if not _met(row, told["bands"])]
    if idle:
        yield table(
            ["limit", "counts", "limit is", "keys", "nearest key"],
            [
                [
                    row["rule"],
                    row["unit"],
                    f"{row['limit']} {row['per']}",
                    f"{row['keys']:,}",
                    _nearest(row, told),
                ]
                for row in idle
            ],
            caption=f"Limits that no key came near: none asked for {100 * _NEAR:.0f}% of them",
            texts=(1, 2),
        )


def _limit(row: Fields, bands: Sequence[float]) -> str:
    keys = row["keys"]
    whose = " and ".join(row["key"]) or "all together"
    sampled = f", estimated from one in {row['every']:,}" if row["every"] > 1 else ""
    shadow = ", in shadow" if row["mode"] == "shadow" else ""
    names = [f"under {100 * bands[0]:.0f}%"]
    names += [f"{100 * a:.0f} to {100 * b:.0f}%" for a, b in pairwise(bands)]
    names.append(f"over {100 * bands[-1]:.0f}%")
    bars = [
        Bar(name, _band_style(at, bands), count, f"{count:,} ({_share(count, keys)})")
        for at, (name, count) in enumerate(zip(names, row["bands"], strict=True))
    ]
    html = bars_plot(
        f"{_many(keys, 'key')} by the most they asked of the limit{sampled}; "
        f"{_near(row, bands):,} came past 80% of it, {_over(row, bands):,} past all of it",
        bars,
        (f"share of the limit ({whose})", "keys"),
        whole=keys,
    )
    measured = f"; as measured, this limit refused {row['refused']:,}"
    rows = [
        [f"×{times:g}" + (" (now)" if times == 1 else ""), f"{requests:,}", f"{reached:,}"]
        for times, requests, reached in row["past"]
    ]
    trial = table(
        ["limit", "requests refused", "keys refused"],
        rows,
        caption=f"First-order estimate of what another number would refuse{measured}",
    )
    return (
        f'<div class="limit"><h3><code>{shown(row["rule"])}</code>: {shown(row["limit"])} '
        f"{shown(row['unit'])} {shown(row['per'])} ({shown(row['verb'])}{shadow})</h3>"
        f"{html}{trial}</div>"
    )


def _band_style(at: int, bands: Sequence[float]) -> str:
    start = bands[at - 1] if at else 0.0
    return "b" if start >= 1 else "a" if start >= _NEAR else "c"


def _near(row: Fields, bands: Sequence[float]) -> int:
    return sum(row["bands"][bands.index(_NEAR) + 1 :])


def _over(row: Fields, bands: Sequence[float]) -> int:
    return sum(row["bands"][bands.index(1.0) + 1 :])


def _met(row: Fields, bands: Sequence[float]) -> bool:
    return bool(row["refused"] or _near(row, bands))


def _nearest(row: Fields, told: Fields) -> str:
    bands = told["bands"]
    last = max(at for at, count in enumerate(row["bands"]) if count)
    if not last:
        return f"under {100 * bands[0]:.0f}%"
    return f"{100 * bands[last - 1]:.0f} to {100 * bands[last]:.0f}%"


def _worst(told: Fields) -> Iterator[str]:
    if not told["worst"]:
        return
    yield table(
        [
            "account",
            "requests",
            "refused",
            "share",
            "first refused (UTC)",
            "refused or degraded by",
        ],
        [
            [
                row["account"],
                f"{row['requests']:,}",
                f"{row['refused']:,}",
                _share(row["refused"], row["requests"]),
                "–" if row["first"] is None else _moment(row["first"]),
                ", ".join(row["rules"][:3]),
            ]
            for row in told["worst"]
        ],
        caption=f"The {len(told['worst'])} accounts with the most requests refused, "
        f"of {told['accounts_refused']:,} that were refused",
        texts=(5,),
    )


def _shadow(told: Fields) -> Iterator[str]:
    rules = [row for row in told["rules"] if row["mode"] == "shadow"]
    if not rules:
        return
    shadow = told["shadow"]
    would = sum(shadow["requests"].values())
    changes = ", ".join(
        f"{count:,} {_PAST[effect]}" for effect, count in shadow["requests"].items()
    )
    yield (
        f"<p>Were they enforced, {would:,} requests ({_share(would, told['requests'])}) of "
        f"{shadow['accounts']:,} accounts would be decided more strictly"
        f"{': ' + shown(changes) if changes else ''}.</p>"
    )
    yield table(
        ["rule", "applied to", "degraded", "told to wait", "blocked"],
        [
            [row["rule"], f"{row['matched']:,}", *(f"{row[effect]:,}" for effect in _EFFECTS)]
            for row in rules
        ],
        caption="What each shadow rule would have done",
    )


def _unknown(told: Fields) -> Iterator[str]:
    if told["unknown"]:
        yield table(
            ["rule", "missing", "requests"],
            [
                [row["rule"], ", ".join(row["missing"]), f"{row['requests']:,}"]
                for row in told["unknown"]
            ],
            caption="Requests that a rule decided though a fact it tests was missing",
            texts=(1,),
        )


def _steps(told: Fields) -> Iterator[str]:
    never = [
        [row["rule"], f"{percent}%", row["unit"], "no request reached it"]
        for row in told["limits"]
        for percent, count in row["steps"]
        if not count
    ]
    never += [
        [rule, "–", "", f"{count:,} requests could not be served by the weaker model it asks for"]
        for rule, count in told["idle"].items()
    ]
    if never:
        yield table(
            ["rule", "step", "counts", "why"],
            never,
            caption="Steps and degrades that changed nothing in this traffic",
            texts=(2, 3),
        )


def _reading(told: Fields) -> str:
    notes = [
        "Nobody in a recording reacts: who would have waited, shown an ID or paid goes on as "
        "before, so these figures say the most that is refused.",
        "A request is refused if it is blocked, or told to wait (throttled); one served with less "
        "(degraded) is served.",
        "Identifiers are not shown as they are, unless the report was made with "
        "--show-identifiers.",
        *told.get("notes", ()),
    ]
    return _list(notes)


def _list(sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    return f"<ul>{''.join(f'<li>{shown(text, 400)}</li>' for text in sentences)}</ul>"


def _refused(told: Fields) -> int:
    return sum(told["effects"][effect]["requests"] for effect in REFUSING)


def _by(row: Fields) -> int:
    return sum(row[effect] for effect in REFUSING)


def _acts(row: Fields) -> bool:
    return any(row[effect] for effect in _EFFECTS)


def _ranked(rules: Sequence[Fields]) -> list[Fields]:
    enforced = [row for row in rules if row["mode"] == "enforce" and _by(row)]
    return sorted(enforced, key=lambda row: (-_by(row), row["rule"]))


def _shares(series: Sequence[Sequence[float]], *effects: int) -> list[float]:
    return [_part(sum(row[1 + effect] for effect in effects), sum(row[1:])) for row in series]


def _many(count: int, noun: str) -> str:
    if not count:
        return f"no {noun}"
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _part(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _share(part: float, whole: float) -> str:
    if not whole:
        return "–"
    value = 100 * part / whole
    return f"{value:.3f}%" if 0 < value < 0.1 else f"{value:.1f}%"


def _change(before: int, after: int) -> str:
    return f"{after - before:+,}".replace("-", "−") if after != before else "none"


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(int(seconds), UTC):%Y-%m-%d %H:%M}"


def _length(seconds: int) -> str:
    for size, name in ((604800, "week"), (86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds % size == 0:
            many = seconds // size
            return name if many == 1 else f"{many} {name}s"
    return "second" if seconds == 1 else f"{label(seconds, '')} seconds"

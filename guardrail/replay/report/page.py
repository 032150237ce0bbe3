"""One page about a replay: what the policies did to the traffic, to read, to print, to hand on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from guardrail.pages import (
    Bar,
    Line,
    bars_plot,
    document,
    lines_plot,
    shown,
    table,
    times_axis,
)
from guardrail.replay.report.text import length, many, moment, ratio, share

Fields = Mapping[str, Any]

REFUSING = ("throttle", "block")
_ALLOW, _DEGRADE, _THROTTLE, _BLOCK = range(4)
_MOST_VALUES = 12
"""How many values of a fact are shown; the rest are counted together."""
_NEAR = 0.8
"""From which share of a limit on a key is near it."""


Section = tuple[str, str, str]
"""A section of a page: its name in addresses, its title, its HTML."""


def report_page(told: Fields) -> str:
    """Return the page on the figures of a replay, `ReportFigures.fields`.

    They may also have `traffic` (names of files), `notes` (what a reader must know), `ending` and
    `findings`, lists of sentences.
    """
    title = f"What {told['policy']} does to this traffic"
    shown_title = f"What <code>{shown(told['policy'])}</code> does to this traffic"
    return framed(title, shown_title, _heading(told), _sections(told))


def framed(title: str, shown_title: str, heading: str, sections: Iterable[Section]) -> str:
    """Return a page of sections, those without anything in them left out.

    `title` is plain text, `shown_title` the same in HTML, as the heading below it is.
    """
    kept = [section for section in sections if section[2]]
    links = "".join(f'<li><a href="#{name}">{shown(title)}</a></li>' for name, title, _ in kept)
    parts = "".join(
        f'<section aria-labelledby="{name}"><h2 id="{name}">{shown(title)}</h2>{html}</section>'
        for name, title, html in kept
    )
    return document(
        title,
        '<a class="skip" href="#main">Skip to the figures</a>'
        f"<header><h1>{shown_title}</h1>{heading}</header>"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav><main id="main">{parts}</main>',
    )


def _sections(told: Fields) -> Iterator[Section]:
    yield "short", "In short", _in_short(told)
    yield "time", "Over time", "".join(_over_time(told))
    yield "rules", "By rule", "".join(_by_rule(told))
    yield "segments", "By segment", "".join(_by_segment(told))
    yield "limits", "Each limit, and what meets it", "".join(limits(told))
    yield "accounts", "Who is hurt most", "".join(worst_accounts(told))
    yield "shadow", "Shadow rules", "".join(_shadow(told))
    yield "unknown", "Decided on a missing fact", "".join(_unknown(told))
    yield "steps", "Steps without effect", "".join(_steps(told))
    yield "ends", "What ends soon", listed(told.get("ending", ()))
    yield "findings", "What check found", listed(told.get("findings", ()))
    yield "reading", "How to read this", reading(told)


def _heading(told: Fields) -> str:
    return f'<p class="soft">Revision <code>{revision(told)}</code>{of_traffic(told)}.</p>'


def revision(told: Fields) -> str:
    """Return the beginning of a revision, enough to know it by."""
    return f"{shown(told['revision'][:23])}…"


def of_traffic(told: Fields) -> str:
    """Return which traffic was replayed, as HTML that goes on after a comma."""
    series, parts = told["series"], [""]
    if series:
        first, last = series[0][0], series[-1][0] + told["bin"]
        parts.append(f"traffic from {moment(first)} to {moment(last)} (UTC)")
    if told.get("traffic"):
        parts.append("of " + ", ".join(f"<code>{shown(name)}</code>" for name in told["traffic"]))
    return ", ".join(parts)


def _in_short(told: Fields) -> str:
    return "".join(_boxes(told)) + f'<p class="lead">{" ".join(_summary(told))}</p>'


def _boxes(told: Fields) -> Iterator[str]:
    refused = refused_of(told)
    boxes = [
        (share(refused, told["requests"]), f"of {told['requests']:,} requests refused"),
    ]
    if told["accounts"]:
        boxes.append(
            (
                share(told["accounts_refused"], told["accounts"]),
                f"of {told['accounts']:,} accounts refused at least once",
            )
        )
    degraded = told["effects"]["degrade"]["requests"]
    boxes.append((share(degraded, told["requests"]), "of requests served with less (degraded)"))
    inner = "".join(f"<div><b>{value}</b>{shown(text)}</div>" for value, text in boxes)
    yield f'<div class="three">{inner}</div>'


def _summary(told: Fields) -> Iterator[str]:
    requests, refused = told["requests"], refused_of(told)
    effects = told["effects"]
    if not requests:
        yield "There was no request to decide."
        return
    if not refused:
        yield f"None of {requests:,} requests would have been refused."
    else:
        yield (
            f"Of {requests:,} requests, {refused:,} ({share(refused, requests)}) are refused: "
            f"{effects['block']['requests']:,} blocked and {effects['throttle']['requests']:,} "
            "told to wait."
        )
    if told["accounts"] and refused:
        yield f"That meets {told['accounts_refused']:,} of {told['accounts']:,} accounts."
        worst = told["worst"]
        most = sum(row["refused"] for row in worst)
        if 1 < len(worst) < told["accounts_refused"]:
            yield (
                f"The {len(worst)} accounts hurt most carry {share(most, refused)} of the refusals."
            )
    ranked = _ranked(told["rules"])
    if ranked and refused:
        named = " and ".join(
            f"<code>{shown(row['rule'])}</code> ({share(refused_by(row), refused)})"
            for row in ranked[:2]
        )
        which = "rules that refuse" if len(ranked) > 1 else "rule that refuses"
        yield f"The {which} most: {named}."
    spread = next((found for found in told["segments"] if found["fact"] == "account.tier"), None)
    if spread is not None and refused:
        shares = ", ".join(
            f"{shown(row[0])} {share(row[1 + _THROTTLE] + row[1 + _BLOCK], sum(row[1:]))}"
            for row in spread["rows"][:6]
        )
        yield f"Refused by tier: {shares}."
    would = sum(told["shadow"]["requests"].values())
    if any(row["mode"] == "shadow" for row in told["rules"]):
        yield f"Shadow rules, if enforced, would treat {many(would, 'request')} more strictly."
    hinged = sum(row["requests"] for row in told["unknown"])
    if hinged:
        were = "was" if hinged == 1 else "were"
        yield f"{many(hinged, 'request')} {were} decided on a fact that was missing."
    if told.get("ending"):
        count = len(told["ending"])
        verb = "ends" if count == 1 else "end"
        yield f"Of exemptions and rules, {count} {verb} within two weeks."


def _over_time(told: Fields) -> Iterator[str]:
    series = told["series"]
    lines = [
        Line("blocked", "b", shares(series, _BLOCK), filled=True),
        Line("told to wait", "a", shares(series, _THROTTLE)),
        Line("served with less", "d", shares(series, _DEGRADE)),
    ]
    yield from over_time(told, [line for line in lines if any(line.values)])


def over_time(told: Fields, lines: Sequence[Line]) -> Iterator[str]:
    """Yield shares of the requests of each bin, and how many there were; nothing of one bin."""
    series = told["series"]
    if len(series) < 2:
        return
    starts = [row[0] for row in series]
    names = times_axis(starts, told["bin"])
    # Bins that do not follow each other stand side by side: years between them would hide all.
    times = starts if all(b - a == told["bin"] for a, b in pairwise(starts)) else None
    wide = length(told["bin"])
    if lines:
        yield lines_plot(f"Share of requests by {wide}", "%", names, lines, times)
    else:
        yield "<p>No request was refused, or served with less.</p>"
    asked = [float(sum(row[1:])) for row in series]
    line = Line("requests", "c", asked, filled=True)
    yield lines_plot(f"Requests by {wide}", "", names, [line], times)


def _by_rule(told: Fields) -> Iterator[str]:
    ranked = _ranked(told["rules"])
    refused = refused_of(told)
    if ranked:
        yield bars_plot(
            "Requests refused, by the rule that decided",
            [
                Bar(row["rule"], "b", count, f"{count:,} ({share(count, refused)})")
                for row, count in ((row, refused_by(row)) for row in ranked)
            ],
            ("rule", "refused"),
        )
    acting = sorted(
        (row for row in told["rules"] if _acts(row)),
        key=lambda row: (row["mode"] == "shadow", -refused_by(row)),
    )
    if acting:
        said = [name for name in ("owner", "description") if any(row[name] for row in acting)]
        head = ["rule", "kind", "mode", "applied to", "degraded", "told to wait", "blocked"]
        yield table(
            [*head, *said],
            [
                [
                    row["rule"],
                    row["verb"],
                    row["mode"],
                    f"{row['matched']:,}",
                    *(f"{row[effect]:,}" if row[effect] else "–" for effect in _EFFECTS),
                    *(row[name] or "–" for name in said),
                ]
                for row in acting
            ],
            caption="Rules that decided; of a shadow rule, what it would have done",
            texts=(1, 2, *range(len(head), len(head) + len(said))),
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
    if not refused_of(told):
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
        text = f"{share(refused, asked)} of {asked:,}"
        bars.append(Bar(value, "b", ratio(refused, asked), text))
    title = f"Share of requests refused, by {found['fact']}"
    return bars_plot(title, bars, (found["fact"], "refused"), whole=1.0)


def limits(told: Fields) -> Iterator[str]:
    """Yield each limit against the traffic that meets it, and what other numbers would do."""
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
        Bar(name, _band_style(at, bands), count, f"{count:,} ({share(count, keys)})")
        for at, (name, count) in enumerate(zip(names, row["bands"], strict=True))
    ]
    html = bars_plot(
        f"{many(keys, 'key')} by the most they asked of the limit{sampled}; "
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


def worst_accounts(told: Fields) -> Iterator[str]:
    """Yield the accounts with the most requests refused."""
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
                share(row["refused"], row["requests"]),
                "–" if row["first"] is None else moment(row["first"]),
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
        f"<p>Were they enforced, {would:,} requests ({share(would, told['requests'])}) of "
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


def reading(told: Fields) -> str:
    """Return what a reader must know to trust the figures."""
    notes = [
        "Nobody in a recording reacts: who would have waited, shown an ID or paid goes on as "
        "before, so these figures say the most that is refused.",
        "A request is refused if it is blocked, or told to wait (throttled); one served with less "
        "(degraded) is served.",
        "Identifiers are not shown as they are, unless the report was made with "
        "--show-identifiers.",
        *told.get("notes", ()),
    ]
    return listed(notes)


def listed(sentences: Sequence[str]) -> str:
    """Return sentences as a list, nothing of none."""
    if not sentences:
        return ""
    return f"<ul>{''.join(f'<li>{shown(text, 400)}</li>' for text in sentences)}</ul>"


def refused_of(told: Fields) -> int:
    """Return how many requests were refused."""
    return sum(told["effects"][effect]["requests"] for effect in REFUSING)


def refused_by(row: Fields) -> int:
    """Return how many requests a rule refused."""
    return sum(row[effect] for effect in REFUSING)


def _acts(row: Fields) -> bool:
    return any(row[effect] for effect in _EFFECTS)


def _ranked(rules: Sequence[Fields]) -> list[Fields]:
    enforced = [row for row in rules if row["mode"] == "enforce" and refused_by(row)]
    return sorted(enforced, key=lambda row: (-refused_by(row), row["rule"]))


def shares(series: Sequence[Sequence[float]], *effects: int) -> list[float]:
    """Return which part of the requests of each bin met one of some effects."""
    return [ratio(sum(row[1 + effect] for effect in effects), sum(row[1:])) for row in series]

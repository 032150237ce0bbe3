"""One page about two versions of the policies over the same traffic: before, and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from guardrail.model.effects import Effect
from guardrail.pages import Bar, Line, bars_plot, label, lines_plot, shown, table
from guardrail.replay.report.fills import SPREAD
from guardrail.replay.report.page import (
    Section,
    framed,
    limits,
    listed,
    of_traffic,
    over_time,
    reading,
    refused_by,
    refused_of,
    revision,
    shares,
    worst_accounts,
)
from guardrail.replay.report.text import change, many, moment, ratio, share

Fields = Mapping[str, Any]

_MOST_SEGMENTS = 12
"""How many segments of one division are shown."""
_WORDS = {
    "allow": "served",
    "degrade": "served with less",
    "throttle": "told to wait",
    "block": "blocked",
}
_NOW = "The bar is now, the mark on it is before."


def changes_page(changes: Fields, before: Fields, after: Fields) -> str:
    """Return the page on what changes from one version of the policies to the next.

    `before` and `after` are `ReportFigures.fields` of the same traffic. `changes` has `looser` and
    `stricter`, kinds of decisions that changed; `matrix`, requests by the effect before and by
    that after; `otherwise` and `renamed`, requests that changed besides; `first_refused`, accounts;
    `no_longer`, how many are refused no more; and `proved`, a dict of what became `looser` and
    `stricter` for all requests, with a list of `unjudged`.
    """
    name = after["policy"]
    heading = (
        f'<p class="soft">From revision <code>{revision(before)}</code> to '
        f"<code>{revision(after)}</code>{of_traffic(after)}.</p>"
    )
    return framed(
        f"What changes in {name}",
        f"What changes in <code>{shown(name)}</code>",
        heading,
        _sections(changes, before, after),
    )


def _sections(changes: Fields, before: Fields, after: Fields) -> Iterator[Section]:
    yield "short", "In short", _in_short(changes, before, after)
    yield "looser", "What became looser", "".join(_changed(changes, "looser"))
    yield "stricter", "What became stricter", "".join(_changed(changes, "stricter"))
    yield "matrix", "Decisions before and after", "".join(_matrix(changes))
    yield "first", "Refused for the first time", "".join(_first_refused(changes))
    yield "time", "Over time", "".join(_over_time(before, after))
    yield "rules", "By rule", "".join(_by_rule(before, after))
    yield "segments", "By segment", "".join(_by_segment(before, after))
    yield "changed", "Limits that changed", "".join(_changed_limits(before, after))
    yield "limits", "Each limit now, and what meets it", "".join(limits(after))
    yield "accounts", "Who is hurt most now", "".join(worst_accounts(after))
    yield "reading", "How to read this", reading(after)


def _in_short(changes: Fields, before: Fields, after: Fields) -> str:
    counts = {
        name: sum(row["requests"] for row in changes[name]) for name in ("looser", "stricter")
    }
    old, new = refused_of(before), refused_of(after)
    first = len(changes["first_refused"])
    boxes = [
        (
            f"{share(old, before['requests'])} → {share(new, after['requests'])}",
            f"of {after['requests']:,} requests refused",
        ),
        (f"{counts['looser']:,}", "decisions became looser"),
        (f"{counts['stricter']:,}", "decisions became stricter"),
    ]
    inner = "".join(f"<div><b>{shown(value)}</b>{shown(text)}</div>" for value, text in boxes)
    told = [
        f"Of {many(after['requests'], 'request')}, {counts['looser']:,} are decided more loosely "
        f"than before and {counts['stricter']:,} more strictly.",
        f"{many(first, 'account').capitalize()} {'are' if first > 1 else 'is'} refused for the "
        f"first time, {changes['no_longer']:,} no longer.",
    ]
    if changes["otherwise"] or changes["renamed"]:
        told.append(
            f"Besides, {changes['otherwise']:,} are degraded to something else, and "
            f"{changes['renamed']:,} have the same effect by another rule."
        )
    return f'<div class="three">{inner}</div><p class="lead">{shown(" ".join(told), 900)}</p>'


def _changed(changes: Fields, kind: str) -> Iterator[str]:
    rows = changes[kind]
    if rows:
        yield table(
            ["before", "after", "requests", "accounts", "because of", "first (UTC)", "where"],
            [
                [
                    _WORDS[row["before"]],
                    _WORDS[row["after"]],
                    f"{row['requests']:,}",
                    f"{row['accounts']:,}" if row["accounts"] else "–",
                    _cause(row, kind),
                    moment(row["first"]),
                    row["where"],
                ]
                for row in rows
            ],
            caption="In this traffic, those of most requests first",
            texts=(0, 1, 4, 6),
        )
    else:
        yield f"<p>In this traffic: <strong>none</strong>. No decision became {kind}.</p>"
    proved = changes["proved"][kind]
    if proved:
        yield table(
            ["rule", "was", "is", "for example"],
            [[row["rule"], row["was"], row["is"], row["example"]] for row in proved],
            caption="For all requests, whether this traffic has them or not; the example is the "
            "smallest such request",
            texts=(0, 1, 2, 3),
        )
    elif changes["proved"]["unjudged"]:
        yield "<p>For all requests: nothing was found; not everything could be judged:</p>"
        yield listed(changes["proved"]["unjudged"])
    else:
        yield f"<p>For all requests: nothing became {kind}, and that is proved.</p>"
        if rows:
            yield (
                "<p>That is about each request for itself. In the traffic, a request that one rule "
                "refuses is counted by no other, so that others have room they had not before, or "
                "the other way round.</p>"
            )


def _cause(row: Fields, kind: str) -> str:
    if row["rule"] is None:
        return "no rule"
    return f"no longer {row['rule']}" if kind == "looser" else str(row["rule"])


def _matrix(changes: Fields) -> Iterator[str]:
    names = [str(effect) for effect in Effect]
    yield table(
        ["before ↓, after →", *(_WORDS[name] for name in names)],
        [[_WORDS[was], *(f"{changes['matrix'][was][now]:,}" for now in names)] for was in names],
        caption="Requests by what was decided before, and what is now",
    )


def _first_refused(changes: Fields) -> Iterator[str]:
    rows = changes["first_refused"]
    if not rows:
        yield "<p>None: whoever is refused now was refused before.</p>"
        return
    most = 15
    yield table(
        ["account", "requests", "refused", "speaks for it", "first refused (UTC)", "by"],
        [
            [
                row["account"],
                f"{row['requests']:,}",
                f"{row['refused']:,}",
                ", ".join(row["signs"]) or "–",
                moment(row["first"]),
                row["rule"] or "(no rule)",
            ]
            for row in rows[:most]
        ],
        caption=f"{min(most, len(rows))} of {many(len(rows), 'account')}, those most like "
        "customers first",
        texts=(3, 5),
    )


def _over_time(before: Fields, after: Fields) -> Iterator[str]:
    refusing = (Effect.THROTTLE, Effect.BLOCK)
    old = {row[0]: row for row in before["series"]}
    rows = [old.get(row[0], [row[0], 0, 0, 0, 0]) for row in after["series"]]
    lines = [
        Line("refused before", "a", shares(rows, *refusing)),
        Line("refused now", "b", shares(after["series"], *refusing), filled=True),
    ]
    yield from over_time(after, lines if any(any(line.values) for line in lines) else [])


def _by_rule(before: Fields, after: Fields) -> Iterator[str]:
    old, new = (
        {row["rule"]: refused_by(row) for row in each["rules"] if row["mode"] == "enforce"}
        for each in (before, after)
    )
    names = sorted(
        (name for name in {**new, **old} if old.get(name) or new.get(name)),
        key=lambda name: (-max(old.get(name, 0), new.get(name, 0)), name),
    )
    if not names:
        return
    yield bars_plot(
        f"Requests refused, by the rule that decided. {_NOW}",
        [
            Bar(name, "b", new.get(name, 0), _before_after(old, new, name), old.get(name, 0))
            for name in names
        ],
        ("rule", "refused"),
    )
    changed = [name for name in names if old.get(name) != new.get(name)]
    if not changed:
        yield "<p>Each rule refuses as many requests as before.</p>"
        return
    yield table(
        ["rule", "before", "after", "change"],
        [
            [
                name,
                *(f"{each[name]:,}" if name in each else "no such rule" for each in (old, new)),
                change(old.get(name, 0), new.get(name, 0)),
            ]
            for name in changed
        ],
        caption="Requests refused, by rules whose figure differs",
    )


def _before_after(old: Mapping[str, int], new: Mapping[str, int], name: str) -> str:
    return f"{new.get(name, 0):,} (before {old.get(name, 0):,})"


def _by_segment(before: Fields, after: Fields) -> Iterator[str]:
    olds = {found["fact"]: found["rows"] for found in before["segments"]}
    plots = [
        _segment_plot(found["fact"], olds.get(found["fact"], ()), found["rows"])
        for found in after["segments"]
        if len(found["rows"]) > 1
    ]
    if plots:
        yield f"<p>{_NOW}</p>"
        yield f'<div class="pair">{"".join(plots)}</div>'


def _segment_plot(fact: str, old: Sequence[Any], new: Sequence[Any]) -> str:
    was = {value: _refused_share(counts) for value, *counts in old}
    bars = []
    for value, *counts in new[:_MOST_SEGMENTS]:
        now, then = _refused_share(counts), was.get(value, 0.0)
        text = f"{share(now, 1)} (before {share(then, 1)})"
        bars.append(Bar(value, "b", now, text, then))
    more = f", {_MOST_SEGMENTS} of {len(new):,}" if len(new) > _MOST_SEGMENTS else ""
    title = f"Share of requests refused, by {fact}{more}"
    return bars_plot(title, bars, (fact, "refused"), whole=1.0)


def _refused_share(counts: Sequence[int]) -> float:
    return ratio(sum(counts[Effect.THROTTLE :]), sum(counts))


def _changed_limits(before: Fields, after: Fields) -> Iterator[str]:
    olds = {(row["rule"], row["unit"]): row for row in before["limits"]}
    for row in after["limits"]:
        old = olds.get((row["rule"], row["unit"]))
        was, now = (_limit(one) if one else None for one in (old, row))
        if old is None or was == now:
            continue
        yield (
            f"<h3><code>{shown(row['rule'])}</code>: {shown(row['unit'])}, before {shown(was)}, "
            f"now {shown(now)}</h3>"
        )
        yield f"<p>It refused {old['refused']:,} requests before, and {row['refused']:,} now.</p>"
        if not row["amount"] or not old["amount"] or row["per"] != old["per"]:
            continue
        if row["keys"] == 1:
            most = max(
                (part for part, count in zip(SPREAD, row["spread"], strict=True) if count),
                default=0.0,
            )
            yield f"<p>All that it counts together asked for {100 * most:.0f}% of it or more.</p>"
        elif row["keys"]:
            yield _limit_plot(row, old["amount"])


def _limit(row: Fields) -> str:
    return f"{row['limit']} {row['per']}".strip()


def _limit_plot(row: Fields, was: float) -> str:
    """Return how many keys asked for how much, with the limit now and before marked."""
    now, keys = row["amount"], row["keys"]
    names = [label(part * now, "") for part in SPREAD]
    values = [count / keys for count in row["spread"]]
    marks, besides = [], ""
    for amount, text in ((was, "before"), (now, "now")):
        place = (amount / now) * (len(SPREAD) - 1) / SPREAD[-1]
        if place <= len(SPREAD) - 1:
            marks.append((place, f"{text} {label(amount, '')}"))
        else:
            besides = f" The limit before, {label(amount, '')}, lies to the right of the plot."
    whose = " and ".join(row["key"]) or "all together"
    plot = lines_plot(
        f"Of {many(keys, 'key')} ({whose}), how many asked for at least so many {row['unit']}",
        "%",
        names,
        [Line("share of keys", "c", values, filled=True)],
        marks=marks,
    )
    return f"{plot}<p>{shown(besides)}</p>" if besides else plot

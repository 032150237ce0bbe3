"""Whom refusals hit, as tables: segments by harm, and the refused accounts most like customers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from guardrail.cli.figures import NONE, columns, length, plural, share
from guardrail.cli.inert import shortened
from guardrail.cli.output import Entries, Output
from guardrail.cli.traffic import TrafficRun
from guardrail.model.effects import Effect
from guardrail.replay.harm import (
    REFUSED,
    SHADOW_REFUSED,
    Hit,
    Place,
    Reading,
    Segment,
    by_impact,
)

_SEGMENTS = 8
_ACCOUNTS = 5
_WITH_RULE = 78
"""From how many columns on a segment's first refusal names its rule."""


def print_harm(output: Output, run: TrafficRun) -> None:
    """Print the segments of each division, and the accounts refused most like customers."""
    harm = run.tally.harm
    several = len(run.sources) > 1
    for division, segments in _asked(run):
        if not segments:
            continue
        output.line()
        output.line((f"refused by {', '.join(division)}", "bold"))
        output.lines(_table(segments, several, output.width - 2, shadow=False))
        if any(segment.shadow_refused for segment in segments.values()):
            output.line()
            output.line((f"by shadow rules alone, by {', '.join(division)}", "bold"))
            output.lines(_table(segments, several, output.width - 2, shadow=True))
    _print_accounts(output, harm.hits, "refused accounts most like customers", several)
    only = {account: hit for account, hit in harm.shadow_hits.items() if account not in harm.hits}
    _print_accounts(output, only, "accounts that only shadow rules would have refused", several)


def _asked(run: TrafficRun) -> Iterator[tuple[tuple[str, ...], dict[tuple[str, ...], Segment]]]:
    """Yield the divisions that were asked for; a report counts by others besides."""
    for division in run.divisions:
        yield division, run.tally.harm.of(division)


def most_like_customers(hits: dict[str, Hit]) -> list[tuple[str, Hit]]:
    """Return refused accounts, those most like customers first.

    More signs come first; then those that act on their own, more paid, longer known, a smaller
    share of requests refused.
    """

    def order(pair: tuple[str, Hit]) -> tuple[object, ...]:
        account, hit = pair
        standing = hit.standing
        return (
            -len(standing.signs),
            hit.in_a_group,
            -(standing.paid or 0.0),
            -(standing.age or 0.0),
            hit.refused / max(1, hit.requests),
            account,
        )

    return sorted(hits.items(), key=order)


def read_text(read: Reading) -> str:
    """Return what a rule read in one line: its counter, or the facts it tested."""
    if read.never_fits:
        return "asks for more than the whole limit"
    if read.limit is None or read.used is None:
        return ", ".join(f"{name} {shortened(value, 30)}" for name, value in read.facts) or NONE
    key = ", ".join(f"{name} {shortened(value, 24)}" for name, value in read.key) or "all"
    return f"{read.used:,.10g} + {read.asked:,.10g} of {read.limit:,.10g} {read.unit} ({key})"


def _shown(
    segments: dict[tuple[str, ...], Segment], *, shadow: bool
) -> tuple[list[tuple[tuple[str, ...], Segment]], list[Segment]]:
    """Return the segments to show, the most harmed and the largest, and the rest."""
    ordered = by_impact(segments, shadow=shadow)
    if shadow:
        ordered = [pair for pair in ordered if pair[1].shadow_refused]
    if len(ordered) <= _SEGMENTS + 1:
        return ordered, []
    large = sorted(ordered, key=lambda pair: (-pair[1].requests, pair[0]))[: _SEGMENTS // 2]
    kept = ordered[: _SEGMENTS - _SEGMENTS // 2]
    for pair in [*large, *ordered]:
        if len(kept) < _SEGMENTS and pair not in kept:
            kept.append(pair)
    names = {values for values, _ in kept}
    return (
        [pair for pair in ordered if pair[0] in names],
        [segment for values, segment in ordered if values not in names],
    )


def _table(
    segments: dict[tuple[str, ...], Segment], several: bool, cells: int, *, shadow: bool
) -> list[str]:
    shown, rest = _shown(segments, shadow=shadow)
    rows: list[tuple[str, ...]] = [
        ("segment", "requests", "refused", "share", "accounts hit", "first")
    ]
    for values, segment in shown:
        name = " · ".join(shortened(value, 30) for value in values)
        first = _first(segment, several, shadow, cells >= _WITH_RULE)
        rows.append((name, *_cells([segment], shadow), first))
    if rest:
        rows.append((plural(len(rest), "other"), *_cells(rest, shadow), NONE))
    return columns(rows, (False, True, True, True, True, False), cells=cells)


def _cells(segments: Iterable[Segment], shadow: bool) -> tuple[str, ...]:
    known = list(segments)
    requests = sum(one.requests for one in known)
    refused = sum(one.shadow_refused if shadow else one.refused for one in known)
    accounts = {account for one in known for account in one.accounts}
    met = SHADOW_REFUSED if shadow else REFUSED
    hurt = {account for one in known for account, bits in one.accounts.items() if bits & met}
    return (
        f"{requests:,}",
        f"{refused:,}",
        share(refused, requests),
        f"{len(hurt):,} of {len(accounts):,}",
    )


def _first(segment: Segment, several: bool, shadow: bool, with_rule: bool) -> str:
    first = segment.first_shadow if shadow else segment.first
    if first is None:
        return NONE
    rule = f", {shortened(first.rule, 48) or '(no rule)'}" if with_rule else ""
    return where(first.place, several) + rule


def _print_accounts(output: Output, hits: dict[str, Hit], title: str, several: bool) -> None:
    if hits:
        output.line()
        output.line((title, "bold"))
        output.lines(hit_rows(hits, several, output.width - 2))


def hit_rows(hits: dict[str, Hit], several: bool, cells: int) -> list[str]:
    """Return a table of refused accounts, those most like customers first."""
    ordered = most_like_customers(hits)
    rows: list[tuple[str, ...]] = [("account", "refused", "signs", "first refusal")]
    for account, hit in ordered[:_ACCOUNTS]:
        rows.append(
            (
                shortened(account, 24),
                f"{hit.refused:,} of {hit.requests:,}",
                _signs(hit),
                f"{where(hit.place, several)} {shortened(hit.rule, 48) or '(no rule)'}: "
                f"{read_text(hit.read)}",
            )
        )
    lines = columns(rows, (False, True, False, False), cells=cells)
    more = len(ordered) - _ACCOUNTS
    return [*lines, f"and {more:,} more"] if more > 0 else lines


def where(place: Place, several: bool) -> str:
    """Return where a request stands, with its file where there are several."""
    file = f"{shortened(place.file, 40)}:" if several else "line "
    return f"{file}{place.line}"


def _signs(hit: Hit) -> str:
    words = list(hit.standing.signs)
    if hit.standing.age is not None and "known" not in words:
        words.append(f"{length(hit.standing.age)} old")
    if hit.in_a_group:
        words.append(f"one of {hit.together:,}")
    return ", ".join(words) or "none"


def harm_fields(run: TrafficRun) -> dict[str, object]:
    """Return whom refusals hit as JSON takes it; times are in seconds since the epoch."""
    harm = run.tally.harm
    return {
        "segments": [
            {
                "by": list(division),
                "segments": [
                    _segment_fields(division, values, segment)
                    for values, segment in by_impact(segments, shadow=False)
                ],
            }
            for division, segments in _asked(run)
        ],
        "refused_accounts": Entries(lambda: hits_fields(harm.hits)),
        "accounts_refused_by_shadow_rules": Entries(lambda: hits_fields(harm.shadow_hits)),
    }


def _segment_fields(
    division: tuple[str, ...], values: tuple[str, ...], segment: Segment
) -> dict[str, object]:
    return {
        "values": dict(zip(division, values, strict=True)),
        "requests": segment.requests,
        "decided": {str(effect): segment.decided[effect] for effect in Effect},
        "accounts": len(segment.accounts),
        "accounts_refused": segment.accounts_that(REFUSED),
        "first_refusal": None
        if segment.first is None
        else {**place_fields(segment.first.place), "rule": segment.first.rule or None},
        "shadow": {
            "refused": segment.shadow_refused,
            "accounts_refused": segment.accounts_that(SHADOW_REFUSED),
            "first_refusal": None
            if segment.first_shadow is None
            else {**place_fields(segment.first_shadow.place), "rule": segment.first_shadow.rule},
        },
    }


def hits_fields(hits: dict[str, Hit]) -> Iterator[dict[str, object]]:
    """Yield refused accounts as JSON takes them, those most like customers first."""
    for account, hit in most_like_customers(hits):
        yield {
            "account": account,
            "requests": hit.requests,
            "refused": hit.refused,
            "signs": list(hit.standing.signs),
            "paid_usd": hit.standing.paid,
            "age_seconds": hit.standing.age,
            "acts_as_one_with": hit.together - 1,
            "first_refusal": {
                **place_fields(hit.place),
                "rule": hit.rule or None,
                "effect": str(hit.effect),
                **read_fields(hit.read),
            },
        }


def place_fields(place: Place) -> dict[str, object]:
    """Return where a request stands as JSON takes it; `ts` is in seconds since the epoch."""
    ts, file, line = place
    return {"ts": ts, "file": file, "line": line}


def read_fields(read: Reading) -> dict[str, object]:
    """Return what a rule read to refuse a request as JSON takes it; money is in USD."""
    fields = {name: getattr(read, name) for name in Reading._fields}
    return {**fields, "facts": dict(read.facts), "key": dict(read.key)}

"""How decisions on recorded traffic change between two versions of the policies, as text."""

from __future__ import annotations

from collections.abc import Iterator

from guardrail.cli.expecting import expected_fields, expected_line, print_expected
from guardrail.cli.figures import NONE, columns, plural, share
from guardrail.cli.findings import Found
from guardrail.cli.harm_text import (
    hit_rows,
    hits_fields,
    place_fields,
    read_fields,
    read_text,
    where,
)
from guardrail.cli.inert import shortened
from guardrail.cli.output import Entries, Output
from guardrail.cli.traffic_json import reading_fields
from guardrail.cli.traffic_text import headline, print_remarks, print_unreadable, remarks
from guardrail.model.effects import Effect
from guardrail.model.policy import PolicySet
from guardrail.replay.comparing import Changed, Compared, Comparison, Kind
from guardrail.replay.harm import REFUSED, Segment

_SEGMENTS = 8
NOTHING_LOOSER = "no decision became looser"


def headlines(found: Compared, new: PolicySet) -> Iterator[tuple[str, str]]:
    """Yield the label and the text of each line that matters first."""
    figures = found.figures
    yield "traffic", headline(found.after)
    for label, is_looser in (("looser", True), ("stricter", False)):
        kinds = figures.changed(looser=is_looser)
        if kinds:
            yield label, _counted(kinds, figures.requests)
        else:
            yield label, NOTHING_LOOSER if is_looser else "no decision became stricter"
    first, gone = len(found.first_refused), found.no_longer_refused
    yield (
        "accounts",
        f"{first:,} refused that were not before, {gone:,} no longer",
    )
    if figures.otherwise or figures.renamed:
        yield (
            "besides",
            f"{figures.otherwise:,} degraded to something else, {figures.renamed:,} with the same "
            "effect by another rule",
        )
    expected = expected_line(new, found.after)
    if expected is not None:
        yield "expect", expected


def print_over_traffic(output: Output, found: Compared, new: PolicySet, *, tables: bool) -> None:
    """Print how decisions changed; `tables` adds the figures by effect, cause and segment."""
    figures, several = found.figures, len(found.after.sources) > 1
    output.line()
    for label, text in headlines(found, new):
        output.told(label, text)
    if not tables:
        print_unreadable(output, found.after)
        return
    print_expected(output, found.after)
    cells = output.width - 2
    _print_table(output, "decisions: before ↓, after →", _matrix(figures, cells))
    for title, is_looser in (("decisions that became looser", True), ("stricter", False)):
        kinds = figures.changed(looser=is_looser)
        if not is_looser:
            title = "decisions that became stricter"
        lines = _kinds(kinds, several, cells) if kinds else ["none"]
        _print_table(output, title, lines)
    first = dict(found.first_refused)
    if first:
        title = "refused now and not before, most like customers first"
        _print_table(output, title, hit_rows(first, several, cells))
    for division in found.after.divisions:
        lines = _segments(found, division, cells)
        if lines:
            _print_table(output, f"refused by {', '.join(division)}", lines)
    print_remarks(output, found.after, remarks(found.after, new))


def traffic_changes_fields(found: Compared, new: PolicySet, met: Found) -> dict[str, object]:
    """Return how decisions changed, and what was `met` on the way, as JSON takes it."""
    figures = found.figures
    return {
        "requests": figures.requests,
        "warmup_requests": found.after.warmed,
        "accounts": len(found.after.tally.harm.met),
        **reading_fields(found.after),
        "matrix": {
            str(before): {str(after): figures.matrix[before, after] for after in Effect}
            for before in Effect
        },
        "looser": [_kind_fields(*pair) for pair in figures.changed(looser=True)],
        "stricter": [_kind_fields(*pair) for pair in figures.changed(looser=False)],
        "degraded_otherwise": figures.otherwise,
        "by_another_rule": figures.renamed,
        "accounts_refused_first": Entries(lambda: hits_fields(dict(found.first_refused))),
        "accounts_no_longer_refused": found.no_longer_refused,
        "segments": list(_segments_fields(found)),
        "expected": expected_fields(found.after),
        "remarks": list(remarks(found.after, new)),
        "findings": met.told(),
    }


def _print_table(output: Output, title: str, lines: list[str]) -> None:
    output.line()
    output.line((title, "bold"))
    output.lines(lines)


def _counted(kinds: list[tuple[Kind, Changed]], whole: int) -> str:
    requests = sum(changed.requests for _, changed in kinds)
    accounts = set().union(*(changed.accounts for _, changed in kinds))
    told = f"{plural(requests, 'request')} ({share(requests, whole)})"
    return f"{told} of {plural(len(accounts), 'account')}" if accounts else told


def _matrix(figures: Comparison, cells: int) -> list[str]:
    rows: list[tuple[str, ...]] = [("", *map(str, Effect))]
    for before in Effect:
        counts = (figures.matrix[before, after] for after in Effect)
        rows.append((str(before), *(f"{count:,}" for count in counts)))
    return columns(rows, (False, True, True, True, True), cells=cells)


def _kinds(kinds: list[tuple[Kind, Changed]], several: bool, cells: int) -> list[str]:
    rows: list[tuple[str, ...]] = [("change", "requests", "accounts", "cause and first")]
    for kind, changed in kinds:
        cause = "no rule" if kind.rule is None else shortened(kind.rule, 48)
        account = "" if changed.account is None else f", account {shortened(changed.account, 24)}"
        first = f"{where(changed.place, several)}{account}: {read_text(changed.read)}"
        rows.append(
            (
                f"{kind.before} → {kind.after}",
                f"{changed.requests:,}",
                f"{len(changed.accounts):,}" if changed.accounts else NONE,
                f"{'no longer ' if kind.looser else ''}{cause}, {first}",
            )
        )
    return columns(rows, (False, True, True, False), cells=cells)


Pair = tuple[Segment, Segment]


def _paired(found: Compared, division: tuple[str, ...]) -> list[tuple[tuple[str, ...], Pair]]:
    """Return the segments of both versions, those whose refusals changed most first."""
    before, after = (run.tally.harm.of(division) for run in (found.before, found.after))
    names = before.keys() | after.keys()
    pairs = {name: (before.get(name, Segment()), after.get(name, Segment())) for name in names}
    return sorted(
        pairs.items(),
        key=lambda pair: (-abs(pair[1][1].refused - pair[1][0].refused), pair[0]),
    )


def _segments(found: Compared, division: tuple[str, ...], cells: int) -> list[str]:
    pairs = _paired(found, division)
    rows: list[tuple[str, ...]] = [("segment", "requests", "before", "after", "accounts hit")]
    for values, (old, new) in pairs[:_SEGMENTS]:
        rows.append(
            (
                " · ".join(shortened(value, 30) for value in values),
                f"{new.requests:,}",
                share(old.refused, old.requests),
                share(new.refused, new.requests),
                f"{old.accounts_that(REFUSED):,} → {new.accounts_that(REFUSED):,}",
            )
        )
    rest = pairs[_SEGMENTS:]
    if rest:
        requests = sum(new.requests for _, (_, new) in rest)
        refused = [sum(pair[place].refused for _, pair in rest) for place in (0, 1)]
        shares = [share(count, requests) for count in refused]
        rows.append((plural(len(rest), "other"), f"{requests:,}", *shares, NONE))
    return columns(rows, (False, True, True, True, True), cells=cells) if pairs else []


def kind_counts(kind: Kind, changed: Changed) -> dict[str, object]:
    """Return what changed alike, and how many requests and accounts it concerns."""
    return {
        "before": str(kind.before),
        "after": str(kind.after),
        "rule": kind.rule,
        "requests": changed.requests,
        "accounts": len(changed.accounts),
    }


def _kind_fields(kind: Kind, changed: Changed) -> dict[str, object]:
    return {
        **kind_counts(kind, changed),
        "first": {
            **place_fields(changed.place),
            "account": changed.account,
            **read_fields(changed.read),
        },
    }


def _segments_fields(found: Compared) -> Iterator[dict[str, object]]:
    for division in found.after.divisions:
        yield {
            "by": list(division),
            "segments": [
                {
                    "values": dict(zip(division, values, strict=True)),
                    "requests": new.requests,
                    "refused_before": old.refused,
                    "refused_after": new.refused,
                    "accounts_refused_before": old.accounts_that(REFUSED),
                    "accounts_refused_after": new.accounts_that(REFUSED),
                }
                for values, (old, new) in _paired(found, division)
            ],
        }

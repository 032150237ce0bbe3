"""The figures of simulations as text; tables of customers take up to 80 cells, others fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from guardrail.cli.figures import NONE, columns, length, plural, stacked
from guardrail.cli.inert import wrapped
from guardrail.simulate.report import percent, times, worst_of

Fields = Mapping[str, Any]

_HOUR = 3600.0
_BANDS = 8


def hours(value: float | None) -> str:
    """Return a number of hours as a length of time, `never` for None."""
    return "never" if value is None else length(value * _HOUR)


def report(found: Sequence[Fields], cells: int) -> Iterator[str]:
    """Yield the lines of a report on one seed or several; tables take at most so many cells."""
    if len(found) > 1:
        yield from seeds_table(found, cells)
        yield ""
    worst = worst_of(found)
    if len(found) > 1:
        yield f"worst seed: {worst['seed']}"
        yield ""
    if worst["attacker"] is not None:
        yield from attacker_lines(worst, cells)
        yield ""
    yield from honest_table(worst, cells)
    yield ""
    if worst["shocks"]:
        yield from shock_table(worst, cells)
        yield ""
    for name, lines in (("placebo", _placebo), ("twin", _twin), ("ablation", _ablation)):
        if name in worst:
            yield from lines(worst[name], cells)
            yield ""
    total = sum(told["decisions"] for told in found)
    seconds = sum(told["seconds"] for told in found)
    yield f"{total:,} decisions in {seconds:.1f} s: {total / max(seconds, 1e-9):,.0f} a second"


def seeds_table(found: Sequence[Fields], cells: int) -> list[str]:
    """Return a line for each seed, then their mean and their worst."""
    rows = []
    for told in found:
        pooled = told["honest"]["pooled"]
        taken = told["attacker"] or {}
        rows.append(
            [
                taken.get("share"),
                taken.get("sought_share"),
                taken.get("cost_multiple"),
                pooled["established"]["refused_share"],
                pooled["established"]["stepped_up_share"],
                pooled["new"]["refused_share"],
                pooled["new"]["stepped_up_share"],
            ]
        )
    means = [_mean([row[at] for row in rows]) for at in range(7)]
    worst = [
        (min if at == 2 else max)((row[at] for row in rows if row[at] is not None), default=None)
        for at in range(7)
    ]
    head = ["seed", "served", "sought", "cost", "old denied", "asked ID", "new denied", "asked ID"]
    lines = [head]
    for name, row in [
        *((str(told["seed"]), row) for told, row in zip(found, rows, strict=True)),
        ("mean", means),
        ("worst", worst),
    ]:
        attacked = found[0]["attacker"] is not None
        cost = times(row[2]) if attacked else NONE
        lines.append([name, percent(row[0]), percent(row[1]), cost, *map(percent, row[3:])])
    return columns(lines, [False, *[True] * 7], cells=cells)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def attacker_lines(told: Fields, cells: int) -> Iterator[str]:
    """Yield what operators got, what it cost them, and how soon they were met."""
    taken = told["attacker"]
    fleet = f"{told['fleet']:,} accounts, {_operators(taken['operators'])}, {_supply(told)}"
    yield from wrapped(f"attack: {told['attack']}, {fleet}", cells)
    rows = [["", "all of it", "agents and code"]]
    for mark, shares in taken["at_day"].items():
        rows.append(
            [
                f"served by day {mark}",
                percent(shares["share"]),
                percent(shares["sought_share"]),
            ]
        )
    rows.append(["exchanges served", f"{taken['served']:,}", f"{taken['taken']:,}"])
    rows.append(["of them with an identity", f"{taken['served_with_identity']:,}", ""])
    rows.append(["exchanges wanted", f"{taken['wanted']:,}", f"{taken['sought']:,}"])
    yield from ("  " + line for line in columns(rows, [False, True, True], cells=cells - 2))
    yield from taken_through(taken, cells)
    bound = "none: `guardrail bound` tells what is missing"
    if taken["bound"] is not None:
        bound = f"{taken['bound']:,.0f} exchanges for accounts such as theirs"
    yield from _told("bound", bound, cells)
    per = taken["cost_per_thousand_usd"]
    each = "nothing was served" if per is None else f"${per:,.2f} a thousand"
    multiple = f"{times(taken['cost_multiple'])} the unopposed cost an exchange ({each})"
    yield from _told("cost", multiple, cells)
    bought = (
        f"{taken['accounts_bought']:,} accounts, {taken['cards_bought']:,} cards, "
        f"{taken['identities_bought']:,} identities, {taken['exits_rented']:,} addresses: "
        f"${taken['cost_usd']:,.0f}"
    )
    yield from _told("", bought, cells)
    first, contained = taken["hours_to_first_action"], taken["hours_to_containment"]
    within = "never" if contained is None else f"after {hours(contained)}"
    met = f"first refusal {hours(first)} after the 50th account; contained: {within}"
    yield from (f"  {line}" for line in wrapped(met, cells - 2))


def _told(label: str, text: str, cells: int) -> Iterator[str]:
    """Yield a text beside its label, in as many lines as it takes."""
    first, *more = wrapped(text, cells - 10)
    yield f"  {label:<8}{first}"
    yield from (f"{'':10}{line}" for line in more)


def taken_through(taken: Fields, cells: int) -> Iterator[str]:
    """Yield the kinds of accounts that took most, and the rule that refused each most often."""
    bands = taken["taken_through"]
    if not bands:
        return
    rows = [["taken through", "paid", "as one", "served", "of all", "refused most by"]]
    for band in bands[:_BANDS]:
        rows.append(
            [
                f"{band['age']}, {band['known']}",
                band["paid"],
                band["acting"] or NONE,
                f"{band['served']:,}",
                percent(band["served"] / taken["wanted"] if taken["wanted"] else None),
                next(iter(band["refusals"]), NONE),
            ]
        )
    if rest := sum(band["served"] for band in bands[_BANDS:]):
        rows.append(["others", "", "", f"{rest:,}", percent(rest / taken["wanted"]), ""])
    yield from (
        "  " + line
        for line in columns(rows, [False, False, False, True, True, False], cells=cells - 2)
    )


def side_by_side(blocks: Mapping[str, Sequence[Fields]], cells: int) -> Iterator[str]:
    """Yield one table of the same seeds under several policy sets, by name: means over the seeds.

    A line has what attackers were served, the multiple of the unopposed cost of it, and what honest
    customers were denied.
    """
    told = next(iter(blocks.values()))[0]
    fleet, days = f"{told['fleet']:,} accounts", plural(told["days"], "day")
    said = f"the same attack: {told['attack']}, {fleet}, {days}, {_supply(told)}"
    yield from wrapped(said, cells)
    rows = [
        ["", "served", "agents", "times the", "honest denied:", ""],
        ["under", "of all", "and code", "usual cost", "established", "new"],
    ]
    for name, found in blocks.items():
        taken = [one["attacker"] or {} for one in found]
        pooled = [one["honest"]["pooled"] for one in found]
        rows.append(
            [
                name,
                percent(_mean([one.get("share") for one in taken])),
                percent(_mean([one.get("sought_share") for one in taken])),
                times(_mean([one.get("cost_multiple") for one in taken])),
                percent(_mean([one["established"]["refused_share"] for one in pooled])),
                percent(_mean([one["new"]["refused_share"] for one in pooled])),
            ]
        )
    yield from ("  " + line for line in columns(rows, [False, *[True] * 5], cells=cells - 2))


def _supply(told: Fields) -> str:
    supply = told["supply"]
    return "fresh: unlimited" if supply is None else f"fresh: {supply:g} of the fleet a day"


def _operators(count: int) -> str:
    return "1 operator" if count == 1 else f"{count} operators"


def honest_table(told: Fields, cells: int) -> Iterator[str]:
    """Yield the harm to honest customers: pooled and by segment, established and new."""
    honest = told["honest"]
    head = ["honest", "active", "asked", "denied", "weaker", "for ID", "to pay", "blocked"]
    head.append("gone")
    rows = [head]
    for age in ("established", "new"):
        rows.append(_harm_row(age, honest["pooled"][age]))
        for name, ages in honest["segments"].items():
            if age in ages:
                mark = " ←" if honest["worst"][age] == name else ""
                rows.append(_harm_row(f"  {name}{mark}", ages[age]))
    yield from stacked(rows, [False, *[True] * 8], cells)


def _harm_row(name: str, harm: Fields) -> list[str]:
    return [
        name,
        f"{harm['active']:,}",
        f"{harm['asked']:,}",
        percent(harm["refused_share"]),
        percent(harm["degraded_share"]),
        percent(harm["stepped_up_share"]),
        percent(harm["asked_to_pay_share"]),
        percent(harm["blocked_share"]),
        percent(harm["gone_share"]),
    ]


def shock_table(told: Fields, cells: int) -> Iterator[str]:
    """Yield how the customers in each shock fared."""
    rows = [["shock", "accounts", "asked", "denied", "refused", "asked ID", "blocked"]]
    for name, shock in told["shocks"].items():
        rows.append(
            [
                name,
                f"{shock['accounts']:,}",
                f"{shock['asked']:,}",
                percent(shock["refused_share"]),
                *(
                    f"{shock[key]:,}"
                    for key in ("accounts_refused", "accounts_stepped_up", "accounts_blocked")
                ),
            ]
        )
    yield from stacked(rows, [False, *[True] * 6], cells)


def _placebo(told: Fields, cells: int) -> Iterator[str]:
    rows = [["placebo", "accounts", "served", "accounts refused"]]
    for name in ("attackers", "called_attackers", "honest"):
        row = told[name]
        rows.append(
            [
                name.replace("_", " "),
                f"{row['accounts']:,}",
                percent(row["served_share"]),
                percent(row["refused_accounts_share"]),
            ]
        )
    yield from columns(rows, [False, True, True, True], cells=cells)


def _twin(told: Fields, cells: int) -> Iterator[str]:
    yield from wrapped(
        f"twin: {told['compared']:,} decisions on {told['accounts']:,} trusted accounts, "
        f"{told['different']:,} of {told['accounts_different']:,} accounts changed by the attack",
        cells,
    )


def _ablation(rows: Sequence[Fields], cells: int) -> Iterator[str]:
    lines = [["without", "rules", "served", "sought", "cost", "old denied", "new denied"]]
    for row in rows:
        if not row["dropped"]:
            lines.append([row["primitive"], "0", *[NONE] * 5])
            continue
        taken, pooled = row["attacker"], row["pooled"]
        lines.append(
            [
                row["primitive"],
                str(len(row["dropped"])),
                percent(taken["share"]) if taken else NONE,
                percent(taken["sought_share"]) if taken else NONE,
                times(taken["cost_multiple"]) if taken else NONE,
                percent(pooled["established"]["refused_share"]),
                percent(pooled["new"]["refused_share"]),
            ]
        )
    yield from columns(lines, [False, *[True] * 6], cells=cells)

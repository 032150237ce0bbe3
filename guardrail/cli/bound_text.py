"""Bounds as text: accounts that a policy treats alike together, with the rules and the formula."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from guardrail.analysis import ANY, Bound, Fleet, Profile, Trust, all_together
from guardrail.cli.figures import columns, plural
from guardrail.cli.inert import shortened, width, wrapped
from guardrail.cli.output import Format, Output

ACCOUNTS = 1_000
"""How many accounts are reckoned with where nobody says."""

_PERIODS = {"day": "a day", "month": "30 days", "ever": "ever"}
_MOST_NAMED = 3
_LEAST_FORMULA = 30
"""How many cells a formula takes at least beside what it tells of."""

Table = tuple[Bound, ...]


def print_bounds(
    output: Output, fleet: Fleet, found: Sequence[Bound], form: Format, who: Trust | None
) -> None:
    """Print what was found, and `who` is trusted; `concise` leaves the formulas out."""
    output.told("fleet", _fleet(fleet))
    if who is not None:
        output.told("trusted", _trusted(who))
    for names, table in merged(found):
        output.line()
        output.line((names, "bold"))
        output.lines(_table(list(_rows(table)), form, output.width - 2))
    remedies = list(_remedies(found))
    if remedies and form is Format.FULL:
        output.line()
        output.line(("what would bound the rest", "bold"))
        output.lines(columns(remedies, (False, False, False), cells=output.width - 2))
    if fleet.trusted is not None:
        _print_together(output, found)


def _table(rows: list[tuple[str, ...]], form: Format, cells: int) -> list[str]:
    """Return bounds as lines; where formulas have no room beside them they stand beneath."""
    right = (False, False, False, True)
    short = [row[:4] for row in rows]
    if form is Format.CONCISE:
        return columns(short, right, cells=cells)
    alone = columns(short, right)
    if max(map(width, alone)) + _LEAST_FORMULA <= cells:
        return columns(rows, (*right, False), cells=cells)
    if max(map(width, alone)) > cells:
        alone = columns(short, right, gap=" ")
    lines = []
    for line, row in zip(alone, rows, strict=True):
        lines += [line, *(f"      {part}" for part in wrapped(row[4], cells - 6) if part)]
    return lines


def worst_lines(found: Sequence[Bound]) -> Iterator[tuple[str, str]]:
    """Yield, for each tier, the most its accounts can take: of requests and tokens, of anything.

    Where a time without end is not bounded it is that of a day. What is bounded lower than
    requests of any capability stands after it.
    """
    for tier in dict.fromkeys(one.profile.tier for one in found):
        own = [one for one in found if one.profile.tier == tier]
        by_capability: dict[str, list[Bound]] = {}
        for one in own:
            by_capability.setdefault(one.capability, []).append(one)
        alike: dict[str, list[str]] = {}
        for capability, those in by_capability.items():
            alike.setdefault(_worst(those), []).append(capability)
        parts = []
        for told, names in alike.items():
            parts.append(f"{ANY if ANY in names else ', '.join(names)}: {told}")
        yield ("all" if tier is None else tier or "no tier"), " · ".join(parts)


def worst_fields(found: Sequence[Bound]) -> list[dict[str, object]]:
    """Return, for each tier, the most its accounts can take, as plain values fit for JSON."""
    rows: dict[tuple[str | None, str, str, str], list[float | None]] = {}
    for one in found:
        row = one.profile.tier, one.capability, one.unit, one.period
        rows.setdefault(row, []).append(one.most)
    return [
        {
            "tier": tier,
            "capability": capability,
            "unit": unit,
            "period": period,
            "most": _highest(known),
        }
        for (tier, capability, unit, period), known in rows.items()
    ]


def _highest(known: Sequence[float | None]) -> float | None:
    """Return the most of some bounds, None where one is not bounded."""
    return None if None in known else max((most for most in known if most is not None), default=0)


def _worst(found: Sequence[Bound]) -> str:
    words = []
    for unit in ("requests", "tokens"):
        if not any(one.unit == unit for one in found):
            continue
        ever, day = (
            _highest([one.most for one in found if (one.unit, one.period) == (unit, period)])
            for period in ("ever", "day")
        )
        most, when = (day, " a day") if ever is None else (ever, " ever")
        if most == 0:
            words.append(f"no {unit}")
        else:
            words.append(f"{unit} unbounded" if most is None else f"{most:,.0f} {unit}{when}")
    if all(word.endswith(" unbounded") for word in words):
        return "unbounded"
    return "nothing" if all(word.startswith("no ") for word in words) else ", ".join(words)


def bound_fields(found: Sequence[Bound]) -> list[dict[str, object]]:
    """Return bounds as plain values, fit for JSON."""
    return [
        {**asdict(one), "terms": [{**asdict(term), "total": term.total} for term in one.terms]}
        for one in found
    ]


def _remedies(found: Sequence[Bound]) -> Iterator[tuple[str, str, str]]:
    """Yield for each unit in which times it is not bounded, and what to add."""
    known: dict[tuple[str, str], list[str]] = {}
    for one in sorted(found, key=lambda one: list(_PERIODS).index(one.period)):
        if one.remedy is not None and one.capability == ANY and _is_told(one.unit, found):
            times = known.setdefault((one.unit, one.remedy), [])
            if _PERIODS[one.period] not in times:
                times.append(_PERIODS[one.period])
    for unit in dict.fromkeys(unit for unit, _ in known):
        for (name, remedy), times in known.items():
            if name == unit:
                yield unit, ", ".join(times), remedy


def merged(found: Sequence[Bound]) -> list[tuple[str, Table]]:
    """Return profiles with equal bounds together, by their names, and those bounds."""
    tables: dict[Profile, list[Bound]] = {}
    for one in found:
        tables.setdefault(one.profile, []).append(one)
    known = {profile: _signature(table) for profile, table in tables.items()}
    first = {signature: tuple(tables[profile]) for profile, signature in reversed(known.items())}
    for name in ("card", "identity", "paid"):
        groups: dict[Profile, list[Profile]] = {}
        for profile in known:
            groups.setdefault(replace(profile, **{name: None}), []).append(profile)
        for wide, members in groups.items():
            if len(members) > 1 and len({known[member] for member in members}) == 1:
                position = {wide if p in members else p: sig for p, sig in known.items()}
                known = position
    together: dict[tuple[Profile, Table], list[Profile]] = {}
    for profile, signature in known.items():
        together.setdefault((replace(profile, tier=None), signature), []).append(profile)
    return [(_named(profiles), first[signature]) for (_, signature), profiles in together.items()]


def _named(profiles: Sequence[Profile]) -> str:
    tiers = [profile.tier for profile in profiles if profile.tier is not None]
    rest = replace(profiles[0], tier=None)
    words = [" or ".join(tier or "no tier" for tier in tiers)] if tiers else []
    if rest != Profile():
        words.append(rest.text)
    return ", ".join(words) or "all accounts"


def _signature(table: Sequence[Bound]) -> Table:
    return tuple(replace(one, profile=Profile()) for one in table)


def _rows(table: Table) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield the lines of one table; capabilities that stand as `any` does are not repeated."""
    by_name: dict[str, list[Bound]] = {}
    for one in table:
        by_name.setdefault(one.capability, []).append(one)
    alike: dict[Table, list[str]] = {}
    for name, own in by_name.items():
        alike.setdefault(tuple(_plain(one) for one in own), []).append(name)
    for names in alike.values():
        label = ANY if ANY in names else ", ".join(names)
        yield from _capability_rows(label, by_name[names[0]], table)


def _capability_rows(
    label: str, own: Sequence[Bound], table: Table
) -> Iterator[tuple[str, str, str, str, str]]:
    for unit in dict.fromkeys(one.unit for one in own if _is_told(one.unit, table)):
        alike: dict[tuple[str, str], list[str]] = {}
        for one in own:
            if one.unit == unit:
                alike.setdefault((_figure(one.most, one.unit), _how(one)), []).append(
                    _PERIODS[one.period]
                )
        for (amount, how), periods in alike.items():
            yield label, unit, ", ".join(periods), amount, how
            label = unit = ""


def _is_told(unit: str, found: Sequence[Bound]) -> bool:
    """Tell whether a unit is worth a line: requests always, another where a rule bounds it."""
    return unit == "requests" or any(one.most for one in found if one.unit == unit)


def _plain(one: Bound) -> Bound:
    return replace(one, capability="", profile=Profile())


def _figure(most: float | None, unit: str) -> str:
    if most is None:
        return "unbounded"
    return f"{most:,.2f}" if unit == "cost_usd" else f"{most:,.0f}"


def _how(one: Bound) -> str:
    if one.most is None:
        return shortened(one.missing or "", 200)
    if one.refused_by:
        several = ", ".join(shortened(name, 48) for name in one.refused_by[:_MOST_NAMED])
        return f"refused by {several}" + (", …" if one.refused_by[_MOST_NAMED:] else "")
    return " + ".join(f"{shortened(term.rule, 48)}: {term.formula}" for term in one.terms)


def _fleet(fleet: Fleet) -> str:
    words = [plural(fleet.accounts, "account")]
    if fleet.trusted is not None:
        words.append(f"{fleet.trusted:,} of them with a verified identity")
    if fleet.identities is not None:
        words.append(
            f"{fleet.identities:,} " + ("identity" if fleet.identities == 1 else "identities")
        )
    if fleet.cards is not None:
        words.append(plural(fleet.cards, "card"))
    assumed = (f"{name} = {value}" for name, value in fleet.assumed.items())
    return ", ".join((*words, *(shortened(text, 60) for text in assumed)))


def _trusted(who: Trust) -> str:
    """Say who is trusted: only such accounts act alone, whatever they share with others."""
    if who.tiers is None:
        tiers = "accounts of any tier"
    else:
        tiers = "accounts of " + ", ".join(who.tiers) if who.tiers else "no account of these"
    return f"{tiers}, by `links`: {shortened(who.when, 300)}"


def _print_together(output: Output, found: Sequence[Bound]) -> None:
    """Print the most of all accounts at once, of each capability that is not as any."""
    alike: dict[tuple[tuple[str, str, str], ...], list[str]] = {}
    for capability in dict.fromkeys(one.capability for one in found):
        alike.setdefault(tuple(_together(found, capability)), []).append(capability)
    rows = []
    for lines, names in alike.items():
        label = ANY if ANY in names else ", ".join(names)
        for unit, periods, amount in lines:
            rows.append((label, unit, periods, amount))
            label = ""
    output.line()
    output.line(("all together", "bold"))
    output.lines(columns(rows, (False, False, False, True), cells=output.width - 2))


def _together(found: Sequence[Bound], capability: str) -> Iterator[tuple[str, str, str]]:
    for unit in dict.fromkeys(one.unit for one in found if _is_told(one.unit, found)):
        alike: dict[str, list[str]] = {}
        for period in dict.fromkeys(one.period for one in found):
            most = all_together(found, capability, unit, period)
            alike.setdefault(_figure(most, unit), []).append(_PERIODS[period])
        for amount, periods in alike.items():
            yield unit, ", ".join(periods), amount

"""Limits of several rules that leave less to whoever stands higher: a tier, an age, payments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from guardrail.analysis.demands import Demand, Index
from guardrail.analysis.formulas import EffortError, Formula, every, given, variables_of
from guardrail.analysis.limits import OWN, Limit
from guardrail.analysis.space import Space
from guardrail.analysis.witnesses import More, possible
from guardrail.engine import in_unit
from guardrail.errors import Diagnostic, Span, finding
from guardrail.model.facts import ACCOUNTS, EARNED, Fact, FactType


@dataclass(frozen=True, slots=True)
class _Figure:
    """What one limit allows where it applies, and of which requests."""

    limit: Limit
    amount: int
    where: Formula


def lint_tiers(
    space: Space, limits: Sequence[Limit], asked: Sequence[Demand], left: dict[str, Span]
) -> Iterator[Diagnostic]:
    """Yield what of separate rules falls where a level rises, or what somebody has earned.

    Falls within one table are found where it is written. What is given up goes into `left`.
    """
    refusals = Index([one for one in asked if one.refuses])
    for name in space.full:
        fact = space.sets[0].facts.get(name)
        if fact is None or (fact.type is not FactType.LEVEL and name not in EARNED):
            continue
        groups: dict[object, list[_Figure]] = {}
        for limit in limits:
            # What all share is sized by how many they are.
            if limit.refuses and set(limit.key) & set(OWN):
                groups.setdefault(_kind(limit), []).extend(_figures(space, limit))
        for group in groups.values():
            if len({one.limit.rule.id for one in group if name in _read(one)}) > 1:
                yield from _falling(space, fact, group, refusals, left)


def _kind(limit: Limit) -> object:
    """Return what two limits have in common of which one amount is less than the other."""
    covers = limit.verb.covers
    window = limit.verb.lasts if covers is None else (covers.kind, covers.length)
    return limit.verb.name, limit.unit, frozenset(limit.verb.facts), window


def _figures(space: Space, limit: Limit) -> Iterator[_Figure]:
    for most, _, where in limit.own_rows:
        here = every((limit.when, where), space.full)
        if most is not None and here is not False:
            yield _Figure(limit, most, here)


def _read(figure: _Figure) -> set[str]:
    return set(variables_of(figure.where))


def _falling(
    space: Space,
    fact: Fact,
    group: Sequence[_Figure],
    refusals: Index[Demand],
    left: dict[str, Span],
) -> Iterator[Diagnostic]:
    places = _rising(space, fact)
    told: set[str] = set()
    for high in group:
        rule = high.limit.rule
        for low in group:
            if low.limit.rule is rule or low.amount <= high.amount or rule.id in told:
                continue
            if fact.name not in _read(low) or fact.name not in _read(high):
                continue
            pairs = ((v, w) for n, w in enumerate(places) for v in reversed(places[:n]))
            try:
                fell = next(
                    (
                        pair
                        for pair in pairs
                        if not _stands_for_many(space, fact, low.limit, pair[0])
                        and _falls(space, fact, group, low, high, pair, refusals)
                    ),
                    None,
                )
            except EffortError:
                left[f"rule `{rule.id}`"] = rule.span
                continue
            if fell is not None:
                told.add(rule.id)
                yield _told(space, fact, low, high, fell)


def _rising(space: Space, fact: Fact) -> list[int]:
    """Return the places of a fact's values, from the lowest one up."""
    values = space.typed[0][fact.name]
    places = [place for place, value in enumerate(values) if value is not None]
    if fact.type is FactType.LEVEL:
        return sorted(places, key=lambda place: fact.values.index(values[place]))
    return sorted(places, key=lambda place: float(values[place]))


def _stands_for_many(space: Space, fact: Fact, limit: Limit, place: int) -> bool:
    """Tell whether the lower level is of those without an account, who share a network's limit."""
    lowest = fact.values[:1] == (space.typed[0][fact.name][place],)
    return lowest and fact.default in fact.values[:1] and bool(set(limit.key) & set(ACCOUNTS))


def _falls(
    space: Space,
    fact: Fact,
    group: Sequence[_Figure],
    low: _Figure,
    high: _Figure,
    pair: tuple[int, int],
    refusals: Index[Demand],
) -> bool:
    """Tell whether a request, alike but for one fact, is bounded by less where that is higher."""
    below, above = pair

    def at(formula: Formula, place: int) -> Formula:
        return given(formula, {**space.full, fact.name: 1 << place}, space.full)

    both = every((at(low.where, below), at(high.where, above)), space.full)
    if both is False:
        return False
    as_low = [space.opposite(at(one.where, below)) for one in group if one.amount <= high.amount]
    return possible(space, [both, *as_low], _unless_refused(space, fact, pair, refusals))


def _unless_refused(
    space: Space, fact: Fact, pair: tuple[int, int], refusals: Index[Demand]
) -> More:
    def more(chosen: Mapping[str, int]) -> list[Formula]:
        for place in pair:
            for one in refusals.at({**chosen, fact.name: place}):
                domains = {**space.full, fact.name: 1 << place}
                return [space.opposite(given(one.when, domains, space.full))]
        return []

    return more


def _told(
    space: Space, fact: Fact, low: _Figure, high: _Figure, pair: tuple[int, int]
) -> Diagnostic:
    less, more = (in_unit(one.amount, one.limit.unit) for one in (high, low))
    first, second = low.limit.rule, high.limit.rule
    values = space.typed[0][fact.name]
    message = f"who has more `{fact.name}` gets less"
    if fact.type is FactType.LEVEL:
        message = f"`{values[pair[1]]}` gets less than `{values[pair[0]]}`, which is lower"
    label = f"{less:,.10g} after {more:,.10g} by `{first.id}` ({first.span.file}:{first.span.line})"
    help = "let the amounts rise with their fact, or swap them"
    at = space.sets[0].places.get((second.id, high.limit.written), second.span)
    return finding("GR220", message, at, help, label=label)

"""Limits of several rules that leave less to whoever stands higher: a tier, an age, payments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from guardrail.analysis.demands import Demand, Index
from guardrail.analysis.formulas import (
    And,
    EffortError,
    Formula,
    Leaf,
    Or,
    Pair,
    bits,
    every,
    given,
    some,
    variables_of,
)
from guardrail.analysis.limits import OWN, Limit
from guardrail.analysis.space import Space
from guardrail.analysis.witnesses import some_point
from guardrail.engine import in_unit
from guardrail.errors import Diagnostic, Span, finding
from guardrail.model.facts import ACCOUNTS, EARNED, Fact, FactType


@dataclass(frozen=True, slots=True, eq=False)
class _Figure:
    """What one limit allows where it applies, and of which requests.

    `reads` are the facts that this depends on, `needs` the values of them that it surely takes.
    """

    limit: Limit
    amount: int
    when: Formula
    reads: frozenset[str]
    needs: Mapping[str, int]

    def meets(self, other: _Figure, apart: str) -> bool:
        """Tell whether no fact but one keeps a request from meeting both, as far as is seen."""
        for name, mask in self.needs.items():
            if name != apart and not mask & other.needs.get(name, mask):
                return False
        return True


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
            if len({one.limit.rule.id for one in group if name in one.reads}) > 1:
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
            parts = here.parts if isinstance(here, And) else (here,)
            needs = {part.variable: part.mask for part in parts if isinstance(part, Leaf)}
            yield _Figure(limit, most, here, frozenset(variables_of(here)), needs)


def _falling(
    space: Space,
    fact: Fact,
    group: Sequence[_Figure],
    refusals: Index[Demand],
    left: dict[str, Span],
) -> Iterator[Diagnostic]:
    places = _rising(space, fact)
    # Of numbers, those next to each other: what lies between two bounds is a value of its own.
    near = len(places) if fact.type is FactType.LEVEL else 1
    steps = [(v, w) for n, w in enumerate(places) for v in reversed(places[max(0, n - near) : n])]
    index = Index(group)
    opposites: dict[tuple[int, int], tuple[Formula, Formula]] = {}
    told: set[str] = set()
    for high in group:
        rule = high.limit.rule
        if fact.name not in high.reads or rule.id in told:
            continue
        larger = _larger(fact, group, high)
        try:
            for pair in _begins(space, fact, high, steps) if larger else ():
                low = _falls(space, fact, index, larger, high, pair, refusals, opposites)
                if low is not None:
                    told.add(rule.id)
                    yield _told(space, fact, low, high, pair)
                    break
        except EffortError:
            left[f"rule `{rule.id}`"] = rule.span


def _larger(fact: Fact, group: Sequence[_Figure], high: _Figure) -> list[_Figure]:
    """Return what allows more than a limit, and may be met where its fact is lower."""
    return [
        low
        for low in group
        if low.amount > high.amount
        and fact.name in low.reads
        and low.limit.rule is not high.limit.rule
        and low.meets(high, fact.name)
    ]


def _begins(
    space: Space, fact: Fact, high: _Figure, steps: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yield the steps at which a limit can begin to apply: it bounds the lower one itself else."""
    masks = set(_masks(high.when, fact.name, space.full[fact.name]))
    above = high.needs.get(fact.name, space.full[fact.name])
    for below, value in steps:
        if above >> value & 1 and any((m >> below ^ m >> value) & 1 for m in masks):
            yield below, value


def _masks(formula: Formula, name: str, whole: int) -> Iterator[int]:
    """Yield the sets of values of a fact that parts of a formula tell from the others."""
    if isinstance(formula, Leaf) and formula.variable == name:
        yield formula.mask
    elif isinstance(formula, Pair) and name in (formula.first, formula.second):
        yield from (1 << place for place in bits(whole))
    elif isinstance(formula, And | Or):
        for part in formula.parts:
            yield from _masks(part, name, whole)


def _rising(space: Space, fact: Fact) -> list[int]:
    """Return the places of a fact's values, from the lowest one up."""
    values = space.typed[0][fact.name]
    places = [place for place, value in enumerate(values) if value is not None]
    if fact.type is FactType.LEVEL:
        return sorted(places, key=lambda place: fact.values.index(values[place]))
    return sorted(places, key=lambda place: float(values[place]))


def _is_of_many(space: Space, fact: Fact, place: int) -> bool:
    """Tell whether a level is of those without an account, who share a network's limit."""
    lowest = fact.values[:1] == (space.typed[0][fact.name][place],)
    return lowest and fact.default in fact.values[:1]


def _falls(
    space: Space,
    fact: Fact,
    index: Index[_Figure],
    larger: Sequence[_Figure],
    high: _Figure,
    pair: tuple[int, int],
    refusals: Index[Demand],
    opposites: dict[tuple[int, int], tuple[Formula, Formula]],
) -> _Figure | None:
    """Return what of some bounds a request by more that a limit bounds where its fact is higher."""
    below, above = pair

    def at(formula: Formula, place: int) -> Formula:
        return given(formula, {**space.full, fact.name: 1 << place}, space.full)

    def unmet(formula: Formula, place: int) -> Formula:
        key = id(formula), place
        if key not in opposites:
            # The formula is kept, so that no other one is known by its number.
            opposites[key] = formula, space.opposite(at(formula, place))
        return opposites[key][1]

    if _is_of_many(space, fact, below):
        larger = [one for one in larger if not set(one.limit.key) & set(ACCOUNTS)]
    if not larger:
        return None
    known = set(map(id, larger))
    any_larger: list[Formula] = []

    def more(chosen: Mapping[str, int]) -> list[Formula]:
        for place in pair:
            refused = [unmet(one.when, place) for one in refusals.at({**chosen, fact.name: place})]
            if refused:
                return refused
        met = list(index.at({**chosen, fact.name: below}))
        smaller = [unmet(one.when, below) for one in met if one.amount <= high.amount]
        if smaller:
            return smaller
        if any(id(one) in known for one in met):
            return []
        if not any_larger:
            any_larger.append(some((at(one.when, below) for one in larger), space.full))
        return any_larger

    point = some_point(space, [at(high.when, above)], more)
    if point is None:
        return None
    return next(one for one in index.at({**point, fact.name: below}) if id(one) in known)


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

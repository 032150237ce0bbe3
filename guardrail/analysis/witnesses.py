"""Whether any request answers a question, and the smallest one that does."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from guardrail.analysis.clauses import Clauses
from guardrail.analysis.formulas import (
    Domains,
    EffortError,
    Formula,
    Leaf,
    Search,
    holds,
    renamed,
    some,
)
from guardrail.analysis.space import CLOCK, Space

TRIES = 2_000
"""How many splits the search for fewer facts may take; then the fewest found so far stand."""

TRIED_VALUES = 6
"""How many values of a fact are tried for a plainer one."""

More = Callable[[Mapping[str, int]], list[Formula]]
"""Returns, of a request, further formulas that have to hold and that it does not make true."""


@dataclass(frozen=True, slots=True)
class Witness:
    """A request that shows something: the facts it states, and when it comes.

    `at` is in microseconds, None for the time that was asked about. `chosen` has the place of
    each fact's value.
    """

    facts: Mapping[str, object]
    at: int | None
    chosen: Mapping[str, int]


def point(space: Space, domains: Mapping[str, int]) -> dict[str, int]:
    """Return one value of each fact, out of sets that may be chosen from freely."""
    return {name: next(space.plainest(name, mask)) for name, mask in domains.items()}


def smallest(space: Space, formulas: Sequence[Formula], more: More | None = None) -> Witness | None:
    """Return the request of the fewest facts that makes all formulas true, None if none does.

    `more` is asked about each candidate: what it adds has to hold as well.
    """
    every = [*formulas, *space.rules_of_requests]
    if _searched(space, every, more) is None:
        return None
    chosen = _Shrinking(space, every, more).smallest()
    at = space.instants[chosen[CLOCK]] if chosen[CLOCK] else None
    return Witness(space.request(chosen), at, chosen)


def possible(space: Space, formulas: Iterable[Formula], more: More | None = None) -> bool:
    """Tell whether there is a request that makes all formulas true; `more` as for `smallest`."""
    if more is not None:
        return some_point(space, formulas, more) is not None
    asked = tuple(formulas)
    found = space.answered.get(asked)
    if found is None:
        every = [*asked, *space.rules_of_requests]
        clauses = _added(space, Clauses(space.full), every)
        found = space.answered[asked] = _domains(space, clauses, every) is not None
    return found


def possible_twice(
    space: Space,
    first: Iterable[Formula],
    second: Iterable[Formula],
    apart: Collection[str],
    more: More,
) -> bool:
    """Tell whether two requests that are alike but for some facts make their formulas true each.

    `apart` are those facts; `more` is asked about both, as for `smallest`.
    """
    names = {name: f"{name} of the second" for name in space.full if name in apart}
    full = {**space.full, **{other: space.full[name] for name, other in names.items()}}
    rules = space.rules_of_requests
    every = [*first, *rules, *(renamed(one, names) for one in (*second, *rules))]
    while True:
        domains = space.find(Search(full, effort=space.effort), every, full)
        if domains is None:
            return False
        chosen = {name: mask.bit_length() - 1 for name, mask in domains.items()}
        other = {name: chosen[names.get(name, name)] for name in space.full}
        added = [*more(chosen), *(renamed(one, names) for one in more(other))]
        if not added:
            return True
        every += added


def some_point(
    space: Space, formulas: Iterable[Formula], more: More | None = None
) -> dict[str, int] | None:
    """Return the places of the values of a request that makes all formulas true, if there is one.

    `more` is as for `smallest`.
    """
    every = [*formulas, *space.rules_of_requests]
    return _searched(space, every, more)


def _searched(space: Space, every: list[Formula], more: More | None) -> dict[str, int] | None:
    """Return what a search finds once nothing more has to hold; what had to is added to `every`."""
    clauses: Clauses | None = Clauses(space.full)
    added: list[Formula] = every
    while True:
        clauses = _added(space, clauses, added)
        domains = _domains(space, clauses, every)
        if domains is None:
            return None
        chosen = space.rarest(domains)
        added = [] if more is None else more(chosen)
        if not added:
            return chosen
        assert not any(holds(formula, chosen) for formula in added)
        every += added


def _added(space: Space, clauses: Clauses | None, formulas: Iterable[Formula]) -> Clauses | None:
    """Return clauses with those of more formulas, None once one of them has other parts."""
    for formula in formulas:
        parts = None if clauses is None else space.clauses_of(formula)
        if clauses is None or parts is None:
            return None
        clauses.add(parts)
    return clauses


def _domains(space: Space, clauses: Clauses | None, every: list[Formula]) -> Domains | None:
    """Return sets of values of which each choice makes every formula true, by clauses if it can."""
    if clauses is None:
        return space.find(Search(space.full, effort=space.effort), every, space.full)
    return space.find_by(clauses)


class _Shrinking:
    """The search for a request of fewer facts, and then of plainer values.

    There is one more variable for each fact that can follow from others: its value is 0 where the
    fact need not be stated. What is asked for has to be possible.
    """

    def __init__(self, space: Space, every: Sequence[Formula], more: More | None) -> None:
        self.space, self.every, self.more = space, [*every], more
        self.full = dict(space.full)
        for name, where in space.unstated.items():
            variable = f"whether {name} is stated"
            self.full[variable] = 0b11
            self.every.append(some((Leaf(variable, 0b10), where), self.full))
        follow = self.full.keys() - space.full.keys()
        self.costly = frozenset({*(space.optional - space.unstated.keys()), *follow})

    def smallest(self) -> dict[str, int]:
        """Return the places of values, as few as can be of facts stated."""
        chosen = self._fewest()
        free = {*self.costly, *self.space.optional}
        domains = {n: 1 if n in free and not chosen[n] else mask for n, mask in self.full.items()}
        for name in sorted(self.space.full):
            if domains[name] != 1 or name not in free:
                plain = self.space.plainest(name, domains[name] & ~int(name in free))
                for _, place in zip(range(TRIED_VALUES), plain, strict=False):
                    tried = {**domains, name: 1 << place}
                    found = chosen if chosen[name] == place else self._within(tried)
                    if found is not None:
                        domains, chosen = tried, found
                        break
        return {name: chosen[name] for name in self.space.full}

    def _fewest(self) -> dict[str, int]:
        domains: Domains = dict(self.full)
        chosen = self._within(domains)
        assert chosen is not None
        # None can be left out of these any more ...
        for name in sorted(self.costly):
            tried = {**domains, name: 1}
            found = self._within(tried) if chosen[name] else chosen
            if found is not None:
                domains, chosen = tried, found
        # ... and perhaps fewer of others will do.
        while most := sum(1 for name in self.costly if chosen[name]):
            try:
                found = self._within(self.full, most - 1)
            except EffortError:
                break
            if found is None:
                break
            chosen = found
        return chosen

    def _within(self, domains: Domains, most: int | None = None) -> dict[str, int] | None:
        """Return a request out of sets of values, of so many facts at most if that is given."""
        while True:
            search = Search(self.full, effort=self.space.effort)
            if most is not None:
                search = Search(self.full, self.costly, most, TRIES)
            best = self.space.find(search, self.every, domains)
            if best is None:
                return None
            facts = {name: best[name] for name in self.space.full}
            chosen = {name: 0 if mask & 1 else 1 for name, mask in best.items()}
            chosen.update(point(self.space, facts))
            added = [] if self.more is None else self.more(chosen)
            if not added:
                return chosen
            self.every += added

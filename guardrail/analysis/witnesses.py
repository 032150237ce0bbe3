"""Whether any request answers a question, and the smallest one that does."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from guardrail.analysis.formulas import (
    Domains,
    EffortError,
    Formula,
    Leaf,
    Search,
    holds,
    renamed,
    some,
    variables_of,
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
    if _searched(space, every, more, _any) is None:
        return None
    found = _searched(space, every, more, _fewest)
    assert found is not None
    unstated = {name for name, place in found.items() if not place and _is_free(space, name)}
    chosen = _plainest(space, every, more, unstated)
    at = space.instants[chosen[CLOCK]] if chosen[CLOCK] else None
    return Witness(space.request(chosen), at, chosen)


def possible(space: Space, formulas: Iterable[Formula], more: More | None = None) -> bool:
    """Tell whether there is a request that makes all formulas true; `more` as for `smallest`."""
    return some_point(space, formulas, more) is not None


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
        domains = Search(full, effort=space.effort).find(every, full)
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
    return _searched(space, every, more, _any)


def _searched(
    space: Space,
    every: list[Formula],
    more: More | None,
    search: Callable[[Space, Sequence[Formula]], dict[str, int] | None],
) -> dict[str, int] | None:
    """Return what a search finds once nothing more has to hold; what had to is added."""
    while True:
        chosen = search(space, every)
        added = more(chosen) if more is not None and chosen is not None else []
        if chosen is None or not added:
            return chosen
        assert not any(holds(formula, chosen) for formula in added)
        every += added


def _any(space: Space, every: Sequence[Formula]) -> dict[str, int] | None:
    domains = Search(space.full, effort=space.effort).find(every, space.full)
    if domains is None:
        return None
    # Of values that are as good, the last is the one that fewest rules name.
    return {name: mask.bit_length() - 1 for name, mask in domains.items()}


def _fewest(space: Space, every: Sequence[Formula]) -> dict[str, int] | None:
    """Return the places of values that make formulas true, as few as can be of facts stated."""
    mentioned = {name for formula in every for name in variables_of(formula)}
    full, every = _with_stated(space, every, mentioned)
    costly = sorted(
        name for name in full if name not in space.full or _is_costly(space, name, mentioned)
    )
    domains: Domains = dict(full)
    for name in space.optional - mentioned:
        domains[name] = 1
    search = Search(full, effort=space.effort)
    best = search.find(every, domains)
    if best is None:
        return None
    # None can be left out of these any more ...
    for name in costly:
        left = search.find(every, {**domains, name: 1})
        if left is not None:
            domains[name], best = 1, left
    # ... and perhaps fewer of others will do.
    start = {name: 1 if name in space.optional - mentioned else mask for name, mask in full.items()}
    for most in range(sum(1 for name in costly if not best[name] & 1) - 1, -1, -1):
        try:
            fewer = Search(full, frozenset(costly), most, TRIES).find(every, start)
        except EffortError:
            break
        if fewer is None:
            break
        best = fewer
    return {
        name: 0 if mask & 1 and _is_free(space, name) else mask.bit_length() - 1
        for name, mask in best.items()
    }


def _is_free(space: Space, name: str) -> bool:
    """Tell whether a variable's first value says that something is not stated."""
    return name in space.optional or name not in space.full


def _plainest(
    space: Space, every: list[Formula], more: More | None, unstated: Collection[str]
) -> dict[str, int]:
    """Return the places of the plainest values that make formulas true, some facts not stated.

    One fact after the other gets its value, so that what `more` adds is asked for once.
    """
    domains = {name: 1 if name in unstated else mask for name, mask in space.full.items()}

    def within(tried: Mapping[str, int]) -> dict[str, int] | None:
        def search(space: Space, every: Sequence[Formula]) -> dict[str, int] | None:
            full, found = _with_stated(space, every, {n for f in every for n in variables_of(f)})
            start = {name: 1 if name in unstated else mask for name, mask in full.items()}
            best = Search(full, effort=space.effort).find(found, {**start, **tried})
            return None if best is None else point(space, {name: best[name] for name in tried})

        return _searched(space, every, more, search)

    chosen = within(domains)
    assert chosen is not None
    for name in sorted(space.full.keys() - {*unstated}):
        plain = space.plainest(name, domains[name] & ~(name in space.optional))
        for _, place in zip(range(TRIED_VALUES), plain, strict=False):
            tried = {**domains, name: 1 << place}
            found = chosen if chosen[name] == place else within(tried)
            if found is not None:
                domains, chosen = tried, found
                break
    return chosen


def _is_costly(space: Space, name: str, mentioned: Collection[str]) -> bool:
    return name in mentioned and name in space.optional and name not in space.unstated


def _with_stated(
    space: Space, every: Sequence[Formula], mentioned: Collection[str]
) -> tuple[dict[str, int], list[Formula]]:
    """Return the formulas, and all variables, with one more for each fact that can follow.

    Its value is 0 where the fact need not be stated.
    """
    full, found = dict(space.full), list(every)
    for name, where in space.unstated.items():
        if name in mentioned:
            variable = f"whether {name} is stated"
            full[variable] = 0b11
            found.append(some((Leaf(variable, 0b10), where), full))
    return full, found

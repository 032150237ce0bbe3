"""Formulas over variables of a few values each, and whether an assignment makes them true.

A variable's values are numbered; a set of them is the integer whose bits say which are in it. A
formula is True, False, or made of leaves by *and* and *or*. Whether several formulas can hold
together is decided by splitting what values variables may have, one leaf at a time, and putting
into every formula what is known so far (M. Davis, G. Logemann, D. Loveland, A machine program for
theorem-proving, 1962, with sets of values in place of truth values).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Leaf:
    """True where a variable has one of some values, never all or none of them."""

    variable: str
    mask: int


@dataclass(frozen=True, slots=True)
class Pair:
    """True where two variables have values that go together: `rows` has those of the second one.

    There is one row for each value of the first.
    """

    first: str
    second: str
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class And:
    """True where every part is."""

    parts: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """True where at least one part is."""

    parts: tuple[Formula, ...]


Formula = bool | Leaf | Pair | And | Or
Domains = dict[str, int]
"""Which values each variable may have."""


EFFORT = 100_000
"""How many splits a search may make before it is given up."""

STEPS = 5_000_000
"""How many formulas all searches about one set, or two, may look at before the rest is given up."""


class EffortError(Exception):
    """A search was given up: it took more splits than it may, or all of them too many steps."""


def every(parts: Iterable[Formula], full: Mapping[str, int]) -> Formula:
    """Return the formula that is true where all parts are; `full` has all values of variables."""
    leaves: dict[str, int] = {}
    rest: dict[Formula, None] = {}
    for part in _flat(parts, And):
        if part is False:
            return False
        if isinstance(part, Leaf):
            mask = leaves.get(part.variable, full[part.variable]) & part.mask
            if not mask:
                return False
            leaves[part.variable] = mask
        elif part is not True:
            rest[part] = None
    made = (*(Leaf(name, mask) for name, mask in leaves.items()), *rest)
    return made[0] if len(made) == 1 else And(made) if made else True


def some(parts: Iterable[Formula], full: Mapping[str, int]) -> Formula:
    """Return the formula that is true where one part is; `full` has all values of variables."""
    leaves: dict[str, int] = {}
    rest: dict[Formula, None] = {}
    for part in _flat(parts, Or):
        if part is True:
            return True
        if isinstance(part, Leaf):
            mask = leaves.get(part.variable, 0) | part.mask
            if mask == full[part.variable]:
                return True
            leaves[part.variable] = mask
        elif part is not False:
            rest[part] = None
    made = (*(Leaf(name, mask) for name, mask in leaves.items()), *rest)
    return made[0] if len(made) == 1 else Or(made) if made else False


def _flat(parts: Iterable[Formula], kind: type[And | Or]) -> Iterator[Formula]:
    for part in parts:
        if isinstance(part, kind):
            yield from _flat(part.parts, kind)
        else:
            yield part


def opposite(formula: Formula, full: Mapping[str, int]) -> Formula:
    """Return the formula that is true where this one is not."""
    if isinstance(formula, bool):
        return not formula
    if isinstance(formula, Leaf):
        return Leaf(formula.variable, full[formula.variable] & ~formula.mask)
    if isinstance(formula, Pair):
        whole = full[formula.second]
        return Pair(formula.first, formula.second, tuple(whole & ~row for row in formula.rows))
    parts = (opposite(part, full) for part in formula.parts)
    return some(parts, full) if isinstance(formula, And) else every(parts, full)


def leaf(variable: str, mask: int, full: Mapping[str, int]) -> Formula:
    """Return the formula that a variable has one of the values in `mask`."""
    if mask == full[variable]:
        return True
    return Leaf(variable, mask) if mask else False


def variables_of(formula: Formula) -> Iterator[str]:
    """Yield the variables of a formula, some of them several times."""
    if isinstance(formula, Leaf):
        yield formula.variable
    elif isinstance(formula, Pair):
        yield formula.first
        yield formula.second
    elif not isinstance(formula, bool):
        for part in formula.parts:
            yield from variables_of(part)


def renamed(formula: Formula, names: Mapping[str, str]) -> Formula:
    """Return a formula with some of its variables under other names."""
    if isinstance(formula, bool):
        return formula
    if isinstance(formula, Leaf):
        return Leaf(names.get(formula.variable, formula.variable), formula.mask)
    if isinstance(formula, Pair):
        first, second = (names.get(name, name) for name in (formula.first, formula.second))
        return Pair(first, second, formula.rows)
    return type(formula)(tuple(renamed(part, names) for part in formula.parts))


def holds(formula: Formula, chosen: Mapping[str, int]) -> bool:
    """Tell whether a formula is true where each variable has one value, given by its number."""
    if isinstance(formula, bool):
        return formula
    if isinstance(formula, Leaf):
        return bool(formula.mask >> chosen[formula.variable] & 1)
    if isinstance(formula, Pair):
        return bool(formula.rows[chosen[formula.first]] >> chosen[formula.second] & 1)
    if isinstance(formula, And):
        return all(holds(part, chosen) for part in formula.parts)
    return any(holds(part, chosen) for part in formula.parts)


def given(formula: Formula, domains: Mapping[str, int], full: Mapping[str, int]) -> Formula:
    """Return what is left of a formula where variables have but the values in `domains`."""
    if isinstance(formula, bool):
        return formula
    if isinstance(formula, Leaf):
        may = domains[formula.variable]
        if not formula.mask & may:
            return False
        return formula if may & ~formula.mask else True
    if isinstance(formula, Pair):
        return _given_pair(formula, domains)
    is_and = isinstance(formula, And)
    kept: list[Formula] = []
    changed = nested = False
    for part in formula.parts:
        left: Formula
        if type(part) is Leaf:
            # Most parts are: a call for each would take most of the time.
            may = domains[part.variable]
            left = part
            if not part.mask & may:
                left = False
            elif not may & ~part.mask:
                left = True
        else:
            left = given(part, domains, full)
            nested = True
        if left is True or left is False:
            if left is not is_and:
                return left
            changed = True
            continue
        changed = changed or left is not part
        kept.append(left)
    if not kept:
        return is_and
    if len(kept) == 1:
        return kept[0]
    if not changed:
        return formula
    if is_and:
        return And(tuple(kept))
    return some(kept, full) if nested else Or(tuple(kept))


def _given_pair(pair: Pair, domains: Mapping[str, int]) -> Formula:
    first, second = domains[pair.first], domains[pair.second]
    always = never = True
    fitting = 0
    only = second & (second - 1) == 0
    for place in bits(first):
        row = pair.rows[place] & second
        always = always and row == second
        never = never and not row
        if only and row:
            fitting |= 1 << place
    if always or never:
        return always
    if first & (first - 1) == 0:
        return Leaf(pair.second, pair.rows[first.bit_length() - 1] & second)
    return Leaf(pair.first, fitting) if only else pair


def bits(mask: int) -> Iterator[int]:
    """Yield the numbers of the values in a set, the lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


@dataclass(slots=True)
class Search:
    """A search for values that make formulas true, which may make so many splits in all.

    Of each variable in `free`, the value numbered 0 costs nothing and any other one; `most` is
    what the values found may cost together, None for anything. `steps` are how many formulas may
    be looked at.
    """

    full: Mapping[str, int]
    free: frozenset[str] = frozenset()
    most: int | None = None
    effort: int = EFFORT
    steps: int = STEPS

    def find(self, formulas: Iterable[Formula], domains: Domains) -> Domains | None:
        """Return sets of values of which each choice makes all formulas true, None if none do.

        Raises:
            EffortError: it takes more splits than allowed.
        """
        domains = dict(domains)
        left = self._settled(list(formulas), domains)
        if left is None:
            return None
        if not left:
            return domains
        self.effort -= 1
        if self.effort < 0 or self.steps < 0:
            raise EffortError
        variable, mask = _to_split(left, domains)
        for part in (domains[variable] & mask, domains[variable] & ~mask):
            found = self.find(left, {**domains, variable: part})
            if found is not None:
                return found
        return None

    def _settled(self, formulas: list[Formula], domains: Domains) -> list[Formula] | None:
        """Put what is known into the formulas until nothing follows; None if one is false."""
        while True:
            changed = False
            left: list[Formula] = []
            queue = formulas
            while queue:
                self.steps -= 1
                formula = given(queue.pop(), domains, self.full)
                if formula is False:
                    return None
                if isinstance(formula, Leaf):
                    domains[formula.variable] &= formula.mask
                    changed = True
                elif isinstance(formula, And):
                    queue.extend(formula.parts)
                elif formula is not True:
                    left.append(formula)
            if self.most is not None:
                costly = sum(1 for name in self.free if not domains[name] & 1)
                if costly > self.most:
                    return None
                if costly == self.most:
                    for name in self.free:
                        if domains[name] & 1 and domains[name] != 1:
                            domains[name] = 1
                            changed = True
            if not changed:
                return left
            formulas = left


def _to_split(formulas: Sequence[Formula], domains: Mapping[str, int]) -> tuple[str, int]:
    """Return a variable and the values to try first: a leaf of the shortest choice."""
    shortest = min(formulas, key=lambda f: len(f.parts) if isinstance(f, And | Or) else 2)
    while isinstance(shortest, And | Or):
        leaves = [part for part in shortest.parts if isinstance(part, Leaf)]
        if leaves:
            return leaves[0].variable, leaves[0].mask
        shortest = shortest.parts[0]
    assert isinstance(shortest, Pair)
    # Neither has one value yet: those of the first are tried one at a time.
    may = domains[shortest.first]
    return shortest.first, may & -may

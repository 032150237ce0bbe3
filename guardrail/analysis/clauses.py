"""Choices of values over a few variables, all at once: which values make every choice true.

A clause is true where one of some variables has one of some values: what rules that overlap leave
of each other is made of these alone. The clauses that a value makes true are one integer, whose
bits are the clauses, so that what is left of a thousand rules is one operation. Of a variable's
values, one that makes no more clauses true than another is not tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from guardrail.analysis.formulas import And, Domains, EffortError, Formula, Leaf, Pair, Search

MOST_CLAUSES = 64
"""Into how many clauses one formula is taken apart at most."""

Clause = dict[str, int]
"""The values of each variable that make it true."""
Options = dict[str, list[int]]
"""Of each variable, which clauses its values make true."""


def clauses_of(formula: Formula, full: Mapping[str, int]) -> list[Clause] | None:
    """Return clauses that are all true where a formula is, None if it is not made of so few."""
    if isinstance(formula, bool):
        return [] if formula else [{}]
    if isinstance(formula, Leaf):
        return [{formula.variable: formula.mask}]
    if isinstance(formula, Pair):
        return None
    found: list[Clause] = [] if isinstance(formula, And) else [{}]
    for part in formula.parts:
        clauses = clauses_of(part, full)
        if clauses is None:
            return None
        if isinstance(formula, And):
            found += clauses
        else:
            found = [both for a in found for b in clauses if (both := _either(a, b, full))]
        if len(found) > MOST_CLAUSES:
            return None
    return found


def _either(a: Clause, b: Clause, full: Mapping[str, int]) -> Clause | None:
    """Return the clause that is true where one of two is, None where it always is."""
    both = dict(a)
    for name, mask in b.items():
        both[name] = both.get(name, 0) | mask
        if both[name] == full[name]:
            return None
    return both


class Clauses:
    """Clauses that are to be true together, to which more can be added."""

    def __init__(self, full: Mapping[str, int]) -> None:
        self._full = full
        self._count, self._is_false = 0, False
        # Of each variable the values that may be, parted by which clauses they make true.
        self._parted: dict[str, list[tuple[int, int]]] = {}
        # What was found last, and of how many clauses.
        self._last: dict[str, int] | None = None
        self._known = 0

    def add(self, clauses: list[Clause]) -> None:
        """Add clauses; one without a variable is never true."""
        for clause in clauses:
            if not clause:
                self._is_false = True
            elif len(clause) == 1:
                ((name, mask),) = clause.items()
                self._parted[name] = [
                    (values & mask, true) for values, true in self._of(name) if values & mask
                ]
            else:
                self._part(clause)

    def _part(self, clause: Clause) -> None:
        bit = 1 << self._count
        self._count += 1
        for name, mask in clause.items():
            parted: list[tuple[int, int]] = []
            for values, true in self._of(name):
                inside = values & mask
                if inside == values:
                    parted.append((values, true | bit))
                elif inside:
                    parted += ((inside, true | bit), (values ^ inside, true))
                else:
                    parted.append((values, true))
            self._parted[name] = parted

    def _of(self, name: str) -> list[tuple[int, int]]:
        return self._parted[name] if name in self._parted else [(self._full[name], 0)]

    def find(self, search: Search) -> Domains | None:
        """Return sets of values of which each choice makes all clauses true, None if none does.

        Raises:
            EffortError: it takes more splits, or more steps, than the search may make.
        """
        if self._is_false or not all(self._parted.values()):
            return None
        whole = (1 << self._count) - 1
        chosen = self._mended(search, whole)
        if chosen is None:
            options = {name: [true for _, true in parts] for name, parts in self._parted.items()}
            chosen = _Trying(search).chosen(whole, options)
        if chosen is None:
            return None
        self._last, self._known = chosen, whole
        domains = dict(self._full)
        for name, parted in self._parted.items():
            wanted = chosen.get(name)
            domains[name] = 0
            for values, true in parted:
                if wanted is None or true == wanted:
                    domains[name] |= values
        return domains

    def _mended(self, search: Search, whole: int) -> dict[str, int] | None:
        """Return what was found last with one variable changed at most, None if that will not do.

        Most often one clause was added since, and all others are still true.
        """
        if self._last is None:
            return None
        now: dict[str, int] = {}
        for name, before in self._last.items():
            search.steps -= 1
            same = [true for _, true in self._parted[name] if true & self._known == before]
            if not same:
                return None
            now[name] = max(same)  # with the clause that was added, where it can be
        once = twice = 0
        for true in now.values():
            twice |= once & true
            once |= true
        if once == whole:
            return now
        for name, parts in self._parted.items():
            search.steps -= 1
            needed = whole & ~once | (now.get(name, 0) & ~twice)
            for _, true in parts:
                if not needed & ~true:
                    now[name] = true
                    return now
        return None


class _Trying:
    """One search for values; what was found to be impossible is kept."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._failed: set[tuple[int, tuple[str, ...]]] = set()

    def chosen(self, left: int, options: Options) -> dict[str, int] | None:
        """Return which clauses the values of variables make true, so that none of `left` stays."""
        found: dict[str, int] = {}
        while left:
            key = left, tuple(options)
            if key in self._failed:
                return None
            options = dict(self._best(left, options))
            if not self._restrict(left, options):
                self._failed.add(key)
                return None
            sure = [name for name, masks in options.items() if len(masks) == 1]
            if not sure:
                return self._split(key, options, found)
            for name in sure:
                found[name] = options.pop(name)[0]
                left &= ~found[name]
        return found

    def _best(self, left: int, options: Options) -> Iterator[tuple[str, list[int]]]:
        """Yield, of each variable that matters, the clauses that its values make true.

        What another value makes true as well is left out: fewer clauses have no use for it, either.
        """
        for name, masks in options.items():
            # Two of them take less than half as long as a formula does.
            self._search.steps -= 1 + len(masks) // 2
            alike: dict[int, int] = {}
            union = 0
            for true in masks:
                here = true & left
                union |= here
                alike.setdefault(here, true)
            if union in alike:
                if union:
                    yield name, [alike[union]]
                continue
            best: list[int] = []
            for here in sorted(alike, key=int.bit_count, reverse=True):
                for other in best:
                    if here & other == here:
                        break
                else:
                    best.append(here)
            # To compare sixty of them takes as long as to look at one.
            self._search.steps -= len(alike) * len(best) // 64
            yield name, [alike[here] for here in best]

    def _restrict(self, left: int, options: Options) -> bool:
        """Leave out values that cannot be; tell whether every clause can still be made true."""
        while True:
            once = twice = 0
            for masks in options.values():
                union = 0
                for mask in masks:
                    union |= mask
                twice |= once & union
                once |= union
            if left & ~once:
                return False
            changed = False
            alone = left & ~twice
            for name, masks in options.items() if alone else ():
                own = 0
                for mask in masks:
                    own |= mask & alone
                if own and len(masks) > 1:
                    kept = [mask for mask in masks if own & ~mask == 0]
                    if not kept:
                        return False
                    if len(kept) < len(masks):
                        options[name], changed = kept, True
                elif own and own & ~masks[0]:
                    return False
            if not changed:
                return True

    def _split(
        self, key: tuple[int, tuple[str, ...]], options: Options, found: dict[str, int]
    ) -> dict[str, int] | None:
        search = self._search
        search.effort -= 1
        if search.effort < 0 or search.steps < 0:
            raise EffortError
        left, _ = key
        name = min(options, key=lambda one: len(options[one]))
        rest = {one: masks for one, masks in options.items() if one != name}
        for mask in options[name]:
            more = self.chosen(left & ~mask, dict(rest))
            if more is not None:
                return {**found, name: mask, **more}
        self._failed.add(key)
        return None

"""Clauses taken all at once, held against every assignment of a few variables."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest

from guardrail.analysis.clauses import Clauses, clauses_of
from guardrail.analysis.formulas import (
    EffortError,
    Formula,
    Leaf,
    Pair,
    Search,
    bits,
    every,
    holds,
    leaf,
    some,
)

FULL = {"a": 0b1111, "b": 0b111, "c": 0b11, "d": 0b111}


def drawn(random: Random, deep: int = 2) -> Formula:
    if not deep or random.random() < 0.3:
        name = random.choice(sorted(FULL))
        return leaf(name, random.randrange(FULL[name] + 1), FULL)
    join = random.choice((every, some))
    return join((drawn(random, deep - 1) for _ in range(random.randint(1, 4))), FULL)


def assignments() -> list[dict[str, int]]:
    values = [list(bits(mask)) for mask in FULL.values()]
    return [dict(zip(FULL, chosen, strict=True)) for chosen in product(*values)]


@pytest.mark.parametrize("seed", range(300))
def test_each_choice_that_is_found_makes_all_true_and_one_is_found_if_there_is_any(seed):
    random = Random(seed)
    formulas = [drawn(random) for _ in range(random.randint(1, 12))]
    clauses = Clauses(FULL)
    for number, formula in enumerate(formulas, 1):
        parts = clauses_of(formula, FULL)
        assert parts is not None
        clauses.add(parts)
        # They are added one after the other, as a search for a counterexample does.
        found = clauses.find(Search(FULL))
        so_far = formulas[:number]
        true = [one for one in assignments() if all(holds(f, one) for f in so_far)]

        assert (found is not None) == bool(true)
        if found is not None:
            there = [one for one in assignments() if all(found[n] >> one[n] & 1 for n in FULL)]
            assert there
            assert all(one in true for one in there)


def test_a_formula_that_is_no_choice_of_values_is_none_of_clauses():
    assert clauses_of(Pair("a", "b", (1, 2, 4, 1)), FULL) is None
    assert clauses_of(Leaf("a", 0b1), FULL) == [{"a": 0b1}]


def test_a_formula_that_falls_into_too_many_clauses_is_left_to_the_other_search():
    full = {f"{name}{number}": 0b11 for name in "ab" for number in range(7)}
    pairs = [every((Leaf(f"a{n}", 0b1), Leaf(f"b{n}", 0b1)), full) for n in range(7)]

    assert len(clauses_of(some(pairs[:6], full), full) or ()) == 64
    assert clauses_of(some(pairs, full), full) is None


def test_a_search_is_given_up_by_its_effort_and_not_answered():
    full = {f"p{number}": (1 << 6) - 1 for number in range(7)}
    clauses = Clauses(full)
    for hole in range(6):
        for first in range(7):
            for second in range(first):
                apart = {f"p{n}": full["p0"] & ~(1 << hole) for n in (first, second)}
                clauses.add([apart])

    with pytest.raises(EffortError):
        clauses.find(Search(full, effort=20))
    assert clauses.find(Search(full)) is None

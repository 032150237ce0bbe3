"""Whether formulas can hold together, against every assignment."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest

from guardrail.analysis.formulas import (
    EffortError,
    Formula,
    Pair,
    Search,
    every,
    given,
    holds,
    leaf,
    opposite,
    some,
)

FULL = {"a": 0b111, "b": 0b1111, "c": 0b11, "d": 0b111}
ALL = [
    dict(zip(FULL, places, strict=True))
    for places in product(*(range(mask.bit_length()) for mask in FULL.values()))
]


def formula(rng: Random, depth: int) -> Formula:
    """Return a random formula."""
    kind = rng.randrange(5) if depth else 0
    if kind < 2:
        name = rng.choice(list(FULL))
        return leaf(name, rng.randrange(FULL[name] + 1), FULL)
    if kind == 2:
        first, second = rng.sample(list(FULL), 2)
        rows = tuple(rng.randrange(FULL[second] + 1) for _ in range(FULL[first].bit_length()))
        return Pair(first, second, rows)
    parts = [formula(rng, depth - 1) for _ in range(rng.randint(1, 3))]
    return every(parts, FULL) if kind == 3 else some(parts, FULL)


@pytest.mark.parametrize("seed", range(150))
def test_formulas_hold_together_if_some_assignment_makes_all_true(seed):
    rng = Random(seed)
    formulas = [formula(rng, 3) for _ in range(rng.randint(1, 4))]
    expected = [case for case in ALL if all(holds(one, case) for one in formulas)]
    found = Search(FULL).find(formulas, FULL)

    assert (found is not None) is bool(expected)
    if found is not None:
        whole = [case for case in ALL if all(found[n] >> case[n] & 1 for n in FULL)]
        assert whole
        assert all(case in expected for case in whole)
    for one in formulas:
        assert all(holds(opposite(one, FULL), case) is not holds(one, case) for case in ALL)
        left = given(one, {**FULL, "a": 0b101, "b": 0b1}, FULL)
        inside = [case for case in ALL if case["a"] != 1 and case["b"] == 0]
        assert all(holds(left, case) is holds(one, case) for case in inside)


@pytest.mark.parametrize("seed", range(60))
def test_no_more_is_stated_than_a_search_may_state(seed):
    rng = Random(seed)
    formulas = [formula(rng, 3) for _ in range(rng.randint(1, 3))]
    expected = [case for case in ALL if all(holds(one, case) for one in formulas)]
    least = min((sum(place > 0 for place in case.values()) for case in expected), default=None)
    for most in range(5):
        found = Search(FULL, frozenset(FULL), most).find(formulas, FULL)
        assert (found is not None) is (least is not None and least <= most)


def test_a_search_ends_after_its_effort():
    names = [f"v{i}" for i in range(12)]
    full = dict.fromkeys(names, 0b11)
    odd = [
        some(
            [
                every([leaf(a, 1 << x, full), leaf(b, 1 << y, full), leaf(c, 1 << z, full)], full)
                for x, y, z in product((0, 1), repeat=3)
                if (x + y + z) % 2
            ],
            full,
        )
        for a, b, c in zip(names, names[1:], names[2:], strict=False)
    ]
    with pytest.raises(EffortError):
        Search(full, effort=1).find(odd, full)

"""Decision ids, which clients see."""

from __future__ import annotations

import itertools

from guardrail.guard.context import ProcessIds


def test_ids_share_nothing_and_do_not_tell_the_number_of_decisions():
    first, second = ProcessIds(), ProcessIds()
    names = [first.name(first.next()) for _ in range(2000)]

    assert len(set(names)) == 2000
    assert {len(name) for name in names} == {24}
    # No order, no common part: each hex digit takes every value at every place.
    assert all(len({name[place] for name in names}) == 16 for place in range(24))
    assert sum(a < b for a, b in itertools.pairwise(names)) in range(850, 1150)
    assert first.name(1) == names[0] != second.name(1)

"""Decisions tell, and leave in the store, what they did when people last looked at it.

All goldens are compared by `python -m tests.engine.goldens`, which takes some minutes.
"""

from __future__ import annotations

import pytest

from tests.engine.goldens import SEEDS, WAYS, differing, known, sample_week

ONCE_WRONG = (583,)
"""Histories in which one of the ways was wrong: a full store counted a stranger's strike."""


@pytest.mark.parametrize("way", WAYS)
def test_random_histories_tell_what_they_told(way: str) -> None:
    assert differing((*range(0, SEEDS, 40), *ONCE_WRONG), (way,)) == []


def test_the_shipped_policies_decide_the_start_of_the_sample_week_as_they_did() -> None:
    recorded = known()
    found = dict(sample_week(1000))

    assert len(found) == 1
    assert {name for name, value in found.items() if recorded[name] != value} == set()

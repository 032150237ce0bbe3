"""What is said to become looser or stricter, against every request of a small domain."""

from __future__ import annotations

import pytest

from tests.analysis.enumerated import pair, wrong


@pytest.mark.parametrize("first", range(0, 24, 6))
def test_every_loosening_is_named_and_none_is_made_up(first):
    found = {seed: wrong(*pair(seed)) for seed in range(first, first + 6)}

    assert {seed: problems for seed, problems in found.items() if problems} == {}

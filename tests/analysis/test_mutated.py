"""Each loosening of a mutated policy set is named, and a guard decides its witness as told."""

from __future__ import annotations

from random import Random

from tests.analysis.mutated import mutated, problems_of, shipped


def test_each_loosening_of_the_shipped_policies_is_named():
    found = {}
    for seed in range(12):
        rng = Random(seed)
        what, new = mutated(rng)
        found[f"seed {seed}: {what}"] = problems_of(shipped(), new, rng, 40)

    assert {what: problems for what, problems in found.items() if problems} == {}

"""What an index finds of the rules is all of them that have anything to say."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.engine import Engine, core
from guardrail.engine.program import Index, Plan, build_index, compose, rule_planner
from guardrail.model.policy import PolicySet
from tests.engine.policies import START, policy_set, request
from tests.engine.tracing import MOVES, Numbered

SEEDS = st.integers(0, 2**32)
INDEXED = ("geo.country", "request.tools", "account.id", "request.model", "x.flag")


def asked_for(plan: Plan) -> Counter[object]:
    """Return what a plan asks for, rule by rule, whatever the order of the rules."""
    found: Counter[object] = Counter((f.order, repr(f)) for f in plan.findings)
    for part, cell in zip(plan.parts, plan.cells, strict=True):
        charge = plan.charges[cell.charge]
        first = next(i for i, c in enumerate(plan.cells) if plan.parts[i].limit is part.limit)
        base = plan.cells[first].charge
        after = None if charge.after is None else charge.after - base
        placed = cell._replace(charge=cell.charge - base)
        entry = (part.limit.rule.id, part.role, part.number, part.allowance, part.amount)
        found[(entry, placed, charge.binding, after)] += 1
    return found


def compare(policies: PolicySet, seed: int, length: int = 12) -> int:
    """Plan random requests both ways and return how many things they asked for."""
    rng, ids, now, asked = Random(seed), Numbered(), START, 0
    quick, readable = Engine(policies, ids), Engine(policies, ids)
    readable._planner = compose(
        [
            rule_planner(rule, limit, policies.exemptions)
            for rule, limit in zip(readable.rules, readable.limits, strict=True)
        ],
        Index(tuple(range(len(readable.rules))), {}),
    )
    for _ in range(length):
        now += rng.choice(MOVES)
        made = request(rng, odd=0.05)
        plans = [e.plan(made.facts, made.estimate, now, "d1") for e in (quick, readable)]
        counts = [asked_for(plan) for plan in plans]
        assert counts[0] == counts[1]
        assert [len(p.charges) for p in plans] == [len(plans[0].charges)] * 2
        assert (plans[0].facts, plans[0].amounts, plans[0].notes) == (
            plans[1].facts,
            plans[1].amounts,
            plans[1].notes,
        )
        asked += counts[0].total()
    return asked


@settings(max_examples=60)
@given(st.sampled_from(INDEXED), SEEDS, SEEDS)
def test_a_plan_by_index_is_the_plan_of_all_rules(fact: str, rules: int, seed: int) -> None:
    compare(policy_set(rules, 3, fact), seed)


@pytest.mark.parametrize("fact", INDEXED)
def test_the_sets_compared_are_indexed_with_a_bucket_for_the_missing_fact(fact: str) -> None:
    policies = policy_set(4, 1, fact)
    rules = [rule for rule in policies.rules if rule.mode.value != "off"]
    wanted = len(rules) >= 17

    index = build_index(rules, policies.facts)

    assert not wanted or None in index.buckets[fact]
    assert compare(policies, 1, 40) > 0


def compare_indexed(seeds: int) -> None:
    for seed in range(seeds):
        compare(policy_set(seed, 1, "geo.country"), seed)


def test_the_comparison_finds_an_index_without_its_missing_bucket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forgetful(*given: Any) -> Index:
        index = build_index(*given)
        buckets = {
            name: {value: places for value, places in bucket.items() if value is not None}
            for name, bucket in index.buckets.items()
        }
        return Index(index.always, buckets)

    monkeypatch.setattr(core, "build_index", forgetful)
    with pytest.raises(AssertionError):
        compare_indexed(20)


def test_the_comparison_finds_an_index_that_drops_a_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    def dropping(*given: Any) -> Index:
        index = build_index(*given)
        return Index(index.always[1:], index.buckets)

    monkeypatch.setattr(core, "build_index", dropping)
    with pytest.raises(AssertionError):
        compare_indexed(20)

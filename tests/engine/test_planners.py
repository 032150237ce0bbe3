"""The generated planner plans what the composed closures plan."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.engine import Engine
from guardrail.engine import planner as generated
from guardrail.engine.index import build_index
from guardrail.engine.plan import Plan
from guardrail.engine.expressions import define
from guardrail.model.policy import PolicySet
from tests.engine.policies import START, policy_set, policy_sets, request
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
    quick, readable = Engine(policies, ids), Engine(policies, ids, reference=True)
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


@settings(max_examples=120)
@given(policy_sets(), SEEDS)
def test_a_generated_plan_is_the_composed_plan(policies: PolicySet, seed: int) -> None:
    compare(policies, seed)


@settings(max_examples=60)
@given(st.sampled_from(INDEXED), SEEDS, SEEDS)
def test_a_plan_by_index_is_the_composed_plan(fact: str, rules: int, seed: int) -> None:
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
    honest = generated.GeneratedPlanner.__init__

    def forgetful(self: generated.GeneratedPlanner, *args: object) -> None:
        honest(self, *args)  # type: ignore[arg-type]
        for _, bucket in self._buckets:
            bucket.pop(None, None)

    monkeypatch.setattr(generated.GeneratedPlanner, "__init__", forgetful)
    with pytest.raises(AssertionError):
        compare_indexed(20)


def compare_plain(seeds: int) -> None:
    for seed in range(seeds):
        compare(policy_set(seed, 8), seed, 25)


def test_the_comparison_finds_a_planner_whose_rules_never_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = define

    def endless(lines: list[str], *rest: object) -> object:
        return honest([line.replace("t < ", "True or t < ") for line in lines], *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(generated, "define", endless)
    with pytest.raises(AssertionError):
        compare_plain(40)

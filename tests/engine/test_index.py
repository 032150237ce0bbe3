"""What an index finds of the rules is all of them that have anything to say."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail import Guard
from guardrail.engine import Engine, Interpreter, Plan, core, expressions
from guardrail.engine.index import Index, build_index
from guardrail.loading import load_text
from guardrail.model.cells import REPLY
from guardrail.model.policy import PolicySet
from tests.engine.policies import START, policy_set, request
from tests.engine.tracing import MOVES, Numbered

SEEDS = st.integers(0, 2**32)
INDEXED = ("geo.country", "request.tools", "account.id", "request.model", "x.flag")


def asked_for(plan: Plan) -> Counter[object]:
    """Return what a plan asks for, rule by rule, whatever the order of the rules."""
    found: Counter[object] = Counter((f.order, repr(f)) for f in plan.found)
    cells, charges = plan.form.as_cells, plan.form.as_charges
    limits = {row.at // REPLY: row for row in plan.rows}
    bans = {ban.at // REPLY: ban.number for ban in plan.bans}
    base = 0
    for place, cell in enumerate(cells):
        charge = charges[cell.charge]
        if charge.after is None:
            base = cell.charge
        after = None if charge.after is None else charge.after - base
        row = limits[place]._replace(at=0) if place in limits else bans.get(place)
        found[(row, cell._replace(charge=cell.charge - base), charge.binding, after)] += 1
    return found


def compare(policies: PolicySet, seed: int, length: int = 12) -> int:
    """Plan random requests both ways and return how many things they asked for."""
    rng, ids, now, asked = Random(seed), Numbered(), START, 0
    engines = [Engine(policies, ids), Engine(policies, ids)]
    engines[1].index = Index(tuple(range(len(engines[1].rules))), {})
    interpreters = [Interpreter(engine) for engine in engines]
    for _ in range(length):
        now += rng.choice(MOVES)
        made = request(rng, odd=0.05)
        plans = [each.plan(made.facts, made.estimate, now, 1) for each in interpreters]
        counts = [asked_for(plan) for plan in plans]
        assert counts[0] == counts[1]
        assert len(plans[0].form.charges) == len(plans[1].form.charges)
        assert plans[0].read == plans[1].read
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


def test_values_whose_rules_are_alike_share_one_compiled_text() -> None:
    rules = "".join(
        f"  - {{id: r{org}, when: {{account.org: o{org}}}, unknown: skip, "
        f"budget: {{requests: {org + 1}, per: day, key: account.id}}}}\n"
        for org in range(60)
    )
    policies = load_text(f"guardrail: 1\npolicy: alike\nrules:\n{rules}")
    guard = Guard.from_policies(policies, environ={})
    before = expressions._compiled.cache_info().misses
    for org in range(60):
        facts = {"account.id": "a", "account.org": f"o{org}"}
        allowed = [guard.decide(facts, now=START / 1e6).allowed for _ in range(org + 2)]
        assert allowed == [True] * (org + 1) + [False]
    assert expressions._compiled.cache_info().misses - before <= 2

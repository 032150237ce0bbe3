"""What hinges on facts whose source failed is refused, whatever stands around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.engine import Engine, Interpreter, program
from guardrail.loading import load_text
from guardrail.model.amounts import SECOND
from guardrail.model.conditions import (
    Answer,
    Comparison,
    Condition,
    Every,
    Negation,
    compile_condition,
)
from guardrail.model.effects import Effect, Mode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Block, Rule
from guardrail.testing import guard_of
from tests.engine.conditions import TESTED, condition
from tests.engine.policies import SPAN, START, declared_facts, models, request, verdict
from tests.engine.tracing import Numbered

NOW = START / SECOND
REASON = "facts-unavailable"

POLICY = """
guardrail: 1
policy: p
facts: {account.tier: {type: level, values: [free, paid]}}
rules:
  - {id: r, when: %s, block: {}, unknown: %s}
"""
CASES = [
    ("{not: {geo.country: US}, account.tier: free}", "IR", REASON),
    ("{not: {geo.country: US}, account.tier: free}", "US", None),
    ("{geo.country: IR, not: {account.tier: free}}", "IR", REASON),
    ("{geo.country: IR, not: {account.tier: free}}", "US", None),
    ("{any: [{geo.country: IR}, {not: {account.tier: paid}}]}", "US", REASON),
    ("{not: {any: [{geo.country: IR}, {account.tier: free}]}}", "IR", None),
    ("{not: {all: [{geo.country: IR}, {account.tier: free}]}}", "IR", REASON),
    ("{geo.country: IR, account.tier: {exists: false}}", "IR", REASON),
    ("{not: {geo.country: IR, account.tier: {exists: true}}}", "IR", REASON),
]


@pytest.mark.parametrize("unknown", ["match", "skip"])
@pytest.mark.parametrize(("when", "country", "reason"), CASES)
def test_a_rule_that_an_unavailable_fact_could_decide_refuses_for_that_reason(
    when: str, country: str, reason: str | None, unknown: str
) -> None:
    guarded = guard_of(POLICY % (when, unknown))
    decision = guarded.decide(
        {"account.id": "a", "geo.country": country}, unavailable=frozenset({"account.tier"})
    )

    assert (decision.reason, decision.allowed) == (reason, reason is None)


def judged(when: Condition, facts: Mapping[str, Any], unavailable: frozenset[str]) -> Answer:
    """Return a condition's answer by Kleene's tables; a test of an unavailable fact is unknown."""
    if isinstance(when, Comparison):
        if when.fact in unavailable:
            return None
        return compile_condition(when)(facts, NOW)
    if isinstance(when, Negation):
        part = judged(when.part, facts, unavailable)
        return None if part is None else not part
    answers = [judged(part, facts, unavailable) for part in when.parts]
    decisive = not isinstance(when, Every)
    if decisive in answers:
        return decisive
    return None if None in answers else not decisive


def compare(seed: int) -> str:
    """Compare what a plan finds of one rule with what Kleene's tables say; return which it was."""
    rng = Random(seed)
    facts = declared_facts(rng)
    rule = Rule(
        id="r",
        index=0,
        when=condition(rng, facts, 3),
        verb=Block(verdict(rng, Effect.BLOCK)),
        span=SPAN,
        unknown=rng.choice((None, "match", "skip")),
        mode=Mode.ENFORCE,
    )
    facts = {name: replace(fact, required=False) for name, fact in facts.items()}
    policies = PolicySet(
        name="random",
        revision="r",
        files=("random.yaml",),
        facts=facts,
        rules=(rule,),
        exemptions=(),
        models=models(),
        units=("images",),
        timezone="UTC",
    )
    asked = dict(request(rng, odd=0).facts)
    gone = frozenset(name for name in TESTED if rng.random() < 0.3)
    asked = {name: value for name, value in asked.items() if name not in gone}
    engine = Engine(policies, Numbered())
    plan = Interpreter(engine).plan(asked, None, START, 0, gone)
    gone = engine.reader.widened(gone)
    missed = engine.facts_by_rule[0] & gone - plan.read.facts.keys()
    found = [finding.verdict.reason for finding in plan.found]
    answer = judged(rule.when, plan.read.facts, gone - plan.read.facts.keys())
    if not missed:
        assert REASON not in found
        return "not missed"
    if answer is False:
        assert found == []
    elif answer is None:
        assert found == [REASON]
    else:
        assert sorted(found) == sorted([REASON, rule.verb.verdict.reason])  # type: ignore[union-attr]
    return str(answer)


def compare_many() -> list[str]:
    return [compare(seed) for seed in range(300)]


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_a_rule_is_refused_for_unavailable_facts_exactly_where_they_could_decide_it(
    seed: int,
) -> None:
    compare(seed)


def test_the_comparison_meets_every_answer() -> None:
    met = compare_many()

    assert min(met.count(answer) for answer in ("not missed", "False", "None", "True")) >= 5


def test_the_comparison_finds_a_negation_that_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = program._blinded

    def forgetful(when: Condition, unavailable: frozenset[str]) -> Condition:
        if isinstance(when, Negation):
            return honest(when.part, unavailable)
        return honest(when, unavailable)

    monkeypatch.setattr(program, "_blinded", forgetful)
    with pytest.raises(AssertionError):
        compare_many()


def test_an_age_cannot_be_told_where_the_date_it_follows_from_is_unavailable() -> None:
    guarded = guard_of(POLICY % ("{account.age: {lt: 7d}}", "skip"))
    decision = guarded.decide({"account.id": "a"}, unavailable=frozenset({"account.created"}))

    assert decision.reason == REASON


def test_an_actor_cannot_be_told_where_the_account_is_unavailable() -> None:
    guarded = guard_of(POLICY % ("{actor.accounts: {gte: 3}}", "skip"))
    decision = guarded.decide({}, unavailable=frozenset({"account.id"}))

    assert decision.reason == REASON


def test_nothing_is_unavailable_that_was_stated_all_the_same() -> None:
    policies = load_text(POLICY % ("{account.tier: free}", "match"))
    engine = Engine(policies, Numbered())
    plan = Interpreter(engine).plan(
        {"account.tier": "paid"}, None, START, 0, frozenset({"account.tier"})
    )

    assert plan.found == []

"""Models that the policies do not list, and degrades that change nothing: both are told."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from guardrail.engine import Decision
from guardrail.model.effects import Effect
from guardrail.testing import guard_of

MODELS = """\
guardrail: 1
policy: p
models:
  large: {price: {input: 15, output: 75}, max_output: 100, weaker: medium, aliases: [best]}
  medium: {price: {input: 3, output: 15}, max_output: 50, weaker: small}
  small: {price: {input: 1, output: 5}, max_output: 10}
  other: {price: {input: 99, output: 99}, max_output: 500}
"""
BUDGET = """\
rules:
  - id: day
    when: always
    budget: {tokens: 1000, per: day, key: account.id}
    steps: [{at: 80%, degrade: {model: small}}]
"""
COUNTS_AS = "defaults: {unlisted_model: large}\n"
NEW = {"account.id": "a", "request.model": "large-2026-03-01"}


def decided(
    facts: Mapping[str, object], tokens: int = 900, text: str = MODELS + BUDGET
) -> Decision:
    estimate = {"input_tokens": tokens, "output_tokens": 0}
    return guard_of(text).decide(facts, estimate)


def test_a_model_that_is_not_listed_is_named_in_every_decision() -> None:
    for tokens in (1, 900):
        told = decided(NEW, tokens).errors

        assert told[0].startswith("model `large-2026-03-01` is not in `models`: it costs the")
    assert decided({**NEW, "request.model": "best"}, 1).errors == ()
    assert decided({"account.id": "a"}, 1).errors == ()


def test_it_counts_as_what_the_author_says() -> None:
    policy = MODELS + COUNTS_AS + BUDGET
    decision = decided(NEW, text=policy)
    reserved = guard_of(policy).decide(NEW, {"input_tokens": 1}).limits[0].used

    assert decision.effect is Effect.DEGRADE
    assert decision.obligations == {"model": "small"}
    assert decision.errors[0] == "model `large-2026-03-01` is not in `models`: it counts as `large`"
    assert reserved == 1 + 100


@pytest.mark.parametrize(("says", "micro"), [("", 99_000), (COUNTS_AS, 15_000)])
def test_it_costs_the_dearest_unless_the_author_says_otherwise(says: str, micro: int) -> None:
    rule = "rules:\n  - {id: m, when: always, budget: {cost_usd: 9, per: day, key: account.id}}\n"
    guard = guard_of(MODELS + says + rule)
    decision = guard.decide(NEW, {"input_tokens": 1000, "output_tokens": 0})

    assert round(decision.limits[0].used * 1_000_000) == micro


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("large-2026-03-01", "`large-2026-03-01` is not in `models`"),
        ("other", "`other` does not lead to it"),
        (None, "the request names no model"),
    ],
)
def test_a_degrade_without_effect_is_said(model: str | None, why: str) -> None:
    facts: Mapping[str, object] = {"account.id": "a"} | ({"request.model": model} if model else {})
    decision = decided(facts)

    assert decision.effect is Effect.ALLOW
    assert f"rule `day` asks for the model `small`, without effect: {why}" in decision.errors
    assert decision.ruling.idle == ("day",)
    assert [rule.idle for rule in decision.explain().rules] == [
        f"asks for the model `small`, without effect: {why}"
    ]


@pytest.mark.parametrize("model", ["large", "best", "medium", "small"])
def test_a_degrade_that_moves_or_need_not_move_the_request_is_not(model: str) -> None:
    decision = decided({"account.id": "a", "request.model": model})

    assert decision.effect is (Effect.ALLOW if model == "small" else Effect.DEGRADE)
    assert decision.ruling.idle == ()
    assert decision.errors == ()


def test_a_cap_is_obeyed_where_the_model_stays_and_that_is_said() -> None:
    text = MODELS + BUDGET.replace("model: small", "model: small, max_output_tokens: 5")
    decision = decided(NEW, text=text)

    assert decision.effect is Effect.DEGRADE
    assert decision.obligations == {"max_output_tokens": 5}
    assert decision.ruling.idle == ("day",)


def test_a_refused_request_has_no_degrade_to_miss() -> None:
    text = MODELS + BUDGET + "  - {id: stop, when: always, block: {}}\n"

    assert decided(NEW, text=text).ruling.idle == ()


def test_a_model_without_an_answer_reserves_its_input_alone() -> None:
    text = (MODELS + BUDGET).replace("max_output: 10}", "max_output: 0}").replace("small", "embed")
    decision = guard_of(text).decide(
        {"account.id": "a", "request.model": "embed"}, {"input_tokens": 7}
    )

    assert decision.limits[0].used == 7
    assert decision.errors == ()

"""An amount in an estimate that is none refuses the request, whichever way it is decided."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from guardrail.guard import AsyncGuard
from guardrail.loading import load_text
from guardrail.model.effects import Effect
from guardrail.testing import guard_of
from tests.engine.tracing import Subject, told

HEAD = (
    "guardrail: 1\npolicy: p\nunits: [images]\n"
    "models: {m: {price: {input: 1, output: 2}}}\nrules:\n"
)
RULES = {
    "requests": "  - {id: r, when: always, rate: {requests: 9/minute, key: account.id}}\n",
    "tokens": "  - {id: r, when: always, budget: {tokens: 9, per: day, key: account.id}}\n",
    "money": "  - {id: r, when: always, budget: {cost_usd: 9, per: day, key: account.id}}\n",
    "images": "  - {id: r, when: always, budget: {images: 9, per: day, key: account.id}}\n",
    "places": "  - {id: r, when: always, concurrency: {max: 9, key: account.id}}\n",
    "no limit": "  - {id: r, when: {account.id: b}, block: {}}\n",
}
NO_AMOUNTS: tuple[object, ...] = (
    1e308, float("nan"), float("inf"), -float("inf"), "5", "", True, False, -1, -0.5, 1.5, 2**53,
    10**400, [1], {}, b"5", Decimal(5),
)  # fmt: skip
UNITS = ("requests", "tokens", "input_tokens", "output_tokens", "cached_input_tokens", "images")


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("unit", UNITS)
def test_a_stated_amount_that_is_none_blocks_the_request(rule: str, unit: str) -> None:
    guard = guard_of(HEAD + rule)
    for odd in NO_AMOUNTS:
        decision = guard.decide({"account.id": "a"}, {unit: odd})

        assert (decision.effect, decision.rule) == (Effect.BLOCK, None)
        assert decision.reason == "invalid-estimate"
        assert decision.retry_after is None
        assert f"estimate of `{unit}` is `" in str(decision.message)
        assert any(f"estimate of `{unit}` is `" in error for error in decision.errors)
    assert guard.decide({"account.id": "a"}, {unit: 1, "input_tokens": 1}).allowed


@pytest.mark.parametrize("odd", [float("nan"), -0.01, True, "1", 10**400, 2**53 - 1])
def test_money_that_is_none_blocks_the_request(odd: object) -> None:
    for rule in RULES.values():
        decision = guard_of(HEAD + rule).decide({"account.id": "a"}, {"cost_usd": odd})

        assert decision.reason == "invalid-estimate"


def test_a_refused_estimate_charges_nothing_and_tells_the_same_on_every_way() -> None:
    policies = load_text(HEAD + RULES["tokens"])
    asked = type("Asked", (), {"facts": {"account.id": "a"}, "estimate": {"input_tokens": -1}})()
    fused, asking = Subject(policies, fused=True), Subject(policies, asking=True)
    steps = Subject(policies)

    found = [told(subject.decide(asked, 10**15)) for subject in (fused, asking, steps)]

    assert found[0] == found[1] == found[2]
    assert found[0]["reason"] == "invalid-estimate"
    assert fused.contents() == steps.contents() == {"shared": {}, "own": {}}


def test_a_guard_that_is_awaited_refuses_it_as_well() -> None:
    async def decided() -> str | None:
        policies = load_text(HEAD + RULES["requests"])
        async with AsyncGuard.from_policies(policies, environ={}) as guard:
            return (await guard.decide({"account.id": "a"}, {"requests": "5"})).reason

    assert asyncio.run(decided()) == "invalid-estimate"


@pytest.mark.parametrize("estimate", [None, {}, {"input_tokens": None}, {"input_tokens": 7.0}])
def test_an_amount_that_is_not_stated_is_reserved_as_one_and_named(estimate: object) -> None:
    guard = guard_of(HEAD + RULES["tokens"])

    decision = guard.decide({"account.id": "a"}, estimate)  # type: ignore[arg-type]

    assert decision.allowed or decision.reason == "cost-exceeds-limit"
    assert "the estimate has no `output_tokens`: 1 is reserved" in decision.errors


def test_an_unknown_unit_is_an_amount_too() -> None:
    guard = guard_of(HEAD + RULES["requests"])

    assert guard.decide({"account.id": "a"}, {"pages": 3}).allowed
    assert guard.decide({"account.id": "a"}, {"pages": "3"}).reason == "invalid-estimate"


def test_the_table_finds_a_quick_way_that_does_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guardrail.engine.emit.unusable", lambda estimate: ())

    with pytest.raises(AssertionError):
        test_a_stated_amount_that_is_none_blocks_the_request(RULES["no limit"], "input_tokens")

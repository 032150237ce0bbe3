"""What a decision rests on and what becomes of it: sources, settlement, the environment, time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

import guardrail
from guardrail.errors import DataError, SettingError
from guardrail.loading import load_text
from guardrail.stores.memory import AsyncMemoryStore
from guardrail.testing import MovableClock, guard_of
from tests.behaviour.sets import DAILY, HEAD, A, guard


def test_usage_above_the_estimate_is_debt_and_a_release_gives_everything_back():
    guarded = guard("  - {id: r, when: always, budget: {tokens: 100, per: day, key: account.id}}\n")
    first = guarded.decide(A, {"tokens": 10})
    guarded.settle(first, {"tokens": 500})
    assert guarded.decide(A, {"tokens": 1}).limits[0].used == 500

    other = {"account.id": "b"}
    guarded.release(guarded.decide(other, {"tokens": 100}))
    assert guarded.decide(other, {"tokens": 100}).allowed


def test_money_is_reserved_at_the_model_asked_for_and_settled_at_the_model_served():
    guarded = guard("  - {id: r, when: always, budget: {cost_usd: 1, per: day, key: account.id}}\n")
    decision = guarded.decide(A, {"input_tokens": 10_000, "output_tokens": 4_000})
    assert decision.limits[0].used == pytest.approx(0.45)
    guarded.settle(decision, {"input_tokens": 10_000, "output_tokens": 4_000}, model="small")

    after = guarded.decide(A, {"input_tokens": 0, "output_tokens": 0})
    assert after.limits[0].used == pytest.approx(0.03)


def test_an_amount_taken_from_a_fact_is_the_decimal_that_was_stated():
    rules = (
        "  - {id: r, when: always, budget: {cost_usd: {fact: account.usd}, per: day, "
        "key: account.id}}\n"
    )
    facts = "  account.usd: {type: number, source: server}\nmodels:"
    guarded = guard_of((HEAD + rules).replace("models:", facts, 1))
    asked = {**A, "account.usd": 0.57}

    assert guarded.decide(asked, {"cost_usd": 0.57}).allowed
    assert not guarded.decide(asked, {"cost_usd": 0.000001}).allowed


def test_usage_that_is_no_amount_keeps_the_reservation_and_is_named():
    guarded = guard("  - {id: r, when: always, budget: {tokens: 100, per: day, key: account.id}}\n")
    decision = guarded.decide(A, {"tokens": 40})
    guarded.settle(decision, {"tokens": float("nan")})

    assert decision.errors == ("usage of `tokens` is `NaN`, not an amount",)
    assert guarded.decide(A, {"tokens": 60}).limits[0].used == 100


def test_the_environment_can_put_all_but_the_unexemptible_in_shadow_for_a_while():
    policies = load_text(
        HEAD
        + "  - {id: soft, when: always, block: {}}\n"
        + "  - {id: law, when: {geo.country: IR}, block: {}, exemptible: false}\n"
    )
    clock = MovableClock()
    environ = {"GUARDRAIL_MODE": "shadow", "GUARDRAIL_MODE_UNTIL": "2026-01-05T13:00:00Z"}
    guarded = guardrail.Guard.from_policies(policies, clock=clock, environ=environ)
    decision = guarded.decide({**A, "geo.country": "DE"})

    assert (decision.allowed, decision.shadow[0].rule) == (True, "soft")
    assert "GUARDRAIL_MODE=shadow" in decision.errors[0]
    assert guarded.decide({**A, "geo.country": "IR"}).rule == "law"
    clock.advance(3601)
    assert guarded.decide({**A, "geo.country": "DE"}).rule == "soft"
    with pytest.raises(SettingError, match="needs an end"):
        guardrail.Guard.from_policies(policies, environ={"GUARDRAIL_MODE": "shadow"})


class Broken:
    provides = frozenset({"kyc.subject"})
    needs = frozenset({"account.id"})
    sources = ()

    def facts(self, known, now):
        raise DataError("the directory is down")


def test_a_source_that_failed_refuses_only_what_hinges_on_it():
    policies = load_text(
        HEAD + "  - {id: r, when: {kyc.subject: {exists: true}, geo.country: DE}, block: {}}\n"
    )
    guarded = guardrail.Guard.from_policies(policies, signals=[Broken()], environ={})
    hinged = guarded.decide({**A, "geo.country": "DE"})

    assert (str(hinged.effect), hinged.reason, hinged.status) == (
        "throttle",
        "facts-unavailable",
        503,
    )
    assert guarded.decide({**A, "geo.country": "FR"}).allowed


def test_the_country_comes_from_the_address_and_its_database_is_named():
    guarded = guard("  - {id: r, when: {geo.country: US}, block: {}}\n")
    decision = guarded.decide({"client.ip": "8.8.8.8"})

    assert (str(decision.effect), decision.facts["geo.country"]) == ("block", "US")
    assert decision.explain().sources[0].startswith("country.mmdb ")


def test_a_rule_is_in_force_from_its_start_until_just_before_its_end():
    guarded = guard(
        "  - {id: r, when: always, from: 2026-01-02T00:00:00Z, until: 2026-01-03T00:00:00Z, "
        "block: {}}\n"
    )
    start, end = 1_767_312_000, 1_767_398_400
    stood = {}
    for now in (start - 1, start, end - 1, end):
        decision = guarded.decide(A, now=now)
        (rule,) = decision.explain().rules
        stood[now] = (decision.allowed, rule.standing)

    assert list(stood.values()) == [
        (True, "not in force"),
        (False, "match"),
        (False, "match"),
        (True, "not in force"),
    ]


@pytest.mark.parametrize("store", ["memory://", AsyncMemoryStore()])
def test_the_async_guard_never_exceeds_a_limit_shared_by_many_tasks(store):
    policies = load_text(HEAD + DAILY % "mode: enforce")

    async def run() -> int:
        async with guardrail.AsyncGuard.from_policies(policies, store=store, environ={}) as guarded:

            async def one() -> bool:
                decision = await guarded.decide(A)
                if decision.allowed:
                    await guarded.renew(decision)
                    await guarded.settle(decision, {})
                return decision.allowed

            return sum(await asyncio.gather(*(one() for _ in range(200))))

    assert asyncio.run(run()) == 10


@pytest.mark.parametrize(
    "now",
    [
        float("nan"),
        float("inf"),
        -1.0,
        1e12,
        10**12,
        True,
        "1780272000",
        datetime(2026, 6, 1, tzinfo=UTC),
    ],
    ids=str,
)
def test_a_time_that_is_none_is_an_error(now):
    guarded = guard(DAILY % "mode: enforce")
    decision = guarded.decide(A)
    for asked in (
        lambda: guarded.decide(A, now=now),
        lambda: guarded.settle(decision, {}, now=now),
        lambda: guarded.release(decision, now=now),
    ):
        with pytest.raises(SettingError, match="give seconds since the epoch"):
            asked()


def test_effects_compare_and_print():
    effects = list(guardrail.Effect)

    assert effects == sorted(effects)
    assert [str(effect) for effect in effects] == ["allow", "degrade", "throttle", "block"]
    assert f"{guardrail.Effect.BLOCK:>7}" == "  block"


def test_a_decision_shows_its_effect_the_rule_and_the_wait():
    guarded = guard("  - {id: r, when: always, budget: {requests: 1, per: 1m, key: account.id}}\n")

    assert repr(guarded.decide(A, now=0)) == "<Decision allow>"
    assert repr(guarded.decide(A, now=0)) == "<Decision throttle by r retry after 61 s>"

"""What the language says of rules, shown through the guard, one behaviour a test."""

from __future__ import annotations

import asyncio

import pytest

import guardrail
from guardrail.errors import DataError, SettingError
from guardrail.loading import load_text
from guardrail.stores.memory import AsyncMemoryStore
from guardrail.testing import MovableClock, guard_of

HEAD = """
guardrail: 1
policy: p
facts:
  account.tier: {type: level, values: [anonymous, email, verified], default: anonymous}
models:
  large: {price: {input: 15, output: 75}, max_output: 100, weaker: medium}
  medium: {price: {input: 3, output: 15}, max_output: 100, weaker: small}
  small: {price: {input: 1, output: 5}, max_output: 100}
rules:
"""
A = {"account.id": "a", "request.model": "large"}


def guard(rules: str, clock: MovableClock | None = None):
    return guard_of(HEAD + rules, clock=clock)


def answers(guarded, times, facts=A, **estimate):
    decisions = [guarded.decide(facts, estimate or None) for _ in range(times)]
    return [str(decision.effect) for decision in decisions]


DAILY = "  - {id: daily, when: always, budget: {requests: 10, per: day, key: account.id}, %s}\n"
STEPS = (
    "steps: [{at: 20%, notify: {x-note: careful}}, {at: 50%, degrade: {model: small}}, "
    "{at: 80%, throttle: {reason: enough}}, {at: 90%, block: {reason: far}}]"
)


def test_the_strongest_step_reached_wins_and_a_refusal_stops_counting():
    guarded = guard(DAILY % STEPS)

    assert answers(guarded, 10) == ["allow"] * 5 + ["degrade"] * 3 + ["throttle"] * 2
    assert guarded.decide(A).reason == "enough"
    assert guarded.decide(A, {"requests": 9}).reason == "cost-exceeds-limit"


def test_a_notice_obliges_without_degrading():
    guarded = guard(DAILY % STEPS)
    notes = [dict(guarded.decide(A).obligations) for _ in range(3)]

    assert notes == [{}, {}, {"x-note": "careful"}]


@pytest.mark.parametrize(
    "verb",
    [
        "budget: {requests: 1, per: day, key: account.id}",
        "rate: {requests: 1/hour, key: account.id}",
        "concurrency: {max: 1, key: account.id}",
        "distinct: {count: client.ip, max: 1, per: 1d, key: account.id}",
        "budget: {requests: 0, per: day, key: account.id}",
    ],
)
def test_a_rule_that_degrades_never_refuses(verb):
    guarded = guard(
        f"  - {{id: soft, when: always, {verb}, over: {{degrade: {{model: small}}}}}}\n"
    )
    effects = [str(guarded.decide({**A, "client.ip": f"192.0.2.{n}"}).effect) for n in range(1, 5)]

    assert effects[-1] == "degrade"
    assert set(effects) <= {"allow", "degrade"}


def test_obligations_merge_to_the_strictest_along_the_chain_of_weaker_models():
    rules = (
        "  - {id: one, when: always, degrade: {model: small, max_output_tokens: 50, x-why: one}}\n"
        "  - {id: two, when: always, degrade: {model: medium, max_output_tokens: 20, "
        "disable: [tools], x-why: two}}\n"
    )
    served = {"model": "small", "max_output_tokens": 20, "disable": ["tools"], "x-why": "one"}

    assert dict(guard(rules).decide(A).obligations) == served
    asked = guard(rules).decide({**A, "request.model": "small"})
    assert "model" not in asked.obligations


def test_a_degrade_that_leaves_nothing_to_oblige_allows():
    guarded = guard("  - {id: one, when: always, degrade: {model: small}}\n")

    assert str(guarded.decide({**A, "request.model": "small"}).effect) == "allow"
    assert str(guarded.decide({"account.id": "a"}).effect) == "allow"


ESCALATE = (
    "  - id: pace\n    when: always\n    rate: {requests: 1/minute, key: account.id}\n"
    "    escalate: {after: 3, within: 10m, block_for: 1h}\n"
)


def test_repeated_refusals_ban_for_the_stated_time_and_at_most_one_counts_a_second():
    clock = MovableClock()
    guarded = guard(ESCALATE, clock)
    assert answers(guarded, 9) == ["allow"] + ["throttle"] * 8
    clock.advance(1)
    assert answers(guarded, 3) == ["throttle"] * 3
    clock.advance(1)
    assert answers(guarded, 1) == ["throttle"]
    clock.advance(1)
    banned = guarded.decide(A)

    assert (str(banned.effect), banned.reason) == ("block", "repeated-refusals")
    assert banned.retry_after == 3599
    clock.advance(3598)
    assert answers(guarded, 2) == ["block"] * 2
    clock.advance(1)
    assert answers(guarded, 2) == ["allow", "throttle"]


def test_a_shadow_rule_refuses_nothing_counts_alone_and_reports():
    guarded = guard(
        DAILY % "mode: shadow"
        + "  - {id: real, when: always, budget: {requests: 12, per: day, key: account.id}}\n"
    )
    decisions = [guarded.decide(A) for _ in range(14)]

    assert [str(d.effect) for d in decisions] == ["allow"] * 12 + ["throttle"] * 2
    assert [bool(d.shadow) for d in decisions] == [False] * 10 + [True] * 4
    assert decisions[10].shadow[0].rule == "daily"


def test_an_exemption_lifts_a_rule_until_it_expires():
    rules = (
        "  - {id: none, when: always, block: {reason: closed}}\n"
        "exemptions:\n"
        "  - {id: pilot, rules: [none], when: {account.id: a}, reason: r, expires: 2026-01-06}\n"
    )
    clock = MovableClock()
    guarded = guard(rules, clock)

    assert answers(guarded, 1) == ["allow"]
    assert answers(guarded, 1, {"account.id": "b"}) == ["block"]
    clock.set("2026-01-07T00:00:00Z")
    assert answers(guarded, 1) == ["block"]


def test_the_strongest_effect_wins_then_the_longest_wait_then_the_order():
    guarded = guard(
        "  - {id: hour, when: always, budget: {requests: 1, per: hour, key: account.id}}\n"
        "  - {id: day, when: always, budget: {requests: 1, per: day, key: account.id}}\n"
        "  - {id: tie, when: always, budget: {requests: 1, per: day, key: account.id}}\n"
        "  - {id: once, when: {request.model: small}, block: {reason: no}}\n"
    )
    guarded.decide(A)
    refused = guarded.decide(A)

    assert (refused.rule, refused.retry_after) == ("day", 12 * 3600)
    blocked = guarded.decide({**A, "request.model": "small"})
    assert (blocked.rule, blocked.retry_after, blocked.limits) == ("once", None, ())


def test_waiting_cannot_help_where_no_wait_is_told():
    rules = {
        "budget: {requests: 1, per: lifetime, key: account.id}": "block",
        "budget: {requests: 0, per: day, key: account.id}": "block",
        "distinct: {count: request.model, max: 0, per: 1d, key: account.id}": "block",
    }
    for verb, effect in rules.items():
        guarded = guard(f"  - {{id: r, when: always, {verb}}}\n")
        guarded.decide(A)
        refused = guarded.decide(A)
        assert (str(refused.effect), refused.retry_after) == (effect, None)


def test_a_missing_fact_matches_unless_the_rule_says_skip():
    rule = "  - {id: r, when: {geo.country: IR}, block: {}%s}\n"
    matched, skipped = guard(rule % ""), guard(rule % ", unknown: skip")

    assert answers(matched, 1) == ["block"]
    assert answers(skipped, 1) == ["allow"]
    assert skipped.decide(A).hinges == (("r", "geo.country"),)
    assert skipped.decide(A).errors == ("rule `r` was skipped: `geo.country` is missing",)


def test_a_missing_key_is_stood_in_for_by_account_then_network_then_one_unknown():
    guarded = guard(
        "  - {id: r, when: always, budget: {requests: 1, per: day, key: account.org}}\n"
    )
    requests = [
        {"account.id": "a"},
        {"account.id": "b"},
        {"client.ip": "192.0.2.1"},
        {"client.ip": "192.0.2.2"},
        {},
    ]

    assert [guarded.decide(facts).allowed for facts in requests] == [True] * 5
    assert [guarded.decide(facts).allowed for facts in requests] == [False] * 5


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

    assert decision.errors == ("usage of `tokens` is `nan`, not an amount",)
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


@pytest.mark.parametrize("now", [float("nan"), float("inf"), -1.0, 1e12])
def test_a_time_that_is_none_is_an_error(now):
    with pytest.raises(SettingError, match="give seconds since the epoch"):
        guard(DAILY % "mode: enforce").decide(A, now=now)


def test_effects_compare_and_print():
    effects = list(guardrail.Effect)

    assert effects == sorted(effects)
    assert [str(effect) for effect in effects] == ["allow", "degrade", "throttle", "block"]
    assert f"{guardrail.Effect.BLOCK:>7}" == "  block"

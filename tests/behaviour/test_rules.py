"""What the language says of rules, shown through the guard, one behaviour a test."""

from __future__ import annotations

import pytest

from guardrail.testing import MovableClock, guard_of
from tests.behaviour.sets import DAILY, A, answers, guard

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


TIERED = "{by: account.tier, anonymous: 0, email: 2, verified: unlimited}"
PACES = "{by: account.tier, anonymous: 0/hour, email: 2/hour, verified: unlimited}"


@pytest.mark.parametrize(
    "verb",
    [
        f"rate: {{requests: {PACES}, key: account.id}}",
        f"rate: {{requests: {PACES}, burst: 2, key: account.id}}",
        f"budget: {{requests: {TIERED}, per: day, key: account.id}}",
        f"concurrency: {{max: {TIERED}, key: account.id}}",
        f"distinct: {{count: client.ip, max: {TIERED}, per: 1d, key: account.id}}",
    ],
)
def test_an_amount_by_tier_may_be_nothing_for_some_and_unlimited_for_others(verb):
    guarded = guard(f"  - {{id: tiered, when: always, {verb}}}\n")
    served = {}
    for tier in ("anonymous", "email", "verified"):
        known = {**A, "account.id": tier, "account.tier": tier}
        decisions = [guarded.decide({**known, "client.ip": f"192.0.2.{n}"}) for n in range(1, 9)]
        served[tier] = [decision.allowed for decision in decisions].count(True)

    assert served == {"anonymous": 0, "email": 2, "verified": 8}


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


def test_a_declared_unit_may_be_called_what_python_reserves():
    guarded = guard_of(
        "guardrail: 1\npolicy: p\nunits: [class]\nrules:\n"
        "  - {id: r, when: always, budget: {class: 5, per: day, key: account.id}}\n"
    )

    assert guarded.decide(A, {"class": 5}).allowed
    assert not guarded.decide(A, {"class": 1}).allowed


def test_values_that_would_read_alike_when_joined_to_one_key_count_apart():
    key = "[account.org, account.id]"
    guarded = guard(f"  - {{id: r, when: always, budget: {{requests: 1, per: day, key: {key}}}}}\n")
    pairs = [("x", "y\x1f=z"), ("x\x1f=y", "z"), ("y", "z"), ("x\x1f=y", "z\x1f=x")]

    for org, account in pairs:
        facts = {"account.org": org, "account.id": account}
        assert guarded.decide(facts).allowed, facts
        assert not guarded.decide(facts).allowed, facts

"""One set that uses the whole language loads to what it says."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest

from guardrail.loading import load_policies, load_text
from guardrail.model.amounts import DAY, HOUR, MINUTE, Fixed, FromFact, Lookup
from guardrail.model.conditions import ALWAYS, Comparison, Every
from guardrail.model.effects import Effect, Mode
from guardrail.model.facts import FactType, Source
from guardrail.model.policy import Model, Price
from guardrail.model.rules import (
    Block,
    Budget,
    Concurrency,
    Distinct,
    Escalate,
    Key,
    Obligations,
    Rate,
    Verdict,
    Window,
)
from guardrail.scenarios import run_suite

FOLDER = Path(__file__).parent / "whole_set"
UNVERIFIED = Comparison(
    "account.tier", "in", frozenset({"anonymous", "email"}), "account.tier below verified"
)
SENSITIVE = Comparison(
    "request.capability",
    "in",
    frozenset({"agentic", "code"}),
    "request.capability in [agentic, code]",
)


@pytest.fixture(scope="module")
def policies():
    return load_policies([FOLDER])


@pytest.fixture(scope="module")
def rules(policies):
    return {rule.id: rule for rule in policies.rules}


def test_the_set_is_named_and_ordered(policies):
    assert policies.name == "public-api"
    assert policies.files == ("policy.yaml",)
    assert policies.timezone == "UTC"
    assert [rule.index for rule in policies.rules] == list(range(12))
    assert [rule.span.line for rule in policies.rules] == sorted(
        rule.span.line for rule in policies.rules
    )


def test_declared_facts_stand_over_the_standard_ones(policies):
    tier, budget = policies.facts["account.tier"], policies.facts["account.budget_usd"]

    assert (tier.type, tier.source, tier.declared) == (FactType.LEVEL, Source.SERVER, True)
    assert tier.values == ("anonymous", "email", "verified", "enterprise")
    assert tier.default == "anonymous"
    assert (budget.type, budget.source) == (FactType.NUMBER, Source.SERVER)
    assert policies.facts["geo.country"].declared is False


def test_models_have_exact_prices_and_lead_to_weaker_ones(policies):
    assert policies.models["large"] == Model(
        name="large",
        price=Price(input=15_000_000, output=75_000_000, cached_input=1_500_000),
        max_output=8192,
        weaker="medium",
        aliases=("large-latest",),
    )
    assert policies.models["small"].price == Price(
        input=1_000_000, output=5_000_000, cached_input=1_000_000
    )
    assert policies.weaker_than("large-latest") == ("medium", "small")


def test_static_rules_refuse_with_what_they_say(rules):
    embargo, tools = rules["embargo"], rules["tools-need-verification"]

    assert embargo.when == Comparison(
        "geo.country", "in", frozenset({"CU", "IR", "KP", "SY"}), "geo.country in $embargoed"
    )
    assert embargo.verb == Block(Verdict(effect=Effect.BLOCK, reason="geo_embargo", status=451))
    assert (embargo.exemptible, embargo.unknown, embargo.mode) == (False, None, Mode.ENFORCE)
    assert tools.when == Every(
        (UNVERIFIED, Comparison("request.tools", "gt", 0, "request.tools gt 0"))
    )
    assert tools.verb == Block(
        Verdict(
            effect=Effect.BLOCK,
            reason="verification_required",
            message="Verify your organisation to use tools.",
            remedy="verify",
        )
    )


def test_rates_concurrency_and_distinct(rules):
    account = Key(("account.id",))

    assert rules["requests"].when == ALWAYS
    assert rules["requests"].verb == Rate(
        unit="requests",
        amount=Fixed(60),
        period=MINUTE,
        burst=Fixed(20),
        key=account,
        over=Verdict(effect=Effect.THROTTLE, reason="requests"),
    )
    assert rules["requests"].escalate == Escalate(after=200, within=10 * MINUTE, block_for=HOUR)
    assert rules["in-flight"].verb == Concurrency(
        most=Fixed(8),
        lease=10 * MINUTE,
        key=account,
        over=Verdict(effect=Effect.THROTTLE, reason="in-flight"),
    )
    assert rules["one-id-few-accounts"].verb == Distinct(
        count="account.id",
        most=Fixed(3),
        period=90 * DAY,
        key=Key(("kyc.subject",)),
        over=Verdict(effect=Effect.BLOCK, reason="one-id-few-accounts"),
    )


def test_budgets_have_amounts_windows_and_steps(rules):
    day = rules["tokens-per-day"].verb

    assert isinstance(day, Budget)
    assert day.window == Window("day", "day")
    assert day.amounts == (
        (
            "tokens",
            Lookup(
                "account.tier",
                {"anonymous": 10_000, "email": 100_000, "verified": 5_000_000, "enterprise": None},
                10_000,
                10_000,
            ),
        ),
    )
    assert [(step.percent, step.verdict.effect) for step in day.steps] == [
        (80, Effect.DEGRADE),
        (100, Effect.THROTTLE),
    ]
    assert day.steps[0].verdict.obligations == Obligations(model="small", max_output_tokens=1024)
    assert day.over.reason == "daily_tokens"


def test_budgets_of_money_notify(rules):
    month = rules["money-per-month"].verb

    assert isinstance(month, Budget)
    assert month.amounts == (("cost_usd", FromFact("account.budget_usd", 1_000_000, 0)),)
    assert [(step.percent, step.verdict.effect) for step in month.steps] == [
        (90, Effect.ALLOW),
        (100, Effect.THROTTLE),
    ]
    assert month.steps[0].verdict.obligations == Obligations(
        extra={"x-budget-warning": "90% of the monthly budget is used"}
    )


def test_budgets_of_a_lifetime_and_of_everyone(rules):
    lifetime = rules["unverified-sensitive-lifetime"].verb
    hour = rules["everyone-unverified-together"]

    assert isinstance(lifetime, Budget)
    assert (lifetime.window.kind, lifetime.over.effect) == ("lifetime", Effect.BLOCK)
    assert isinstance(hour.verb, Budget)
    assert hour.verb.window == Window("rolling", "1h", HOUR)
    assert hour.verb.key == Key(())
    assert hour.mode is Mode.SHADOW
    assert hour.when == Every((UNVERIFIED, SENSITIVE))


def test_the_exemption_holds_through_its_last_day(policies):
    (exemption,) = policies.exemptions

    assert exemption.rules == ("tokens-per-day",)
    assert exemption.when == Comparison(
        "account.id", "in", frozenset({"acct_42"}), "account.id = acct_42"
    )
    assert exemption.expires == 1_798_761_600_000_000  # 2027-01-01T00:00:00Z
    assert exemption.unknown_holds is False


def test_its_own_tests_pass(policies):
    assert run_suite(policies).failed == 0


def test_the_tests_become_scenarios(policies):
    degrade, embargo = policies.scenarios

    assert degrade.now == 1_772_355_600_000_000  # 2026-03-01T09:00:00Z
    assert degrade.facts["request.tools"] == 0
    assert [(step.repeat, step.every, step.estimate) for step in degrade.steps] == [
        (80, MINUTE, {"input_tokens": 1000, "output_tokens": 0}),
        (20, MINUTE, {"input_tokens": 1000, "output_tokens": 0}),
        (1, 0, {"input_tokens": 5000, "output_tokens": 0}),
    ]
    expectation = degrade.steps[1].expect
    assert expectation is not None
    assert (expectation.effect, expectation.detail, expectation.by) == (
        Effect.DEGRADE,
        "small",
        "tokens-per-day",
    )
    assert embargo.now == 1_767_614_400_000_000  # 2026-01-05T12:00:00Z
    assert len(embargo.steps) == 1
    assert embargo.steps[0].estimate == {}


def test_the_revision_is_of_names_and_contents_lists_included(tmp_path):
    text = (FOLDER / "policy.yaml").read_bytes()
    listed = (FOLDER / "lists/contracted-orgs.txt").read_bytes()
    digest = hashlib.sha256()
    for part in (b"lists/contracted-orgs.txt", listed, b"policy.yaml", text):
        digest.update(len(part).to_bytes(8, "big") + part)
    expected = f"sha256:{digest.hexdigest()}"
    (tmp_path / "lists").mkdir()
    (tmp_path / "policy.yaml").write_bytes(text)
    (tmp_path / "lists/contracted-orgs.txt").write_bytes(listed)

    assert load_policies([FOLDER]).revision == expected
    assert load_policies([tmp_path]).revision == expected

    (tmp_path / "lists/contracted-orgs.txt").write_bytes(listed + b"org_new\n")

    assert load_policies([tmp_path]).revision != expected


def test_text_loads_as_its_file_does(policies):
    path = FOLDER / "policy.yaml"

    loaded = load_text(path.read_text("utf-8"), str(path))

    assert loaded.revision == policies.revision
    assert dataclasses.replace(loaded.rules[0], span=policies.rules[0].span) == policies.rules[0]

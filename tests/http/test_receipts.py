"""Receipts tell of a simply allowed request what planning it anew would."""

from __future__ import annotations

import random

import pytest

from guardrail import Guard
from guardrail.http.dialects import Dialect
from guardrail.http.responses.client_view import view_of
from guardrail.http.responses.fields import Receipts, Style, quota_fields
from guardrail.loading import load_text
from guardrail.model.amounts import SECOND

START = 1_767_600_000.0
POLICY = """
guardrail: 1
policy: receipts
defaults: {{timezone: {zone}}}
facts:
  account.tier: {{type: level, values: [low, high]}}
models:
  small: {{max_output: 100, price: {{input: 2, output: 8}}}}
rules:
  - id: pace
    when: always
    rate: {{requests: {{by: account.tier, low: 600/minute, high: unlimited}}, key: account.id}}
  - id: burst
    when: {{account.tier: high}}
    rate: {{tokens: 100k/minute, burst: 90k, key: [account.org, request.model]}}
  - {{id: day, when: always, budget: {{tokens: 10M, requests: 1M, per: day, key: account.id}}}}
  - {{id: month, when: always, budget: {{input_tokens: 90M, per: month, key: account.org}}}}
  - {{id: rolls, when: always, budget: {{output_tokens: 9M, per: 3h, key: credential.id}}}}
  - {{id: ever, when: always, budget: {{requests: 1M, per: lifetime, key: account.id}}}}
  - {{id: places, when: always, concurrency: {{max: 900, key: account.id}}}}
  - {{id: strangers, when: always, budget: {{requests: 1M, per: day, key: client.network}}}}
  - {{id: all, when: always, budget: {{requests: 9M, per: hour, key: global}}}}
  - {{id: trial, when: always, mode: shadow, rate: {{requests: 600/minute, key: account.id}}}}
  - id: named
    when: {{request.model: small}}
    budget: {{requests: 1M, per: week, key: account.id}}
"""
STYLES = (
    Style(),
    Style(partition=b"k" * 32),
    Style(units=frozenset({"requests", "tokens"})),
    Style(fields=None),
    Style(vendor=False),
    Style(fields=None, vendor=False),
)
MONEY = "  - {id: usd, when: always, budget: {cost_usd: 900, per: day, key: account.id}}\n"


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
@pytest.mark.parametrize("more", ["", MONEY])
def test_fields_written_from_receipts_are_those_of_the_plan_made_anew(zone, more):
    text = POLICY.format(zone=zone) + more
    guard = Guard.from_policies(load_text(text), environ={}, store="memory://")
    midnight = 0 if zone == "UTC" else -20_700
    draw, receipts, now, seen = random.Random(3), Receipts(), START, 0
    for number in range(300):
        now += draw.choice([0.01, 0.5, 3.0, 40.0, 9000.0])
        facts = {
            "account.id": f"a{draw.randrange(3)}",
            "account.org": f"o{draw.randrange(2)}",
            "credential.id": f"c{draw.randrange(4)}",
            "account.tier": draw.choice(["low", "high"]),
            "client.network": "192.0.2.0/24",
            "request.model": draw.choice(["small", "large"]),
        }
        estimate = {"input_tokens": draw.randrange(1, 900), "output_tokens": draw.randrange(1, 90)}
        decision = guard.decide(facts, estimate, now=now)
        if decision.case.simple:
            seen += 1
            standings = view_of(decision).standings
            style, dialect = STYLES[number % len(STYLES)], draw.choice([*Dialect])
            assert receipts.fields(decision.case, dialect, style) == quota_fields(
                standings, dialect, style, decision.case.now
            )
            resets = next(s.resets for s in standings if s.name == "day.tokens")
            assert resets is not None
            assert resets / SECOND == pytest.approx((midnight - now) % 86400)
        if number % 3 == 0:
            guard.settle(decision, {"input_tokens": 5, "output_tokens": 5}, now=now)

    assert seen > 250


@pytest.mark.parametrize("missing", ["account.org", "credential.id"])
def test_a_limit_whose_key_is_stood_in_for_is_read_with_the_facts(missing):
    guard = Guard.from_policies(load_text(POLICY.format(zone="UTC")), environ={})
    facts = {
        "account.org": "o",
        "credential.id": "c",
        "account.tier": "low",
        "client.network": "192.0.2.0/24",
        "request.model": "small",
    }
    del facts[missing]
    decision = guard.decide(facts, {"input_tokens": 1, "output_tokens": 1}, now=START)

    assert decision.case.simple
    assert Receipts().fields(decision.case, Dialect.OPENAI, Style()) is None

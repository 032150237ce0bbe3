"""What all accounts together asked of a budget that they share."""

from __future__ import annotations

from guardrail import Guard
from guardrail.loading import load_text
from guardrail.replay.ceilings import Ceilings

MONDAY = 1_780_272_000.0
DAY = 86_400.0

POLICY = """
guardrail: 1
policy: ceilings
facts: {account.tier: {type: level, values: [email, verified], default: email}}
rules:
  - id: together
    when: {account.tier: email}
    budget: {requests: LIMIT, cost_usd: 1, per: day, key: global}
  - {id: own, when: always, budget: {requests: 5, per: day, key: account.id}}
models: {small: {price: {input: 1, output: 1}, max_output: 10}}
"""


def replayed(limit: str, days: list[int]) -> Ceilings:
    """Return what so many requests on each day asked for, each of an account of its own."""
    policies = load_text(POLICY.replace("LIMIT", limit))
    guard, ceilings = Guard.from_policies(policies), Ceilings(policies)
    for day, count in enumerate(days):
        for at in range(count):
            now = MONDAY + day * DAY + at
            facts = {"account.id": f"a{at}", "request.model": "small"}
            estimate = {"input_tokens": 100, "output_tokens": 0}
            decision = guard.decide(facts, estimate, now=now)
            ceilings.add(now, decision)
            facts["account.tier"] = "verified"
            ceilings.add(now, guard.decide(facts, estimate, now=now))
    return ceilings


def test_the_busiest_window_and_half_as_much_again_are_told() -> None:
    money, requests = sorted(replayed("100", [10, 30, 20]).found(), key=lambda row: row.unit)
    assert (requests.rule, requests.unit, requests.limit) == ("together", "requests", 100)
    assert (requests.windows, requests.busiest, requests.busiest_at) == (3, 30, MONDAY + DAY)
    assert requests.proposed == 45
    assert (money.unit, money.busiest) == ("cost_usd", 0.003)


def test_what_was_refused_was_asked_for_as_well() -> None:
    rows = {row.unit: row for row in replayed("12", [10, 30]).found()}
    assert rows["requests"].busiest == 30


def test_a_rare_day_does_not_size_a_ceiling_where_there_are_many() -> None:
    rows = {row.unit: row for row in replayed("1k", [4] * 150 + [90]).found()}
    assert rows["requests"].busiest == 90
    assert rows["requests"].proposed == 6

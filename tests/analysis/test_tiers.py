"""Amounts of separate rules that fall where a tier, an age or payments rise."""

from __future__ import annotations

import pytest

from guardrail.analysis import analyse
from guardrail.loading import load_text

NOW = 1_780_000_000_000_000
HEAD = """\
guardrail: 1
policy: p
facts: {account.tier: {type: level, values: [free, paid, partner], default: free}}
rules:
"""


def found(*rules: str) -> list[str]:
    """Return the findings on tiers of some rules, each as `RULE: LABEL`."""
    written = "".join(f"  - {{id: r{n}, {rule}}}\n" for n, rule in enumerate(rules))
    told = [one for one in analyse(load_text(HEAD + written), NOW) if one.code == "GR220"]
    return [f"r{one.span.line - 5}: {one.label} | {one.message}" for one in told]


def day(when: str, amount: str, more: str = "") -> str:
    """Return a budget of requests a day for some."""
    return f"when: {when}, budget: {{requests: {amount}, per: day, key: account.id}}{more}"


PAID = "{account.tier: paid}"
PARTNER = "{account.tier: {at_least: partner}}"
OLD, YOUNG = "{account.age: {gte: 30d}}", "{not: {account.age: {gte: 30d}}}"


def test_a_tier_that_gets_less_by_a_rule_of_its_own_is_found():
    assert found(day(PAID, "500"), day(PARTNER, "50")) == [
        "r1: 50 after 500 by `r0` (policy.yaml:5) | `partner` gets less than `paid`, which is lower"
    ]
    assert found(day(PARTNER, "50"), day(PAID, "500")) == [
        "r0: 50 after 500 by `r1` (policy.yaml:6) | `partner` gets less than `paid`, which is lower"
    ]


def test_an_age_that_gets_less_is_found():
    told = found(day(YOUNG, "500"), day(OLD, "50"))

    assert [one.partition(" | ")[2] for one in told] == ["who has more `account.age` gets less"]


def test_a_row_of_a_table_is_compared_with_another_rule():
    table = day("{account.tier: {below: partner}}", "{by: account.tier, free: 5, else: 500}")

    assert found(table, day(PARTNER, "50")) != []
    assert found(table, day(PARTNER, "600")) == []


@pytest.mark.parametrize(
    "rules",
    [
        (day(PAID, "50"), day(PARTNER, "500")),
        (day(PAID, "50"), day(PARTNER, "50")),
        (day(PAID, "500"), day(PARTNER, "50", ", mode: shadow")),
        (day(PAID, "500"), day(PARTNER, "50", ", over: {degrade: {disable: [tools]}}")),
        (day(PAID, "500"), "when: " + PARTNER + ", rate: {requests: 5/minute, key: account.id}"),
        (day(PAID, "500"), day(PARTNER, "50").replace("account.id", "account.org")),
        (day(PAID, "500"), day(PARTNER, "50").replace("per: day", "per: 1h")),
        (day(PAID, "500"), day("{account.tier: partner, geo.country: CU}", "50"),
         day("{account.tier: paid, geo.country: CU}", "20")),
        (day(PAID, "500"), day("{account.tier: partner, account.org: o1}", "50", ", unknown: skip"),
         "when: {account.org: o1, account.tier: paid}, unknown: skip, block: {}"),
        (day(PAID, "500"), day("always", "50")),
        (day(PAID, "500").replace("account.id", "global"),
         day(PARTNER, "50").replace("account.id", "global")),
        # Visitors without an account have what their network has.
        (day("{account.tier: free}", "500"), day(PAID, "50")),
        (day(OLD, "500"), day(YOUNG, "50")),
    ],
)  # fmt: skip
def test_what_is_no_fall_is_not_found(rules):
    assert found(*rules) == []

"""What is found of limits, against every request of a small domain, and by example."""

from __future__ import annotations

import pytest

from guardrail.analysis import analyse
from guardrail.loading import load_text
from guardrail.model.amounts import SECOND
from tests.analysis.enumerated_limits import MOST_REQUESTS, limited, wrong_limits
from tests.analysis.small_sets import how_many

NOW = 1_780_000_000 * SECOND


def found(*rules: str, more: str = "") -> list[str]:
    """Return what is found of some rules as `RULE CODE`, each rule being named by its place."""
    lines = "".join(f"  - {{id: r{place}, {rule}}}\n" for place, rule in enumerate(rules))
    told = analyse(load_text(f"guardrail: 1\npolicy: p\nrules:\n{lines}{more}"), NOW)
    return [f"{one.message.split('`')[1]} {one.code}" for one in told]


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_what_is_found_of_limits_is_so_and_nothing_is_missed(first):
    sets = {seed: limited(seed) for seed in range(first, first + 20)}
    small = [seed for seed, one in sets.items() if how_many(one) <= MOST_REQUESTS // 10]
    wrongly = {seed: wrong_limits(sets[seed]) for seed in small}

    assert small
    assert {seed: problems for seed, problems in wrongly.items() if problems} == {}


def shared(own: str, per: str = "lifetime") -> list[str]:
    """Return two limits: what all have for ever, and what each account has."""
    return [
        "when: always, budget: {requests: 1000, per: lifetime, key: global}",
        f"when: always, budget: {{requests: {own}, per: {per}, key: account.id}}",
    ]


@pytest.mark.parametrize(
    ("own", "per", "codes"),
    [
        ("999", "lifetime", []),
        ("5000", "lifetime", ["r1 GR202", "r0 GR215"]),
        # What comes back every day fills what is there once.
        ("10", "day", ["r0 GR215"]),
    ],
)
def test_what_all_share_for_ever_is_kept_by_what_an_account_has_for_ever(own, per, codes):
    assert sorted(found(*shared(own, per))) == sorted(codes)


def test_a_ceiling_on_agents_is_escaped_only_by_a_request_of_the_same_account():
    ceiling = "when: {request.capability: agentic, account.org: %s}, unknown: skip, "
    ceiling += "budget: {requests: 10, per: day, key: account.id}"
    tokens = "when: {account.org: o1}, budget: {tokens: 2M, per: day, key: account.id}"

    assert found(ceiling % "o1", tokens) == []
    assert found(ceiling % "o2", tokens) == ["r0 GR212"]


def test_an_escape_by_another_fact_than_the_capability_is_none_of_a_ceiling_on_agents():
    agents = (
        "when: {client.agent: {exists: true}}, budget: {requests: 9, per: day, key: account.id}"
    )
    other = "when: {request.capability: agentic}, unknown: skip, degrade: {disable: [stream]}"

    assert found(agents, other) == []


def test_an_unlimited_rule_that_applies_to_nothing_is_told_once():
    never = "when: {geo.country: CU, not: {geo.country: {exists: true}}}, unknown: skip, "

    assert found(f"{never}budget: {{requests: unlimited, per: day, key: account.id}}") == [
        "r0 GR201"
    ]


@pytest.mark.parametrize(("zone", "told"), [("UTC", ["r1 GR207"]), ("Antarctica/Troll", [])])
def test_a_day_on_which_clocks_are_set_back_by_two_hours_lets_more_through(zone, told):
    # A minute of 1,440 each, and of 120 more on that day.
    pace = "when: always, rate: {requests: 1/minute, burst: 1, key: account.id}"
    day = "when: always, budget: {requests: 1530, per: day, key: account.id}"

    assert found(pace, day, more=f"defaults: {{timezone: {zone}}}\n") == told


def test_a_week_is_reached_by_more_than_a_seventh_of_it_each_day_alone():
    week = "when: always, budget: {requests: 70, per: week, key: account.id}"
    day = "when: always, budget: {requests: %s, per: day, key: account.id}"

    assert found(day % 10, week) == ["r1 GR207"]
    assert found(day % 11, week) == []

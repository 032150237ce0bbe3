"""What the head of a request decides alone, before its body is read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from guardrail import AsyncGuard, Guard
from guardrail.errors import DataError, SettingError
from guardrail.testing import MovableClock
from tests.guard.failing import ScriptedStore
from tests.loaded import loaded

POLICY = """
guardrail: 1
policy: heads
rules:
  - {id: away, when: {geo.country: CU}, unknown: skip, block: {reason: away}}
  - {id: banned, when: {account.id: bad}, unknown: skip, block: {reason: banned}}
  - {id: tools, when: {request.tools: {gt: 0}}, block: {reason: tools}}
  - {id: calls, when: always, budget: {requests: 10, per: day, key: account.id}}
"""
ASKS = {"client.ip": "192.0.2.1", "account.id": "a", "request.endpoint": "/v1/chat/completions"}


class Countries:
    """A source of countries that counts how often it is asked, and fails when told to."""

    provides = frozenset({"geo.country"})
    sources = ()

    def __init__(self, country: str | None = "DE", needs: tuple[str, ...] = ("client.ip",)) -> None:
        self.country = country
        self.needs = frozenset(needs)
        self.asked = 0
        self.fails = False

    def facts(self, known: Any, now: float) -> dict[str, object]:
        self.asked += 1
        if self.fails:
            raise DataError("no database")
        return {} if self.country is None else {"geo.country": self.country}


def guard_of(countries: Countries, policy: str = POLICY, **more: Any) -> Guard:
    return Guard.from_policies(
        loaded(policy), signals=[countries], clock=MovableClock(), **{"environ": {}, **more}
    )


def test_a_static_rule_on_the_head_refuses_without_asking_the_store():
    store: Any = ScriptedStore()
    guard = guard_of(Countries("CU"), store=store)
    found = guard.precheck(ASKS)

    assert found is not None
    assert found.refusal is not None
    assert (found.refusal.rule, found.refusal.reason) == ("away", "away")
    assert [rule.rule for rule in found.refusal.explain().rules] == ["away", "banned"]
    assert store.asked == []


def test_what_only_a_body_or_a_counter_decides_is_left_to_the_decision():
    guard = guard_of(Countries())
    for _ in range(20):
        found = guard.precheck(ASKS)
        assert found is not None
        assert found.refusal is None
    assert guard.decide({**ASKS, "request.tools": 0}).limits[0].used == 1


def test_there_is_nothing_to_check_where_no_static_rule_rests_on_a_head():
    countries = Countries()
    policy = POLICY.replace("geo.country: CU", "request.model: dear").replace(
        "account.id: bad", "request.stream: true"
    )

    assert guard_of(countries, policy).precheck(ASKS) is None
    assert countries.asked == 0


@pytest.mark.parametrize("country", ["DE", None])
@pytest.mark.parametrize("kind", [Guard, AsyncGuard])
def test_the_signals_that_were_asked_for_the_head_are_not_asked_again(country, kind):
    countries = Countries(country)
    guard: Any = kind.from_policies(
        loaded(POLICY), signals=[countries], clock=MovableClock(), environ={}
    )
    found = guard.precheck(ASKS)
    decision = guard.decide(found.facts, unavailable=found.unavailable, asked=found.asked)
    if kind is AsyncGuard:
        decision = asyncio.run(decision)

    assert countries.asked == 1
    assert decision.facts.get("geo.country") == country
    assert guard.precheck(ASKS) is not None
    assert countries.asked == 2


def test_a_source_that_fails_refuses_what_rests_on_it():
    countries = Countries()
    countries.fails = True
    found = guard_of(countries).precheck(ASKS)

    assert found is not None
    assert found.unavailable == {"geo.country"}
    assert found.refusal is not None
    assert found.refusal.reason == "facts-unavailable"


def test_what_a_signal_establishes_from_a_body_is_not_known_by_the_head():
    countries = Countries("CU", needs=("client.ip", "request.model"))
    found = guard_of(countries).precheck(ASKS)

    assert found is not None
    assert (found.refusal, countries.asked) == (None, 0)


def test_a_required_fact_may_still_come():
    policy = POLICY.replace("rules:", "facts: {team: {type: string, required: true}}\nrules:")
    found = guard_of(Countries(), policy).precheck(ASKS)

    assert found is not None
    assert found.refusal is None


def test_rules_in_shadow_for_a_while_refuse_once_it_is_over():
    shadow = {"GUARDRAIL_MODE": "shadow", "GUARDRAIL_MODE_UNTIL": "2026-12-01T00:00:00Z"}
    guard = guard_of(Countries("CU"), environ=shadow)
    until = 1_796_083_200.0
    refused = [guard.precheck(ASKS, now=now) for now in (until - 1, until)]

    assert [found and found.refusal and found.refusal.rule for found in refused] == [None, "away"]


def test_a_time_that_is_none_is_an_error():
    with pytest.raises(SettingError, match="seconds since the epoch"):
        guard_of(Countries()).precheck(ASKS, now=float("nan"))

"""Facts that have to be waited for: asked once, after what they need, before the plan."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from guardrail.errors import DataError
from guardrail.guard import AsyncGuard, Guard
from guardrail.loading import load_text
from guardrail.signals import Lookup
from guardrail.stores.memory import AsyncMemoryStore

POLICY = """
guardrail: 1
policy: lookups
facts:
  x.ring: {type: string, source: server}
  x.risk: {type: integer, source: server}
rules:
  - {id: ring, when: {x.ring: bad}, block: {reason: ring}}
  - {id: risk, when: {x.risk: {gte: 5}}, unknown: skip, block: {reason: risk}}
  - {id: one, when: always, budget: {requests: 9, per: day, key: x.ring}}
"""
UNUSED = (
    "guardrail: 1\npolicy: p\nrules:\n  - {id: a, when: {request.model: x}, block: {reason: a}}\n"
)


class Rings:
    """Tells an account's ring, as a store of links would; `asked` counts the ways it was asked."""

    provides = frozenset({"x.ring"})
    needs = frozenset({"account.id"})
    sources = ()

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.asked: list[str] = []

    def facts(self, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        self.asked.append("blocking")
        return self._found(known)

    async def look_up(self, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        self.asked.append("awaited")
        await asyncio.sleep(0)
        return self._found(known)

    def _found(self, known: Mapping[str, object]) -> Mapping[str, object]:
        if self.fails:
            raise DataError("the links are away")
        return {"x.ring": "bad" if str(known["account.id"]).startswith("b") else "good"}


class Risks:
    """Tells a risk from a ring: it comes after what is waited for."""

    provides = frozenset({"x.risk"})
    needs = frozenset({"x.ring"})
    sources = ()

    def facts(self, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        return {"x.risk": len(str(known["x.ring"]))}


class Other(AsyncMemoryStore):
    """Counts in memory, and is awaited."""


def asking(rings: Rings, way: str, policy: str = POLICY, *more):
    policies = load_text(policy)
    signals = (*more, rings)
    if way == "blocking":
        return Guard.from_policies(policies, signals=signals, environ={}).decide
    store = "memory://" if way == "in memory" else Other()
    guard = AsyncGuard.from_policies(policies, signals=signals, environ={}, store=store)
    return lambda *asked, **more: asyncio.run(guard.decide(*asked, **more))


WAYS = {"blocking": "blocking", "in memory": "awaited", "elsewhere": "awaited"}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_looked_up_decides_and_is_waited_for_where_the_guard_is(way):
    rings = Rings()
    decide = asking(rings, way)

    assert decide({"account.id": "good"}, now=1e9).allowed
    assert decide({"account.id": "bad"}, now=1e9).rule == "ring"
    assert rings.asked == [WAYS[way]] * 2


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_looked_up_that_is_known_or_that_no_rule_reads(way):
    rings = Rings()

    assert asking(rings, way)({"account.id": "a", "x.ring": "bad"}, now=1e9).rule == "ring"
    assert asking(rings, way)({}, now=1e9).rule == "ring"  # unknown: the rule matches
    assert asking(rings, way, UNUSED)({"account.id": "a", "request.model": "y"}, now=1e9).allowed
    assert rings.asked == []


@pytest.mark.parametrize("way", WAYS)
def test_a_signal_that_needs_what_is_looked_up_comes_after_it(way):
    decision = asking(Rings(), way, POLICY, Risks())({"account.id": "fine"}, now=1e9)

    assert decision.explain().facts["x.risk"] == len("good")


@pytest.mark.parametrize("way", WAYS)
def test_what_cannot_be_looked_up_refuses_what_hinges_on_it(way):
    decision = asking(Rings(fails=True), way)({"account.id": "good"}, now=1e9)

    assert decision.reason == "facts-unavailable"
    assert decision.status == 503


def test_a_guard_that_waits_lets_others_on():
    rings, order = Rings(), []
    policies = load_text(POLICY)
    guard = AsyncGuard.from_policies(policies, signals=(rings,), environ={})

    async def both():
        async def other():
            order.append("other")

        task = asyncio.ensure_future(other())
        await guard.decide({"account.id": "good"}, now=1e9)
        order.append("decided")
        await task

    asyncio.run(both())
    assert order == ["other", "decided"]


def test_a_lookup_is_one_by_what_it_offers():
    assert isinstance(Rings(), Lookup)
    assert not isinstance(Risks(), Lookup)

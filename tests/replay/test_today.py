"""Policies as they stand on one day decide traffic of other days as they would traffic of that."""

from __future__ import annotations

import pytest

from guardrail.guard import Guard
from guardrail.loading import load_text
from guardrail.model.effects import Effect
from guardrail.model.policy import PolicySet
from guardrail.replay.running import Replay
from guardrail.replay.today import standing_on
from guardrail.traffic.requests import Request

POLICIES = """
guardrail: 1
policy: p
rules:
  - {id: spring, when: {geo.country: FR}, block: {}, unknown: skip,
     from: 2026-03-10, until: 2026-03-20}
  - {id: later, when: {geo.country: ES}, block: {}, unknown: skip, from: 2026-03-15}
  - {id: sooner, when: {geo.country: IT}, block: {}, unknown: skip,
     until: 2026-03-15T00:00:00Z}
  - {id: day, when: always, budget: {requests: 3, per: day, key: account.id}}
  - {id: pace, when: always, rate: {requests: 4/hour, key: account.id}}
exemptions:
  - {id: more, rules: [day], raise: {requests: 5}, when: {account.id: a1}, reason: r,
     expires: 2026-03-15}
  - {id: free, rules: [day, pace], when: {account.id: a2}, reason: r, expires: 2026-03-20}
"""
DAY = 86_400.0
FIRST = 1772496000.0  # 2026-03-03


@pytest.fixture(scope="module")
def policies() -> PolicySet:
    return load_text(POLICIES)


def effects(policies: PolicySet, start: float) -> list[tuple[Effect, str | None]]:
    """Return how the same requests of one day are decided, on the day that starts then."""
    rows = []
    for turn in range(60):
        country, account = ("FR", "ES", "IT", "DE")[turn % 4], f"a{turn % 3}"
        ts = start + turn * 1200.0
        request = Request(
            ts=ts,
            facts={"account.id": account, "geo.country": country},
            estimate={"requests": 1},
        )
        rows.append((turn + 1, ts, request))
    with Guard.from_policies(policies, environ={}) as guard:
        decided = [decision for _, _, _, decision in Replay(guard).run(rows)]
        return [(decision.effect, decision.rule) for decision in decided]


def test_traffic_of_any_day_is_decided_as_that_of_today_would_be(policies):
    seen = set()
    for today in range(0, 25, 3):
        expected = effects(policies, FIRST + today * DAY)
        seen.add(tuple(expected))
        for other in (0, 11, 14, 300):
            standing = standing_on(policies, FIRST + today * DAY)

            assert effects(standing, FIRST + other * DAY) == expected
    # Before spring, in its first days, in the rest of it, after it.
    assert len(seen) >= 4


def test_the_moment_itself_is_the_first_of_what_begins_and_past_what_ends(policies):
    turn = FIRST + 12 * DAY  # 2026-03-15

    def blocked(today: float) -> set[str | None]:
        found = effects(standing_on(policies, today), FIRST)
        return {rule for effect, rule in found if effect is Effect.BLOCK}

    assert blocked(turn - 1e-6) == {"spring", "sooner"}
    assert blocked(turn) == {"spring", "later"}

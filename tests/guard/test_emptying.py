"""A guard that was emptied decides as a new one: no counter, no link and no score is left."""

from __future__ import annotations

from random import Random

import pytest

from guardrail import Guard
from guardrail.errors import SettingError
from tests.engine.policies import START, policy_set, request
from tests.engine.tracing import MOVES, Subject, after, run
from tests.loaded import loaded

MONDAY = 1_780_272_000.0

LINKED = """
guardrail: 1
policy: linked
facts: {account.tier: {type: level, values: [free, verified]}}
links:
  trusted: {account.tier: verified}
  strong: [payment.fingerprint]
score:
  window: 2d
  min_accounts: 3
  evidence:
    - {id: many-networks, family: network, count: client.network, above: 4, points: 60}
    - {id: one-template, family: template, same: request.template, above: 80%, least: 10, points: 60}
rules:
  - {id: shared, when: always, budget: {requests: 30, per: day, key: actor.id}}
  - {id: crowd, when: {actor.accounts: {gte: 6}}, block: {}}
  - {id: slow, when: {actor.score: {gte: 50}}, rate: {requests: 1/hour, key: actor.id}}
"""  # noqa: E501


def fill(subject: Subject, seed: int) -> bool:
    """Have some requests decided and settled; tell whether that left anything in the store."""
    rng, now = Random(seed), START
    for _ in range(20):
        now += rng.choice(MOVES)
        subject.decide(request(rng), now)
        after(rng, now, subject, subject)
    subject.decisions.clear()
    subject.ids.number = 0
    return bool(subject.contents()["shared"])


def test_what_was_counted_before_leaves_nothing():
    filled = 0
    for seed in range(40):
        policies, most = policy_set(seed, 1 + seed % 7), 3 if seed % 11 == 0 else 1000
        left = Subject(policies, fused=True, max_keys=most)
        filled += fill(left, seed + 1)
        left.guard.empty()
        assert left.contents()["shared"] == {}
        run(seed, 12, left, Subject(policies, fused=True, max_keys=most))
    assert filled > 20


def asked(guard: Guard) -> list[object]:
    """Return what a guard tells of five accounts that show one card, from many networks."""
    found: list[object] = []
    for at in range(40):
        facts = {
            "account.id": f"a{at % 5}",
            "account.tier": "free",
            "payment.fingerprint": "c",
            "client.network": f"n{at}",
            "request.template": "t",
        }
        decision = guard.decide(facts, now=MONDAY + 7 * at)
        known = decision.explain().facts
        found.append((decision.effect, decision.rule, decision.retry_after))
        found.append([known.get(name) for name in ("actor.accounts", "actor.score")])
    return found


def test_nobody_acts_as_one_and_nothing_tells_against_them_any_more():
    with Guard.from_policies(loaded(LINKED), environ={}) as guard:
        first, again = asked(guard), asked(guard)
        guard.empty()
        assert asked(guard) == first

    assert again != first
    assert [5, 120] in first


def test_counters_that_are_not_in_memory_stay(tmp_path):
    with (
        Guard.from_policies(
            loaded(LINKED), store=f"lmdb://{tmp_path}", hash_key=b"k" * 32
        ) as guard,
        pytest.raises(SettingError, match="only counters in memory can be emptied"),
    ):
        guard.empty()

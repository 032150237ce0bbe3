"""Whom an account acts as, found beside the facts by a generated decision, is as if stated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from random import Random

import pytest

from guardrail import Decision, Guard
from tests.loaded import loaded

MONDAY = 1_780_272_000.0
POLICY = """
guardrail: 1
policy: beside
facts:
  account.tier: {type: level, values: [free, paid, verified], default: free}
  account.fellows: {type: integer, source: server}
links:
  trusted: {account.tier: verified, account.age: {gte: 1h}}
  strong: [payment.fingerprint]
  weak: [client.network, device.fingerprint]
score:
  window: 2d
  min_accounts: 3
  evidence:
    - {id: networks, family: network, count: client.network, above: 3, points: 30}
    - {id: template, family: template, same: request.template, above: 50%, least: 5, points: 30}
    - {id: young, family: age, when: {account.age: {lt: 1d}}, above: 50%, least: 5, points: 10}
    - {id: clockwork, family: clock, even: true, above: 90%, least: 5, points: 5}
  breaker: {established: {account.age: {gte: 2d}}, most: 3, per: 1h}
rules:
  - {id: shared, when: {account.tier: free}, budget: {requests: 12, per: day, key: actor.id}}
  - {id: paid, when: {account.tier: paid}, budget: {requests: 20, per: day, key: actor.id}}
  - {id: crowd, when: {actor.accounts: {gte: 5}}, degrade: {max_output_tokens: 10}}
  - {id: two, when: {actor.accounts: 2}, unknown: skip, rate: {requests: 60/minute, key: actor.id}}
  - {id: three, when: {actor.accounts: 3}, unknown: skip, rate: {requests: 9/minute, key: actor.id}}
  - id: by-trust
    when: {actor.trusted_accounts: {gt: 0}}
    budget: {requests: {by: actor.trusted_accounts, bands: {0: 1, 1: 80, 3: 200}}, per: day, key: actor.id}
  - {id: slow, when: {actor.score: {gte: 40}}, rate: {requests: 1/hour, key: actor.id}}
  - {id: stop, when: {actor.score: {gte: 65}}, block: {remedy: verify}}
  - {id: fellows, when: {account.fellows: {gt: 1}}, unknown: skip, block: {}}
  - {id: told, when: {actor.evidence: {in: [clockwork]}}, mode: shadow, block: {}}
"""  # noqa: E501


def stating(dice: Random) -> dict[str, object]:
    """Return the facts of one of a few accounts; some are stated wrongly, or of the actor."""
    account = dice.randrange(9)
    facts: dict[str, object] = {
        "account.id": f"a{account}",
        "account.tier": dice.choice(("free", "free", "paid", "verified")),
        "payment.fingerprint": f"c{account // 5}",
        "client.network": f"n{dice.randrange(6)}",
        "request.template": "t",
        "account.created": MONDAY - dice.choice((600.0, 86_400.0 * 3)),
    }
    for _ in range(dice.randrange(2)):
        del facts[dice.choice(sorted(facts))]
    odd = dice.randrange(6)
    if odd == 0:
        facts[dice.choice(sorted(facts))] = dice.choice((None, 7, [], "", -1.5, {}))
    elif odd == 1:
        facts["actor.accounts"] = dice.choice((2, 7, None, "many"))
    elif odd == 2:
        facts |= {"actor.id": "b", "actor.score": dice.choice((0, 50)), "actor.accounts": 4}
    return facts


def in_steps() -> Guard:
    """Return a guard that puts all facts together first, and is told of each decision after."""
    guard = Guard.from_policies(loaded(POLICY), environ={})
    context = guard._context
    guard._decide, guard._settle, guard._beside = guard._planned, None, ()
    guard._establish, guard._note = ((), context.establish), context.note
    return guard


def told(decision: Decision) -> object:
    """Return all that two guards have to say alike; actors are named at random."""
    story = decision.explain()
    names = {"actor.id", "account.id"}
    facts = {name: value for name, value in story.facts.items() if name not in names}
    return (
        decision.ruling,
        facts,
        sorted(set(decision.facts) - names),
        story.amounts,
        story.errors,
        [(status.rule, status.used, status.remaining) for status in decision.limits],
    )


@pytest.mark.parametrize("seed", range(6))
def test_a_decision_is_the_one_of_facts_that_were_put_together(seed: int) -> None:
    dice, quick, plain = Random(seed), Guard.from_policies(loaded(POLICY), environ={}), in_steps()
    now, rules = MONDAY, Counter[str | None]()
    for _ in range(250):
        now += dice.choice((0.0, 1.0, 1.0, 60.0, 4000.0))
        facts = stating(dice)
        estimate = dice.choice(({}, {"requests": 2}, {"input_tokens": 5}, {"requests": -1}))
        one, other = (guard.decide(dict(facts), estimate, now=now) for guard in (quick, plain))
        assert told(one) == told(other), facts
        rules[one.rule] += 1
        for guard, decision in ((quick, one), (plain, other)):
            guard.settle(decision, {"requests": 1}, now=now)
    assert quick.warnings(now=now) == plain.warnings(now=now)
    assert {None, "crowd", "slow"} <= rules.keys()
    assert len(rules) > 4


def test_facts_that_another_signal_needs_are_put_together_first() -> None:
    class Fellows:
        provides, needs = frozenset({"account.fellows"}), frozenset({"actor.accounts"})
        sources = ()

        def facts(self, known: Mapping[str, object], now: float) -> dict[str, object]:
            return {"account.fellows": known["actor.accounts"]}

    guard = Guard.from_policies(loaded(POLICY), environ={}, signals=[Fellows()])
    rules = [
        guard.decide({"account.id": account, "payment.fingerprint": "c"}, now=MONDAY).rule
        for account in ("a", "b", "b")
    ]
    assert rules == [None, "fellows", "fellows"]

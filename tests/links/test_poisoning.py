"""Who shows what a trusted customer shows gains nothing against it, whatever he tries."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guardrail import Decision, Effect, Guard
from guardrail.loading import load_policies, load_text
from guardrail.model.policy import PolicySet

DAY = 86_400.0
MONDAY = 1_780_272_000.0
HOURS = 9
ESTIMATE = {"input_tokens": 200, "output_tokens": 100}
Facts = dict[str, object]

# Everything that goes by actors, at limits that few requests reach.
BY_ACTOR = """
guardrail: 1
policy: by-actor
facts: {account.tier: {type: level, values: [email, verified]}}
links:
  trusted: {account.tier: verified, account.verified_age: {gte: 60d}}
  strong: [payment.fingerprint, kyc.subject]
  weak: [client.network, device.fingerprint, request.template, request.toolset, account.signup]
  max_accounts: 12
score:
  window: 2d
  min_accounts: 3
  evidence:
    - {id: many-networks, family: network, count: client.network, above: 3, points: 30}
    - {id: one-template, family: template, same: request.template, above: 50%, least: 9, points: 30}
    - {id: abroad, family: geo, when: {geo.country: {not: DE}}, above: 30%, least: 5, points: 30}
  breaker: {established: {account.age: {gte: 30d}}, most: 2, per: 1h}
rules:
  - {id: actor-day, when: always, budget: {requests: 60, per: day, key: actor.id}}
  - id: actor-pace
    when: always
    rate: {requests: 10/hour, key: actor.id}
    escalate: {after: 5, within: 1h, block_for: 1d}
  - id: actor-networks
    when: {client.network: {exists: true}}
    distinct: {count: client.network, max: 4, per: 7d, key: actor.id}
  - {id: crowded, when: {actor.accounts: {gte: 3}}, degrade: {x-crowded: "yes"}}
  - {id: known, when: {actor.trusted_accounts: {gte: 2}}, degrade: {x-known: "yes"}}
  - id: scored
    when: {actor.score: {gte: 50}}
    block: {remedy: verify, message: verify an identity or write to appeals@example.com}
"""


def by_actor() -> PolicySet:
    return load_text(BY_ACTOR)


def shipped() -> PolicySet:
    return load_policies([Path(__file__).parents[2] / "policies"])


def victim() -> Facts:
    """Return what a trusted customer shows."""
    return {
        "account.id": "victim", "account.tier": "verified", "account.paid_usd": 900,
        "account.created": MONDAY - 400 * DAY, "account.verified_at": MONDAY - 200 * DAY,
        "payment.fingerprint": "card of the victim", "kyc.subject": "subject of the victim",
        "client.network": "198.51.100.7/32", "device.fingerprint": "device of the victim",
        "request.template": "template of the victim", "request.toolset": "tools of the victim",
        "account.signup": "cohort of the victim", "network.kind": "business",
        "geo.country": "DE", "request.capability": "chat",
    }  # fmt: skip


SHOWN = (
    "payment.fingerprint", "client.network", "device.fingerprint", "request.template",
    "request.toolset", "account.signup",
)  # fmt: skip


def stranger(name: str, dice: random.Random) -> Facts:
    """Return what a new account shows that has nothing of the victim yet."""
    return {
        "account.id": name, "account.tier": "email", "account.created": MONDAY - DAY,
        "account.paid_usd": 0, "geo.country": dice.choice(("DE", "FR")),
        "network.kind": dice.choice(("hosting", "residential")), "request.capability": "chat",
        **{fact: f"{fact} of {name}" for fact in SHOWN if dice.random() < 0.5},
    }  # fmt: skip


def merging(number: int, dice: random.Random) -> Facts:
    """Return an account that shows some of what the victim shows, its identity included."""
    shared = {fact: victim()[fact] for fact in (*SHOWN, "kyc.subject") if dice.random() < 0.6}
    return stranger(f"m{number % 9}", dice) | shared


def filling(number: int, dice: random.Random) -> Facts:
    """Return one of ever new accounts on the victim's card."""
    return stranger(f"f{number}", dice) | {"payment.fingerprint": "card of the victim"}


def publishing(number: int, dice: random.Random) -> Facts:
    """Return a trusted account of the attacker's that shows what the victim shows."""
    name = f"p{number % 20}"
    own = {
        "account.tier": "verified", "account.created": MONDAY - 400 * DAY,
        "account.verified_at": MONDAY - 100 * DAY, "kyc.subject": f"subject of {name}",
    }  # fmt: skip
    shared = {fact: victim()[fact] for fact in SHOWN[1:]}
    return stranger(name, dice) | shared | own | {"payment.fingerprint": f"card of {name}"}


def escalating(number: int, dice: random.Random) -> Facts:
    """Return an account on the victim's card and device that asks without end for agents."""
    shared = {fact: victim()[fact] for fact in SHOWN}
    return stranger(f"e{number % 3}", dice) | shared | {"request.capability": "agentic"}


def everything(number: int, dice: random.Random) -> Facts:
    """Return an account of any of these."""
    return dice.choice((merging, filling, publishing, escalating))(number, dice)


Attack = Callable[[int, random.Random], Facts]
ATTACKS: list[Attack] = [merging, filling, publishing, escalating, everything]


def told(decision: Decision) -> tuple[object, ...]:
    """Return all that a customer and its operator see of a decision."""
    limits = [(limit.rule, limit.unit, limit.limit, limit.used) for limit in decision.limits]
    seen = (decision.effect, decision.rule, decision.reason, dict(decision.obligations))
    return *seen, decision.retry_after, sorted(limits)


def of_victim(
    policies: PolicySet, attack: Attack | None, seed: int
) -> Iterator[tuple[object, ...]]:
    """Yield what the victim is told, with ten requests of an attack before each of its own."""
    guard, dice, own = Guard.from_policies(policies, environ={}), random.Random(seed), 0
    for at in range(HOURS * 6):
        now = MONDAY + at * 600.0
        if attack is not None:
            for number in range(10):
                facts = attack(own, dice)
                decision = guard.decide(facts, ESTIMATE, now=now + number)
                if decision.allowed:
                    guard.settle(decision, ESTIMATE, now=now + number)
                own += 1
        decision = guard.decide(victim(), ESTIMATE, now=now + 30)
        if decision.allowed:
            guard.settle(decision, ESTIMATE, now=now + 60)
        yield told(decision)


@pytest.fixture(scope="module", params=[by_actor, shipped])
def alone(request: pytest.FixtureRequest) -> tuple[PolicySet, list[tuple[object, ...]]]:
    """Return policies, and what the victim is told where nobody attacks it."""
    policies = request.param()
    return policies, list(of_victim(policies, None, 0))


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("seed", [1])
def test_a_trusted_customer_is_told_what_it_is_told_without_the_attack(
    alone: tuple[PolicySet, list[tuple[object, ...]]], attack: Attack, seed: int
) -> None:
    policies, wanted = alone
    assert any(effect is Effect.ALLOW for effect, *_ in wanted)
    for number, (found, without) in enumerate(
        zip(of_victim(policies, attack, seed), wanted, strict=True)
    ):
        assert found == without, number


@pytest.mark.parametrize("attack", [merging, filling, escalating])
def test_the_same_attack_on_a_customer_that_is_not_trusted_is_felt(attack: Attack) -> None:
    """What the test above compares can differ: it is trust that keeps them equal."""
    text = BY_ACTOR.replace("account.verified_age: {gte: 60d}", "account.verified_age: {gte: 900d}")
    policies = load_text(text)
    assert list(of_victim(policies, attack, 1)) != list(of_victim(policies, None, 0))


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attacker_has_no_more_room_for_showing_what_a_victim_shows(attack: Attack) -> None:
    """His accounts share one budget, and trusted ones that he bought have their own."""
    policies = by_actor()
    guard, dice = Guard.from_policies(policies, environ={}), random.Random(3)
    guard.decide(victim(), now=MONDAY)
    served = 0
    for number in range(1500):
        facts = attack(number, dice)
        is_bought = facts["account.tier"] == "verified"
        if not is_bought:
            facts["payment.fingerprint"] = "card of the victim"
        allowed = guard.decide(facts, now=MONDAY + 3600 + number * 40.0).allowed
        served += allowed and not is_bought
    # An actor that is full, and the crowd of those whom it keeps out, on one day.
    assert served <= 2 * 60
    assert served or attack is publishing

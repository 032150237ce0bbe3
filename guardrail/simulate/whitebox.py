"""The operator who has read the policies: what he reads in them, and what he tries out at home.

He shares a card, a device, an address and an identity among as many accounts as rules let pass,
and rehearses with a guard of his own under which names, at which size and pace one account takes
most.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

from guardrail.guard import Guard
from guardrail.model.amounts import Fixed
from guardrail.model.effects import Mode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Distinct
from guardrail.simulate.population import DAY, START, Names
from guardrail.simulate.skills import LABELS, TOKENS_IN, TOKENS_OUT, Prices, Skill

_SHARED = {
    "payment.fingerprint": "per_card",
    "device.fingerprint": "per_device",
    "client.network": "per_exit",
    "kyc.subject": "per_identity",
}
_UNWATCHED = 20
_HOME = "residential"


def shared_at_most(policies: PolicySet) -> Mapping[str, int]:
    """Return how many accounts may share a value, by the parameter of a skill that says so.

    20 where no rule counts them.
    """
    found = dict.fromkeys(_SHARED.values(), _UNWATCHED)
    for rule in policies.rules:
        verb = rule.verb
        if rule.mode is not Mode.ENFORCE or not isinstance(verb, Distinct):
            continue
        if verb.count != "account.id" or not isinstance(verb.most, Fixed):
            continue
        for fact in verb.key.facts:
            if fact in _SHARED and verb.most.value is not None:
                name = _SHARED[fact]
                found[name] = max(1, min(found[name], verb.most.value))
    return found


def informed(skill: Skill, policies: PolicySet, names: Names, prices: Prices, days: int) -> Skill:
    """Return a skill fitted to a policy set."""
    shared: dict[str, Any] = dict(shared_at_most(policies))
    best = replace(
        skill, **shared, sigma=0.2, rate=26.0, aged=0.0, top_up=0.0, tokens=1.0, kinds=(_HOME,)
    )
    worth = -math.inf
    for change in [*changes(skill), *changes(skill)]:
        plan = replace(best, **change)
        taken = rehearsed(plan, policies, names, days)
        exit = prices.exits[plan.kinds[0]] / plan.per_exit
        card = 0.0 if plan.cardless else prices.card / plan.per_card
        cost = prices.account + card + exit * days / 30
        # What one account takes counts most, then what it costs.
        value = taken - 0.1 * (cost + plan.aged * prices.aged + plan.top_up)
        if value > worth:
            best, worth = plan, value
    return best


def changes(skill: Skill) -> Iterator[Mapping[str, Any]]:
    """Yield what is tried out, one change after the other."""
    for label in LABELS:
        yield {"labels": (label, *(other for other in LABELS if other != label))}
    for tokens in (1.0, 0.3):
        yield {"tokens": tokens}
    for aged, top_up in product((0.0, 1.0), (0.0, skill.top_up)):
        yield {"aged": aged, "top_up": top_up, "cardless": False}
    yield {"top_up": 0.0, "cardless": True}
    for kind in (_HOME, "hosting"):
        yield {"kinds": (kind,)}
    for rate in (26.0, 200.0):
        yield {"rate": rate}


def rehearsed(skill: Skill, policies: PolicySet, names: Names, days: int) -> int:
    """Return what one fresh account gets under its first label, in requests."""
    age = 200 * DAY if skill.aged else 3 * DAY
    capability = skill.labels[0] or "agentic"
    facts: dict[str, object] = {
        "account.id": "rehearsal",
        "account.created": START - age,
        "account.signup": "rehearsal",
        "credential.id": "rehearsal",
        "payment.fingerprint": "rehearsal",
        "payment.country": "US",
        "device.fingerprint": "rehearsal",
        "client.ip": "11.1.1.1",
        "client.network": "11.1.1.1/32",
        "geo.country": "US",
        "geo.asn": 1000,
        "network.kind": skill.kinds[0],
        "request.capability": capability,
        "request.tools": 4 if capability == "agentic" else 0,
        "request.model": names.models[0],
        "request.endpoint": "/v1/messages",
        "request.template": "rehearsal",
        "client.agent": "python-sdk",
    }
    if skill.cardless:
        del facts["payment.fingerprint"], facts["payment.country"]
    if skill.top_up:
        facts["account.paid_usd"] = skill.top_up
        facts["account.paid_since"] = START - age
    if names.unverified is not None:
        facts["account.tier"] = names.unverified
    known = {name: value for name, value in facts.items() if name in names.known}
    size = max(1, round(skill.rate / 8))
    estimate = {
        "requests": size,
        "input_tokens": round(size * TOKENS_IN * skill.tokens),
        "output_tokens": round(size * TOKENS_OUT * skill.tokens),
    }
    served = refused = 0
    with Guard.from_policies(policies, clock=lambda: START, environ={}) as guard:
        for at in range(8 * days):
            moment = START + at * DAY / 8
            decision = guard.decide(known, estimate, now=moment)
            if decision.allowed:
                guard.settle(decision, {}, now=moment)
                served += size
            else:
                refused += 1
                if decision.retry_after is None and refused > 3:
                    break
    return served

"""The operator who has read the policies: what he reads in them, and what he tries out at home.

He shares a card, a device, an address and an identity among as many accounts as rules let pass,
and rehearses with a guard of his own under which names, at which size and pace one account takes
most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product

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
    shared = shared_at_most(policies)
    best, worth = skill, -1.0
    for plan in plans(replace(skill, **shared)):  # type: ignore[arg-type]
        taken = rehearsed(plan, policies, names, days)
        exit = prices.exits[plan.kinds[0]] / max(1, plan.per_exit)
        cost = prices.account + prices.card / plan.per_card + exit * days / 30
        cost += plan.aged * prices.aged + plan.top_up
        # What one account takes counts most, then what it costs.
        value = taken - 0.1 * cost
        if value > worth:
            best, worth = plan, value
    return best


def plans(skill: Skill) -> Iterator[Skill]:
    """Yield the ways to go that are rehearsed."""
    for top_up, label, tokens, aged, kind, rate in product(
        (0.0, skill.top_up),
        LABELS,
        (1.0, 0.3),
        (0.0, 1.0),
        ("hosting", "residential"),
        (26.0, 200.0),
    ):
        labels = (label, *(other for other in LABELS if other != label))
        yield replace(
            skill,
            top_up=top_up,
            labels=labels,
            tokens=tokens,
            aged=aged,
            kinds=(kind,),
            rate=rate,
            sigma=0.2,
        )


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

"""The shipped policies with one thing changed: each loosening that requests show is to be named.

`python -m tests.analysis.mutated COUNT SEED` runs so many mutations.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from guardrail.analysis import Changes, compared
from guardrail.guard import Guard
from guardrail.loading import load_policies
from guardrail.model.amounts import SECOND, Amount, Banded, Fixed, Lookup
from guardrail.model.conditions import Comparison, Condition, Every, Negation, Some
from guardrail.model.effects import Mode
from guardrail.model.facts import COUNTRIES, FactType, epoch_of
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Budget, Exemption, Key, Rate, Rule, Step
from tests.analysis.enumerated import loosened
from tests.analysis.seeds import over_seeds
from tests.analysis.small_sets import SPAN, Reading, as_strict, asked

POLICIES = Path(__file__).parents[2] / "policies"
AT = epoch_of("2026-06-01")
assert AT is not None
NOW = round(AT * SECOND)


@lru_cache
def shipped() -> PolicySet:
    """Return the shipped policies."""
    return load_policies([POLICIES])


def mutated(rng: Random) -> tuple[str, PolicySet]:
    """Return the shipped policies with one thing changed, and what that was."""
    policies = shipped()
    while True:
        place = rng.randrange(len(policies.rules))
        rule = policies.rules[place]
        kind = rng.choice(KINDS)
        if kind == "exempt":
            return f"exempt {rule.id}", _exempted(rng, policies, rule)
        if kind == "remove":
            return f"remove {rule.id}", _with(policies, place, None)
        changed = _changed(rng, policies, rule, kind)
        if changed is not None and changed != rule:
            return f"{kind} {rule.id}", _with(policies, place, changed)


KINDS = tuple("amount amount test test test unknown mode window key step exempt remove".split())
"""What may be changed; what stands here more than once is more likely."""


def _with(policies: PolicySet, place: int, rule: Rule | None) -> PolicySet:
    rules = list(policies.rules)
    rules[place : place + 1] = [] if rule is None else [rule]
    kept = tuple(replace(one, index=i) for i, one in enumerate(rules))
    names = {one.id for one in kept}
    exemptions = tuple(ex for ex in policies.exemptions if names.issuperset(ex.rules))
    return replace(policies, rules=kept, exemptions=exemptions)


def _exempted(rng: Random, policies: PolicySet, rule: Rule) -> PolicySet:
    when = rng.choice(
        (
            Comparison("account.id", "in", frozenset(("acct_1",)), "account.id = acct_1"),
            Comparison("account.tier", "in", frozenset(("verified",)), "account.tier = verified"),
            Comparison("account.paid_usd", "gte", 1000, "account.paid_usd gte 1000"),
            Comparison("account.age", "exists", False, "account.age exists false"),
        )
    )
    exemption = Exemption(
        id="mutated", rules=(rule.id,), when=when, reason="mutated",
        expires=NOW + 10**15, unknown_holds=False, span=SPAN,
    )  # fmt: skip
    return replace(policies, exemptions=(*policies.exemptions, exemption))


def _changed(rng: Random, policies: PolicySet, rule: Rule, kind: str) -> Rule | None:
    verb: Any = rule.verb
    if kind == "unknown":
        return replace(rule, unknown=rng.choice(("match", "skip", None)))
    if kind == "mode":
        return replace(rule, mode=rng.choice(tuple(Mode)))
    if kind == "test":
        return replace(rule, when=_other_condition(rng, policies, rule.when))
    if kind == "amount" and verb.allowances:
        if isinstance(verb, Budget):
            place = rng.randrange(len(verb.amounts))
            amounts = list(verb.amounts)
            amounts[place] = amounts[place][0], _other_amount(rng, amounts[place][1])
            return replace(rule, verb=replace(verb, amounts=tuple(amounts)))
        if isinstance(verb, Rate):
            return replace(rule, verb=replace(verb, amount=_other_amount(rng, verb.amount)))
        return replace(rule, verb=replace(verb, most=_other_amount(rng, verb.most)))
    if kind == "window" and isinstance(verb, Budget):
        others = [r.verb.covers for r in policies.rules if r.verb.covers is not None]
        return replace(rule, verb=replace(verb, window=rng.choice(others)))
    if kind == "key" and verb.allowances:
        key = Key(
            rng.choice(((), ("account.id",), ("account.id", "geo.country"), ("account.org",)))
        )
        return replace(rule, verb=replace(verb, key=key))
    if kind == "step" and isinstance(verb, Budget) and len(verb.steps) > 1:
        steps = list(verb.steps)
        if rng.random() < 0.5:
            steps.pop(0)
        else:
            steps[0] = Step(percent=rng.randint(1, 99), verdict=steps[0].verdict)
        return replace(rule, verb=replace(verb, steps=tuple(steps)))
    return None


def _other_amount(rng: Random, amount: Amount) -> Amount:
    def other(value: int | None) -> int | None:
        return rng.choice((None, 10 * (value or 1), (value or 1) + 1, (value or 2) // 2))

    if isinstance(amount, Fixed):
        return Fixed(other(amount.value))
    if isinstance(amount, Lookup):
        name = rng.choice(list(amount.table))
        return replace(amount, table={**amount.table, name: other(amount.table[name])})
    if isinstance(amount, Banded):
        bands = list(amount.bands)
        place = rng.randrange(len(bands))
        bands[place] = replace(bands[place], amount=other(bands[place].amount))
        return replace(amount, bands=tuple(bands))
    return amount


def _other_condition(rng: Random, policies: PolicySet, condition: Condition) -> Condition:
    if isinstance(condition, Negation):
        return (
            condition.part
            if rng.random() < 0.2
            else Negation(_other_condition(rng, policies, condition.part))
        )
    if isinstance(condition, Comparison):
        return _other_test(rng, policies, condition)
    parts = list(condition.parts)
    if not parts:
        return condition
    if rng.random() < 0.1:
        return Some(condition.parts) if isinstance(condition, Every) else Every(condition.parts)
    place = rng.randrange(len(parts))
    if len(parts) > 1 and rng.random() < 0.3:
        parts.pop(place)
    else:
        parts[place] = _other_condition(rng, policies, parts[place])
    return replace(condition, parts=tuple(parts))


def _other_test(rng: Random, policies: PolicySet, test: Comparison) -> Condition:
    if rng.random() < 0.15:
        return Negation(test)
    if test.operator in ("in", "not_in"):
        assert isinstance(test.operand, frozenset)
        fact = policies.facts[test.fact]
        every: list[Any] = [*fact.values] if fact.values else ["more"]
        if fact.type is FactType.COUNTRY:
            every = sorted(COUNTRIES)
        elif fact.type is FactType.BOOL:
            every = [True, False]
        values = set(test.operand)
        if rng.random() < 0.5 and len(values) > 1:
            values.discard(rng.choice(sorted(values, key=str)))
        else:
            values.add(rng.choice(every))
        if rng.random() < 0.2:
            return replace(test, operator="not_in" if test.operator == "in" else "in")
        return replace(test, operand=frozenset(values))
    if test.operator in ("gt", "gte", "lt", "lte"):
        assert isinstance(test.operand, int | float)
        if rng.random() < 0.4:
            return replace(test, operator=rng.choice(("gt", "gte", "lt", "lte")))
        return replace(test, operand=test.operand + rng.choice((-1, 1, 10, 86_400)))
    if test.operator == "exists":
        return replace(test, operand=not test.operand)
    return test


_SAMPLED: dict[str, tuple[Any, ...]] = {
    "account.id": (None, "a1", "acct_1"),
    "account.org": (None, "o1"),
    "account.tier": (None, "anonymous", "email", "verified", "enterprise"),
    "account.age": (None, "0s", "59d", "60d", "61d", "62d"),
    "account.verified_age": (None, "0s", "59d", "60d", "61d", "62d"),
    "account.paid_usd": (None, 0, 19, 20, 21, 100, 200, 500, 501, 1000, 100_000),
    "account.budget_usd": (None, 0, 5, 1000),
    "account.signup": (None, "s1"),
    "enforcement.status": (None, "pending", "restricted", "banned"),
    "kyc.subject": (None, "k1"),
    "payment.country": (None, "CU", "SY", "DE", "CN", "FR"),
    "geo.country": (None, "CU", "SY", "DE", "CN", "FR", "US"),
    "device.fingerprint": (None, "d1"),
    "client.network": (None, "203.0.113.9/32"),
    "network.kind": (None, "residential", "hosting", "vpn", "proxy", "tor", "business"),
    "request.capability": (None, "chat", "code", "agentic", "batch"),
    "request.tools": (None, 0, 1, 2),
    "request.reasoning": (None, True, False),
    "request.model": (None, "large", "medium", "small", "medium-latest"),
    "actor.accounts": (None, 1, 3, 4, 5, 7, 8, 9),
    "actor.trusted_accounts": (None, 0, 1, 4),
    "actor.score": (None, 0, 49, 50, 51),
}


def sampled(rng: Random) -> dict[str, object]:
    """Return a request, some of its facts drawn."""
    facts = {name: rng.choice(values) for name, values in _SAMPLED.items()}
    few = rng.random() < 0.5
    return {n: v for n, v in facts.items() if v is not None and not (few and rng.random() < 0.5)}


def problems_of(old: PolicySet, new: PolicySet, rng: Random, samples: int) -> list[str]:
    """Return what requests show and is not named, and what is named and its request denies."""
    found = compared(old, new, NOW)
    before, after = Reading(old), Reading(new)
    drawn = [sampled(rng) for _ in range(samples)]
    drawn += [dict(c.witness.facts) for c in (*found.looser, *found.stricter)]
    cases = [(asked(before, facts, NOW), asked(after, facts, NOW)) for facts in drawn]
    problems = [
        f"{name} became looser, and is not named"
        for name in sorted(loosened(cases) - {change.rule for change in found.looser})
    ]
    problems += [
        f"{name} became stricter, and is not named"
        for name in sorted(
            loosened((b, a) for a, b in cases) - {change.rule for change in found.stricter}
        )
    ]
    for change in found.looser:
        facts = change.witness.facts
        own = [w for n, w in asked(before, facts, NOW) if n == change.rule]
        now_asked = [w for _, w in asked(after, facts, NOW)]
        if not own:
            problems.append(f"{change.rule} does not apply to {facts}")
        elif all(any(as_strict(w, what) for w in now_asked) for what in own) and not any(
            what[0] == "limit" for what in own
        ):
            problems.append(f"{change.rule}: {facts} shows nothing")
    problems += _wrong_effects(old, new, found)
    return problems


def _wrong_effects(old: PolicySet, new: PolicySet, found: Changes) -> list[str]:
    """Return the witnesses that a guard decides otherwise than is told."""
    problems = []
    for change in found.looser:
        at = NOW if change.witness.at is None else change.witness.at
        effects = []
        for policies in (old, new):
            guard = Guard.from_policies(policies, environ={})
            estimate = {"requests": 1, "input_tokens": 0, "output_tokens": 0}
            effects.append(guard.decide(change.witness.facts, estimate, now=at / SECOND).effect)
            guard.close()
        if tuple(effects) != change.effects:
            told = [str(effect) for effect in change.effects]
            problems.append(f"{change.witness.facts}: {effects} and not {told}")
    return problems


def looked_at(seed: int, counts: Counter[str]) -> list[str]:
    """Return what is wrong of a mutation, and count how many changes were named, and how soon."""
    rng = Random(seed)
    what, new = mutated(rng)
    clock = time.perf_counter()
    found = compared(shipped(), new, NOW)
    counts["ms of comparing"] += round(1000 * (time.perf_counter() - clock))
    counts["mutations"] += 1
    counts["looser"] += bool(found.looser)
    counts["stricter"] += bool(found.stricter)
    counts["neither"] += not found.looser and not found.stricter
    return [f"{what}: {problem}" for problem in problems_of(shipped(), new, rng, 200)]


if __name__ == "__main__":
    over_seeds(looked_at)

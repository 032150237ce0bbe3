"""Random claims about random policy sets, against every request of a small domain.

`python -m tests.analysis.claimed COUNT SEED` runs so many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from random import Random
from typing import Any

from guardrail.analysis import Proof, proved
from guardrail.engine import FactReader, allowance
from guardrail.model.amounts import SECOND
from guardrail.model.claims import AtMost, Claim
from guardrail.model.conditions import ALWAYS, compile_condition, facts_of
from guardrail.model.effects import Effect, Mode
from guardrail.model.facts import Source
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Budget, Window
from tests.analysis.enumerated import loosened, timed
from tests.analysis.seeds import over_seeds
from tests.analysis.small_sets import (
    NOW,
    SPAN,
    TIMES,
    Reading,
    asked,
    chosen_names,
    condition,
    declared,
    policy_set,
    requests,
)


def claimed(seed: int) -> tuple[PolicySet, Claim]:
    """Return a random policy set, and a claim about it."""
    rng = Random(seed)
    names = chosen_names(rng)
    facts = declared(rng)
    policies = policy_set(rng, facts, names, rng.choice((0.0, 0.5, 0.9)))
    when = ALWAYS if rng.random() < 0.3 else condition(rng, facts, names, 1)
    claim = Claim(id="c", when=when, unknown_holds=rng.random() < 0.3, span=SPAN)
    kind = rng.randrange(3)
    if kind == 0:
        by = rng.choice((None, None, policies.rules[0].id))
        never = tuple(rng.sample(list(Effect), rng.randint(1, 2)))
        claim = replace(claim, never=never, by=by)
    elif kind == 1:
        key = rng.choice((("account.id",), ("account.id", "account.org"), ()))
        most = AtMost(
            unit="requests", amount=rng.choice((10, 20, 30, 40)), key=key,
            over=Window("lifetime", "ever"),
        )  # fmt: skip
        claim = replace(claim, at_most=(most,))
    else:
        said = [n for n in names if facts[n].source is Source.CLIENT] or ["client.agent"]
        claim = replace(claim, said=tuple(said))
    return replace(policies, claims=(claim,)), claim


class _Cases:
    """Every request that a claim is about, with what is asked of it."""

    def __init__(self, policies: PolicySet, claim: Claim) -> None:
        self.reading = Reading(policies)
        holds = compile_condition(claim.when)
        used = {*facts_of(claim.when), *self.reading.reader.used}
        reader = FactReader(policies.facts, used, "UTC")
        times = TIMES if timed(policies) or "now" in repr(claim.when) else TIMES[:1]
        if "account.created" in repr(claim.when) or "account.age" in repr(claim.when):
            times = TIMES
        self.found: list[tuple[Mapping[str, object], int, dict[str, Any]]] = []
        for request in requests(policies, replace(policies, rules=_about(policies, claim))):
            for now in times:
                typed = reader.read(request, now / SECOND)[0]
                answer = holds(typed, now / SECOND)
                if claim.unknown_holds if answer is None else answer:
                    self.found.append((request, now, typed))


def _about(policies: PolicySet, claim: Claim) -> tuple[Any, ...]:
    """Return a rule with the claim's condition, so that its facts are among those of requests."""
    return (replace(policies.rules[0], when=claim.when, mode=Mode.ENFORCE, unknown=None),)


def true_of_all(policies: PolicySet, claim: Claim) -> bool:
    """Tell whether a claim is about any request, and true of all of them."""
    cases = _Cases(policies, claim)
    if not cases.found:
        return False
    if claim.never:
        return not any(_gets(cases, claim, *case[:2]) for case in cases.found)
    if claim.at_most:
        return _bounded(policies, cases, claim.at_most[0])
    pairs = []
    for request, now, _ in cases.found:
        silent = {name: v for name, v in request.items() if name not in claim.said}
        was, is_now = asked(cases.reading, silent, now), asked(cases.reading, request, now)
        pairs.append((was, is_now))
    return not loosened(pairs)


def _gets(cases: _Cases, claim: Claim, request: Mapping[str, object], now: int) -> bool:
    every = asked(cases.reading, request, now)
    if claim.by is not None:
        every = [(name, what) for name, what in every if name == claim.by]
    kinds = {what[0] for _, what in every}
    floor = Effect.ALLOW
    if "refuse" in kinds:
        floor = Effect.BLOCK
    elif "oblige" in kinds:
        floor = Effect.DEGRADE
    limits = {what[7] for _, what in every if what[0] == "limit"}
    can_be = {floor, *(effect for effect in limits if effect > floor)}
    return not can_be.isdisjoint(claim.never)


def _bounded(policies: PolicySet, cases: _Cases, most: AtMost) -> bool:
    """Tell whether some rules that together meet every request let no more through than that."""
    here = []
    stated = {name for request, _, _ in cases.found for name in request}
    for request, now, typed in cases.found:
        if any(name not in typed and name in stated for name in most.key):
            continue
        every = asked(cases.reading, request, now)
        if all(what[0] != "refuse" for _, what in every):
            here.append((typed, now))
    lets: dict[str, dict[int, int]] = {}
    for rule in policies.rules:
        verb = rule.verb
        if rule.mode is not Mode.ENFORCE or rule.end is not None or not isinstance(verb, Budget):
            continue
        if verb.window.kind != "lifetime" or verb.units != ("requests",):
            continue
        if not set(verb.key.facts) <= {*most.key}:
            continue
        percent = min(step.percent for step in verb.steps)
        applies = next(a for r, a in cases.reading.rules if r is rule)
        for place, (typed, now) in enumerate(here):
            skips = rule.unknown == "skip" and any(n not in typed for n in verb.facts)
            value = allowance(verb.amounts[0][1], typed, now)
            if applies(typed, now) and not skips and value is not None:
                lets.setdefault(rule.id, {})[place] = value * percent // 100
    for count in range(len(lets) + 1):
        for chosen in combinations(lets, count):
            met = {place for name in chosen for place in lets[name]}
            total = sum(max(lets[name].values()) for name in chosen)
            if len(met) == len(here) and total <= most.amount:
                return True
    return False


def wrong(seed: int) -> list[str]:
    """Return what is said wrongly of a claim."""
    policies, claim = claimed(seed)
    (proof,) = proved(policies, NOW)
    expected = true_of_all(policies, claim)
    problems = []
    if (proof.failure is None) is not expected:
        problems.append(f"said to be {proof.failure or 'proved'}, and it is {expected}")
    if proof.witness is not None and claim.never and not _shows(policies, claim, proof):
        problems.append(f"{proof.witness.facts} shows nothing")
    return problems


def _shows(policies: PolicySet, claim: Claim, proof: Proof) -> bool:
    assert proof.witness is not None
    cases = _Cases(replace(policies), claim)
    at = NOW if proof.witness.at is None else proof.witness.at
    return _gets(cases, claim, proof.witness.facts, at)


def looked_at(seed: int, counts: Counter[str]) -> list[str]:
    """Return what is said wrongly of a claim, and count what claims there were."""
    policies, claim = claimed(seed)
    kind = "never" if claim.never else "at_most" if claim.at_most else "said"
    counts[kind] += 1
    counts[f"{kind} proved"] += proved(policies, NOW)[0].failure is None
    return [f"{kind}: {problem}" for problem in wrong(seed)]


if __name__ == "__main__":
    over_seeds(looked_at)

"""The planner as composed functions: what rules mean, and the way for requests that are odd."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from guardrail.conditions import compile_condition
from guardrail.engine.index import Index
from guardrail.engine.keys import key_text, value_text
from guardrail.engine.plan import Finding, Plan
from guardrail.engine.verbs.base import Limit
from guardrail.model.amounts import SECOND, Amount, Fixed, FromFact, Lookup
from guardrail.model.cells import TOP
from guardrail.model.effects import Mode
from guardrail.model.rules import Block, CountingVerb, Degrade, Exemption, Rule

Facts = Mapping[str, Any]
Planner = Callable[[Plan], None]

UNSEEN = "u"
"""The member that stands for a value which is missing: all of those are one."""


def allowance(amount: Amount, facts: Facts) -> int | None:
    """Return an amount for one request; None is unlimited."""
    if isinstance(amount, Fixed):
        return amount.value
    value = facts.get(amount.fact)
    if value is None:
        return amount.missing
    if isinstance(amount, Lookup):
        return amount.table.get(value, amount.otherwise)
    return from_fact(amount, value)


def from_fact(amount: FromFact, value: float) -> int:
    """Return a fact's own value as an amount, rounded down to a whole unit.

    What a float lacks to the decimal it stands for (0.57 × 10⁶ is 569,999.99…) is made up first.
    """
    return min(max(0, int(round(value * amount.scale, 3))), TOP)


def member_text(verb: CountingVerb, facts: Facts) -> str:
    """Return the value that a rule which counts values shows to its set, else nothing."""
    count = verb.facts[len(verb.key.facts) :]
    if not count:
        return ""
    value = facts.get(count[0])
    return UNSEEN if value is None else "=" + value_text(value)


def rule_applies(rule: Rule, exemptions: Sequence[Exemption]) -> Callable[[Facts, int], bool]:
    """Return whether a rule applies: its dates, its condition, and no exemption from it."""
    condition = compile_condition(rule.when)
    on_unknown = rule.unknown != "skip"
    exceptions = [
        (compile_condition(exemption.when), exemption.unknown_holds, exemption.expires)
        for exemption in exemptions
        if rule.id in exemption.rules
    ]

    def applies(facts: Facts, now: int) -> bool:
        if rule.start is not None and now < rule.start:
            return False
        if rule.end is not None and now >= rule.end:
            return False
        seconds = now / SECOND
        answer = condition(facts, seconds)
        if not (on_unknown if answer is None else answer):
            return False
        for exempts, on_unknown_exempt, expires in exceptions:
            answer = exempts(facts, seconds) if now < expires else False
            if on_unknown_exempt if answer is None else answer:
                return False
        return True

    return applies


def static_finding(rule: Rule) -> Finding:
    """Return what a rule without counters asks for where it applies."""
    verb = cast(Block | Degrade, rule.verb)
    return Finding(rule.index, verb.verdict.effect, verb.verdict, None, rule.mode is Mode.SHADOW)


def rule_planner(rule: Rule, limit: Limit | None, exemptions: Sequence[Exemption]) -> Planner:
    """Return the function by which one rule adds what it asks for to a plan."""
    applies = rule_applies(rule, exemptions)
    verb = rule.verb
    if isinstance(verb, (Block, Degrade)):
        finding = static_finding(rule)

        def find(plan: Plan) -> None:
            if applies(plan.facts, plan.now):
                plan.findings.append(finding)

        return find
    key = key_text(verb.key.facts, rule.unknown)
    amounts = verb.allowances
    skips_unseen = rule.unknown == "skip"

    def count(plan: Plan) -> None:
        if not applies(plan.facts, plan.now):
            return
        whose = key(plan.facts)
        member = member_text(verb, plan.facts)
        if whose is None or (skips_unseen and member == UNSEEN):
            return
        allowances = tuple(allowance(amount, plan.facts) for amount in amounts)
        cast(Limit, limit).charge(plan, allowances, whose, member)

    return count


def compose(planners: Sequence[Planner], index: Index) -> Planner:
    """Return one planner that runs, in order, all that the index finds for a request."""
    always = [planners[place] for place in index.always]
    buckets = [
        (name, {value: [planners[p] for p in places] for value, places in bucket.items()})
        for name, bucket in index.buckets.items()
    ]

    def plan_all(plan: Plan) -> None:
        for planner in always:
            planner(plan)
        for name, bucket in buckets:
            for planner in bucket.get(plan.facts.get(name), ()):
                planner(plan)

    return plan_all

"""What rules ask of a request, read plainly: the interpreter, which writes plans.

This is the readable meaning. Generated decisions (`guardrail.engine.emit`) have to come to the
same, and leave to it what is odd. Planning costs some ten times what a generated decision does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from guardrail.engine.core import Engine
from guardrail.engine.expressions import Facts, allowance, key_text, spill_text, value_text
from guardrail.engine.facts import INVALID_FACT
from guardrail.engine.plan import Plan
from guardrail.engine.sizes import unusable
from guardrail.engine.verbs import Finding, Limit
from guardrail.model.amounts import SECOND
from guardrail.model.conditions import (
    Comparison,
    Condition,
    Every,
    Negation,
    Some,
    compile_condition,
)
from guardrail.model.effects import Effect, Mode
from guardrail.model.facts import Fact, FactType
from guardrail.model.rules import Block, CountingVerb, Degrade, Exemption, Rule, Verdict

FACT_MISSING = "fact-missing"
INVALID_ESTIMATE = "invalid-estimate"
FACTS_UNAVAILABLE = "facts-unavailable"
UNAVAILABLE_WAIT = SECOND

RulePlanner = Callable[[Plan, str | None], None]
"""Adds what one rule asks for to a plan; given under what strangers are counted, see `spill_text`.
"""


class Interpreter:
    """Plans requests by an engine's rules, as they are written."""

    def __init__(self, engine: Engine) -> None:
        """Compile the engine's rules to closures."""
        self.engine = engine
        planners = [
            _rule_planner(rule, limit, engine.policies.exemptions)
            for rule, limit in zip(engine.rules, engine.limits, strict=True)
        ]
        self._always = [planners[place] for place in engine.index.always]
        self._buckets = [
            (name, {value: [planners[p] for p in places] for value, places in bucket.items()})
            for name, bucket in engine.index.buckets.items()
        ]

    def plan(
        self,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None,
        now: int,
        serial: int,
        unavailable: frozenset[str] = frozenset(),
    ) -> Plan:
        """Return the plan for the request numbered `serial` at `now` (microseconds).

        `unavailable` names facts whose source failed; whatever hinges on them is refused.
        """
        engine, reader = self.engine, self.engine.reader
        if unavailable:
            unavailable = reader.widened(unavailable)
        reading = engine.read(facts, estimate, now, unavailable)
        plan = Plan(engine, facts, estimate, now, serial, reading)
        wrong = unusable(estimate)
        if wrong:
            plan.found.append(_unusable(wrong[0]))
        mistaken = reader.mistaken(facts, reading.facts)
        if mistaken is not None:
            plan.found.append(_mistaken(reader.facts[mistaken], facts[mistaken]))
        for name in engine.required:
            if name not in reading.facts:
                missing = _not_established(-1, name) if name in unavailable else absent(name)
                plan.found.append(missing)
        stranger = spill_text(reading.facts)
        for planner in self._always:
            planner(plan, stranger)
        for name, bucket in self._buckets:
            for planner in bucket.get(reading.facts.get(name), ()):
                planner(plan, stranger)
        if unavailable:
            self._refuse_the_unavailable(plan, unavailable)
        return plan

    def _refuse_the_unavailable(self, plan: Plan, unavailable: frozenset[str]) -> None:
        """Refuse what rests on facts whose source failed, for that reason alone.

        A rule took them as missing; what it found by that would treat a customer as another.
        """
        reading, engine = plan.read, self.engine
        unavailable -= reading.facts.keys()
        for rule, reads in zip(engine.rules, engine.facts_by_rule, strict=True):
            missed = sorted(reads & unavailable)
            if not missed or rule.mode is Mode.SHADOW:
                continue
            holds = compile_condition(_blinded(rule.when, unavailable))(
                reading.facts, reading.seconds
            )
            if holds is None:
                plan.found = [found for found in plan.found if found.order != rule.index]
            if holds is not False:
                plan.found.append(_not_established(rule.index, missed[0]))


UNSEEN = "u"
"""The member that stands for a value which is missing: all of those are one."""


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


def _rule_planner(rule: Rule, limit: Limit | None, exemptions: Sequence[Exemption]) -> RulePlanner:
    applies = rule_applies(rule, exemptions)
    verb = rule.verb
    if isinstance(verb, (Block, Degrade)):
        finding = static_finding(rule)

        def find(plan: Plan, stranger: str | None) -> None:
            if applies(plan.read.facts, plan.now):
                plan.found.append(finding)

        return find
    key = key_text(verb.key.facts, rule.unknown)
    amounts = verb.allowances
    skips_unseen = rule.unknown == "skip"
    limit = cast(Limit, limit)

    def count(plan: Plan, stranger: str | None) -> None:
        facts = plan.read.facts
        if not applies(facts, plan.now):
            return
        whose = key(facts)
        member = member_text(verb, facts)
        if whose is None or (skips_unseen and member == UNSEEN):
            return
        allowances = tuple(allowance(amount, facts, plan.now) for amount in amounts)
        cells = limit.cells(plan, allowances, member)
        if cells:
            plan.look(limit, cells, whose, stranger)

    return count


def _not_established(order: int, name: str) -> Finding:
    message = f"`{name}` cannot be established right now"
    verdict = Verdict(effect=Effect.THROTTLE, reason=FACTS_UNAVAILABLE, message=message, status=503)
    return Finding(order, Effect.THROTTLE, verdict, UNAVAILABLE_WAIT)


def absent(name: str) -> Finding:
    """Return the refusal of a request that lacks a required fact."""
    message = f"the request lacks `{name}`"
    verdict = Verdict(effect=Effect.BLOCK, reason=FACT_MISSING, message=message)
    return Finding(-1, Effect.BLOCK, verdict)


def _mistaken(fact: Fact, value: object) -> Finding:
    """Return the refusal of an identity that is none, whose fault is the host's."""
    what = "an empty text" if value == "" else f"of type `{type(value).__name__}`"
    instead = "give the identity as text" if fact.type is FactType.STRING else "give one"
    message = f"`{fact.name}` is {what}, not a {fact.type.value}: {instead}, or leave it out"
    verdict = Verdict(effect=Effect.BLOCK, reason=INVALID_FACT, message=message, status=503)
    return Finding(-1, Effect.BLOCK, verdict)


def _unusable(note: str) -> Finding:
    """Return the refusal of an estimate with an amount that is none."""
    verdict = Verdict(effect=Effect.BLOCK, reason=INVALID_ESTIMATE, message=f"the {note}")
    return Finding(-1, Effect.BLOCK, verdict)


def _blinded(condition: Condition, unavailable: frozenset[str]) -> Condition:
    """Return a condition whose tests of unavailable facts are unknown, `exists` among them."""
    if isinstance(condition, Comparison):
        if condition.fact in unavailable:
            return Comparison(condition.fact, "in", frozenset(), condition.text)
        return condition
    if isinstance(condition, Negation):
        return Negation(_blinded(condition.part, unavailable))
    parts = tuple(_blinded(part, unavailable) for part in condition.parts)
    return Every(parts) if isinstance(condition, Every) else Some(parts)

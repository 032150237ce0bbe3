"""Conditions that hold for more than was meant: facts that may be missing, exemptions for all."""

from __future__ import annotations

from itertools import product

from guardrail.loading.lint.written import Written
from guardrail.loading.text import listed, quoted
from guardrail.model.conditions import ALWAYS, Answer, Comparison, Condition, Every, Negation
from guardrail.model.conditions import facts_of as facts_read
from guardrail.model.effects import Mode
from guardrail.model.facts import Fact
from guardrail.model.rules import Block

_ANY: frozenset[Answer] = frozenset((True, False))


def lint_conditions(written: Written) -> None:
    """Report conditions that decide by what is missing, and exemptions that hold for everyone."""
    for rule in written.policies.rules:
        if isinstance(rule.verb, Block) and rule.unknown is None and rule.mode is Mode.ENFORCE:
            facts = [written.policies.facts[name] for name in sorted(facts_read(rule.when))]
            decisive = [fact.name for fact in facts if _decides_missing(rule.when, fact)]
            if decisive:
                message = f"rule {quoted(rule.id)} blocks whoever has no {listed(decisive, 'or')}"
                label = "unknown, and so it matches"
                help = "write `unknown: match` if that is meant, or `unknown: skip`"
                at = written.place(rule).key_span(("when",))
                written.scope.findings.report("GR204", at, message, label=label, help=help)
    for exemption in written.policies.exemptions:
        if exemption.when == ALWAYS:
            message = f"exemption {quoted(exemption.id)} lifts its rules for everyone"
            help = "say who is exempt, or set the rules' `mode: off`"
            at = written.place(exemption).key_span(("when",))
            written.scope.findings.report("GR227", at, message, help=help)


def _decides_missing(condition: Condition, fact: Fact) -> bool:
    """Tell whether a request that lacks a fact can leave the condition unknown for it."""
    if fact.default is not None or fact.required or fact.name.startswith("time."):
        return False
    return None in _answers(condition, fact.name)


def _answers(condition: Condition, missing: str) -> frozenset[Answer]:
    """Return what a condition can answer without one fact, all others known."""
    if isinstance(condition, Comparison):
        if condition.fact == missing and condition.operator == "exists":
            return frozenset((condition.operand is False,))
        unknown = condition.fact == missing or (
            condition.operator == "same_as" and condition.operand == missing
        )
        return frozenset((None,)) if unknown else _ANY
    if isinstance(condition, Negation):
        return frozenset(
            None if answer is None else not answer for answer in _answers(condition.part, missing)
        )
    found: frozenset[Answer] = frozenset((isinstance(condition, Every),))
    for part in condition.parts:
        pairs = product(found, _answers(part, missing))
        found = frozenset(
            _both(*pair) if isinstance(condition, Every) else _either(*pair) for pair in pairs
        )
    return found


def _both(one: Answer, other: Answer) -> Answer:
    if one is False or other is False:
        return False
    return None if one is None or other is None else True


def _either(one: Answer, other: Answer) -> Answer:
    if one is True or other is True:
        return True
    return None if one is None or other is None else False

"""What is found of parts of rules (branches, tests, steps) and of exemptions for everyone.

`python -m tests.analysis.enumerated_parts COUNT SEED` holds it against every request of so many
random policy sets, one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from guardrail.analysis import analyse
from guardrail.engine import FactReader
from guardrail.errors import Diagnostic
from guardrail.model.amounts import SECOND
from guardrail.model.conditions import (
    ALWAYS,
    Comparison,
    Condition,
    Negation,
    Some,
    compile_condition,
    facts_of,
    text_of,
)
from guardrail.model.effects import Mode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Budget, Exemption, Rule, Step
from tests.analysis.enumerated import loosened
from tests.analysis.enumerated_limits import limited
from tests.analysis.seeds import over_seeds
from tests.analysis.small_sets import (
    NOW,
    TIMES,
    Asked,
    Reading,
    asked,
    how_many,
    made_of,
    requests,
)

MOST_REQUESTS = 1_500
Answers = Mapping[Condition, frozenset[bool | None]]


def answers_of(policies: PolicySet) -> Answers:
    """Return, of every part of every condition, the answers that it has of some request."""
    whens = [rule.when for rule in policies.rules] + [one.when for one in policies.exemptions]
    parts = list(dict.fromkeys(part for when in whens for part in _parts(when)))
    used = {name for part in parts for name in facts_of(part)}
    reader = FactReader(policies.facts, used, "UTC")
    compiled = [(part, compile_condition(part)) for part in parts]
    found: dict[Condition, set[bool | None]] = {part: set() for part in parts}
    for request in requests(policies):
        for now in TIMES:
            typed = reader.read(request, now / SECOND)[0]
            for part, holds in compiled:
                found[part].add(holds(typed, now / SECOND))
    return {part: frozenset(answers) for part, answers in found.items()}


def _parts(condition: Condition) -> Iterator[Condition]:
    yield condition
    if isinstance(condition, Negation):
        yield from _parts(condition.part)
    elif not isinstance(condition, Comparison):
        for part in condition.parts:
            yield from _parts(part)


def wrong_parts(policies: PolicySet) -> list[str]:
    """Return what is found wrongly, or missed, of the parts of a set."""
    told = analyse(policies, NOW)
    answers = answers_of(policies)
    never = {d.message.split("`")[1] for d in told if d.code == "GR201" and _is_part(d)}
    always = {
        d.message.split("`")[1] for d in told if d.code == "GR216" and "the test" in d.message
    }
    choices = {
        d.message for d in told if d.code == "GR216" and d.message.startswith("one of these")
    }
    problems: list[str] = []
    by_text = {text_of(part): found for part, found in answers.items()}
    problems += [f"`{text}` can be true" for text in never if True in by_text[text]]
    problems += [f"`{text}` can be false" for text in always if False in by_text[text]]
    for rule in policies.rules:
        if rule.mode is not Mode.OFF and True in answers[rule.when] and rule.when != ALWAYS:
            for part in _silent(rule.when, answers, never):
                if isinstance(part, Comparison) and False not in answers[part]:
                    if part.text not in always:
                        problems.append(f"{rule.id}: `{part.text}` is always true")
                elif True not in answers[part]:
                    problems.append(f"{rule.id}: `{text_of(part)}` can never be true")
    expected = {
        "one of these always holds: " + " or ".join(map(text_of, part.parts))
        for part, found in answers.items()
        if isinstance(part, Some) and len(part.parts) > 1 and False not in found
    }
    problems += [f"not so: {message}" for message in choices - expected]
    problems += _wrong_steps(policies, told)
    problems += _wrong_for_all(policies, answers, told)
    return problems


def _is_part(told: Diagnostic) -> bool:
    return not told.message.startswith("the condition of")


def _silent(condition: Condition, answers: Answers, never: set[str]) -> Iterator[Condition]:
    """Yield the parts of a condition that stand in none that is told never to be true."""
    if text_of(condition) in never:
        return
    yield condition
    if isinstance(condition, Negation):
        # What is always false below a `not` is what makes it always true, and is told itself.
        yield from _silent(condition.part, answers, never)
    elif not isinstance(condition, Comparison):
        for part in condition.parts:
            yield from _silent(part, answers, never)


def _wrong_steps(policies: PolicySet, told: Sequence[Diagnostic]) -> list[str]:
    gone = {d.message.split("`")[1] for d in told if d.code == "GR202"}
    claimed = {
        (d.message.split("`")[1], int(d.message.split("%")[0].rsplit(" ", 1)[1]))
        for d in told
        if d.code == "GR217"
    }
    rest = made_of(
        policies.facts, [r for r in policies.rules if r.id not in gone], policies.exemptions
    )
    expected = {
        (rule.id, step.percent)
        for rule in rest.rules
        if rule.mode is Mode.ENFORCE and isinstance(rule.verb, Budget) and len(rule.verb.steps) > 1
        for step in rule.verb.steps
        if _is_idle(rest, rule, rule.verb, step)
    }
    return [] if claimed == expected else [f"GR217: claimed {claimed}, and it is {expected}"]


def _is_idle(policies: PolicySet, rule: Rule, verb: Budget, step: Step) -> bool:
    """Tell whether a step asks for nothing that earlier ones, or other rules, do not ask for."""
    every = _by_step(policies, rule, step)
    own = [(was, others) for was, others in every if ("refuse",) not in dict(was).values()]
    if not any(what for was, _ in own for _, what in was):
        asked_of_any = any(
            name == rule.id and w[0] == "limit" for was, _ in every for name, w in was
        )
        return asked_of_any and step is not verb.steps[-1]
    earlier = [s.verdict.effect for s in verb.steps if s.percent < step.percent]
    if any(effect.refuses and effect >= step.verdict.effect for effect in earlier):
        return True
    return not loosened(own)


def _by_step(
    policies: PolicySet, rule: Rule, step: Step
) -> list[tuple[list[tuple[str, Asked]], list[tuple[str, Asked]]]]:
    reading = Reading(policies)
    exemptible = {one.id for one in policies.rules if one.exemptible}
    found = []
    for request in requests(policies):
        for now in TIMES:
            every = asked(reading, request, now)
            mine = [(n, w) for n, w in every if n == rule.id and w[0] == "limit"]
            own = [(n, w) for n, w in mine if w[12] == step.percent]
            refusing = [(n, w) for n, w in every if w == ("refuse",)]
            others = [
                (n, w)
                for n, w in every
                if n != rule.id and (n not in exemptible or rule.exemptible)
            ]
            found.append(([*own, *refusing], others))
    return found


def _wrong_for_all(policies: PolicySet, answers: Answers, told: Sequence[Diagnostic]) -> list[str]:
    claimed = {d.message.split("`")[1] for d in told if d.code == "GR227"}
    expected = set()
    for one in policies.exemptions:
        holds = {one.unknown_holds if found is None else found for found in answers[one.when]}
        for_all = holds == {True} or _holds_for_others(policies, one)
        if one.expires > NOW and one.when != ALWAYS and for_all:
            expected.add(one.id)
    return [] if claimed == expected else [f"GR227: claimed {claimed}, and it is {expected}"]


def _holds_for_others(policies: PolicySet, exemption: Exemption) -> bool:
    """Tell whether an exemption holds for every account and organisation that it does not name."""
    reader = FactReader(policies.facts, set(facts_of(exemption.when)), "UTC")
    holds = compile_condition(exemption.when)
    tests = [
        test
        for test in _parts(exemption.when)
        if isinstance(test, Comparison)
        and test.fact in ("account.id", "account.org", "client.ip")
        and test.operator in ("in", "not_in", "prefix", "cidr")
    ]
    answers = set()
    for request in requests(policies):
        for now in TIMES:
            typed = reader.read(request, now / SECOND)[0]
            if all(t.fact in typed and not _names(t, typed[t.fact]) for t in tests):
                found = holds(typed, now / SECOND)
                answers.add(exemption.unknown_holds if found is None else found)
    return bool(tests) and answers == {True}


def _names(test: Comparison, value: str) -> bool:
    operand: Any = test.operand
    if test.operator == "prefix":
        return value.startswith(operand)
    if test.operator == "cidr":
        return any(ip_address(value) in one for one in operand)
    return value in operand


def looked_at(seed: int, counts: Counter[str]) -> list[str]:
    """Return what is wrong of the parts of a set's rules, and count what was found of them."""
    policies = replace(limited(seed), claims=())
    if how_many(policies) > MOST_REQUESTS:
        counts["too many requests"] += 1
        return []
    counts["sets"] += 1
    counts.update({d.code for d in analyse(policies, NOW)})
    return wrong_parts(policies)


if __name__ == "__main__":
    over_seeds(looked_at)

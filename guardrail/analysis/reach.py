"""What of a policy a decision shows to work: rows of tables, steps of budgets, branches of rules.

A test that a rule decides holds no more of it than what it went through: the amount of another row
could be anything. Points are named by rule, kind and text, in the order of the set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from guardrail.engine import REPEATED, Decision, allowance, rule_applies
from guardrail.model.amounts import Banded, Lookup, without_raises
from guardrail.model.conditions import (
    Condition,
    Every,
    Negation,
    Some,
    compile_condition,
    text_of,
)
from guardrail.model.effects import Effect, Mode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import BURST, Rule, Step

KINDS = ("row", "step", "branch")
"""The kinds of points, as they are counted and told."""

_OTHERWISE = "else"


class Point(NamedTuple):
    """One thing a test can show: a row, a step or a branch of a rule, as its author wrote it."""

    rule: str
    kind: str
    text: str


def points_of(policies: PolicySet) -> tuple[Point, ...]:
    """Return every point of a policy set, rules that are off left out."""
    found: dict[Point, None] = {}
    for rule in policies.rules:
        if rule.mode is Mode.OFF:
            continue
        for unit, table in _tables(rule):
            names = _rows(table, policies.facts[table.fact].values)
            found.update((_row(rule, unit, name), None) for name in names)
        found.update((_step(rule, step), None) for step in _steps(rule))
        if rule.escalate is not None:
            found[_escalation(rule)] = None
        found.update((point, None) for point, _ in _branches(rule))
    return tuple(found)


def reached(decision: Decision, *, shadow: bool, notices: Mapping[str, object]) -> set[Point]:
    """Return the points that a decision, known to be as it should, went through.

    Those of the rule that decided, with `shadow` of the shadow rules that would have acted, and of
    the steps whose `x-…` entries are among `notices`; and every row without a limit that held.
    """
    engine = decision.case.engine
    reading = engine.reading(decision.case)
    names = {decision.rule} | ({found.rule for found in decision.shadow} if shadow else set())
    found: set[Point] = set()
    acting: dict[str, set[Point]] = {}
    for receipt, _ in decision.case.consulted:
        rule = engine.counters[receipt.number][0].rule
        used = (receipt.used + receipt.increment) * 100
        over = [step for step in _steps(rule) if used > receipt.allowance * step.percent]
        if not over:
            continue
        step = max(over, key=lambda step: (step.verdict.effect, step.percent))
        acting.setdefault(rule.id, set()).add(_step(rule, step))
        obliged = step.verdict.obligations
        if (
            step.verdict.effect is Effect.ALLOW
            and obliged
            and obliged.extra.items() <= (notices.items())
        ):
            names.add(rule.id)
    for rule in engine.policies.rules:
        if rule.id in names:
            found |= acting.get(rule.id, set()) | _held(rule, reading.facts, reading.seconds)
            if decision.rule == rule.id and decision.reason == REPEATED:
                found.add(_escalation(rule))
        elif rule.mode is not Mode.OFF and decision.allowed:
            found |= _unlimited(rule, engine.policies, reading.facts, reading.now)
    return found


def _held(rule: Rule, facts: Mapping[str, Any], now: float) -> set[Point]:
    rows = {_row(rule, unit, _entry(table, facts)) for unit, table in _tables(rule)}
    branches = {point for point, part in _branches(rule) if compile_condition(part)(facts, now)}
    return rows | branches


def _unlimited(rule: Rule, policies: PolicySet, facts: Mapping[str, Any], now: int) -> set[Point]:
    rows = {
        _row(rule, unit, _entry(table, facts))
        for unit, table in _tables(rule)
        if allowance(table, facts, now) is None
    }
    if rows and rule_applies(rule, policies.exemptions)(facts, now):
        return rows
    return set()


def _rows(table: Lookup | Banded, values: tuple[str, ...]) -> list[object]:
    """Return the names of a table's rows, given the values its fact lists."""
    if isinstance(table, Banded):
        return [*(band.text for band in table.bands), _OTHERWISE]
    whole = bool(values) and all(value in table.table for value in values)
    return [*table.table, *(() if whole else (_OTHERWISE,))]


def _tables(rule: Rule) -> Iterator[tuple[str, Lookup | Banded]]:
    verb = rule.verb
    # A rate has one unit and a burst beside it.
    units = ("", BURST) if len(verb.allowances) > len(verb.units) else verb.units
    every = tuple(map(without_raises, verb.allowances))
    for place, amount in enumerate(every):
        if isinstance(amount, Lookup | Banded) and (place == 0 or amount is not every[0]):
            yield (units[place] if len(units) > 1 else ""), amount


def _entry(table: Lookup | Banded, facts: Mapping[str, Any]) -> object:
    value = facts.get(table.fact)
    if isinstance(table, Banded):
        row = 0 if value is None else table.row(value)
        return table.bands[row - 1].text if row else _OTHERWISE
    return value if value in table.table else _OTHERWISE


def _row(rule: Rule, unit: str, name: object) -> Point:
    text = str(name).lower() if isinstance(name, bool) else str(name)
    return Point(rule.id, "row", f"{unit} {text}".strip())


def _steps(rule: Rule) -> tuple[Step, ...]:
    return rule.verb.on_the_way


def _step(rule: Rule, step: Step) -> Point:
    effect = step.verdict.effect
    name = "notify" if effect is Effect.ALLOW else str(effect)
    return Point(rule.id, "step", f"{step.percent}% {name}")


def _escalation(rule: Rule) -> Point:
    return Point(rule.id, "step", "escalate")


def _branches(rule: Rule) -> Iterator[tuple[Point, Condition]]:
    for part in _alternatives(rule.when):
        yield Point(rule.id, "branch", text_of(part)), part


def _alternatives(condition: Condition, *, negated: bool = False) -> Iterator[Condition]:
    """Yield the parts of each `any`; below a `not` a rule acts where none of them holds."""
    if isinstance(condition, Negation):
        yield from _alternatives(condition.part, negated=not negated)
    elif isinstance(condition, Every | Some):
        for part in condition.parts:
            if isinstance(condition, Some) and not negated:
                yield part
            yield from _alternatives(part, negated=negated)

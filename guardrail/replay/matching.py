"""Requests that no rule can tell apart, counted together and evaluated once.

A decision names the rule that decided, not every rule that applied. To know those without
evaluating each rule again for each request, requests are sorted into kinds by what conditions
can see of them, and the rules are evaluated once for each kind.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import cast

from guardrail.engine import FactReader, rule_applies, rule_facts
from guardrail.model.amounts import SECOND
from guardrail.model.conditions import (
    Comparison,
    Condition,
    Every,
    Negation,
    Some,
    compile_condition,
    facts_of,
)
from guardrail.model.effects import Mode
from guardrail.model.facts import AGES, FactType
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Exemption, Rule

MOST_NOTES = 1_000
"""How many different notes are told apart."""

Facts = Mapping[str, object]
Kind = tuple[object, ...]

_QUARTER = 900
"""Time zones are whole quarters of an hour apart: within one, the local hour does not change."""

_CLOCK_FACTS = frozenset(("time.hour", "time.weekday"))


class Matching:
    """Counts, for each rule, the requests it matched and those it decided on a missing fact.

    `hinged` counts the latter by rule and missing facts; `notes` counts what was wrong with the
    facts that rules read.
    """

    def __init__(self, policies: PolicySet) -> None:
        self.matched: Counter[str] = Counter()
        self.hinged: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.notes: Counter[str] = Counter()
        rules = [rule for rule in policies.rules if rule.mode is not Mode.OFF]
        self._rules = [
            (rule, compile_condition(rule.when), rule_applies(rule, policies.exemptions))
            for rule in rules
        ]
        lifted = {rule.id for rule in rules}
        exemptions = [found for found in policies.exemptions if lifted.intersection(found.rules)]
        conditions = [rule.when for rule in rules] + [found.when for found in exemptions]
        names = frozenset().union(*(rule_facts(rule, policies.exemptions) for rule in rules))
        self._reader = FactReader(policies.facts, names, policies.timezone)
        self._clock = bool(names & _CLOCK_FACTS)
        self._ages = _ages(conditions)
        self._turns = _turns(rules, exemptions)
        members = _members(policies, conditions)
        self._listed = [(name, found) for name, found in members.items() if found is not None]
        self._plain = [name for name, found in members.items() if found is None]
        # Of a fact that no condition tests, only the type can be wrong.
        derived = self._reader.derivations.keys()
        self._other = sorted(self._reader.used - members.keys() - derived)

    def kind(self, ts: float, facts: Facts) -> Kind:
        """Return what tells a request's kind: requests of one kind match the same rules."""
        get = facts.get
        kind: Kind = (*map(get, self._plain), *map(type, map(get, self._other)))
        for name, members in self._listed:
            value = get(name)
            kind += (value if value.__class__ is not str or value in members else None.__class__,)
        if self._turns:
            kind += (bisect_right(self._turns, ts),)
        if self._ages:
            kind += (ts,)
        elif self._clock:
            kind += (ts // _QUARTER,)
        return kind

    def add(self, count: int, ts: float, raw: Facts, decided: str | None) -> None:
        """Count requests of one kind, given one of them and the rule that decided all of them."""
        facts, notes = self._reader.read(raw, ts)
        for note in notes:
            if note in self.notes or len(self.notes) < MOST_NOTES:
                self.notes[note] += count
        now = round(ts * SECOND)
        for rule, condition, applies in self._rules:
            if not applies(facts, now):
                continue
            self.matched[rule.id] += count
            if rule.id == decided and condition(facts, ts) is None:
                missing = tuple(sorted(facts_of(rule.when) - facts.keys()))
                self.hinged[rule.id, missing] += count


def _ages(conditions: list[Condition]) -> bool:
    """Tell whether a condition compares a fact with the running time."""
    return any(
        test.fact in AGES or (test.operator in ("before", "after") and not test.operand)
        for condition in conditions
        for test in _tests(condition)
    )


def _turns(rules: list[Rule], exemptions: list[Exemption]) -> list[float]:
    """Return the moments at which a rule or an exemption starts or ends, in seconds."""
    moments = [moment for rule in rules for moment in (rule.start, rule.end)]
    moments += [found.expires for found in exemptions]
    return sorted({moment / SECOND for moment in moments if moment is not None})


def _members(
    policies: PolicySet, conditions: list[Condition]
) -> dict[str, frozenset[object] | None]:
    """Return the facts that conditions test, each with the values that matter.

    None where every value may matter. A text tested only for being one of some values matters no
    further; what typing makes of other types' values is not known here.
    """
    members: dict[str, set[object] | None] = {}
    for condition in conditions:
        for test in _tests(condition):
            known = members.setdefault(test.fact, set())
            if test.operator in ("in", "not_in") and known is not None:
                known.update(cast(frozenset[object], test.operand))
            elif test.operator != "exists":
                members[test.fact] = None
            if test.operator == "same_as":
                members[str(test.operand)] = None
    members.update((AGES[name], None) for name in AGES.keys() & members.keys())
    if "account.bucket" in members:
        members["account.id"] = None
    return {
        name: None
        if values is None or policies.facts[name].type is not FactType.STRING
        else frozenset(values)
        for name, values in sorted(members.items())
    }


def _tests(condition: Condition) -> Iterator[Comparison]:
    if isinstance(condition, Comparison):
        yield condition
    elif isinstance(condition, Negation):
        yield from _tests(condition.part)
    elif isinstance(condition, Every | Some):
        for part in condition.parts:
            yield from _tests(part)

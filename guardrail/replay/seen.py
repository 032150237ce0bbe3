"""Which values of the facts that rules test were in the traffic, and which tests never held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from guardrail.engine import FactReader
from guardrail.model.conditions import (
    ALWAYS,
    Comparison,
    Condition,
    Every,
    Negation,
    compile_condition,
    facts_of,
)
from guardrail.model.effects import Mode
from guardrail.model.facts import Fact, FactType
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Rule

MOST_VALUES = 1_000
"""How many values of a fact are told apart; those whose texts come first are kept."""

_NAMED = (FactType.STRING, FactType.ENUM, FactType.LEVEL, FactType.COUNTRY, FactType.BOOL)


class Part(NamedTuple):
    """A part of a rule's condition, all of which have to hold."""

    rule: str
    condition: Condition


class Seen:
    """Counts the values of the facts that rules test, and keeps which parts of rules never held.

    `present` counts by fact the requests that had it; `values` counts values of facts that are
    names of something. Of texts that no rule names only some are told apart, and their counts are
    not exact.
    """

    def __init__(self, policies: PolicySet) -> None:
        self.rules = [rule for rule in policies.rules if rule.mode is not Mode.OFF]
        self.requests = 0
        self.present: Counter[str] = Counter()
        self.values: dict[str, Counter[str]] = {}
        names = frozenset().union(*(facts_of(rule.when) for rule in self.rules))
        self._reader = FactReader(policies.facts, names, policies.timezone)
        self._tested = [self._reader.facts[name] for name in sorted(names)]
        self._never = {
            (rule.id, place): compile_condition(part)
            for rule in self.rules
            for place, part in enumerate(parts_of(rule))
        }

    def add(self, count: int, ts: float, raw: Mapping[str, object]) -> None:
        """Count requests of one kind, given one of them."""
        facts, _ = self._reader.read(raw, ts)
        self.requests += count
        for fact in self._tested:
            value = facts.get(fact.name)
            if value is None:
                continue
            self.present[fact.name] += count
            if fact.type in _NAMED:
                self._count(fact.name, _text(value), count)
        held = [key for key, holds in self._never.items() if holds(facts, ts) is True]
        for key in held:
            del self._never[key]

    def __getstate__(self) -> dict[str, object]:
        """Return the figures alone, for another process to merge."""
        return {
            "requests": self.requests,
            "present": self.present,
            "values": self.values,
            "_never": dict.fromkeys(self._never),
        }

    def merge(self, other: Seen) -> None:
        """Add what was seen in other requests."""
        self.requests += other.requests
        self.present.update(other.present)
        for name, values in other.values.items():
            for value, count in values.items():
                self._count(name, value, count)
        for key in [key for key in self._never if key not in other._never]:
            del self._never[key]

    def never_held(self, rule: Rule) -> list[Condition]:
        """Return the parts of a rule's condition that held for no request."""
        return [
            part for place, part in enumerate(parts_of(rule)) if (rule.id, place) in self._never
        ]

    def missing(self, fact: str) -> int:
        """Return how many requests lacked a fact."""
        return self.requests - self.present[fact]

    @property
    def tested(self) -> list[Fact]:
        """The facts that rules test."""
        return list(self._tested)

    def _count(self, name: str, value: str, count: int) -> None:
        values = self.values.setdefault(name, Counter())
        values[value] += count
        if len(values) > MOST_VALUES:
            del values[max(values)]


def parts_of(rule: Rule) -> tuple[Condition, ...]:
    """Return what all has to hold for a rule to match."""
    if rule.when is ALWAYS:
        return ()
    return rule.when.parts if isinstance(rule.when, Every) else (rule.when,)


def named_values(condition: Condition) -> Iterator[tuple[str, str]]:
    """Yield the facts and values that a condition names."""
    if isinstance(condition, Comparison):
        if condition.operator in ("in", "not_in") and isinstance(condition.operand, frozenset):
            yield from ((condition.fact, _text(value)) for value in condition.operand)
    elif isinstance(condition, Negation):
        yield from named_values(condition.part)
    else:
        for part in condition.parts:
            yield from named_values(part)


def needed(condition: Condition) -> Iterator[str]:
    """Yield the facts without which a condition is unknown."""
    if isinstance(condition, Comparison):
        if condition.operator != "exists":
            yield condition.fact
    elif isinstance(condition, Negation):
        yield from needed(condition.part)
    else:
        for part in condition.parts:
            yield from needed(part)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

"""Which values of the facts that rules test were in the traffic, and which tests never held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from guardrail.engine import FOLLOWS_FROM, FactReader
from guardrail.model.conditions import (
    ALWAYS,
    Condition,
    Every,
    comparisons,
    compile_condition,
    facts_of,
)
from guardrail.model.effects import Mode
from guardrail.model.facts import Fact, FactType
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Rule
from guardrail.replay.few import FewNames

MOST_VALUES = 1_000
"""How many values of a fact are told apart, beside those that rules name."""
MOST_WAITING = 16_384
"""How many values of a fact are counted before those that are too many are left out."""

_NAMED = (FactType.STRING, FactType.ENUM, FactType.LEVEL, FactType.COUNTRY, FactType.BOOL)


class Part(NamedTuple):
    """A part of a rule's condition, all of which have to hold."""

    rule: str
    condition: Condition


class Seen:
    """Counts the values of the facts that rules test, and keeps which parts of rules never held.

    `present` counts by fact the requests that had it. The values of facts that are names of
    something are counted: all that rules name, and `MOST_VALUES` of the others and of those spelt
    nearly as one that is named. Counts are exact, whatever the order of the requests.

    Requests come as kinds, by `add`. Of the facts in `merged` a kind holds different texts: these
    are counted by `state`, for each request.
    """

    def __init__(self, policies: PolicySet, merged: Collection[str] = ()) -> None:
        self.rules = [rule for rule in policies.rules if rule.mode is not Mode.OFF]
        self.requests = 0
        self.present: Counter[str] = Counter()
        names = frozenset().union(*(facts_of(rule.when) for rule in self.rules))
        self._reader = FactReader(policies.facts, names, policies.timezone)
        self._tested = [self._reader.facts[name] for name in sorted(names)]
        self._values = {fact.name: _Values() for fact in self._tested if fact.type in _NAMED}
        for rule in self.rules:
            for name, value in named_values(rule.when):
                if name in self._values:
                    self._values[name].name(value)
        self._waiting: dict[str, dict[str, int]] = {
            name: {} for name in sorted(names.intersection(merged))
        }
        self.stated = [
            (name, self._source(name), waiting) for name, waiting in self._waiting.items()
        ]
        """The facts that `state` counts: their names, whose text they take, their counts."""
        self._never = {
            (rule.id, place): compile_condition(part)
            for rule in self.rules
            for place, part in enumerate(parts_of(rule))
        }

    def state(self, get: Callable[[str], object]) -> None:
        """Count what one request states of the facts whose texts a kind does not tell apart."""
        for name, source, waiting in self.stated:
            value = get(name)
            if value is None and source is not None:
                value = get(source)
            if value.__class__ is str:
                try:
                    waiting[value] += 1
                except KeyError:
                    if len(waiting) >= MOST_WAITING:
                        self.settle()
                    waiting[value] = 1

    def settle(self) -> None:
        """Complete the figures by what was stated."""
        for name, waiting in self._waiting.items():
            for value, count in waiting.items():
                if value or name not in self._reader.identities:
                    self.present[name] += count
                    self._values[name].add(value, count)
            waiting.clear()

    def add(self, count: int, ts: float, raw: Mapping[str, object]) -> None:
        """Count requests of one kind, given one of them."""
        facts, _ = self._reader.read(raw, ts)
        self.requests += count
        for fact in self._tested:
            value = facts.get(fact.name)
            if value is None or self._is_stated(fact.name, raw):
                continue
            self.present[fact.name] += count
            if fact.type in _NAMED:
                self._values[fact.name].add(_text(value), count)
        held = [key for key, holds in self._never.items() if holds(facts, ts) is True]
        for key in held:
            del self._never[key]

    def __getstate__(self) -> dict[str, object]:
        """Return the figures alone, for another process to merge."""
        return {
            "requests": self.requests,
            "present": self.present,
            "_values": self._values,
            "_never": dict.fromkeys(self._never),
        }

    def merge(self, other: Seen) -> None:
        """Add what was seen in other requests."""
        self.requests += other.requests
        self.present.update(other.present)
        for name, values in other._values.items():
            self._values[name].merge(values)
        for key in [key for key in self._never if key not in other._never]:
            del self._never[key]

    def values(self, fact: str) -> Counter[str]:
        """Return how many requests had each value of a fact that was told apart."""
        return self._values[fact].counts if fact in self._values else Counter()

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

    def _source(self, name: str) -> str | None:
        """Return the fact whose text a merged one takes where it is missing itself."""
        follows = name in self._reader.derivations and self._reader.facts[name].default is None
        return FOLLOWS_FROM.get(name) if follows else None

    def _is_stated(self, name: str, raw: Mapping[str, object]) -> bool:
        """Tell whether `state` counts what a request has of a fact."""
        if name not in self._waiting:
            return False
        value, source = raw.get(name), self._source(name)
        if value is None and source is not None:
            value = raw.get(source)
        return value.__class__ is str


class _Values:
    """Counts of a fact's values: of all those named, and of so many others."""

    def __init__(self) -> None:
        self._named: Counter[str] = Counter()
        self._alike: FewNames[str] = FewNames(MOST_VALUES)
        self._others: FewNames[str] = FewNames(MOST_VALUES)
        self._names: set[str] = set()
        self._bare: set[str] = set()

    def name(self, value: str) -> None:
        """Keep a value, and those spelt nearly as it is."""
        self._names.add(value)
        self._bare.add(bare(value))

    def add(self, value: str, count: int) -> None:
        if value in self._names:
            self._named[value] += count
        elif bare(value) in self._bare:
            self._alike.add(value, count)
        else:
            self._others.add(value, count)

    def merge(self, other: _Values) -> None:
        self._named.update(other._named)
        self._alike.merge(other._alike)
        self._others.merge(other._others)

    def __getstate__(self) -> dict[str, object]:
        """Return the figures alone."""
        return {"_named": self._named, "_alike": self._alike, "_others": self._others}

    @property
    def counts(self) -> Counter[str]:
        return Counter({**self._named, **self._alike, **self._others})


def bare(value: str) -> str:
    """Return a value without its case and its separators."""
    return "".join(filter(str.isalnum, value.casefold()))


def parts_of(rule: Rule) -> tuple[Condition, ...]:
    """Return what all has to hold for a rule to match."""
    if rule.when is ALWAYS:
        return ()
    return rule.when.parts if isinstance(rule.when, Every) else (rule.when,)


def named_values(condition: Condition) -> Iterator[tuple[str, str]]:
    """Yield the facts and values that a condition names."""
    for test in comparisons(condition):
        if test.operator in ("in", "not_in") and isinstance(test.operand, frozenset):
            yield from ((test.fact, _text(value)) for value in test.operand)


def needed(condition: Condition) -> Iterator[str]:
    """Yield the facts without which a condition is unknown."""
    return (test.fact for test in comparisons(condition) if test.operator != "exists")


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

"""Requests that no rule can tell apart, counted together and evaluated once.

A decision names the rule that decided, not every rule that applied. To know those without
evaluating each rule again for each request, requests are sorted into kinds by what conditions
can see of them, and the rules are evaluated once for each kind.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from guardrail.engine import FOLLOWS_FROM, FactReader, define, rule_applies, rule_facts
from guardrail.model.amounts import SECOND
from guardrail.model.conditions import (
    Comparison,
    Condition,
    comparisons,
    compile_condition,
    facts_of,
)
from guardrail.model.effects import Mode
from guardrail.model.facts import AGES, Fact, FactType, typed_value
from guardrail.model.policy import PolicySet
from guardrail.model.rules import CountingVerb, Exemption, Rule
from guardrail.replay.few import FewNames
from guardrail.traffic.requests import LATEST

MOST_NOTES = 1_000
"""How many different notes are told apart."""

MOST_VALUES = 65_536
"""How many values of facts that no condition tests are remembered as right or wrong."""

Facts = Mapping[str, object]
Kind = tuple[object, ...]

_NUMBERS = (int, float)
_NO_MEMBERS: frozenset[object] = frozenset()
_EMPTY: frozenset[object] = frozenset(("",))
"""What tells one text from all others where none is named: an empty identity is none."""

_QUARTER = 900
"""Time zones are whole quarters of an hour apart: within one, the local hour does not change."""

_CLOCK_FACTS = frozenset(("time.hour", "time.weekday"))


class Matching:
    """Counts, for each rule, the requests it matched and those it decided on a missing fact.

    `hinged` counts the latter by rule and missing facts; `keyless` counts the requests that a rule
    matched and that lack a fact of its key, by rule and fact, and `keyless_decided` those of them
    that it decided. `notes` counts what was wrong with the facts that rules read.
    """

    def __init__(self, policies: PolicySet) -> None:
        self.matched: Counter[str] = Counter()
        self.hinged: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.keyless: Counter[tuple[str, str]] = Counter()
        self.keyless_decided: Counter[tuple[str, str]] = Counter()
        self.notes: FewNames[str] = FewNames(MOST_NOTES)
        rules = [rule for rule in policies.rules if rule.mode is not Mode.OFF]
        self._rules = [
            (rule, compile_condition(rule.when), rule_applies(rule, policies.exemptions))
            for rule in rules
        ]
        self._keys = {
            rule.id: rule.verb.key.facts for rule in rules if isinstance(rule.verb, CountingVerb)
        }
        lifted = {rule.id for rule in rules}
        exemptions = [found for found in policies.exemptions if lifted.intersection(found.rules)]
        conditions = [rule.when for rule in rules] + [found.when for found in exemptions]
        names = frozenset().union(*(rule_facts(rule, policies.exemptions) for rule in rules))
        self._reader = FactReader(policies.facts, names, policies.timezone)
        self._clock = bool(names & _CLOCK_FACTS)
        spans = _spans(conditions)
        self._ages = spans is None
        self._spans = spans or []
        self._turns = _turns(rules, exemptions)
        members = _members(policies, conditions, spanned=spans is not None)
        self._listed = [(name, found) for name, found in members.items() if found is not None]
        self._plain = [name for name, found in members.items() if found is None]
        # Of a fact that no condition tests, only the type can be wrong; a note then shows it.
        derived = self._reader.derivations.keys()
        others = sorted(self._reader.used - members.keys() - derived)
        known = policies.facts
        texts = [name for name in others if known[name].type is FactType.STRING]
        self._texts = [*((name, _NO_MEMBERS) for name in texts), *self._listed]
        self._other = [known[name] for name in others if known[name].type is not FactType.STRING]
        self._is_right: dict[object, bool] = {}
        self.kind = self._telling()
        """Returns what tells a request's kind, by its time in seconds and its facts.

        Requests of one kind match the same rules.
        """

    @property
    def merged(self) -> list[str]:
        """The facts of which a kind holds different texts: those that no condition names."""
        return [name for name, _ in self._listed]

    def _telling(self) -> Callable[[float, Facts], Kind]:
        """Return the generated function that tells kinds: each request is asked for its own."""
        constants: dict[str, object] = {"is_of_type": self._is_of_type}
        parts = [f"get({name!r})" for name in self._plain]
        for place, (name, members) in enumerate(self._texts):
            constants[f"members{place}"] = members
            text = f"(value := get({name!r})).__class__ is str"
            unnamed = f"{text} and value not in members{place}" if members else text
            parts.append(f"str if {unnamed} else value")
        for place, fact in enumerate(self._other):
            constants[f"fact{place}"] = fact
            right = f"(value := get({fact.name!r})) is None or is_of_type(fact{place}, value)"
            parts.append(f"None if {right} else value")
        for place, span in enumerate(self._spans):
            constants[f"told{place}"] = span.told
            parts.append(f"*told{place}(ts, get)")
        if self._turns:
            constants["turns"], constants["bisect_right"] = self._turns, bisect_right
            parts.append("bisect_right(turns, ts)")
        if self._ages:
            parts.append("ts")
        elif self._clock:
            parts.append(f"ts // {_QUARTER}")
        lines = ["def kind(ts, facts):", "    get = facts.get", "    return ("]
        lines += [*(f"        {part}," for part in parts), "    )"]
        made: Callable[[float, Facts], Kind] = define(lines, constants, "kind", "kinds")
        return made

    def _is_of_type(self, fact: Fact, value: object) -> bool:
        known = self._is_right
        try:
            return known[fact.name, value.__class__, value]
        except KeyError:
            if len(known) >= MOST_VALUES:
                known.clear()
        except TypeError:
            # A list has no hash.
            return typed_value(fact, value) is not None
        found = known[fact.name, value.__class__, value] = typed_value(fact, value) is not None
        return found

    def add(self, count: int, ts: float, raw: Facts, decided: str | None) -> None:
        """Count requests of one kind, given one of them and the rule that decided all of them."""
        facts, notes = self._reader.read(raw, ts)
        for note in notes:
            self.notes.add(note, count)
        now = round(ts * SECOND)
        for rule, condition, applies in self._rules:
            if not applies(facts, now):
                continue
            self.matched[rule.id] += count
            for name in self._keys.get(rule.id, ()):
                if name not in facts:
                    self.keyless[rule.id, name] += count
                    if rule.id == decided:
                        self.keyless_decided[rule.id, name] += count
            if rule.id == decided and condition(facts, ts) is None:
                missing = tuple(sorted(facts_of(rule.when) - facts.keys()))
                self.hinged[rule.id, missing] += count

    def __getstate__(self) -> dict[str, object]:
        """Return the figures alone, for another process to merge."""
        figures = ("matched", "hinged", "keyless", "keyless_decided", "notes")
        return {name: getattr(self, name) for name in figures}

    def merge(self, other: Matching) -> None:
        """Add what was counted of other requests by the same policies."""
        self.matched.update(other.matched)
        self.hinged.update(other.hinged)
        self.keyless.update(other.keyless)
        self.keyless_decided.update(other.keyless_decided)
        self.notes.merge(other.notes)


class _Span(NamedTuple):
    """What conditions ask of the time since a moment: whether it is below or above some lengths.

    `age` is the fact that may state that time itself, None for a moment compared with now.
    """

    moment: str
    age: str | None
    lengths: tuple[float, ...]

    def told(self, ts: float, get: Callable[[str], Any]) -> tuple[object, ...]:
        """Return what tells a request's answers: where the time since lies among the lengths."""
        if self.age is not None and (stated := get(self.age)) is not None:
            return "stated", stated
        since = get(self.moment)
        if since.__class__ not in _NUMBERS or not 0 <= since < LATEST:
            return since, ts if since is not None else None
        passed = ts - since
        if self.age is not None and passed < 0.0:
            passed = 0.0
        return bisect_left(self.lengths, passed), bisect_right(self.lengths, passed)


_BY_LENGTH = frozenset(("gt", "gte", "lt", "lte"))


def _spans(conditions: list[Condition]) -> list[_Span] | None:
    """Return how conditions depend on the running time, None where lengths do not tell it."""
    found: dict[tuple[str, str | None], set[float]] = {}
    for condition in conditions:
        for test in comparisons(condition):
            if test.fact in AGES:
                lengths = found.setdefault((AGES[test.fact], test.fact), set())
                if test.operator in _BY_LENGTH:
                    lengths.add(float(cast(float, test.operand)))
                elif test.operator != "exists":
                    return None
            elif test.operator in ("before", "after") and test.operand is None:
                found.setdefault((test.fact, None), set()).add(0.0)
            elif test.operator == "same_as" and str(test.operand) in AGES:
                return None
    return [
        _Span(moment, age, tuple(sorted(lengths)))
        for (moment, age), lengths in sorted(found.items(), key=str)
    ]


def _turns(rules: list[Rule], exemptions: list[Exemption]) -> list[float]:
    """Return the moments at which a rule or an exemption starts or ends, in seconds."""
    moments = [moment for rule in rules for moment in (rule.start, rule.end)]
    moments += [found.expires for found in exemptions]
    return sorted({moment / SECOND for moment in moments if moment is not None})


def _members(
    policies: PolicySet, conditions: list[Condition], *, spanned: bool
) -> dict[str, frozenset[object] | None]:
    """Return the facts that conditions test, each with the values that matter.

    None where every value may matter. A text tested only for being one of some values matters no
    further; what typing makes of other types' values is not known here. What is `spanned` is told
    by lengths of time.
    """
    members: dict[str, set[object] | None] = {}
    for condition in conditions:
        for test in comparisons(condition):
            if spanned and _is_spanned(test):
                continue
            known = members.setdefault(test.fact, set())
            if test.operator in ("in", "not_in") and known is not None:
                known.update(cast(frozenset[object], test.operand))
            elif test.operator != "exists":
                members[test.fact] = None
            if test.operator == "same_as":
                members[str(test.operand)] = None
    for name in FOLLOWS_FROM.keys() & members.keys():
        source = FOLLOWS_FROM[name]
        if name == "actor.id" or policies.facts[source].type is not FactType.STRING:
            members[source] = None
        else:
            # It follows from there being an account, whichever that is.
            members.setdefault(source, set())
    return {
        name: None
        if values is None or policies.facts[name].type is not FactType.STRING
        else _EMPTY.union(values)
        for name, values in sorted(members.items())
    }


def _is_spanned(test: Comparison) -> bool:
    """Tell whether a test compares a moment with the running time."""
    return test.fact in AGES or (test.operator in ("before", "after") and test.operand is None)

"""What the requests of some accounts can look like to the rules, and which rules apply to each.

A fact is known as the values it may have; None stands for missing. Of the values that nobody but
the caller chooses, only those matter that no other is better than for whoever wants the most: a
rule's condition is a monotone function of its tests, each taken towards applying, so that a value
by which fewer of them hold, and amounts are larger, is at least as good. What cannot be told apart
in this way (two facts compared with each other, networks, lists, the running time) counts as the
caller would have it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Any, Literal

from guardrail.analysis.splits import NUMERIC, numbers
from guardrail.engine.expressions import Facts, allowance, rule_facts
from guardrail.engine.facts import IDENTITIES
from guardrail.model.amounts import (
    Amount,
    Banded,
    FromFact,
    Lookup,
    Raised,
    amount_facts,
    larger,
    possible_amounts,
)
from guardrail.model.conditions import Comparison, Condition, Every, Negation, evaluate
from guardrail.model.effects import Mode
from guardrail.model.facts import COUNTRIES, Fact, FactType, Source
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Block, Exemption, Rate, Rule

Values = tuple[Any, ...]
"""The values that a fact may have; None among them: it may be missing."""

MOST_REGIONS = 1_024
"""How many regions are told apart; beyond that, facts count as the caller would have them."""

MOST_COMPARED = 20_000
"""How many values times tests of a fact are compared; a fact with more is as the caller likes."""

SOMEBODY = "\x00somebody"
"""The value of an identity, or of any text, that no policy names."""

Outcome = tuple[int | None, ...] | Literal[True] | None
"""What a rule does with a request: its amounts, True where it refuses it, None: it leaves it be."""

_Scorer = Callable[[Any], float]
_BEST = -math.inf
_ONE_BY_ONE = (FactType.BOOL, FactType.ENUM, FactType.LEVEL)


@dataclass(frozen=True, slots=True)
class Region:
    """Requests that the same rules apply to: the facts of one of them, and those rules.

    `limits` holds the amounts of each rule that counts, as its verb asks for them; None is
    unlimited. `refused` names the rules that refuse them whatever was counted.
    """

    facts: Facts
    limits: Mapping[str, tuple[int | None, ...]]
    refused: tuple[str, ...]


def in_force(policies: PolicySet, now: int) -> tuple[Rule, ...]:
    """Return the rules that refuse at `now` (microseconds) and have no end."""
    return tuple(
        rule
        for rule in policies.rules
        if rule.mode is Mode.ENFORCE
        and rule.end is None
        and (rule.start is None or rule.start <= now)
        and rule.verb.verdicts[-1].effect.refuses
    )


class Distinctions:
    """By which values of facts the rules that matter tell requests apart."""

    def __init__(self, policies: PolicySet, rules: Sequence[Rule], now: int) -> None:
        """Take the rules that matter at `now` (microseconds)."""
        self.policies = policies
        self.rules = rules
        self.now = now
        self.exemptions = tuple(ex for ex in policies.exemptions if ex.expires > now)
        self._lifted = {
            rule.id: tuple(ex for ex in self.exemptions if rule.id in ex.rules) for rule in rules
        }
        self.facts = {rule.id: rule_facts(rule, self.exemptions, stand_ins=False) for rule in rules}
        """For each rule, by which facts it tells requests apart."""
        self.own = {name: tuple(sorted(facts)) for name, facts in self.facts.items()}
        """The same in order."""
        self.names = tuple(sorted(frozenset().union(*self.facts.values())))
        self.outcomes: dict[tuple[object, ...], Outcome] = {}
        """What rules do with requests of some values, found once: `Requests` remembers it here."""
        self.choices: dict[tuple[object, ...], list[Outcome]] = {}
        """The same for all choices of values."""
        self._boundaries: dict[str, list[Any]] = {}
        self._scorers: dict[str, list[_Scorer]] = {}
        for rule in rules:
            self._add(rule)
        self._best: dict[tuple[str, Values], Values | None] = {}

    def values(self, name: str) -> Values:
        """Return values of a fact that stand for all it may have."""
        return values_of(self.policies.facts[name], self._boundaries.get(name, ()))

    def boundaries(self, name: str) -> Sequence[Any]:
        """Return the values that rules compare a fact with."""
        return self._boundaries.get(name, ())

    def exemptions_of(self, rule: Rule) -> Sequence[Exemption]:
        """Return the exemptions that may lift a rule."""
        if rule.id in self._lifted:
            return self._lifted[rule.id]
        return tuple(ex for ex in self.exemptions if rule.id in ex.rules)

    def is_open(self, test: Comparison) -> bool:
        """Tell whether a test that is no test for being there has any answer its caller likes."""
        return test.operator != "exists" and (
            test.operator in ("same_as", "cidr", "rollout")
            or (test.operator in ("before", "after") and test.operand is None)
            or (test.operator == "prefix" and test.fact in IDENTITIES)
            or self.policies.facts[test.fact].type is FactType.LIST
        )

    def scores(self, name: str, value: object) -> tuple[float, ...]:
        """Return how a value of a fact stands in every rule: less is better for who wants the most.

        Values of equal scores are the same to all rules.
        """
        return tuple(scorer(value) for scorer in self._scorers.get(name, ()))

    def undominated(self, name: str, values: Values) -> Values | None:
        """Return those values of a fact that no other is better than, for whoever wants the most.

        None where they are too many to compare.
        """
        known = name, values
        if known not in self._best:
            self._best[known] = self._compared(name, values)
        return self._best[known]

    def _compared(self, name: str, values: Values) -> Values | None:
        if len(values) * len(self._scorers.get(name, ())) > MOST_COMPARED:
            return None
        first: dict[tuple[float, ...], Any] = {}
        for value in values:
            first.setdefault(self.scores(name, value), value)
        least = tuple(min(column) for column in zip(*first, strict=True))
        if least in first:
            return (first[least],)
        return tuple(
            value
            for score, value in first.items()
            if not any(
                other != score and all(a <= b for a, b in zip(other, score, strict=True))
                for other in first
            )
        )

    def _add(self, rule: Rule) -> None:
        """Add what a rule compares, and how each value stands in it."""
        self._add_condition(rule.when, rule.unknown != "skip", True)
        for exemption in self.exemptions_of(rule):
            self._add_condition(exemption.when, exemption.unknown_holds, False)
        for amount in rule.verb.allowances:
            while isinstance(amount, Raised):
                self._add_condition(amount.when, amount.unknown_holds, False)
                amount = amount.own
            if isinstance(amount, Lookup | Banded):
                values = amount.table if isinstance(amount, Lookup) else amount.starts
                self._boundaries.setdefault(amount.fact, []).extend(values)
                self._scorers.setdefault(amount.fact, []).append(_of_amount(amount))
        for name in rule.verb.facts if rule.unknown == "skip" else ():
            self._scorers.setdefault(name, []).append(lambda value: value is not None)

    def _add_condition(self, condition: Condition, unknown: bool, positive: bool) -> None:
        if isinstance(condition, Negation):
            self._add_condition(condition.part, not unknown, not positive)
        elif not isinstance(condition, Comparison):
            for part in condition.parts:
                self._add_condition(part, unknown, positive)
        elif not self.is_open(condition):
            scorer = _of_test(condition, unknown, positive)
            self._scorers.setdefault(condition.fact, []).append(scorer)
            operand: Any = condition.operand
            if condition.operator != "exists":
                several = operand if isinstance(operand, frozenset | tuple) else (operand,)
                self._boundaries.setdefault(condition.fact, []).extend(several)


class Requests:
    """The requests that accounts can send, of which `known` holds the values of some facts."""

    def __init__(self, told: Distinctions, known: Mapping[str, Values]) -> None:
        """Find the values that matter of every fact; `told` says by what rules tell them apart."""
        self.told = told
        self.rules = told.rules
        self.values = {n: known[n] if n in known else told.values(n) for n in told.names}
        self._open: set[str] = set()
        self._best: dict[str, Values] = {}
        for name, values in self.values.items():
            best = told.undominated(name, values)
            self._best[name] = values[:1] if best is None else best
            if best is None:
                self._open.add(name)
        while math.prod(map(len, self._best.values())) > MOST_REGIONS:
            widest = max(self._best, key=lambda name: (len(self._best[name]), name))
            self._open.add(widest)
            self._best[widest] = self._best[widest][:1]

    def regions(self) -> Iterator[Region]:
        """Yield the regions that matter: what is left out is no better for any caller.

        Of requests that all rules do the same with, one is a region.
        """
        names = list(self._best)
        found = {rule.id: self._outcomes(rule) for rule in self.rules}
        # Most rules do the same with all requests: only the facts of others are gone through.
        telling = [rule for rule in self.rules if len(set(found[rule.id])) > 1]
        several, columns = self._columns(telling, found)
        every = product(
            *(self._best[name] if name in several else self._best[name][-1:] for name in names)
        )
        alike = dict(zip(zip(*columns, strict=True) if columns else [()], every, strict=True))
        ids = [rule.id for rule in telling]
        for outcomes, chosen in alike.items():
            facts = {n: v for n, v in zip(names, chosen, strict=True) if v is not None}
            own = dict(zip(ids, outcomes, strict=True))
            limits: dict[str, tuple[int | None, ...]] = {}
            refused: list[str] = []
            for name, of_all in found.items():
                outcome = own[name] if name in own else of_all[0]
                if outcome is True:
                    refused.append(name)
                elif outcome is not None:
                    limits[name] = outcome
            yield Region(facts, limits, tuple(refused))

    def served(self) -> bool:
        """Tell whether there are requests that no rule refuses whatever was counted."""
        found = {rule.id: self._outcomes(rule) for rule in self.rules}
        refusing = [rule for rule in self.rules if True in found[rule.id]]
        _, columns = self._columns(refusing, found)
        return not columns or any(True not in outcomes for outcomes in zip(*columns, strict=True))

    def _outcomes(self, rule: Rule) -> list[Outcome]:
        """Return what a rule does with each choice of values of its own facts."""
        own = self.told.own[rule.id]
        kind = tuple((name in self._open, len(self.values[name]) > 1) for name in own)
        best = tuple(self._best[name] for name in own)
        asked, known = (rule.id, kind, best), self.told.choices
        if asked not in known:
            chosen = product(*best)
            known[asked] = [self._outcome(rule, own, kind, values) for values in chosen]
        return known[asked]

    def _columns(
        self, rules: Sequence[Rule], found: Mapping[str, list[Outcome]]
    ) -> tuple[frozenset[str], list[list[Outcome]]]:
        """Return the facts of some rules, and what each does with every choice of their values.

        `found` is what each does with the choices of its own facts.
        """
        names = frozenset().union(*(self.told.own[rule.id] for rule in rules))
        several = [n for n in reversed(self._best) if n in names and len(self._best[n]) > 1]
        return names, [self._column(rule, found[rule.id], several) for rule in rules]

    def _column(self, rule: Rule, outcomes: list[Outcome], several: Sequence[str]) -> list[Outcome]:
        """Return what a rule does with each choice of values of facts, the last of them first."""
        own = self.told.own[rule.id]
        column = outcomes
        length = 1
        for name in several:
            size = len(self._best[name])
            if name not in own:
                # Whatever it is, the rule does the same.
                parts = (column[at : at + length] * size for at in range(0, len(column), length))
                column = list(chain.from_iterable(parts))
            length *= size
        return column

    def _outcome(
        self, rule: Rule, own: Sequence[str], kinds: tuple[object, ...], chosen: Values
    ) -> Outcome:
        """Return what a rule does with requests of the values `chosen` of its `own` facts."""
        asked = rule.id, kinds, chosen
        known = self.told.outcomes
        if asked not in known:
            facts = {n: v for n, v in zip(own, chosen, strict=True) if v is not None}
            known[asked] = self._found(rule, facts)
        return known[asked]

    def _found(self, rule: Rule, facts: Facts) -> Outcome:
        if not self.applies(rule, facts):
            return None
        found = tuple(self._limit(amount, facts) for amount in rule.verb.allowances)
        return True if isinstance(rule.verb, Block) or _nothing(rule, found) else found

    def rows(self, rule: Rule) -> Iterator[tuple[int | None, ...]]:
        """Yield the amounts that a rule can have, whatever the request."""
        facts = sorted({f for amount in rule.verb.allowances for f in amount_facts(amount)})
        for chosen in product(*(self.values[name] for name in facts)):
            stated = {n: v for n, v in zip(facts, chosen, strict=True) if v is not None}
            yield tuple(allowance(amount, stated, self.told.now) for amount in rule.verb.allowances)

    def applies(self, rule: Rule, facts: Facts) -> bool:
        """Tell whether a rule surely applies to a request."""
        if rule.unknown == "skip" and any(self._may_lack(n, facts) for n in rule.verb.facts):
            return False
        return self._holds(rule.when, facts, rule.unknown != "skip", False) and not any(
            self._holds(exemption.when, facts, exemption.unknown_holds, True)
            for exemption in self.told.exemptions_of(rule)
        )

    def _may_lack(self, name: str, facts: Facts) -> bool:
        return name not in facts or (name in self._open and None in self.values[name])

    def _holds(self, condition: Condition, facts: Facts, unknown: bool, wanted: bool) -> bool:
        """Tell whether a condition holds; where that is the caller's choice, it is as `wanted`.

        `unknown` is its value where it is unknown.
        """
        if isinstance(condition, Comparison):
            if condition.fact in self._open or self.told.is_open(condition):
                return wanted
            answer = evaluate(condition, facts, 0.0)
            return unknown if answer is None else answer
        if isinstance(condition, Negation):
            return not self._holds(condition.part, facts, not unknown, not wanted)
        parts = (self._holds(part, facts, unknown, wanted) for part in condition.parts)
        return all(parts) if isinstance(condition, Every) else any(parts)

    def _limit(self, amount: Amount, facts: Facts) -> int | None:
        """Return an amount at its largest where it is not known."""
        if isinstance(amount, Raised):
            own = self._limit(amount.own, facts)
            raised = amount.expires > self.told.now and self._holds(
                amount.when, facts, amount.unknown_holds, True
            )
            return larger(own, amount.least) if raised else own
        if self._unknown(amount):
            return None
        if self._open.isdisjoint(amount_facts(amount)):
            return allowance(amount, facts, self.told.now)
        found = possible_amounts(amount) or (None,)
        return None if None in found else max(most for most in found if most is not None)

    def _unknown(self, amount: Amount) -> bool:
        return isinstance(amount, FromFact) and len(self.values[amount.fact]) > 1


def values_of(fact: Fact, boundaries: Iterable[Any]) -> Values:
    """Return values of a fact that stand for all it may have, given what rules compare it with.

    Whoever asks has none of the identities that a policy names.
    """
    # A client's value of another type is missing, and no default fills it.
    filled = fact.default is not None and fact.source is Source.SERVER
    missing = () if filled or fact.required else (None,)
    if fact.name in IDENTITIES:
        return (SOMEBODY, *missing)
    if fact.type in NUMERIC:
        return (*numbers(fact, boundaries), *missing)
    if fact.type is FactType.BOOL:
        return (False, True, *missing)
    if fact.type in _ONE_BY_ONE:
        return (*fact.values, *missing)
    if fact.type is FactType.LIST:
        return ((), *missing)
    named = sorted({str(value) for value in boundaries})
    if fact.type is FactType.COUNTRY:
        other = min(COUNTRIES.difference(named), default=None)
        return (*(() if other is None else (other,)), *named, *missing)
    return (SOMEBODY, *named, *(f"{text}{SOMEBODY}" for text in named), *missing)


def _of_test(test: Comparison, unknown: bool, positive: bool) -> _Scorer:
    def score(value: object) -> float:
        answer = evaluate(test, {} if value is None else {test.fact: value}, 0.0)
        return (unknown if answer is None else answer) is positive

    return score


def _of_amount(amount: Lookup | Banded) -> _Scorer:
    def score(value: object) -> float:
        most = allowance(amount, {} if value is None else {amount.fact: value}, 0)
        return _BEST if most is None else -most

    return score


def _nothing(rule: Rule, limits: Sequence[int | None]) -> bool:
    """Tell whether a rule of these amounts refuses everything; a pace needs both of its own."""
    return 0 in limits and (not isinstance(rule.verb, Rate) or None not in limits)

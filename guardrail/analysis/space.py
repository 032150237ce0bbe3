"""All requests, as one policy set or two can tell them apart.

Each fact is a variable of a few values that stand for all a request may state: those that rules
name, what lies between, below and above them, something else, and nothing. A request states facts
as a host does; each set reads them in its own way (its types, its defaults). A server's fact with a
default is there; a client's may be there and of another type, which counts as missing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from math import prod
from typing import Any, cast
from zoneinfo import ZoneInfo

from guardrail.analysis.clauses import Clause, Clauses, clauses_of
from guardrail.analysis.formulas import (
    EFFORT,
    STEPS,
    And,
    Domains,
    Formula,
    Leaf,
    Pair,
    Search,
    bits,
    every,
    holds,
    leaf,
    opposite,
    some,
)
from guardrail.analysis.splits import NUMERIC, addresses, numbers, texts
from guardrail.engine import FOLLOWS_FROM, IDENTITIES
from guardrail.model.amounts import (
    SECOND,
    Amount,
    Banded,
    FromFact,
    Lookup,
    Raised,
    possible_amounts,
)
from guardrail.model.conditions import (
    WHOLE,
    Address,
    Comparison,
    Condition,
    Every,
    Negation,
    Rollout,
    address_in,
    evaluate,
    place_in,
)
from guardrail.model.effects import Mode
from guardrail.model.facts import AGES, COUNTRIES, WEEKDAYS, Fact, FactType, Source, typed_value
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Exemption, Rule

CLOCK = "the time"
"""The variable whose values are the times at which anything begins or ends; no fact's name."""

MOST_LISTS = 4_096
"""How many ways the lists of one fact may fall into those that rules name."""

MOST_TRIED = 50_000
"""How many texts are tried to find one for each way in which they are in rollouts."""

_WRONG = ("?", 0, False)
_ALWAYS_THERE = ("time.hour", "time.weekday")
_COUNTRY = "DE"
_FEW = 16
"""How many values are looked at together, before each of them is."""
_OF_ONE_ACCOUNT: Mapping[str, object] = {
    "actor.accounts": 1,
    "actor.trusted_accounts": 0,
    "actor.score": 0,
    "actor.evidence": (),
}


@dataclass(slots=True)
class _Named:
    """What rules compare one fact with."""

    values: set[Any] = field(default_factory=set)
    boundaries: set[float] = field(default_factory=set)
    prefixes: set[str] = field(default_factory=set)
    networks: set[Any] = field(default_factory=set)
    groups: set[frozenset[Any]] = field(default_factory=set)
    same: set[str] = field(default_factory=set)
    rollouts: set[Rollout] = field(default_factory=set)
    now: bool = False


class Space:
    """The requests that some policy sets can tell apart at a time (microseconds), or later."""

    def __init__(
        self,
        sets: Sequence[PolicySet],
        now: int,
        conditions: Iterable[Condition] = (),
        effort: int = EFFORT,
    ) -> None:
        """Take the policy sets, and further conditions that are to be asked about.

        `effort` is how many splits the search for an answer may make.
        """
        self.sets = tuple(sets)
        self.effort, self.steps = effort, STEPS
        self._named: dict[str, _Named] = {}
        self._raised_until: set[int] = set()
        for policies in sets:
            self._add_policies(policies)
        for condition in conditions:
            self._add_condition(condition)
        self.instants = self._times(now)
        self.raw: dict[str, tuple[Any, ...]] = {CLOCK: self.instants}
        self.typed: list[dict[str, tuple[Any, ...]]] = [{} for _ in sets]
        self.outside: set[str] = set()
        self._boundaries: dict[str, set[float]] = {}
        for name in sorted(self._named):
            self.raw[name] = self._values(name)
            for side, policies in enumerate(self.sets):
                fact = policies.facts.get(name)
                self.typed[side][name] = tuple(_read(fact, raw) for raw in self.raw[name])
        self.full = {name: (1 << len(values)) - 1 for name, values in self.raw.items()}
        self.optional = frozenset(
            name for name, values in self.raw.items() if values[0] is None or name == CLOCK
        )
        self._places = [self._indexed(side) for side in range(len(self.sets))]
        self._sorted = [self._in_order(side) for side in range(len(self.sets))]
        self._parsed: dict[tuple[int, str], list[Address | None]] = {}
        self._opposites: dict[int, tuple[Formula, Formula]] = {}
        self._clauses: dict[int, tuple[Formula, list[Clause] | None]] = {}
        self._tests: dict[tuple[Any, ...], int] = {}
        self._rules: dict[tuple[int, int], Formula] = {}
        self._rarity: dict[str, list[tuple[int, tuple[int, ...]]]] = {}
        self._rarest: dict[str, int] = {}
        """The places of the rarest values of all that facts may have."""
        self._ranks: dict[str, list[tuple[int, float, int]]] = {}
        self.answered: dict[tuple[Formula, ...], bool] = {}
        """Whether a request makes formulas true, of those that were asked about."""
        self.rules_of_requests = tuple(self._derived())
        self.unstated = {name: where for name in self.raw if (where := self._unstated(name))}

    # What is compared.

    def _add_policies(self, policies: PolicySet) -> None:
        models = {*policies.models, *(a for m in policies.models.values() for a in m.aliases)}
        for rule in policies.rules:
            if rule.mode is Mode.OFF:
                continue
            self._add_condition(rule.when)
            for name in rule.verb.facts if rule.unknown == "skip" else ():
                self._of(name)
            for amount in rule.verb.allowances:
                while isinstance(amount, Raised):
                    self._raised_until.add(amount.expires)
                    self._add_condition(amount.when)
                    amount = amount.own
                if isinstance(amount, Lookup):
                    self._of(amount.fact).values.update(amount.table)
                elif isinstance(amount, Banded):
                    self._of(amount.fact).boundaries.update(amount.starts)
                elif isinstance(amount, FromFact):
                    self._add_own(amount)
            for verdict in rule.verb.verdicts:
                if verdict.obligations is not None and verdict.obligations.model is not None:
                    self._of("request.model").values.update(models)
        for exemption in policies.exemptions:
            self._add_condition(exemption.when)
        for name, fact in policies.facts.items():
            if fact.required:
                self._of(name)

    def _add_own(self, amount: FromFact) -> None:
        """Add where an amount that is a fact's own value equals one that is written."""
        named = self._of(amount.fact)
        named.boundaries.add(0.0)
        for policies in self.sets:
            for rule in policies.rules:
                for other in rule.verb.allowances:
                    for value in _constants(other):
                        named.boundaries.update((value / amount.scale, (value + 1) / amount.scale))

    def _of(self, name: str) -> _Named:
        return self._named.setdefault(name, _Named())

    def _add_condition(self, condition: Condition) -> None:
        if isinstance(condition, Negation):
            self._add_condition(condition.part)
        elif not isinstance(condition, Comparison):
            for part in condition.parts:
                self._add_condition(part)
        else:
            self._add_test(condition)

    def _add_test(self, test: Comparison) -> None:
        named, operand = self._of(test.fact), test.operand
        if test.operator in ("in", "not_in"):
            assert isinstance(operand, frozenset)
            named.values.update(operand)
            named.groups.add(operand)
        elif test.operator == "same_as":
            named.same.add(str(operand))
            self._of(str(operand)).same.add(test.fact)
        elif test.operator == "rollout":
            assert isinstance(operand, Rollout)
            named.rollouts.add(operand)
        elif test.operator == "prefix":
            named.prefixes.update(operand)  # type: ignore[arg-type]
        elif test.operator == "cidr":
            named.networks.update(operand)  # type: ignore[arg-type]
        elif operand is None:
            named.now = True
        elif test.operator != "exists":
            named.boundaries.add(operand)  # type: ignore[arg-type]

    def _times(self, now: int) -> tuple[int, ...]:
        """Return the time asked about, and each later one from which anything may differ."""
        found = {now, *self._raised_until}
        for policies in self.sets:
            for rule in policies.rules:
                if rule.mode is not Mode.OFF:
                    found.update(t for t in (rule.start, rule.end) if t is not None)
            found.update(exemption.expires for exemption in policies.exemptions)
        for named in self._named.values():
            if named.now:
                for bound in named.boundaries:
                    found.update((round(bound * SECOND), round(bound * SECOND) + SECOND))
        return tuple(sorted(t for t in found if t >= now))

    # Values.

    def _related(self, name: str) -> list[str]:
        """Return the facts that are compared with a fact, directly or by others, itself first."""
        found, left = [name], [name]
        while left:
            for other in sorted(self._named[left.pop()].same):
                if other not in found:
                    found.append(other)
                    left.append(other)
        return found

    def _values(self, name: str) -> tuple[Any, ...]:
        """Return what a request may state of a fact, None first where it may state nothing."""
        related = self._related(name)
        named = _Named()
        for other in related:
            one = self._named[other]
            named.values |= one.values
            named.boundaries |= one.boundaries
            named.prefixes |= one.prefixes
            named.networks |= one.networks
            named.rollouts |= one.rollouts
            named.now = named.now or one.now
        named.groups = self._named[name].groups
        facts = [p.facts[name] for p in self.sets if name in p.facts]
        found: dict[Any, None] = {}
        if name not in _ALWAYS_THERE:
            found[None] = None
        for fact in facts:
            for value in self._of_type(fact, named, len(related)):
                found[value] = None
        if any(fact.default is not None and fact.source is Source.CLIENT for fact in facts):
            wrong = (raw for raw in _WRONG if all(typed_value(f, raw) is None for f in facts))
            found.update((_Wrong(raw), None) for raw in list(wrong)[:1])
        return tuple(found)

    def _of_type(self, fact: Fact, named: _Named, several: int) -> Iterator[Any]:
        if fact.type in NUMERIC:
            boundaries = {*named.boundaries, *(v for v in named.values if _is_number(v))}
            if named.now:
                boundaries.update(t / SECOND for t in self.instants)
            if several > 1 or fact.default is not None:
                boundaries.add(0 if fact.default is None else cast(float, fact.default))
            for age, since in AGES.items():
                if since == fact.name and age in self._named:
                    ages = {b for b in self._named[age].boundaries if b >= 0}
                    ages.update(v for v in self._named[age].values if _is_number(v))
                    boundaries.update(t / SECOND - a for t in self.instants for a in ages)
            self._boundaries[fact.name] = boundaries
            made = numbers(fact, boundaries)
            for _ in range(several - 1):
                made = numbers(fact, made)
            made = tuple(sorted({*made, *self._following(fact.name)}))
            yield from (n for n in made if typed_value(fact, n) is not None)
        elif fact.type is FactType.BOOL:
            yield from (False, True)
        elif fact.type in (FactType.ENUM, FactType.LEVEL):
            yield from fact.values
        elif fact.type is FactType.LIST:
            yield from self._lists(fact, named)
        elif fact.type is FactType.COUNTRY:
            yield from sorted(named.values)
            others = sorted(COUNTRIES.difference(named.values), key=lambda c: (c != _COUNTRY, c))
            yield from others[:several]
        elif fact.type is FactType.IP:
            yield from addresses(named.networks, map(str, named.values), several)
        else:
            yield from self._texts(fact, named, several)

    def _texts(self, fact: Fact, named: _Named, several: int) -> Iterator[str]:
        words = {str(value) for value in named.values}
        if fact.default is not None:
            words.add(str(fact.default))
        if named.networks:
            if named.prefixes:
                self.outside.add(fact.name)
            for address in addresses(named.networks, (), several):
                text = f"{address}/{'64' if ':' in address else '32'}"
                if text not in words:
                    yield text
        yield from self._rolled_out(fact, named, several)
        blank = fact.name in IDENTITIES or (fact.declared and fact.source is Source.SERVER)
        for text in texts(words, named.prefixes, several):
            if text or not blank:
                yield text

    def _rolled_out(self, fact: Fact, named: _Named, several: int) -> Iterator[str]:
        """Yield texts for each way in which they are in some rollouts, and not in others."""
        salts: dict[str, list[int]] = {}
        for rollout in named.rollouts:
            salts.setdefault(rollout.salt, []).append(rollout.parts)
        bounds = [(salt, sorted({*parts} - {WHOLE})) for salt, parts in sorted(salts.items())]
        wanted = several * prod(len(parts) + 1 for _, parts in bounds)
        for start in ("", *sorted(named.prefixes)) if bounds else ():
            found: dict[tuple[int, ...], int] = {}
            for number in range(MOST_TRIED):
                text = f"{start}account-{number}"
                kind = tuple(bisect_right(parts, place_in(text, salt)) for salt, parts in bounds)
                if found.setdefault(kind, 0) < several:
                    found[kind] += 1
                    yield text
                    if sum(found.values()) == wanted:
                        break
            else:
                self.outside.add(fact.name)

    def _lists(self, fact: Fact, named: _Named) -> Iterator[tuple[str, ...]]:
        """Yield a list for each way in which lists fall into the groups that tests name."""
        groups = sorted(named.groups, key=sorted)
        members: dict[int, str] = {}
        for value in sorted(named.values):
            members.setdefault(sum(1 << i for i, g in enumerate(groups) if value in g), value)
        found: dict[int, tuple[str, ...]] = {0: ()}
        for kind, value in sorted(members.items()):
            for before, chosen in list(found.items()):
                found.setdefault(before | kind, (*chosen, value))
            if len(found) > MOST_LISTS:
                self.outside.add(fact.name)
                break
        yield from found.values()

    def _derived(self) -> Iterator[Formula]:
        """Yield what holds of all requests: what follows from a fact that is there is there."""
        for name, source in FOLLOWS_FROM.items():
            if name not in self.raw or source not in self.raw:
                continue
            for side in range(len(self.sets)):
                there = self.full[name] & ~self.missing(side, name)
                absent = self.missing(side, source)
                yield some(
                    (leaf(name, there, self.full), leaf(source, absent, self.full)), self.full
                )

    def _following(self, name: str) -> Iterator[float]:
        """Yield the numbers that a fact can have where it follows from the time or an account."""
        if name in _ALWAYS_THERE:
            hours = (self._now(name, at) for at in self.instants)
            yield from (hour for hour in hours if isinstance(hour, int))
        found = _OF_ONE_ACCOUNT.get(name)
        if isinstance(found, int):
            yield found

    def _now(self, name: str, at: int) -> object:
        """Return the hour or the weekday of a time, None where the sets' time zones differ."""
        found: set[object] = set()
        for zone in {policies.timezone for policies in self.sets}:
            moment = datetime.fromtimestamp(at // SECOND, UTC if zone == "UTC" else ZoneInfo(zone))
            found.add(moment.hour if name == "time.hour" else WEEKDAYS[moment.weekday()])
        return found.pop() if len(found) == 1 else None

    def _unstated(self, name: str) -> Formula | None:
        """Return where a request need not state a fact, as it is missing or follows from others.

        None is for facts that follow from nothing here.
        """
        if name in _ALWAYS_THERE:
            return some(self._at_its_time(name), self.full)
        source = FOLLOWS_FROM.get(name)
        if source is None or source not in self.raw or self._has_default(name):
            return None
        missing = leaf(name, 1, self.full)
        if name in AGES:
            return some((missing, *self._of_its_age(name, source)), self.full)
        rows = tuple(self._following_mask(name, value) for value in self.raw[source])
        return some((missing, Pair(source, name, rows)), self.full)

    def _has_default(self, name: str) -> bool:
        facts = (policies.facts.get(name) for policies in self.sets)
        return any(fact is not None and fact.default is not None for fact in facts)

    def _at_its_time(self, name: str) -> Iterator[Formula]:
        for place, at in enumerate(self.instants):
            own = self._now(name, at)
            mask = sum(1 << p for p, value in enumerate(self.raw[name]) if value == own)
            when = leaf(CLOCK, 1 << place, self.full)
            yield every((when, leaf(name, mask, self.full)), self.full)

    def _of_its_age(self, age: str, since: str) -> Iterator[Formula]:
        for place in range(len(self.instants)):
            rows = []
            for start in range(len(self.raw[since])):
                found = self._age_place(age, since, start, place)
                rows.append(0 if found is None else 1 << found)
            when = leaf(CLOCK, 1 << place, self.full)
            yield every((when, Pair(since, age, tuple(rows))), self.full)

    def _age_place(self, age: str, since: str, start_place: int, at: int) -> int | None:
        """Return the place of the value that stands for an age as it follows from its time."""
        start = self.raw[since][start_place]
        if start is None or isinstance(start, _Wrong):
            return None
        value = max(0.0, self.instants[at] / SECOND - start)
        known = [(v, place) for place, v in enumerate(self.raw[age]) if _is_number(v)]
        for other, place in known:
            if other == value:
                return place
        near = [pair for pair in known if pair[0] not in self._boundaries[age]]
        between = [
            place
            for other, place in near
            if not any(
                min(other, value) <= bound <= max(other, value) for bound in self._boundaries[age]
            )
        ]
        return between[0] if between else None

    def _following_mask(self, name: str, source: Any) -> int:
        """Return the values that a fact has where what it follows from has a value."""
        if source is None or isinstance(source, _Wrong):
            return 0
        own = _OF_ONE_ACCOUNT.get(name, source)
        return sum(1 << place for place, value in enumerate(self.raw[name]) if value == own)

    # Searches.

    def find(self, search: Search, formulas: Iterable[Formula], domains: Domains) -> Domains | None:
        """Return what a search finds; all searches of a space share the steps that they may take.

        Raises:
            EffortError: it takes too many splits, or the steps are used up.
        """
        search.steps = self.steps
        try:
            return search.find(formulas, domains)
        finally:
            self.steps = search.steps

    def find_by(self, clauses: Clauses) -> Domains | None:
        """Return sets of values of which each choice makes clauses true, as `find` does.

        Raises:
            EffortError: it takes too many splits, or the steps are used up.
        """
        search = Search(self.full, effort=self.effort, steps=self.steps)
        try:
            return clauses.find(search)
        finally:
            self.steps = search.steps

    def clauses_of(self, formula: Formula) -> list[Clause] | None:
        """Return clauses that are all true where a formula is, None if it has other parts."""
        known = self._clauses.get(id(formula))
        if known is None:
            # The formula is kept, so that no other one is known by its number.
            known = self._clauses[id(formula)] = formula, clauses_of(formula, self.full)
        return known[1]

    # Formulas.

    def _indexed(self, side: int) -> dict[str, dict[Any, int]]:
        found: dict[str, dict[Any, int]] = {}
        for name, values in self.typed[side].items():
            places: dict[Any, int] = {}
            for place, value in enumerate(values):
                # True equals 1, and is another value.
                key = (value,) if isinstance(value, bool) else value
                places[key] = places.get(key, 0) | 1 << place
            found[name] = places
        return found

    def _in_order(self, side: int) -> dict[str, tuple[int, tuple[float, ...]]]:
        """Return, of facts that are numbers, where those begin, in their order."""
        found = {}
        for name, values in self.typed[side].items():
            fact = self.sets[side].facts.get(name)
            if fact is None or fact.type not in NUMERIC:
                continue
            first = 0 if self.raw[name][0] is not None else 1
            last = len(values)
            while last > first and values[last - 1] is None:
                last -= 1
            row = values[first:last]
            if None not in row and all(a < b for a, b in pairwise(row)):
                found[name] = first, row
        return found

    def missing(self, side: int, name: str) -> int:
        """Return the values of a fact that a set takes as missing."""
        return self._places[side][name].get(None, 0)

    def test(self, side: int, test: Comparison, unknown: bool) -> Formula:
        """Return where a set has a test hold; `unknown` is its answer where a fact is missing."""
        if test.operator == "same_as" and test.operand != test.fact:
            return self._same(side, test, unknown)
        if test.operator in ("before", "after") and test.operand is None:
            return self._before_now(side, test, unknown)
        key = (side, test.fact, test.operator, test.operand)
        known = self._tests.get(key)
        if known is None:
            known = self._tests[key] = self._mask(side, test)
        if unknown and test.operator not in ("exists", "rollout"):
            known |= self.missing(side, test.fact)
        return leaf(test.fact, known, self.full)

    def _mask(self, side: int, test: Comparison) -> int:
        name, operand, operator = test.fact, test.operand, test.operator
        there = self.full[name] & ~self.missing(side, name)
        if operator == "exists":
            return there if operand else self.full[name] & ~there
        fact = self.sets[side].facts[name]
        if operator in ("in", "not_in") and fact.type is not FactType.LIST:
            assert isinstance(operand, frozenset)
            places, found = self._places[side][name], 0
            for value in operand:
                found |= places.get((value,) if isinstance(value, bool) else value, 0)
            return found if operator == "in" else there & ~found
        if name in self._sorted[side] and operator != "same_as":
            first, row = self._sorted[side][name]
            upto = bisect_right if operator in ("lte", "gt", "after") else bisect_left
            bound: Any = operand
            below: int = ((1 << upto(row, bound)) - 1) << first
            default = self.typed[side][name][0] if first else None
            if default is not None:
                below |= upto((default,), bound)
            return below if operator in ("lt", "lte", "before") else there & ~below
        if operator == "prefix":
            start: Any = operand
            return sum(
                1 << place
                for place, value in enumerate(self.typed[side][name])
                if value is not None and value.startswith(start)
            )
        if operator == "cidr":
            networks: Any = operand
            return sum(
                1 << place
                for place, address in enumerate(self._addresses(side, name))
                if address is not None
                and any(address in one for one in networks if one.version == address.version)
            )
        now = self.instants[0] / SECOND
        found = 0
        for place, value in enumerate(self.typed[side][name]):
            if value is not None and evaluate(test, {name: value}, now):
                found |= 1 << place
        return found

    def _addresses(self, side: int, name: str) -> Sequence[Address | None]:
        """Return the values of a fact as addresses: of a network the first, None for other text."""
        found = self._parsed.get((side, name))
        if found is None:
            found = self._parsed[side, name] = [address_in(v) for v in self.typed[side][name]]
        return found

    def _same(self, side: int, test: Comparison, unknown: bool) -> Formula:
        first, second = test.fact, str(test.operand)
        places, whole = self._places[side][second], self.full[second]
        missing = self.missing(side, second) if unknown else 0
        rows = tuple(
            (whole if unknown else 0)
            if value is None
            else places.get((value,) if isinstance(value, bool) else value, 0) | missing
            for value in self.typed[side][first]
        )
        return Pair(first, second, rows)

    def _before_now(self, side: int, test: Comparison, unknown: bool) -> Formula:
        whole = self.full[CLOCK]
        rows = []
        for value in self.typed[side][test.fact]:
            row = whole if unknown else 0
            if value is not None:
                row = 0
                for place, now in enumerate(self.instants):
                    if evaluate(test, {test.fact: value}, now / SECOND):
                        row |= 1 << place
            rows.append(row)
        if len(self.instants) == 1:
            mask = sum(1 << place for place, row in enumerate(rows) if row)
            return leaf(test.fact, mask, self.full)
        return Pair(test.fact, CLOCK, tuple(rows))

    def condition(
        self, side: int, condition: Condition, unknown: bool, positive: bool = True
    ) -> Formula:
        """Return where a set has a condition hold, or where not; `unknown` is its unknown value."""
        if isinstance(condition, Comparison):
            found = self.test(side, condition, unknown)
            return found if positive else self.opposite(found)
        if isinstance(condition, Negation):
            return self.condition(side, condition.part, not unknown, not positive)
        parts = [self.condition(side, part, unknown, positive) for part in condition.parts]
        if isinstance(condition, Every) is positive:
            return every(parts, self.full)
        return some(parts, self.full)

    def opposite(self, formula: Formula) -> Formula:
        """Return where a formula is not true, worked out once for each."""
        key = id(formula)
        if key not in self._opposites:
            # The formula is kept, so that no other one is known by its number.
            self._opposites[key] = formula, opposite(formula, self.full)
        return self._opposites[key][1]

    def during(self, start: int | None, end: int | None) -> Formula:
        """Return that the time is from `start` on and before `end`, in microseconds."""
        mask = 0
        for place, now in enumerate(self.instants):
            if (start is None or now >= start) and (end is None or now < end):
                mask |= 1 << place
        return leaf(CLOCK, mask, self.full)

    def exempts(self, side: int, exemption: Exemption) -> Formula:
        """Return where an exemption holds."""
        holds = self.condition(side, exemption.when, exemption.unknown_holds)
        return every((holds, self.during(None, exemption.expires)), self.full)

    def written(self, side: int, rule: Rule) -> Formula:
        """Return where a rule's condition holds, its dates and exemptions left out."""
        return self.condition(side, rule.when, rule.unknown != "skip")

    def applies(self, side: int, rule: Rule) -> Formula:
        """Return where a rule applies: its dates, its condition, its key, and no exemption."""
        key = side, id(rule)
        if key not in self._rules:
            parts = [self.during(rule.start, rule.end), self.written(side, rule)]
            for name in rule.verb.facts if rule.unknown == "skip" else ():
                there = self.full[name] & ~self.missing(side, name)
                parts.append(leaf(name, there, self.full))
            for exemption in self.sets[side].exemptions:
                if rule.id in exemption.rules:
                    parts.append(self.opposite(self.exempts(side, exemption)))
            self._rules[key] = every(parts, self.full)
        return self._rules[key]

    # Requests.

    def rarest(self, domains: Mapping[str, int]) -> dict[str, int]:
        """Return the places of the values in sets that the fewest rules apply to, the last of them.

        What other rules ask of them is then least likely to matter.
        """
        if not self._rarest:
            self._rarest = {name: self._rarest_in(name, mask) for name, mask in self.full.items()}
        # Most facts may have any value, in most searches.
        full, known = self.full, self._rarest
        return {
            name: known[name] if mask == full[name] else self._rarest_in(name, mask)
            for name, mask in domains.items()
        }

    def _rarest_in(self, name: str, mask: int) -> int:
        if mask & (mask - 1) == 0:
            return mask.bit_length() - 1
        order = self._rarity.get(name)
        if order is None:
            order = self._rarity[name] = self._by_rarity(name)
        _, places = next(part for part in order if mask & part[0])
        return next(place for place in places if mask >> place & 1)

    def _by_rarity(self, name: str) -> list[tuple[int, tuple[int, ...]]]:
        """Return the places of a fact's values, those that the fewest rules apply to first.

        They stand a few together, with the set that they are.
        """
        met = [0] * len(self.raw[name])
        for side, policies in enumerate(self.sets):
            for rule in policies.rules:
                if rule.mode is Mode.OFF:
                    continue
                applies = self.applies(side, rule)
                parts = applies.parts if isinstance(applies, And) else (applies,)
                for part in parts:
                    if isinstance(part, Leaf) and part.variable == name:
                        for place in bits(part.mask):
                            met[place] += 1
        places = sorted(range(len(met)), key=lambda place: (met[place], -place))
        groups = (tuple(places[start : start + _FEW]) for start in range(0, len(places), _FEW))
        return [(sum(1 << place for place in group), group) for group in groups]

    def plainest(self, name: str, mask: int) -> Iterator[int]:
        """Yield the places of the values in a set, those that are plainest to read first."""
        ranks = self._ranks.get(name)
        if ranks is None:
            derived = _OF_ONE_ACCOUNT.get(name)
            if name in _ALWAYS_THERE:
                derived = self._now(name, self.instants[0])
            ranks = [(*_plain(value, derived), p) for p, value in enumerate(self.raw[name])]
            self._ranks[name] = ranks
        if mask & 1 and ranks[0][0] == 0:
            yield 0
            mask &= ~1
        yield from sorted(bits(mask), key=ranks.__getitem__)

    def request(self, chosen: Mapping[str, int]) -> dict[str, object]:
        """Return the facts that a request states, as JSON has them, given the places of values."""
        facts: dict[str, object] = {}
        for name in sorted(chosen):
            value = self.raw[name][chosen[name]]
            unstated = self.unstated.get(name)
            if name == CLOCK or value is None or (unstated is not None and holds(unstated, chosen)):
                continue
            if isinstance(value, _Wrong):
                facts[name] = value.value
            else:
                facts[name] = _stated(self.sets, name, value)
        return facts


@dataclass(frozen=True, slots=True)
class _Wrong:
    """A value that is not of its fact's type, and so counts as missing."""

    value: object


def _read(fact: Fact | None, raw: object) -> Any:
    if fact is None or isinstance(raw, _Wrong):
        return None
    if raw is None:
        return fact.default
    return typed_value(fact, raw)


def _constants(amount: Amount) -> Iterator[int]:
    for value in possible_amounts(amount) or ():
        if value is not None:
            yield value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: object, derived: object) -> tuple[int, float]:
    """Return what sorts plain values first: nothing, what follows, then small whole numbers."""
    if value is None:
        return (0, 0.0)
    if derived is not None and value == derived:
        return (1, 0.0)
    if isinstance(value, _Wrong):
        return (9, 0.0)
    if _is_number(value):
        assert isinstance(value, int | float)
        return (2 if value >= 0 and value == int(value) else 3, abs(float(value)))
    return (2, 0.0)


def _stated(sets: Sequence[PolicySet], name: str, value: Any) -> object:
    kind = next(p.facts[name].type for p in sets if name in p.facts)
    if kind is FactType.TIMESTAMP and value == int(value):
        return f"{datetime.fromtimestamp(int(value), UTC):%Y-%m-%dT%H:%M:%SZ}"
    if kind is FactType.DURATION and value == int(value):
        whole = int(value)
        for length, word in ((86400, "d"), (3600, "h"), (60, "m")):
            if whole and whole % length == 0:
                return f"{whole // length}{word}"
        return f"{whole}s"
    if isinstance(value, float) and value == int(value):
        return int(value)
    return list(value) if isinstance(value, tuple) else value

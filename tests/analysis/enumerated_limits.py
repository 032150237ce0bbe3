"""What is found of limits, against every request of a small domain, one by one.

`python -m tests.analysis.enumerated_limits COUNT SEED` runs so many random policy sets. What one
limit lets through in the time of another is reckoned here in its own words.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations, pairwise
from random import Random
from typing import Any

from guardrail.analysis import analyse
from guardrail.engine import allowance, in_unit
from guardrail.model.amounts import DAY, Amount, without_raises
from guardrail.model.conditions import facts_of
from guardrail.model.effects import Effect, Mode
from guardrail.model.facts import EARNED, Fact, FactType, Source
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Budget, Concurrency, Distinct, Key, Rate, Rule, Step, Window
from tests.analysis.enumerated import timed
from tests.analysis.seeds import over_seeds
from tests.analysis.small_sets import (
    NOW,
    SPAN,
    TIMES,
    Reading,
    amount,
    asked,
    chosen_names,
    condition,
    declared,
    how_many,
    made_of,
    policy_set,
    requests,
    verb,
)

MOST_REQUESTS = 1_500
OWN = ("account.id", "account.org")
VARYING = ("client.", "device.", "geo.", "network.", "time.")
_CAPABILITIES = ("request.capability", "request.capability", "client.agent")


def limited(seed: int) -> PolicySet:
    """Return a random policy set of rules most of which are limits."""
    rng = Random(seed)
    names = chosen_names(rng)
    if rng.random() < 0.5:
        names = tuple(dict.fromkeys((*names[:2], rng.choice(_CAPABILITIES))))
    facts = declared(rng)
    policies = policy_set(rng, facts, names, 0.85)
    rules = [_limit(rng, rule, names, facts) for rule in policies.rules]
    rules += [
        replace(_limit(rng, rule, names, facts), id=f"s{place}")
        for place, rule in enumerate(rules)
        if rng.random() < 0.5
    ]
    # Each has a line of its own, by which findings are told apart.
    placed = (replace(r, span=replace(SPAN, line=i + 1)) for i, r in enumerate(rules))
    return made_of(facts, tuple(placed), policies.exemptions)


def _limit(rng: Random, rule: Rule, names: Sequence[str], facts: Mapping[str, Fact]) -> Rule:
    """Return a rule that is mostly a limit that refuses at any time, with little that differs."""
    one: Any = rule.verb
    if rng.random() < 0.7:
        rule = replace(rule, start=None, end=None)
    if rng.random() < 0.3:
        rule = replace(rule, when=condition(rng, facts, names, 1))
    if rng.random() < 0.3:
        one = verb(rng, names, 0.9, facts)
    if isinstance(one, Budget):
        last = replace(one.over, effect=rng.choice((Effect.THROTTLE, Effect.BLOCK)))
        steps = (*one.steps[:-1], Step(percent=100, verdict=last))
        unit = rng.choice(("requests", "requests", "tokens"))
        window = rng.choice((Window("day", "day"), one.window))
        one = replace(one, steps=steps, window=window, amounts=((unit, one.amounts[0][1]),))
        if rng.random() < 0.2:
            more = amount(rng, names, facts)
            other = "tokens" if unit == "requests" else "requests"
            one = replace(one, amounts=(*one.amounts, (other, more)))
    if hasattr(one, "key") and rng.random() < 0.5:
        one = replace(one, key=Key(rng.choice(((), ("account.id",), ("account.org",)))))
    return replace(rule, verb=one)


@dataclass(frozen=True, slots=True)
class Amounts:
    """One amount of a rule: its unit, and what it comes to, with and without what is raised."""

    rule: Rule
    unit: str
    written: str
    amount: Amount
    burst: Amount | None

    @property
    def name(self) -> tuple[str, str]:
        """The rule's id and the key that the amount has in it."""
        return self.rule.id, self.written

    @property
    def refuses(self) -> bool:
        """Whether it refuses, at any time."""
        over = _verb(self.rule).verdicts[-1]
        return self.rule.start is None and self.rule.end is None and over.effect.refuses

    def of(self, typed: Mapping[str, Any], now: int, *, own: bool) -> tuple[int | None, int | None]:
        """Return what it allows, and at once if it is a rate; `own` leaves out what is raised."""
        every = (self.amount, self.burst)
        found = [
            None if one is None else allowance(without_raises(one) if own else one, typed, now)
            for one in every
        ]
        return found[0], found[1]


def _verb(rule: Rule) -> Any:
    return rule.verb


def amounts_of(policies: PolicySet, gone: Collection[str]) -> list[Amounts]:
    """Return each amount of the enforced rules of a set, in their order, some left out."""
    found = []
    for rule in policies.rules:
        one = rule.verb
        if rule.mode is not Mode.ENFORCE or rule.id in gone:
            continue
        if isinstance(one, Budget):
            found += [Amounts(rule, unit, unit, value, None) for unit, value in one.amounts]
        elif isinstance(one, Rate):
            found.append(Amounts(rule, one.unit, one.unit, one.amount, one.burst or one.amount))
        elif isinstance(one, Concurrency):
            found.append(Amounts(rule, "in flight", "max", one.most, None))
        elif isinstance(one, Distinct):
            found.append(Amounts(rule, "values", "max", one.most, None))
    return found


@dataclass(frozen=True, slots=True)
class Case:
    """One request at a time: what is known of it, whether it is refused at once, what counts it."""

    request: Mapping[str, object]
    typed: Mapping[str, Any]
    now: int
    refused: bool
    counting: frozenset[str]


def cases_of(policies: PolicySet) -> list[Case]:
    """Return every request that a set tells apart, at every time that matters."""
    reading = Reading(policies)
    times = TIMES if timed(policies) else TIMES[:1]
    found = []
    for request in requests(policies):
        for now in times:
            typed, rules = reading.applying(request, now)
            refused = any(what == ("refuse",) for _, what in asked(reading, request, now))
            counting = frozenset(rule.id for rule in rules)
            found.append(Case(request, typed, now, refused, counting))
    return found


# GR207: limits that are never reached, whole and by amount.


def in_vain(every: Sequence[Amounts], cases: Sequence[Case]) -> set[str]:
    """Return, in the words of findings, which limits and amounts are never reached."""
    here = [case for case in cases if not case.refused]
    told: set[str] = set()
    vain: set[str] = set()
    ever = {one.name for case in cases for one in every if one.rule.id in case.counting}
    for inner in every:
        if inner.unit in ("in flight", "values") or inner.name not in ever:
            continue
        values: dict[Any, list[Case]] = {}
        for case in cases:
            values.setdefault(inner.of(case.typed, case.now, own=False), [])
        if all(most is None for most, _ in values):
            told.add(f"{inner.rule.id} is unlimited")
            continue
        for case in here:
            if inner.rule.id in case.counting:
                values[inner.of(case.typed, case.now, own=False)].append(case)
        idle, less, left = False, set(), False
        for (most, burst), those in values.items():
            if most is None or not those:
                continue
            outer = [
                one
                for one in every
                if one.rule.id not in vain and _holds(one, inner, (most, burst), those, False)
            ]
            idle, left = idle or bool(outer), left or not outer
            if any(_holds(one, inner, (most, burst), those, True) for one in outer):
                less.add(most)
        if idle and not left:
            vain.add(inner.rule.id)
            told.add(f"{inner.rule.id} never")
        elif less:
            shown = " or ".join(sorted(f"{in_unit(one, inner.unit):,.10g}" for one in less))
            told.add(f"{inner.rule.id} {inner.written} one of {shown}")
    return told


def _holds(
    outer: Amounts, inner: Amounts, row: tuple[int, int | None], those: Sequence[Case], less: bool
) -> bool:
    """Tell whether one limit refuses before an amount of another is reached by some requests."""
    if outer.rule is inner.rule or outer.unit != inner.unit or not outer.refuses:
        return False
    a, b = _verb(inner.rule), _verb(outer.rule)
    if not set(b.key.facts) <= set(a.key.facts):
        return False
    if b.key.facts and inner.rule.unknown == "match" and outer.rule.unknown != "match":
        return False
    away = {"allow": 0, "local": 1, "deny": 2}
    if away[outer.rule.on_store_error or "local"] < away[inner.rule.on_store_error or "local"]:
        return False
    return all(
        outer.rule.id in case.counting
        and _is_below(b, outer.of(case.typed, case.now, own=False), a, row, inner.unit, less)
        for case in those
    )


def _is_below(
    b: Any, most: tuple[int | None, int | None], a: Any, row: Any, unit: str, less: bool
) -> bool:
    """Tell whether `b` has refused where `a` would begin to act, or where its last step would."""
    if most[0] is None:
        return False
    through: Fraction = Fraction(most[0])
    start = Fraction(row[0])
    if isinstance(b, Budget):
        through = through * min(s.percent for s in b.steps if s.verdict.effect.refuses) / 100
    if isinstance(a, Budget) and not less:
        start = start * min(s.percent for s in a.steps) / 100
    same = isinstance(a, Budget) and isinstance(b, Budget) and a.window == b.window
    same = same or (isinstance(a, Rate) and isinstance(b, Rate))
    # Tokens are known after the fact, so a limit can be passed once.
    safe = 1 if unit == "requests" or same else 2
    if isinstance(a, Rate) and isinstance(b, Rate):
        pace, most_pace = through / b.period, start / a.period
        at_once = math.inf if most[1] is None else most[1]
        return (
            safe * pace <= most_pace
            and not (less and pace == most_pace)
            and safe * at_once <= (math.inf if row[1] is None else row[1])
        )
    if isinstance(a, Rate):
        # All of a budget at once, and then as fast as it comes back in the long run.
        if b.window.kind == "lifetime":
            return row[1] is None
        touching = 1 if b.window.kind == "rolling" else 2
        fits = row[1] is not None and through * touching <= row[1]
        return fits and through / _length(b.window) <= start / a.period
    got = safe * _within(b, through, most[1], a.window)
    return bool(got < start) or bool(got == start and not less)


def _length(window: Window) -> int:
    return window.length or DAY


def _within(b: Any, through: Fraction, burst: int | None, window: Window) -> Any:
    """Return what a limit lets through at most while a window adds it up."""
    if isinstance(b, Rate):
        if window.kind == "lifetime" or burst is None:
            return math.inf
        return burst + through * Fraction(_counted(window), b.period)
    if b.window.kind == "lifetime" or b.window == window:
        return through
    if window.kind == "lifetime":
        return math.inf
    # A window of the calendar that is touched at both ends is one more.
    times = math.ceil(Fraction(_counted(window), _length(b.window)))
    return through * (times if b.window.kind == "rolling" else times + 1)


def _counted(window: Window) -> Fraction:
    """Return the time that is added up: of a rolling window a sixtieth part more."""
    return Fraction(DAY) if window.length is None else Fraction(window.length * 61, 60)


# GR212: a ceiling that a client escapes by another name.


def escaped(policies: PolicySet, amounts: Sequence[Amounts], cases: Sequence[Case]) -> str | None:
    """Return the first rule whose requests can be called `chat`, and are bounded no more then."""
    if not any("request.capability" in case.request for case in cases):
        return None
    said = {n for n, fact in policies.facts.items() if fact.source is Source.CLIENT}
    every = [one for one in amounts if isinstance(one.rule.verb, Budget) and one.refuses]
    broad = {one.rule.id for one in every if one.unit in ("tokens", "cost_usd")}
    groups: dict[Any, list[Case]] = {}
    for case in cases:
        if not case.refused:
            same = tuple(sorted((n, str(v)) for n, v in case.request.items() if n not in said))
            groups.setdefault((same, case.now), []).append(case)
    for one in every:
        lifting = [ex.when for ex in policies.exemptions if one.rule.id in ex.rules]
        if all("request.capability" not in facts_of(w) for w in (one.rule.when, *lifting)):
            continue
        for alike in groups.values():
            bounded = any(
                one.rule.id in case.counting
                and case.typed.get("request.capability") in ("agentic", "code")
                for case in alike
            )
            free = any(
                case.typed.get("request.capability") == "chat"
                and one.rule.id not in case.counting
                and not case.counting & broad
                for case in alike
            )
            if bounded and free:
                return one.rule.id
    return None


# GR215: a shared limit that one account can fill.


def filled(policies: PolicySet, every: Sequence[Amounts], cases: Sequence[Case]) -> set[str]:
    """Return the rules, each with its amount, that one account can use up alone."""
    found = set()
    for shared in every:
        key = _verb(shared.rule).key.facts
        if shared.refuses and shared.unit != "values" and not set(key) & set(OWN):
            own = [
                one
                for one in every
                if one.unit == shared.unit
                and one.refuses
                and set(_verb(one.rule).key.facts) & set(OWN)
            ]
            if _fills(policies, shared, own, cases):
                found.add(shared.rule.id)
    return found


def _fills(
    policies: PolicySet, shared: Amounts, own: Sequence[Amounts], cases: Sequence[Case]
) -> bool:
    """Tell whether some account can send requests that its own limits do not bound to less."""
    accounts: dict[Any, list[Case]] = {}
    named = any("account.id" in case.request for case in cases)
    for case in cases:
        most, _ = shared.of(case.typed, case.now, own=True)
        there = "account.id" in case.typed or not named
        if case.refused or shared.rule.id not in case.counting or not most or not there:
            continue
        who = tuple(
            sorted(
                (name, str(value))
                for name, value in case.request.items()
                if policies.facts[name].source is not Source.CLIENT and not name.startswith(VARYING)
            )
        )
        accounts.setdefault(who, []).append(case)
    return any(_most_of(one, own, shared) for one in accounts.values())


def _most_of(requests_of: Sequence[Case], own: Sequence[Amounts], shared: Amounts) -> bool:
    """Tell whether an account's limits, chosen as well as can be, leave it all of a shared one."""
    bounds: dict[tuple[str, str], dict[int, Fraction]] = {}
    paces = []
    for place, case in enumerate(requests_of):
        most, _ = shared.of(case.typed, case.now, own=True)
        assert most is not None
        paces.append(_pace(shared, most, shared))
        for one in own:
            value, _ = one.of(case.typed, case.now, own=True)
            if one.rule.id in case.counting and value is not None:
                bounds.setdefault(one.name, {})[place] = _pace(one, value, shared)
    least = min(paces)
    for count in range(1, len(bounds) + 1):
        for chosen in combinations(bounds, count):
            met = {place for name in chosen for place in bounds[name]}
            total = sum(max(bounds[name].values()) for name in chosen)
            if len(met) == len(requests_of) and total < least:
                return False
    return True


def _pace(one: Amounts, most: int, shared: Amounts) -> Fraction:
    """Return how much an amount lets through in the long run, beside one that all share.

    In the long run an account's amount for ever is nothing; of what all share for ever, it is so
    much, and what comes back to the account is without end.
    """
    rule_verb = _verb(one.rule)
    lasting, ever = (
        isinstance(v, Budget) and v.window.kind == "lifetime"
        for v in (rule_verb, _verb(shared.rule))
    )
    if isinstance(rule_verb, Concurrency) or (ever and lasting):
        return Fraction(most)
    if lasting:
        return Fraction(0)
    return Fraction(10**9) if ever else Fraction(most, rule_verb.lasts)


# GR220: amounts of separate rules that fall.


def falling(
    policies: PolicySet, amounts: Sequence[Amounts], cases: Sequence[Case]
) -> set[tuple[str, str]]:
    """Return the facts, each with a rule that leaves less to those who have more of it."""
    found: set[tuple[str, str]] = set()
    every = [one for one in amounts if one.refuses and set(_verb(one.rule).key.facts) & set(OWN)]
    kinds: dict[Any, list[Amounts]] = {}
    for one in every:
        rule_verb = _verb(one.rule)
        covers = rule_verb.covers
        window = rule_verb.lasts if covers is None else covers
        kinds.setdefault((rule_verb.name, one.unit, frozenset(rule_verb.facts), window), []).append(
            one
        )
    names = [n for n in {n for c in cases for n in c.request} if _rises(policies, n)]
    for name in names:
        fact = policies.facts[name]
        alike: dict[Any, dict[Any, Case]] = {}
        for case in cases:
            value = case.typed.get(name)
            if value is not None and (name in case.request or fact.default is not None):
                rest = tuple(sorted((n, str(v)) for n, v in case.request.items() if n != name))
                alike.setdefault((rest, case.now), {})[_place(policies, name, value)] = case
        for group in kinds.values():
            for row in alike.values():
                found |= {(name, rule) for rule in _fallen(policies, name, group, row)}
    return found


def _rises(policies: PolicySet, name: str) -> bool:
    return policies.facts[name].type is FactType.LEVEL or name in EARNED


def _place(policies: PolicySet, name: str, value: Any) -> float:
    fact = policies.facts[name]
    return fact.values.index(value) if fact.type is FactType.LEVEL else float(value)


def _fallen(
    policies: PolicySet, name: str, group: Sequence[Amounts], row: Mapping[Any, Case]
) -> Iterator[str]:
    fact = policies.facts[name]
    places = sorted(row)
    pairs = list(combinations(places, 2)) if fact.type is FactType.LEVEL else list(pairwise(places))
    for below, above in pairs:
        if row[below].refused or row[above].refused:
            continue
        at_low, at_high = ([*_met(group, row[place])] for place in (below, above))
        for high, less in at_high:
            if any(value <= less for _, value in at_low):
                continue
            for low, more in at_low:
                visitor = fact.values[:1] == (fact.default,) and below == 0 and fact.values
                if visitor and set(_verb(low.rule).key.facts) & {"account.id"}:
                    continue
                if more > less and low.rule is not high.rule:
                    yield high.rule.id


def _met(group: Sequence[Amounts], case: Case) -> Iterator[tuple[Amounts, int]]:
    for one in group:
        most, _ = one.of(case.typed, case.now, own=True)
        if one.rule.id in case.counting and most is not None:
            yield one, most


# All together.


def told(policies: PolicySet) -> tuple[dict[str, set[Any]], int]:
    """Return what is found of limits, and how many questions were given up."""
    found: dict[str, set[Any]] = {"GR207": set(), "GR212": set(), "GR215": set(), "GR220": set()}
    found["GR202"] = set()
    given_up = 0
    for one in analyse(policies, NOW):
        parts = one.message.split("`")
        given_up += one.code == "GR229"
        if one.code == "GR207" and "unlimited" in one.message:
            found["GR207"].add(f"{parts[1]} is unlimited")
        elif one.code == "GR207" and one.message.startswith("rule"):
            found["GR207"].add(f"{parts[1]} never")
        elif one.code == "GR207":
            found["GR207"].add((parts[1], one.message.split()[3]))
        elif one.code == "GR220":
            name = parts[1] if one.message.startswith("who") else "account.tier"
            found["GR220"].add((name, policies.rules[one.span.line - 1].id))
        elif one.code in found:
            found[one.code].add(parts[1])
    return found, given_up


def wrong_limits(policies: PolicySet) -> list[str]:
    """Return what is found wrongly, or missed, of the limits of a set."""
    found, given_up = told(policies)
    cases = cases_of(policies)
    problems = ["a question was given up"] * given_up
    # What GR202 says of whole rules is held by other means.
    amounts = amounts_of(policies, found["GR202"])
    vain = in_vain(amounts, cases)
    partial = {one for one in vain if " one of " in one}
    if vain - partial != {one for one in found["GR207"] if isinstance(one, str)}:
        problems.append(f"GR207: claimed {found['GR207']}, and it is {vain}")
    for name, amount_shown in (one for one in found["GR207"] if not isinstance(one, str)):
        fits = [p for p in partial if p.startswith(f"{name} ")]
        if not any(amount_shown in p.split(" one of ")[1].split(" or ") for p in fits):
            problems.append(f"GR207: claimed {name} {amount_shown}, and it is {partial}")
    partly = {one.split()[0] for one in partial}
    if partly != {one[0] for one in found["GR207"] if not isinstance(one, str)}:
        problems.append(f"GR207: claimed {found['GR207']}, and it is {partial}")
    alone = escaped(policies, amounts, cases)
    if found["GR212"] != ({alone} if alone else set()):
        problems.append(f"GR212: claimed {found['GR212']}, and it is {alone}")
    fills = filled(policies, amounts, cases)
    if found["GR215"] != fills:
        problems.append(f"GR215: claimed {found['GR215']}, and it is {fills}")
    falls = falling(policies, amounts, cases)
    if found["GR220"] != falls:
        problems.append(f"GR220: claimed {found['GR220']}, and it is {falls}")
    return problems


def looked_at(seed: int, counts: Counter[str]) -> list[str]:
    """Return what is wrong of a set's limits, and count how many findings there were."""
    policies = limited(seed)
    if how_many(policies) > MOST_REQUESTS:
        counts["too many requests"] += 1
        return []
    counts["sets"] += 1
    counts.update(code for code, every in told(policies)[0].items() if every)
    return wrong_limits(policies)


if __name__ == "__main__":
    over_seeds(looked_at)

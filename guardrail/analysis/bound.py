"""The most that some accounts can take under a policy, worked out before any traffic exists.

A rule bounds what it surely applies to: whatever the caller says, wherever it comes from, and
however it spreads what it asks for over models, hours and labels. What is asked for over a number
of rules of which each request meets one at least is bounded by the sum of those; of all such sums
the smallest is the bound. A limit counts as often as it has keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, islice
from typing import Any, NamedTuple

from guardrail.analysis.regions import (
    SOMEBODY,
    Distinctions,
    Region,
    Requests,
    Values,
    in_force,
)
from guardrail.analysis.splits import numbers
from guardrail.analysis.through import days, of_budget, of_rate
from guardrail.engine import in_unit
from guardrail.model.conditions import (
    Comparison,
    Condition,
    Every,
    Negation,
    evaluate,
    facts_of,
    text_of,
)
from guardrail.model.effects import Mode
from guardrail.model.facts import COUNTRIES, FactType
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Budget, Distinct, Limiting, Rate, Rule, Window

PERIODS: Mapping[str, int | None] = {"day": 1, "month": 30, "ever": None}
"""The periods by name, in calendar days of the policy's time zone; None is without an end."""

ANY = "any"
"""Stands for requests of all capabilities together: a caller chooses what it calls its own."""

CAPABILITY, TIER, ACCOUNT = "request.capability", "account.tier", "account.id"
IDENTITY, CARD, PAID = "kyc.subject", "payment.fingerprint", "account.paid_usd"
_WITH_IDENTITY = (IDENTITY, "account.verified_at", "account.verified_age")
_WITH_CARD = (CARD, "payment.country")
_WITH_PAYMENTS = (PAID, "account.paid_since", "account.paid_age")
_OF_ONE_ACCOUNT = (ACCOUNT, "actor.id")
_FOLLOW = ("account.org", IDENTITY, TIER, "account.signup")
"""The facts of which an account has one: a key that names the account has no more by them."""

MOST_NAMED = 3
"""How many rules that do not bound are named."""

MOST_TERMS = 12
"""Of so many rules the best sum is searched for; of more, a good one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Accounts in one hand: how many there are, and what they have to share.

    `trusted` of them have an identity that was verified (all, if None). `identities` and `cards`
    default to one for each account. Accounts of `identity_from` and the tiers above have an
    identity, and no others (None: any may). `assumed` gives facts one value (None: missing).
    """

    accounts: int
    trusted: int | None = None
    identities: int | None = None
    cards: int | None = None
    identity_from: str | None = None
    assumed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What all accounts of one kind have; None where no rule that refuses asks for it.

    `paid` is from what on they paid, in USD; 0: nothing.
    """

    tier: str | None = None
    identity: bool | None = None
    card: bool | None = None
    paid: float | None = None

    @property
    def text(self) -> str:
        """What they have, in words."""
        words = [] if self.tier is None else [self.tier or "no tier"]
        if self.identity is not None:
            words.append("identity" if self.identity else "no identity")
        if self.card is not None:
            words.append("card" if self.card else "no card")
        if self.paid is not None:
            sum_paid = f"paid {self.paid:g} USD" if self.paid >= 0.01 else "paid something"
            words.append(sum_paid if self.paid else "paid nothing")
        return ", ".join(words) or "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """What one rule lets through in all: `keys` counters of `each`, in the unit's whole parts.

    `formula` says how that is made up, in words.
    """

    rule: str
    keys: int
    each: int
    formula: str

    @property
    def total(self) -> int:
        """The sum over all its counters."""
        return self.keys * self.each


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The most of one unit that accounts of one profile can take in a period.

    `most` is in the unit people read (money in USD), None where nothing bounds it: `missing` then
    says why, and `remedy` what to add. `refused_by` names the rules that refuse all of it. `terms`
    are the rules whose sum it is.
    """

    profile: Profile
    capability: str
    unit: str
    period: str
    most: float | None
    terms: tuple[Term, ...] = ()
    refused_by: tuple[str, ...] = ()
    missing: str | None = None
    remedy: str | None = None


def bounds(
    policies: PolicySet,
    fleet: Fleet,
    now: int,
    *,
    periods: Sequence[str] = tuple(PERIODS),
    tiers: Sequence[str] | None = None,
) -> tuple[Bound, ...]:
    """Return the bound of each profile, capability, unit and period, at `now` (microseconds)."""
    told = Distinctions(policies, in_force(policies, now), now)
    first = _first_alike(told, _capabilities(told, fleet))
    counting = _counting(policies)
    every: list[Bound] = []
    for profile in _profiles(told, fleet, tiers):
        worked = {
            name: tuple(_Worked(told, counting, fleet, profile, name).bounds(periods))
            for name in dict.fromkeys(first.values())
        }
        for capability, name in first.items():
            of_first = worked[name]
            every += (
                of_first
                if capability == name
                else (replace(found, capability=capability) for found in of_first)
            )
    return tuple(every)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What makes an account trusted, by the links of a set: `when` in words.

    `tiers` are those whose accounts may be, None where tiers make no difference.
    """

    when: str
    tiers: tuple[str, ...] | None


def trust(policies: PolicySet, fleet: Fleet, now: int) -> Trust | None:
    """Return what makes an account of a fleet trusted, None where nothing links accounts."""
    if policies.links is None:
        return None
    condition = policies.links.trusted
    told = Distinctions(policies, in_force(policies, now), now)
    tiers: dict[str, bool] = {}
    for profile in _profiles(told, fleet, None):
        if profile.tier:
            known = {**_known(told, profile), **{n: (v,) for n, v in fleet.assumed.items()}}
            may, _ = _answers(condition, known)
            tiers[profile.tier] = tiers.get(profile.tier, False) or may
    kept = tuple(name for name, may in tiers.items() if may)
    return Trust(when=text_of(condition), tiers=None if len(kept) == len(tiers) else kept)


def _answers(condition: Condition, known: Mapping[str, Values]) -> tuple[bool, bool]:
    """Return whether a condition may be true, and whether it may be false, by values of facts."""
    if isinstance(condition, Comparison):
        if condition.fact not in known or condition.operator == "same_as":
            return True, True
        facts = ({} if v is None else {condition.fact: v} for v in known[condition.fact])
        found = {evaluate(condition, each, 0.0) for each in facts}
        return True in found, False in found
    if isinstance(condition, Negation):
        true, false = _answers(condition.part, known)
        return false, true
    every = [_answers(part, known) for part in condition.parts]
    of_all, of_one = (all, any) if isinstance(condition, Every) else (any, all)
    return of_all(one for one, _ in every), of_one(other for _, other in every)


def all_together(found: Sequence[Bound], capability: str, unit: str, period: str) -> float | None:
    """Return the most of all accounts together: all without an identity, and the trusted with one.

    Each of the two at the profile that is worst; None where that is not bounded. An account that
    is trusted later was not before, so that it counts in both.
    """
    most: dict[bool, float | None] = {}
    for one in found:
        if (one.capability, one.unit, one.period) == (capability, unit, period):
            kind = bool(one.profile.identity)
            before = most.get(kind, 0.0)
            most[kind] = None if None in (before, one.most) else max(before or 0, one.most or 0)
    return None if None in most.values() else sum(value or 0 for value in most.values())


def _profiles(told: Distinctions, fleet: Fleet, tiers: Sequence[str] | None) -> Iterator[Profile]:
    """Yield the profiles that rules can tell apart, the lowest tier first."""
    used = frozenset(told.names)
    levels: list[str | None] = [None]
    if TIER in used or fleet.identity_from is not None:
        fact = told.policies.facts[TIER]
        levels = [value for value in fact.values if tiers is None or value in tiers]
        if fact.default is None and tiers is None:
            levels.insert(0, "")
    paid: list[float | None] = [None]
    if used.intersection(_WITH_PAYMENTS):
        starts = sorted({start for start in told.boundaries(PAID) if start > 0})
        paid = [0.0, *(starts or [math.ulp(0.0)])]
    every = told.policies.facts[TIER].values
    for tier in levels:
        known: tuple[bool | None, ...] = (None,)
        if tier is not None and fleet.identity_from is not None:
            known = (tier in every[every.index(fleet.identity_from) :],)
        elif used.intersection(_WITH_IDENTITY):
            known = (False, True)
        for identity in known:
            for card in (False, True) if used.intersection(_WITH_CARD) else (None,):
                for start in paid:
                    yield Profile(tier=tier, identity=identity, card=card, paid=start)


class _Worked:
    """The bounds of one profile and one capability."""

    def __init__(
        self,
        told: Distinctions,
        counting: Mapping[str, Sequence[_Counting]],
        fleet: Fleet,
        profile: Profile,
        capability: str,
    ) -> None:
        self.policies, self.rules, self.counting = told.policies, told.rules, counting
        self.by_id = {rule.id: rule for rule in told.rules}
        self.profile, self.capability = profile, capability
        accounts = fleet.accounts
        if profile.identity and fleet.trusted is not None:
            accounts = fleet.trusted
        if (profile.identity and fleet.identities == 0) or (profile.card and fleet.cards == 0):
            accounts = 0
        self.accounts = accounts
        self.identities = accounts if fleet.identities is None else fleet.identities
        self.cards = accounts if fleet.cards is None else fleet.cards
        known = {**_known(told, profile), **{n: (v,) for n, v in fleet.assumed.items()}}
        if capability != ANY:
            known[CAPABILITY] = (capability,)
        self.told, self.known = told, known
        self.lacking: dict[str, bool] = {}
        self.unbounded: dict[tuple[object, ...], str] = {}
        self.requests = Requests(told, known)
        regions = list(self.requests.regions())
        self.live = [region for region in regions if not region.refused]
        every = dict.fromkeys(name for found in regions for name in found.refused)
        always = tuple(n for n in every if all(n in found.refused for found in regions))
        self.refused = always or tuple(every)

    def bounds(self, periods: Sequence[str]) -> Iterator[Bound]:
        """Yield the bound of each unit and period."""
        bounded = bool(self.live) and self.accounts > 0
        counts = {period: self._counts(period) for period in periods if bounded}
        for unit in _units(self.rules):
            limited = [self._limited(unit, region) for region in self.live if bounded]
            for period in periods:
                yield self._bound(unit, period, counts.get(period, {}), limited)

    def _limited(self, unit: str, region: Region) -> frozenset[str]:
        """Return the rules that count a unit of the requests of a region against a limit."""
        limits = region.limits
        return frozenset(name for name in limits if _limited(self.by_id[name], unit, region))

    def _bound(
        self,
        unit: str,
        period: str,
        counts: Mapping[str, _Count],
        limited: Sequence[frozenset[str]],
    ) -> Bound:
        """Return a bound; `limited` names, for each region that is served, what limits it."""
        bound = Bound(
            profile=self.profile, capability=self.capability, unit=unit, period=period, most=None
        )
        if not self.live or self.accounts == 0:
            return replace(bound, most=0.0, refused_by=self.refused if not self.live else ())
        limiting = frozenset().union(*limited)
        terms: dict[str, Term] = {}
        for rule in self.rules:
            term = self._term(rule, unit, period, counts) if rule.id in limiting else None
            if term is not None:
                terms[rule.id] = term
        met = {
            names.intersection(terms): region
            for names, region in zip(limited, self.live, strict=True)
        }
        if frozenset() in met:
            window = "lifetime" if period == "ever" else "day"
            budget = f"{{{unit}: …, per: {window}, key: account.id}}"
            return replace(
                bound,
                missing=self._missing(met[frozenset()], unit, counts),
                remedy=f"add `budget: {budget}`, or one with `key: global`",
            )
        chosen = cheapest(terms, list(met))
        most = sum(term.total for term in chosen)
        return replace(bound, most=in_unit(most, unit), terms=chosen)

    # How many counters a rule has.

    def _counts(self, period: str) -> dict[str, _Count]:
        """Return how many values of a fact there are, where `distinct` rules bound them."""
        found: dict[str, _Count] = {}
        for rule in self.rules:
            verb = rule.verb
            if not isinstance(verb, Distinct) or period == "ever":
                continue
            limits = [region.limits.get(rule.id, (None,))[0] for region in self.live]
            if None in limits:
                continue
            most = max(limit for limit in limits if limit is not None)
            keys = self._keys(rule, {})
            longest = days(PERIODS[period]).longest(self.policies.timezone) or 0
            times = -(-longest // verb.period)
            count = keys.number * most * times
            if count < found.get(verb.count, self._count(verb.count, {})).number:
                why = f"{most:,} for each of {keys.text}" if keys.text else f"{most:,} in all"
                why += f", {times:,} times" if times > 1 else ""
                found[verb.count] = _Count(count, f"by `{rule.id}`: {why}")
        return found

    def _count(self, name: str, bounded: Mapping[str, _Count]) -> _Count:
        """Return how many values of a fact the accounts have, missing ones not among them."""
        fact = self.policies.facts[name]
        number: float = math.inf
        if name == ACCOUNT:
            number = self.accounts
        elif name in ("actor.id", "account.org", "account.signup"):
            return min(self._count(ACCOUNT, bounded), bounded.get(name, _MANY), key=_number)
        elif name == IDENTITY:
            own = _Count(self.identities, "")
            return min(own, self._count(ACCOUNT, bounded), bounded.get(name, _MANY), key=_number)
        elif name == CARD:
            number = self.cards
        elif len(self.known.get(name, ())) == 1:
            number = 1
        elif fact.type is FactType.BOOL:
            number = 2
        elif fact.type in (FactType.ENUM, FactType.LEVEL):
            number = len(fact.values)
        elif fact.type is FactType.COUNTRY:
            number = len(COUNTRIES)
        elif name == "time.hour":
            number = 24
        return min(_Count(number, ""), bounded.get(name, _MANY), key=_number)

    def _keys(self, rule: Rule, bounded: Mapping[str, _Count]) -> _Keys:
        """Return how many counters a rule has, and whose they are, in words."""
        assert isinstance(rule.verb, Limiting)
        names = rule.verb.key.facts
        number: float = 1
        words: list[str] = []
        own = next((name for name in names if name in _OF_ONE_ACCOUNT), None)
        for name in names:
            lacking = self.requests.values.get(name) == (None,)
            count = _Count(0, "") if lacking else self._count(name, bounded)
            if own is not None and name != own:
                if name in (*_FOLLOW, *_OF_ONE_ACCOUNT):
                    continue
                several = count.number + (1 if self._may_lack(name) else 0)
            else:
                several, stood = count.number, 0.0
                if self._may_lack(name):
                    stands = self._count(ACCOUNT, bounded)
                    stood = {None: stands.number, "match": 1.0, "skip": 0.0}[rule.unknown]
                    if several == 0 and rule.unknown is None:
                        name, count = ACCOUNT, stands
                several += stood
                if name in (*_FOLLOW, *_OF_ONE_ACCOUNT):
                    # An account has one of them, or stands in for it.
                    several = min(several, self._count(ACCOUNT, bounded).number)
            number *= several
            if several != 1 or name in (IDENTITY, CARD, *_OF_ONE_ACCOUNT):
                words.append(_named(several, name) + (f" ({count.why})" if count.why else ""))
        return _Keys(number, " × ".join(words))

    def _may_lack(self, name: str) -> bool:
        """Tell whether a request that is not refused may lack a fact."""
        if None not in self.requests.values.get(name, ()):
            return False
        if name not in self.lacking:
            without = Requests(self.told, {**self.known, name: (None,)})
            self.lacking[name] = without.served()
        return self.lacking[name]

    # What a rule lets through.

    def _term(
        self, rule: Rule, unit: str, period: str, counts: Mapping[str, _Count]
    ) -> Term | None:
        """Return what a rule lets through of a unit in a period, None if it bounds nothing."""
        keys = self._keys(rule, counts)
        each = self._each(rule, unit, period)
        if each is None or math.isinf(keys.number):
            return None
        amount, text = each
        formula = f"{keys.text} × {text}" if keys.text else f"{text}, all together"
        return Term(rule=rule.id, keys=int(keys.number), each=amount, formula=formula)

    def _each(self, rule: Rule, unit: str, period: str) -> tuple[int, str] | None:
        """Return what a rule lets through for each of its keys, and that in words."""
        verb, time, zone = rule.verb, days(PERIODS[period]), self.policies.timezone
        if isinstance(verb, Rate):
            amounts = [
                (limit, at_once) for limit, at_once in self.requests.rows(rule) if limit and at_once
            ]
            through = of_rate(verb, amounts, time, zone)
            if through is None:
                return None
            at_once, due = _shown(through.each, unit), _shown(through.due, unit)
            return through.total, f"({at_once} at once + {due} in the time)"
        if not isinstance(verb, Budget):
            return None
        place = verb.units.index(unit)
        limits = [
            region.limits[rule.id][place] for region in self.live if _limited(rule, unit, region)
        ]
        most = max(limit for limit in limits if limit is not None)
        through = of_budget(verb, most, time, zone)
        if through is None:
            return None
        text = _shown(through.each, unit)
        if through.times > 1:
            text += f" × {through.times:,} windows of {_article(verb.window)}"
        return through.total, text

    # What is not bounded.

    def _missing(self, region: Region, unit: str, counts: Mapping[str, _Count]) -> str:
        """Return why no rule bounds the requests of a region, those that come near named."""
        # Most periods have the same counts.
        asked = id(region), unit, *counts.items()
        if asked not in self.unbounded:
            counting = self.counting.get(unit, ())
            idle = (self._idle(one, unit, region, counts) for one in counting)
            near = islice((text for text in idle if text is not None), MOST_NAMED)
            self.unbounded[asked] = "; ".join(near) or f"no rule limits {unit} of all of them"
        return self.unbounded[asked]

    def _idle(
        self, counting: _Counting, unit: str, region: Region, counts: Mapping[str, _Count]
    ) -> str | None:
        """Return why a rule that counts a unit does not bound a request, None if it is not near."""
        rule, name = counting.rule, f"`{counting.rule.id}`"
        known = counting.facts <= self.requests.values.keys()
        if not known or not self.requests.applies(rule, region.facts):
            return None
        if rule.mode is Mode.SHADOW:
            return f"{name} is in shadow"
        if rule.id not in self.by_id:
            return f"{name} refuses nothing, or ends"
        if not _limited(rule, unit, region):
            return f"{name} has no limit here"
        if math.isinf(self._keys(rule, counts).number):
            many = [n for n in rule.verb.facts if math.isinf(self._count(n, counts).number)]
            return f"{name} counts by `{'`, `'.join(many)}`, of which there can be any number"
        covers = rule.verb.covers
        return f"{name} limits a pace" if covers is None else f"{name} counts per `{covers.text}`"


@dataclass(frozen=True, slots=True)
class _Count:
    """How many values there are, and the rule that bounds them, in words."""

    number: float
    why: str


_MANY = _Count(math.inf, "")


def _number(count: _Count) -> float:
    return count.number


@dataclass(frozen=True, slots=True)
class _Keys:
    """How many counters there are, and whose, in words; empty for one that all share."""

    number: float
    text: str


class _Counting(NamedTuple):
    """A rule that counts, and the facts of its condition."""

    rule: Rule
    facts: frozenset[str]


def _counting(policies: PolicySet) -> dict[str, list[_Counting]]:
    """Return, for each unit, the rules that count it and are not off."""
    found: dict[str, list[_Counting]] = {}
    for rule in policies.rules:
        if rule.mode is not Mode.OFF:
            for unit in rule.verb.units:
                found.setdefault(unit, []).append(_Counting(rule, facts_of(rule.when)))
    return found


def _first_alike(told: Distinctions, names: Sequence[str]) -> dict[str, str]:
    """Return, for each capability, the first that all rules do the same with, those off as well."""
    every = Distinctions(told.policies, told.policies.rules, told.now)
    first: dict[object, str] = {}
    return {
        name: first.setdefault(ANY if name == ANY else every.scores(CAPABILITY, name), name)
        for name in names
    }


def _capabilities(told: Distinctions, fleet: Fleet) -> tuple[str, ...]:
    if CAPABILITY not in told.names or CAPABILITY in fleet.assumed:
        return (ANY,)
    return (ANY, *told.policies.facts[CAPABILITY].values)


def _units(rules: Sequence[Rule]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(("requests", *(unit for rule in rules for unit in rule.verb.units))))


def _known(told: Distinctions, profile: Profile) -> dict[str, Values]:
    """Return the values that the facts of a profile may have; those left out are the caller's."""
    known: dict[str, Values] = dict.fromkeys(_OF_ONE_ACCOUNT, (SOMEBODY,))
    if profile.tier is not None:
        known[TIER] = (profile.tier or None,)
    for has, name, all_of_it in (
        (profile.identity, IDENTITY, _WITH_IDENTITY),
        (profile.card, CARD, _WITH_CARD),
    ):
        if has:
            known[name] = (SOMEBODY,)
        elif has is not None:
            known |= dict.fromkeys(all_of_it, (None,))
    if profile.paid is not None:
        boundaries = {0.0, *told.boundaries(PAID)}
        every = numbers(told.policies.facts[PAID], boundaries)
        after = min((b for b in boundaries if b > profile.paid), default=math.inf)
        if profile.paid:
            known[PAID] = tuple(value for value in every if profile.paid <= value < after)
        else:
            known |= dict.fromkeys(_WITH_PAYMENTS, (None,))
            known[PAID] = (*(value for value in every if value <= 0), None)
    return known


def _limited(rule: Rule, unit: str, region: Region) -> bool:
    """Tell whether a rule counts a unit of the requests of a region against a limit."""
    limits = region.limits.get(rule.id)
    if limits is None or unit not in rule.verb.units:
        return False
    if isinstance(rule.verb, Rate):
        return None not in limits
    return isinstance(rule.verb, Budget) and limits[rule.verb.units.index(unit)] is not None


def cheapest(terms: Mapping[str, Term], met: Sequence[frozenset[str]]) -> tuple[Term, ...]:
    """Return the terms of the smallest sum of which each set has one at least."""
    needed = [one for one in met if not any(other < one for other in met)]
    names = sorted(frozenset().union(*needed), key=lambda name: terms[name].total)
    if len(names) > MOST_TERMS:
        best = _good(names, needed)
    else:
        best = min(
            (
                chosen
                for size in range(1, len(names) + 1)
                for chosen in combinations(names, size)
                if all(not one.isdisjoint(chosen) for one in needed)
            ),
            key=lambda chosen: sum(terms[name].total for name in chosen),
        )
    everywhere = [name for name in names if all(name in one for one in needed)][:1]
    sums = (tuple(terms[name] for name in chosen) for chosen in (best, everywhere) if chosen)
    return min(sums, key=lambda chosen: sum(term.total for term in chosen))


def _good(names: Sequence[str], needed: Sequence[frozenset[str]]) -> tuple[str, ...]:
    """Return names of which each set has one, the last of `names` left out where others do."""
    left = [len(one) for one in needed]
    chosen: list[str] = []
    for name in reversed(names):
        places = [place for place, one in enumerate(needed) if name in one]
        if all(left[place] > 1 for place in places):
            for place in places:
                left[place] -= 1
        else:
            chosen.append(name)
    return tuple(chosen)


def _article(window: Window) -> str:
    if window.length is not None:
        return window.text
    return f"an {window.text}" if window.text == "hour" else f"a {window.text}"


def _shown(amount: int, unit: str) -> str:
    shown = in_unit(amount, unit)
    return f"{shown:,} USD" if unit == "cost_usd" else f"{shown:,}"


_NOUNS = {ACCOUNT: "account", "actor.id": "actor", IDENTITY: "identity", CARD: "card"}


def _named(number: float, name: str) -> str:
    noun = _NOUNS.get(name, f"value of `{name}`")
    if number != 1:
        noun = noun.replace("value of", "values of") if "`" in noun else f"{noun}s"
        noun = noun.replace("identitys", "identities")
    return f"{number:,.0f} {noun}"

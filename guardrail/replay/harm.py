"""Whom a replay's refusals hit: by segment, and account by account.

A segment is all requests with the same values of some facts. What shadow rules would have done,
had they been enforced, is kept apart from what was decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import nsmallest
from itertools import pairwise
from typing import Any, NamedTuple

from guardrail.engine import NEVER_FITS, Decision, FactReader, LimitStatus
from guardrail.errors import DataError
from guardrail.model.amounts import MICRO
from guardrail.model.conditions import facts_of
from guardrail.model.effects import Effect
from guardrail.model.facts import FactType
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Limiting
from guardrail.replay.signs import Signs, Standing
from guardrail.traffic.requests import MONEY

MOST_SEGMENTS = 20_000
"""How many segments of one division are told apart; what is left over is one segment more."""
MOST_CACHED = 65_536

MISSING = "(missing)"
OTHERS = "(others)"
SEEN, DEGRADED, REFUSED, SHADOW_REFUSED = 1, 2, 4, 8
"""What an account met, as bits: any request, a degrade, a refusal, one by shadow rules alone."""

SOON = 600.0
"""Within how many seconds a request comes soon after another."""
GROUP = 3
"""From how many accounts on those that act as one are a group."""

_DAYS = (1, 7, 30, 90, 365)
_EFFECTS = tuple(Effect)
_REFUSING = Effect.THROTTLE
_FIGURES = frozenset(
    ("divisions", "segments", "_undivided", "hits", "shadow_hits", "met", "soon", "by_rule")
)


class Place(NamedTuple):
    """Where a request stands: its time in seconds, its file, its line."""

    ts: float
    file: str
    line: int


class First(NamedTuple):
    """The first refusal in a segment: where it stands, and the rule."""

    place: Place
    rule: str


@dataclass(slots=True)
class Segment:
    """The requests of one segment, by effect, and its accounts by what they met.

    `shadow` counts those not refused by the effect that shadow rules would have had instead.
    """

    decided: list[int] = field(default_factory=lambda: [0] * len(_EFFECTS))
    shadow: list[int] = field(default_factory=lambda: [0] * len(_EFFECTS))
    accounts: dict[str, int] = field(default_factory=dict)
    first: First | None = None
    first_shadow: First | None = None

    @property
    def requests(self) -> int:
        """How many requests it has."""
        return sum(self.decided)

    @property
    def refused(self) -> int:
        """How many of them were refused."""
        return sum(self.decided[Effect.THROTTLE :])

    @property
    def shadow_refused(self) -> int:
        """How many more shadow rules would have refused."""
        return sum(self.shadow[Effect.THROTTLE :])

    def accounts_that(self, met: int) -> int:
        """Return how many accounts met something."""
        return sum(bool(bits & met) for bits in self.accounts.values())

    def merge(self, other: Segment) -> None:
        """Add what other requests of the segment met."""
        for mine, theirs in ((self.decided, other.decided), (self.shadow, other.shadow)):
            for place, count in enumerate(theirs):
                mine[place] += count
        for account, bits in other.accounts.items():
            self.accounts[account] = self.accounts.get(account, 0) | bits
        self.first = earliest(self.first, other.first)
        self.first_shadow = earliest(self.first_shadow, other.first_shadow)


def earliest(one: First | None, other: First | None) -> First | None:
    """Return which of two refusals came first."""
    if one is None or other is None:
        return one or other
    return min(one, other)


USUAL_DIVISION = ("account.tier",)
"""The facts by which segments are told apart where nothing else is asked for."""


def by_impact(
    segments: dict[tuple[str, ...], Segment], *, shadow: bool = False
) -> list[tuple[tuple[str, ...], Segment]]:
    """Return segments by how many requests were refused, or would be, and then by requests."""

    def order(pair: tuple[tuple[str, ...], Segment]) -> tuple[object, ...]:
        values, segment = pair
        hurt = segment.shadow_refused if shadow else segment.refused
        return (-hurt, -segment.requests, values)

    return sorted(segments.items(), key=order)


class Reading(NamedTuple):
    """What a rule read when it refused: the facts it tested, and the counter that was full.

    `facts` are names and values. `used`, what the request `asked` for and `limit` are in `unit`,
    money in USD; all are None where the rule counts nothing. `never_fits` tells that the request
    asks for more than the whole limit.
    """

    facts: tuple[tuple[str, str], ...] = ()
    key: tuple[tuple[str, str], ...] = ()
    unit: str | None = None
    used: float | None = None
    asked: float | None = None
    limit: float | None = None
    never_fits: bool = False


@dataclass(slots=True)
class Hit:
    """One account that was refused: how often, and its first refusal.

    `read` is what the rule read then. `standing` is what spoke for the account when it was
    refused, `together` how many accounts acted as one with it, itself included; of all refusals
    the most there was.
    """

    place: Place
    rule: str
    effect: Effect
    read: Reading
    standing: Standing
    requests: int = 0
    refused: int = 0
    together: int = 1

    @property
    def in_a_group(self) -> bool:
        """Whether it acts as one with others."""
        return self.together >= GROUP

    def weigh(self, standing: Standing) -> None:
        """Keep what spoke for the account at another refusal, if that is more."""
        if standing.weight > self.standing.weight:
            self.standing = standing

    def merge(self, other: Hit) -> None:
        """Take the account's refusals among other requests in; the first of all is kept."""
        self.refused += other.refused
        self.together = max(self.together, other.together)
        self.weigh(other.standing)
        if other.place < self.place:
            self.place, self.rule, self.effect = other.place, other.rule, other.effect
            self.read = other.read


class Harm:
    """Adds up whom refusals hit.

    `divisions` are the facts that requests are divided by, one table for each; `segments` has
    their segments by value. `hits` has the accounts that were refused, `shadow_hits` those that
    shadow rules alone would have refused; `met` has of each account how many requests it made.
    """

    def __init__(self, policies: PolicySet, divisions: Iterable[tuple[str, ...]] = ()) -> None:
        self.divisions = tuple(divisions)
        self.segments: tuple[dict[tuple[str, ...], Segment], ...] = tuple(
            {} for _ in self.divisions
        )
        self._undivided = Segment()
        self.hits: dict[str, Hit] = {}
        self.shadow_hits: dict[str, Hit] = {}
        # What was stated of an account at its latest refusals, and when: weighed at the end.
        self._later: dict[int, dict[str, tuple[tuple[object, ...], float]]] = {
            REFUSED: {},
            SHADOW_REFUSED: {},
        }
        self.met: dict[str, int] = {}
        self.soon = 0
        """How many requests came soon after another of their account."""
        self._last: dict[str, float] = {}
        self.by_rule: dict[str, dict[str, int]] = {}
        """Of each rule the accounts it refused or degraded, with how many requests each."""
        self.signs = Signs(policies)
        self._policies = policies
        names = {name for division in self.divisions for name in division}
        self._reader = FactReader(policies.facts, names, policies.timezone)
        self._names = sorted(self._reader.used)
        self._moving = any(
            policies.facts[name].type is FactType.DURATION or name.startswith("time.")
            for name in names
        )
        self._cached: dict[tuple[object, ...], list[Segment]] = {}

    def add(self, place: Place, decision: Decision) -> None:
        """Count one decided request."""
        facts, ruling = decision.facts, decision.ruling
        effect = stricter = ruling.effect
        shadow_rule: str | None = None
        for report in ruling.shadow:
            if report.effect > stricter:
                stricter, shadow_rule = report.effect, report.rule
        account = facts.get("account.id")
        if account.__class__ is not str:
            account = None
        bits = SEEN
        if effect >= _REFUSING:
            bits |= REFUSED
        elif stricter >= _REFUSING:
            bits |= SHADOW_REFUSED
        if effect is Effect.DEGRADE:
            bits |= DEGRADED
        ts = place.ts
        for segment in self._segments(ts, facts):
            segment.decided[effect] += 1
            if stricter > effect and effect < _REFUSING:
                segment.shadow[stricter] += 1
            if account is not None:
                met = segment.accounts.get(account, 0)
                if met | bits != met:
                    segment.accounts[account] = met | bits
            if bits < REFUSED:
                continue
            if bits & REFUSED:
                if segment.first is None or place < segment.first.place:
                    segment.first = First(place, ruling.rule or "")
            elif bits & SHADOW_REFUSED and (
                segment.first_shadow is None or place < segment.first_shadow.place
            ):
                segment.first_shadow = First(place, shadow_rule or "")
        if account is None:
            return
        self.met[account] = self.met.get(account, 0) + 1
        last = self._last.get(account)
        if last is not None and abs(ts - last) <= SOON:
            self.soon += 1
        self._last[account] = ts
        rule = ruling.rule
        if rule is not None:
            by_account = self.by_rule.setdefault(rule, {})
            by_account[account] = by_account.get(account, 0) + 1
        if bits & REFUSED:
            self._hit(REFUSED, account, place, decision, rule, effect)
        elif bits & SHADOW_REFUSED:
            self._hit(SHADOW_REFUSED, account, place, decision, shadow_rule, stricter)

    def __getstate__(self) -> dict[str, object]:
        """Return the figures alone, for another process to merge."""
        return {name: value for name, value in vars(self).items() if name in _FIGURES}

    def merge(self, other: Harm) -> None:
        """Add what other requests under the same policies met."""
        self._cached.clear()
        self._undivided.merge(other._undivided)
        for mine, theirs in zip(self.segments, other.segments, strict=True):
            for values, segment in theirs.items():
                self._segment(mine, values).merge(segment)
        self.soon += other.soon
        for account, count in other.met.items():
            self.met[account] = self.met.get(account, 0) + count
        for rule, accounts in other.by_rule.items():
            known = self.by_rule.setdefault(rule, {})
            for account, count in accounts.items():
                known[account] = known.get(account, 0) + count
        for hits, others in ((self.hits, other.hits), (self.shadow_hits, other.shadow_hits)):
            for account, hit in others.items():
                if account in hits:
                    hits[account].merge(hit)
                else:
                    hits[account] = hit

    def divide_by(self, divisions: Iterable[tuple[str, ...]]) -> None:
        """Tell segments apart by other facts, as far as those that were counted tell them.

        Raises:
            DataError: they were not counted by one of these facts.
        """
        asked = tuple(divisions)
        found = []
        for division in asked:
            finer = [one for one in self.divisions if set(division) <= set(one)]
            if not finer:
                counted = ", ".join(f"`{','.join(one)}`" for one in self.divisions)
                raise DataError(
                    f"`--by {','.join(division)}`: the parts were counted by {counted or 'no fact'}"
                    " alone; give it to each `check --shard`"
                )
            source = min(finer, key=len)
            places = [source.index(name) for name in division]
            segments: dict[tuple[str, ...], Segment] = {}
            for values, segment in self.segments[self.divisions.index(source)].items():
                fewer = tuple(values[place] for place in places)
                segments.setdefault(fewer, Segment()).merge(segment)
            found.append(segments)
        self.divisions, self.segments = asked, tuple(found)

    def finished(self) -> None:
        """Complete the figures: how many requests the accounts that were refused made in all."""
        for met, hits in ((REFUSED, self.hits), (SHADOW_REFUSED, self.shadow_hits)):
            for account, (stated, ts) in self._later[met].items():
                hits[account].weigh(self.signs.of_stated(stated, ts))
            self._later[met].clear()
            for account, hit in hits.items():
                hit.requests = self.met.get(account, 0)

    def of(self, division: tuple[str, ...]) -> dict[tuple[str, ...], Segment]:
        """Return the segments of one of the divisions."""
        return self.segments[self.divisions.index(division)]

    def worst(self, most: int) -> list[tuple[str, Hit]]:
        """Return the accounts with the most requests refused, then those served least."""

        def order(pair: tuple[str, Hit]) -> tuple[object, ...]:
            account, hit = pair
            return (-hit.refused, hit.requests, account)

        return nsmallest(most, self.hits.items(), key=order)

    def rules_of(self, account: str) -> list[str]:
        """Return the rules that refused or degraded requests of an account, the most first."""
        counts = {rule: met[account] for rule, met in self.by_rule.items() if account in met}
        return sorted(counts, key=lambda rule: (-counts[rule], rule))

    @property
    def whole(self) -> Segment:
        """All requests as one segment."""
        if not self.divisions:
            return self._undivided
        whole = Segment()
        for segment in self.segments[0].values():
            whole.merge(segment)
        return whole

    def _hit(
        self,
        met: int,
        account: str,
        place: Place,
        decision: Decision,
        rule: str | None,
        effect: Effect,
    ) -> None:
        hits, signs = self.hits if met == REFUSED else self.shadow_hits, self.signs
        known, facts = hits.get(account), decision.facts
        size = facts.get("actor.accounts")
        together = size if isinstance(size, int) else 1
        if known is not None and known.place < place:
            known.refused += 1
            if together > known.together:
                known.together = together
            self._weigh_later(met, known, account, signs.stated(facts), place.ts)
            return
        standing = signs.of(facts, place.ts)
        read = reading(decision, rule, self._policies)
        hit = Hit(place, rule or "", effect, read, standing, refused=1, together=together)
        if known is None:
            hits[account] = hit
        else:
            known.merge(hit)

    def _weigh_later(
        self, met: int, hit: Hit, account: str, stated: tuple[object, ...], ts: float
    ) -> None:
        """Weigh what speaks for an account, once for all refusals at which the same was stated."""
        later = self._later[met]
        known = later.get(account)
        if known is not None:
            if known[0] == stated and self.signs.grows:
                if ts > known[1]:
                    later[account] = (stated, ts)
                return
            hit.weigh(self.signs.of_stated(*known))
        later[account] = (stated, ts)

    def _segments(self, ts: float, facts: Mapping[str, object]) -> Iterable[Segment]:
        if not self.divisions:
            return (self._undivided,)
        if self._moving:
            return self._found(ts, facts)
        key = tuple(map(facts.get, self._names))
        try:
            known = self._cached.get(key)
        except TypeError:
            # A list has no hash.
            return self._found(ts, facts)
        if known is None:
            if len(self._cached) >= MOST_CACHED:
                self._cached.clear()
            known = self._cached[key] = self._found(ts, facts)
        return known

    def _found(self, ts: float, facts: Mapping[str, object]) -> list[Segment]:
        read, _ = self._reader.read(facts, ts)
        found = []
        for division, segments in zip(self.divisions, self.segments, strict=True):
            values = tuple(self._shown(name, read.get(name)) for name in division)
            found.append(self._segment(segments, values))
        return found

    def _segment(
        self, segments: dict[tuple[str, ...], Segment], values: tuple[str, ...]
    ) -> Segment:
        known = segments.get(values)
        if known is None:
            if len(segments) >= MOST_SEGMENTS:
                values = (OTHERS,) * len(values)
            known = segments.setdefault(values, Segment())
        return known

    def _shown(self, name: str, value: Any) -> str:
        if value is None:
            return MISSING
        kind = self._policies.facts[name].type
        if kind is FactType.DURATION:
            return _length_band(value)
        if kind is FactType.NUMBER:
            return _number_band(value)
        if kind is FactType.TIMESTAMP:
            return f"{datetime.fromtimestamp(value, UTC):%Y-%m}"
        if isinstance(value, list | tuple | frozenset):
            return " + ".join(sorted(map(str, value))) or "(none)"
        return str(value).lower() if isinstance(value, bool) else str(value)


def reading(decision: Decision, rule: str | None, policies: PolicySet) -> Reading:
    """Return what a rule read to refuse a request: its facts, and the counter that was full."""
    made = next((one for one in policies.rules if one.id == rule), None)
    if made is None:
        return Reading()
    case = decision.case
    known = case.engine.reading(case).facts
    facts = tuple((name, _text(known.get(name))) for name in sorted(facts_of(made.when)))
    asked = [
        receipt.amount
        for receipt, _ in case.consulted
        if case.engine.counters[receipt.number][0].rule.id == rule
    ]
    statuses = [status for status in decision.limits if status.rule == rule]
    if not statuses:
        never_fits = decision.rule == rule and decision.reason == NEVER_FITS
        return Reading(facts, never_fits=never_fits)
    verb = made.verb
    names = verb.key.facts if isinstance(verb, Limiting) else ()
    key = tuple((name, _value(name, known)) for name in names)

    def filled(pair: tuple[LimitStatus, float]) -> float:
        status, amount = pair
        return (status.used + amount) / max(status.limit, 1e-9)

    amounts = [
        amount / MICRO if status.unit == MONEY else float(amount)
        for status, amount in zip(statuses, asked, strict=True)
    ]
    full, amount = max(zip(statuses, amounts, strict=True), key=filled)
    return Reading(facts, key, full.unit, full.used, amount, full.limit)


def _value(name: str, facts: Mapping[str, object]) -> str:
    """Return a fact as text; an actor, whose name is made anew in each replay, by its size."""
    if name == "actor.id" and isinstance(facts.get("actor.accounts"), int):
        return f"of {facts['actor.accounts']} accounts"
    return _text(facts.get(name))


def _text(value: object) -> str:
    if value is None:
        return MISSING
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _length_band(seconds: float) -> str:
    days = seconds / 86400
    for start, end in pairwise((0, *_DAYS)):
        if days < end:
            return f"under {end}d" if not start else f"{start}d–{end}d"
    return f"from {_DAYS[-1]}d"


def _number_band(value: float) -> str:
    if value <= 0:
        return "0"
    top = 10
    while value >= top and top < 10**9:
        top *= 10
    return f"under {top:,}" if top == 10 else f"{top // 10:,}–{top:,}"

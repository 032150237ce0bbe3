"""Which accounts of some traffic can affect each other's decisions, found before it is replayed.

Two accounts are tied where a request of each may consult the same counter, or show evidence that
may link them. What cannot be told beforehand is taken to be possible: whom an account acts as, say.
Accounts that are not tied, not even through others, can be replayed in different processes, and
each is decided as it would be in one.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from guardrail.engine import FactReader
from guardrail.engine.expressions import key_text
from guardrail.guard import Guard
from guardrail.links import ACTOR_FACTS, SCORE_FACTS
from guardrail.links.linking import MOST_LINKS
from guardrail.model.conditions import (
    Answer,
    Comparison,
    Condition,
    Every,
    Negation,
    evaluate,
    facts_of,
)
from guardrail.model.effects import Mode
from guardrail.model.facts import AGES
from guardrail.model.links import Links
from guardrail.model.policy import PolicySet
from guardrail.model.rules import CountingVerb, Rule
from guardrail.traffic.reading import Recorded

Facts = Mapping[str, Any]
Token = str
"""Who asks: an account, or the network of a request without one, or nobody known."""

DAY = 86_400.0
MOST_SEEN = 50_000
"""How many different requests of a day are remembered as looked at."""
HEAVY = 200
"""Who has more than one part in so many of all requests is given a place by name."""

_CLOCK = frozenset(("time.hour", "time.weekday"))
_ACTOR = ACTOR_FACTS | SCORE_FACTS
_MONOTONE = frozenset(("gt", "gte", "lt", "lte", "before", "after", "exists"))


def token_of(facts: Mapping[str, object]) -> Token:
    """Return who asks, by the facts of a request."""
    account = facts.get("account.id")
    if account.__class__ is str and account:
        return f"a{account}"
    network = facts.get("client.network")
    if network.__class__ is str:
        return f"n{network}"
    address = facts.get("client.ip")
    return f"i{address}" if address.__class__ is str else "u"


@dataclass(slots=True)
class Parts:
    """Traffic divided into `count` parts, each of which can be replayed by itself.

    `named` says the part of those who are tied to others, or ask for much; all others are divided
    by a hash of who they are, in proportion to `upto`.
    """

    count: int
    named: dict[Token, int]
    upto: list[int]

    def of(self, facts: Mapping[str, object]) -> int:
        """Return the part that a request belongs to."""
        token = token_of(facts)
        place = self.named.get(token)
        if place is not None:
            return place
        share = zlib.crc32(token.encode("utf-8", "surrogatepass"))
        return next(n for n, most in enumerate(self.upto) if share < most)


@dataclass(slots=True)
class Found:
    """What was found of some traffic; `merge` adds what was found of more of it.

    `requests` counts by who asks, `owners` says who was first seen at a counter or at evidence,
    and `above` leads from one who is tied to another. `rules` are those that tie anybody, `linked`
    those whom evidence may link, and `crowded` the evidence that several show. `shown` is what each
    shows; `vouchers` are the trusted accounts of each value, by which others' links depend on them.
    """

    requests: Counter[Token] = field(default_factory=Counter)
    owners: dict[tuple[Any, ...], Token] = field(default_factory=dict)
    above: dict[Token, Token] = field(default_factory=dict)
    rules: set[str] = field(default_factory=set)
    linked: set[Token] = field(default_factory=set)
    crowded: set[tuple[Any, ...]] = field(default_factory=set)
    shown: dict[Token, set[tuple[Any, ...]]] = field(default_factory=dict)
    vouchers: dict[Hashable, set[Token]] = field(default_factory=dict)

    def own(self, what: tuple[Any, ...], token: Token) -> bool:
        """Note that one consults a counter or shows evidence; tell whether another did."""
        owner = self.owners.setdefault(what, token)
        if owner == token:
            return False
        self.tie(owner, token)
        return True

    def tie(self, one: Token, other: Token) -> None:
        """Tie two who ask."""
        first, second = self.root(one), self.root(other)
        if first != second:
            # The lesser name leads, whatever the order in which ties are found.
            low, high = min(first, second), max(first, second)
            self.above[high] = low

    def root(self, token: Token) -> Token:
        """Return who leads those that one is tied to."""
        above, at = self.above, token
        while (upper := above.get(at)) is not None:
            at = upper
        while (upper := above.get(token)) is not None:
            above[token], token = at, upper
            if token == at:
                break
        return at

    def merge(self, other: Found) -> None:
        """Add what was found of other lines of the traffic by the same policies."""
        self.requests.update(other.requests)
        self.rules |= other.rules
        self.linked |= other.linked
        self.crowded |= other.crowded
        for what, owner in other.owners.items():
            if self.own(what, owner):
                self._note_tied(what, owner)
        for token, upper in other.above.items():
            self.tie(token, upper)
        for token, shown in other.shown.items():
            self.shown.setdefault(token, set()).update(shown)
        for value, tokens in other.vouchers.items():
            self.vouchers.setdefault(value, set()).update(tokens)

    def note(self, what: tuple[Any, ...], token: Token) -> None:
        """Note that one may consult a counter of a rule, or show evidence."""
        if self.own(what, token):
            self._note_tied(what, token)

    def _note_tied(self, what: tuple[Any, ...], token: Token) -> None:
        if what[0] == "rule":
            self.rules.add(what[1])
        else:
            self.crowded.add(what)
            self.linked.update((token, self.owners[what]))


class Ties:
    """Looks at requests for what ties those who ask; `found` holds what it found."""

    def __init__(self, policies: PolicySet, guard: Guard) -> None:
        """Take the policies, and a guard for the facts that its signals add."""
        self.found = Found()
        self._guard = guard
        self._policies = policies
        rules = [rule for rule in policies.rules if rule.mode is not Mode.OFF]
        used = guard.used_facts
        links = policies.links if used & _ACTOR else None
        volatile = AGES.keys() | _CLOCK | (_ACTOR if links is not None else frozenset())
        self._shared = [
            _SharedRule(rule, volatile, links is not None)
            for rule in rules
            if isinstance(rule.verb, CountingVerb)
        ]
        self._links = None if links is None else _Evidence(links, volatile)
        names = {"account.id", "client.network", "client.ip"}
        for shared in self._shared:
            names |= shared.facts
        if links is not None:
            names |= links.facts
        self._reader = FactReader(policies.facts, names, policies.timezone)
        sources = guard.signal_facts
        self._names = tuple(sorted(self._reader.used | sources | names))
        self._seen: set[tuple[object, ...]] = set()
        self._day = 0.0

    def look(self, ts: float, facts: Mapping[str, object]) -> None:
        """Look at one request at `ts` (seconds)."""
        day = ts // DAY
        if day > self._day:
            self._day = day
            self._seen.clear()
        shown: tuple[object, ...] = (day, *map(facts.get, self._names))
        try:
            is_new = shown not in self._seen
        except TypeError:
            shown = (str(shown),)
            is_new = shown not in self._seen
        if is_new:
            if len(self._seen) >= MOST_SEEN:
                self._seen.clear()
            self._seen.add(shown)
            self._look_closely(day * DAY, facts)
        self.found.requests[token_of(facts)] += 1

    def look_at_all(self, traffic: Iterable[Recorded]) -> None:
        """Look at every request of some traffic."""
        look = self.look
        for _, ts, request in traffic:
            look(ts, request.facts)

    def _look_closely(self, start: float, raw: Mapping[str, object]) -> None:
        """Note what a request may consult and show at any time of the day that starts then."""
        token, times = token_of(raw), (start, start + DAY)
        stated = self._guard.established(raw, start)
        both = [self._reader.read(stated, at)[0] for at in times]
        moments = _Moments(both[0], both[1], times)
        for shared in self._shared:
            what = shared.counter(moments)
            if what is not None:
                self.found.note(what, token)
        if self._links is not None:
            self._links.note(moments, token, self.found)


def parts_of(found: Found, policies: PolicySet, count: int) -> Parts:
    """Return traffic divided into `count` parts, in each about as many requests as possible."""
    _tie_vouchers(found)
    if policies.score is not None and policies.score.breaker is not None:
        # The breaker counts the accounts of all actors together.
        tokens = sorted(found.linked)
        for token in tokens[1:]:
            found.tie(tokens[0], token)
    sizes: Counter[Token] = Counter()
    tied: set[Token] = set()
    for token, count_of in found.requests.items():
        root = found.root(token)
        sizes[root] += count_of
        if root != token:
            tied.update((root, token))
    total = sum(sizes.values())
    loads = [0] * count
    place: dict[Token, int] = {}
    heavy = {root for root, size in sizes.items() if root in tied or size * HEAVY > total}
    for root in sorted(heavy, key=lambda token: (-sizes[token], token)):
        least = min(range(count), key=lambda part: (loads[part], part))
        place[root] = least
        loads[least] += sizes[root]
    named = {token: place[found.root(token)] for token in tied}
    named.update(place)
    return Parts(count, named, _thresholds(loads, total))


def shared_rules(policies: PolicySet) -> list[str]:
    """Return the ids of the rules whose counters several accounts may share.

    A replay of some accounts alone fills these less than one of all does.
    """
    own = {"account.id"} if policies.links is not None else {"account.id", "actor.id"}
    return [
        rule.id
        for rule in policies.rules
        if rule.mode is not Mode.OFF
        and isinstance(rule.verb, CountingVerb)
        and own.isdisjoint(rule.verb.key.facts)
    ]


def largest_share(found: Found) -> float:
    """Return the share of all requests that the largest group of those tied together has."""
    sizes: Counter[Token] = Counter()
    for token, count in found.requests.items():
        sizes[found.root(token)] += count
    return max(sizes.values(), default=0) / max(1, sizes.total())


def _thresholds(loads: list[int], total: int) -> list[int]:
    """Return up to which hash each part takes of those without a place, so that all get as much."""
    even = max(total / len(loads), max(loads))
    room = [max(0.0, even - load) for load in loads]
    whole = sum(room) or float(len(loads))
    if not sum(room):
        room = [1.0] * len(loads)
    upto, passed = [], 0.0
    for part in room:
        passed += part
        upto.append(round(passed / whole * 2**32))
    upto[-1] = 2**32
    return upto


def _tie_vouchers(found: Found) -> None:
    """Tie the trusted accounts that may make a value public to those whose links depend on it."""
    for token in sorted(found.linked):
        shown = found.shown.get(token, set())
        # An account may have so many links; which of its values are public then decides which.
        every = len(shown) >= MOST_LINKS
        for what in shown:
            if what[0] == "pair" and (every or what in found.crowded):
                for value in what[2]:
                    for voucher in found.vouchers.get(value, ()):
                        found.tie(token, voucher)


@dataclass(frozen=True, slots=True)
class _Moments:
    """The typed facts of a request at the beginning and the end of a day, and these times."""

    first: Facts
    last: Facts
    times: tuple[float, float]


Possible = Callable[[_Moments], Answer]
"""A condition over a whole day: unknown where it is, or where it changes within the day."""


def possible(condition: Condition, volatile: frozenset[str] | set[str]) -> Possible:
    """Return a condition as what it may answer on a day; nothing is known of `volatile` facts.

    Of ages is known how they compare with lengths of time, as that changes once at most.
    """
    if isinstance(condition, Comparison):
        return partial(_tested, condition, _varies(condition, volatile))
    if isinstance(condition, Negation):
        part = possible(condition.part, volatile)
        return lambda moments: None if (found := part(moments)) is None else not found
    parts = [possible(part, volatile) for part in condition.parts]
    decisive = not isinstance(condition, Every)

    def answer(moments: _Moments) -> Answer:
        answers = [part(moments) for part in parts]
        if decisive in answers:
            return decisive
        return None if None in answers else not decisive

    return answer


def _varies(test: Comparison, volatile: frozenset[str] | set[str]) -> bool:
    if test.operator == "same_as" and str(test.operand) in volatile:
        return True
    if test.fact not in volatile:
        return False
    return test.fact not in AGES or test.operator not in _MONOTONE


def _tested(test: Comparison, varies: bool, moments: _Moments) -> Answer:
    if varies:
        return None
    first = evaluate(test, moments.first, moments.times[0])
    last = evaluate(test, moments.last, moments.times[1])
    return first if first is last else None


class _SharedRule:
    """A counting rule: whether a request may consult a counter of it, and which."""

    def __init__(self, rule: Rule, volatile: frozenset[str] | set[str], is_linked: bool) -> None:
        verb = rule.verb
        assert isinstance(verb, CountingVerb)
        self.facts = facts_of(rule.when) | {"account.id", "client.network", *verb.facts}
        self._id = rule.id
        self._names = verb.key.facts
        self._possible = possible(rule.when, volatile)
        self._key = key_text(verb.key.facts, rule.unknown)
        self._is_actors = is_linked and "actor.id" in self._names
        # A key that changes with time is taken for one that all share.
        self._is_vague = bool(set(self._names) & volatile) and not self._is_actors

    def counter(self, moments: _Moments) -> tuple[object, ...] | None:
        """Return the counter that a request may consult, None if there is none that others may.

        Whom an account acts as ties accounts already.
        """
        facts = moments.first
        has_account = "account.id" in facts
        if has_account and (self._is_actors or "account.id" in self._names):
            return None
        if self._possible(moments) is False:
            return None
        if self._is_vague:
            return ("rule", self._id, "=")
        whose = self._key(facts)
        return None if whose is None else ("rule", self._id, whose)


class _Evidence:
    """What a request may show that links its account to others."""

    def __init__(self, links: Links, volatile: frozenset[str] | set[str]) -> None:
        self._links = links
        self._trusted = possible(links.trusted, volatile)
        self._exempt = None if links.exempt is None else possible(links.exempt, volatile)

    def note(self, moments: _Moments, token: Token, found: Found) -> None:
        """Note the evidence of one request."""
        facts = moments.first
        if "account.id" not in facts:
            return
        if self._exempt is not None and self._exempt(moments) is True:
            return
        for name in self._links.strong:
            if name in facts:
                strong = ("strong", name, facts[name])
                found.shown.setdefault(token, set()).add(strong)
                found.note(strong, token)
        trusted = self._trusted(moments)
        pairs = list(self._pairs(facts))
        if trusted is not False:
            for _, _, parts in pairs:
                for part in parts:
                    found.vouchers.setdefault(part, set()).add(token)
        if trusted is not True:
            for pair in pairs:
                found.shown.setdefault(token, set()).add(pair)
                found.note(pair, token)

    def _pairs(self, facts: Facts) -> Iterator[tuple[str, object, tuple[object, ...]]]:
        for one, other in self._links.pairs:
            if one in facts and other in facts:
                yield ("pair", (one, other), ((one, facts[one]), (other, facts[other])))

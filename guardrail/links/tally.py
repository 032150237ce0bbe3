"""What tells against an actor: tallies of what its served requests showed, and the score of them.

A tally is two halves of a window: the current one and the one before. At the end of a half the
older is dropped whole, so that what was seen counts for half a window at least and for a whole one
at most. Of a fact's values no more are kept than its evidence needs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

from guardrail.engine import Expressions, FactReader, conditional, define, indented
from guardrail.model.links import Score, Sign
from guardrail.model.policy import PolicySet
from guardrail.stores.forks import call_in_children

MOST_SEEN = 1001
"""One more value of a fact than any evidence asks for."""
COMMONEST = 8
"""How many values are followed to find the commonest (J. Misra and D. Gries, 1982)."""


class Found(NamedTuple):
    """A score, and the evidence that makes it up."""

    score: int
    evidence: tuple[str, ...]


NOTHING = Found(0, ())


class _Half:
    """What was seen in half a window: for each sign a record of its own kind."""

    __slots__ = ("records", "requests")

    def __init__(self, signs: int) -> None:
        self.requests = 0
        self.records: list[Any] = [None] * signs


class Tally:
    """The evidence against one actor."""

    __slots__ = ("_current", "_ends", "_former", "_found", "_half", "_last", "_signs")

    def __init__(self, signs: tuple[Sign, ...]) -> None:
        self._signs = signs
        """What the records are of, in their order."""
        self._current, self._former = _Half(len(signs)), _Half(len(signs))
        self._found: Found | None = None
        """What the evidence comes to, until more is seen or some is dropped."""
        self._ends = self._half = self._last = 0.0
        """When the current half of the window ends, how long one is, when a request came last."""

    def add(self, scorer: Scorer, shown: tuple[Any, ...], now: float) -> None:
        """Count a served request at `now` (seconds) by what it showed; see `Scorer.read`."""
        is_now = now < self._ends and scorer.signs is self._signs
        half = self._current if is_now else self._at(scorer, now)
        self._found = None
        half.requests += 1
        gap, self._last = (now - self._last if self._last else 0.0), now
        scorer.count(shown, now, half.records, gap)

    def absorb(self, other: Tally) -> None:
        """Take over what another actor's tally holds: they turned out to be one.

        Both go on to the later half first: what was seen before the window counts no longer.
        """
        ends, half = max((self._ends, self._half), (other._ends, other._half))
        signs = self._signs if self._last >= other._last else other._signs
        for tally in (self, other):
            tally._turn(ends, half)
            tally._sort(signs)
        self._found = None
        self._last = max(self._last, other._last)
        for mine, its in ((self._current, other._current), (self._former, other._former)):
            mine.requests += its.requests
            for place, record in enumerate(its.records):
                mine.records[place] = _united(mine.records[place], record)

    def copy(self) -> Tally:
        """Return a tally that says the same: a part keeps what told against the whole."""
        made = Tally(self._signs)
        made.absorb(self)
        return made

    def found(self, scorer: Scorer, now: float) -> Found:
        """Return what the evidence comes to at `now` (seconds)."""
        halves = self._at(scorer, now), self._former
        if self._found is None:
            self._found = self._summed(scorer, halves)
        return self._found

    @staticmethod
    def _summed(scorer: Scorer, halves: tuple[_Half, _Half]) -> Found:
        one, other = halves
        requests = one.requests + other.requests
        points: dict[str, int] = {}
        holding: list[str] = []
        for sign, now, before in zip(scorer.signs, one.records, other.records, strict=True):
            if _tells(sign, now, before, requests):
                holding.append(sign.id)
                points[sign.family] = max(points.get(sign.family, 0), sign.points)
        if len(points) < 2:
            return NOTHING
        return Found(sum(points.values()), tuple(sorted(holding)))

    def _at(self, scorer: Scorer, now: float) -> _Half:
        """Return the half of the window that it is now, with a record for each sign."""
        if now >= self._ends:
            self._turn((int(now / scorer.half) + 1) * scorer.half, scorer.half)
        self._sort(scorer.signs)
        return self._current

    def _turn(self, ends: float, half: float) -> None:
        """Go on to the half of the window that ends then, of that length, if it is a later one."""
        if ends > self._ends:
            signs = len(self._signs)
            self._former = self._current if ends < self._ends + 1.5 * half else _Half(signs)
            self._current, self._found = _Half(signs), None
            self._ends, self._half = ends, half

    def _sort(self, signs: tuple[Sign, ...]) -> None:
        """Put the records into the order of these signs; policies may have changed since.

        What was gathered for a sign that looks at the same is kept, all else begins anew.
        """
        if signs is self._signs:
            return
        before = [(sign.kind, sign.fact, sign.condition) for sign in self._signs]
        after = [(sign.kind, sign.fact, sign.condition) for sign in signs]
        self._signs = signs
        if after != before:
            for half in (self._current, self._former):
                half.records = [
                    half.records[before.index(one)] if one in before else None for one in after
                ]
        self._found = None


class Scorer:
    """The score of a set that has one, ready to be read from tallies."""

    def __init__(self, policies: PolicySet) -> None:
        assert policies.score is not None
        self.score = policies.score
        self.signs = self.score.signs
        self.half = self.score.window / 2_000_000
        """Half of the window, in seconds."""
        self._reader = FactReader(policies.facts, self.score.shown, policies.timezone)
        self.shown: tuple[str, ...]
        """The facts that evidence is counted from."""
        self.count: Callable[[tuple[Any, ...], float, list[Any], float], None]
        """Adds what a request showed at a time to a record for each sign.

        What it showed are the typed values of the facts `shown`, None for a missing one. The last
        argument is how many seconds it came after the one before, 0 for the first.
        """
        self.shown, self.count = _counting(policies, self.score)

    def read(self, facts: Mapping[str, object], now: float) -> tuple[Any, ...]:
        """Return what the facts of a request show at `now` (seconds), as `count` takes it."""
        typed, _ = self._reader.read(facts, now)
        return tuple(map(typed.get, self.shown))


def _counting(policies: PolicySet, score: Score) -> tuple[tuple[str, ...], Callable[..., None]]:
    """Return the facts that evidence is counted from, and the generated function that does it."""
    source = Expressions(policies.facts)
    counted = [line for place in enumerate(score.signs) for line in _sign_lines(source, *place)]
    source.constants["follow"] = _follow
    names = tuple(source.variables)
    given = [f"{', '.join(source.variables.values())}, = shown"] if names else []
    lines = ["def count(shown, now, records, gap):", *indented([*given, *counted])]
    made: Callable[..., None] = define(lines, source.constants, "count", "evidence")
    return names, made


def _sign_lines(source: Expressions, place: int, sign: Sign) -> list[str]:
    """Return the lines that add what a request shows to the record of one sign."""
    record = f"records[{place}]"
    if sign.kind == "even":
        # Count, mean and squared deviations with one gap more (B. P. Welford, 1962).
        return [
            "if gap > 0:",
            f"    gaps, mean, squares = {record} or (0, 0.0, 0.0)",
            "    delta = gap - mean; mean += delta / (gaps + 1)",
            f"    {record} = gaps + 1, mean, squares + delta * (gap - mean)",
        ]
    if sign.condition is not None:
        holds = source.condition(sign.condition, unknown=False)
        return [f"if {holds}: {record} = ({record} or 0) + 1"]
    value = source.variable(str(sign.fact))
    first = [f"r = {record}", f"if r is None: {record} = {{{value}: {sign.kind == 'count' or 1}}}"]
    if sign.kind == "count":
        more = [f"elif len(r) <= {sign.above}: r[{value}] = True"]
    else:
        more = [f"elif {value} in r: r[{value}] += 1", f"else: follow(r, {value})"]
    return conditional(f"{value} is not None", [*first, *more])


def _tells(sign: Sign, one: Any, other: Any, requests: int) -> bool:
    """Tell whether the records of two halves, None for nothing seen, amount to evidence.

    It is asked before each request of an actor that may have a score: values are not put together
    where their numbers alone say it.
    """
    if sign.kind == "count":
        return _are_more(one or {}, other or {}, sign.above)
    if requests < sign.least:
        return False
    share = sign.above * requests
    if sign.kind == "when":
        return bool(((one or 0) + (other or 0)) * 100 > share)
    if sign.kind == "same":
        return _is_common(one or {}, other or {}, share)
    gaps, mean, squares = _united(one, other) or (0, 0.0, 0.0)
    variation = 100 * (squares / gaps) ** 0.5 / mean if gaps > 1 else 100.0
    return bool(variation < 100 - sign.above)


def _are_more(one: dict[object, bool], other: dict[object, bool], above: int) -> bool:
    """Tell whether more values than so many were seen in two halves together."""
    fewest, most = max(len(one), len(other)), len(one) + len(other)
    if fewest > above or most <= above:
        return fewest > above
    return len(one.keys() | other.keys()) > above


def _is_common(one: dict[object, int], other: dict[object, int], share: int) -> bool:
    """Tell whether a value was seen so often in two halves that a hundred times that is above."""
    tops = [max(half.values(), default=0) * 100 for half in (one, other)]
    if max(tops) > share or sum(tops) <= share:
        return max(tops) > share
    return any((count + other.get(value, 0)) * 100 > share for value, count in one.items())


def _follow(values: dict[object, int], value: object) -> None:
    """Count a new value among the commonest: too few are counted rather than too many."""
    if len(values) < COMMONEST:
        values[value] = 1
        return
    for other in list(values):
        values[other] -= 1
        if not values[other]:
            del values[other]


def _united(one: Any, other: Any) -> Any:
    """Return what two records of a kind say together, apart from both."""
    if one is None or other is None:
        kept = one if other is None else other
        return dict(kept) if isinstance(kept, dict) else kept
    if isinstance(one, dict):
        together = dict(one)
        if any(count is True for count in (*one.values(), *other.values())):
            # Values that were seen; evidence asks for no more of them than can be told apart.
            return dict(islice((together | other).items(), MOST_SEEN))
        for value, count in other.items():
            together[value] = together.get(value, 0) + count
        commonest = sorted(together, key=together.__getitem__, reverse=True)[:COMMONEST]
        return {value: together[value] for value in commonest}
    if isinstance(one, tuple):
        (n, mean, squares), (m, other_mean, other_squares) = one, other
        total, delta = n + m, other_mean - mean
        return (
            total,
            mean + delta * m / total,
            squares + other_squares + delta * delta * n * m / total,
        )
    return one + other


class Tallies:
    """The tallies of all actors of a process, and whom a score has acted on.

    At `most` actors those that were not heard of for longest are forgotten. Every call holds a lock
    of its own, and none is held within it.
    """

    def __init__(self, most: int = 100_000) -> None:
        self._most = most
        self._free()
        call_in_children(self._free)
        self._kept: dict[int, Tally] = {}
        self._actioned: dict[int, float] = {}
        self._newly: list[float] = []
        """When established accounts were first refused or degraded for a score."""

    def _free(self) -> None:
        # In a forked child nobody else is left to let go of it.
        self._lock = threading.RLock()

    def empty(self) -> None:
        """Forget everything."""
        with self._lock:
            for kept in (self._kept, self._actioned, self._newly):
                kept.clear()

    def found(self, actor: int, scorer: Scorer, now: float) -> Found:
        """Return what the evidence against an actor comes to at `now` (seconds)."""
        with self._lock:
            tally = self._kept.get(actor)
            return NOTHING if tally is None else tally.found(scorer, now)

    def add(self, scorer: Scorer, actor: int, shown: tuple[Any, ...], now: float) -> None:
        """Count a served request of an actor by what it showed; see `Scorer.read`."""
        with self._lock:
            tally = self._kept.pop(actor, None)
            if tally is None:
                tally = Tally(scorer.signs)
                while len(self._kept) >= self._most:
                    del self._kept[next(iter(self._kept))]
            self._kept[actor] = tally
            tally.add(scorer, shown, now)

    def join(self, into: int, others: Iterable[int]) -> None:
        """Let an actor take over what told against others."""
        with self._lock:
            for other in others:
                tally = self._kept.pop(other, None)
                if tally is None:
                    continue
                if into in self._kept:
                    self._kept[into].absorb(tally)
                else:
                    self._kept[into] = tally

    def follow(self, former: int, actor: int) -> None:
        """Let an actor that others found to be another keep what told against the former."""
        with self._lock:
            if former and actor and actor not in self._kept:
                self.part(former, actor)

    def part(self, whole: int, part: int) -> None:
        """Let a part of an actor keep what told against the whole."""
        with self._lock:
            tally = self._kept.get(whole)
            if tally is not None:
                self._kept[part] = tally.copy()

    def act(self, account: int, scorer: Scorer, is_established: bool, now: float) -> None:
        """Note that a score had an account refused or degraded."""
        with self._lock:
            window = scorer.half * 2
            if self._actioned.get(account, 0.0) <= now and is_established:
                self._newly.append(now)
            self._actioned.pop(account, None)
            self._actioned[account] = now + window
            while self._actioned and next(iter(self._actioned.values())) <= now:
                del self._actioned[next(iter(self._actioned))]

    def spares(self, account: int, scorer: Scorer, now: float) -> bool:
        """Tell whether the breaker keeps scores from acting on an established account."""
        with self._lock:
            breaker = scorer.score.breaker
            if breaker is None or self._actioned.get(account, 0.0) > now:
                return False
            return self.tripped(scorer, now)

    def tripped(self, scorer: Scorer, now: float) -> bool:
        """Tell whether as many established accounts were newly acted on as the breaker allows."""
        with self._lock:
            breaker = scorer.score.breaker
            if breaker is None:
                return False
            since = now - breaker.per / 1_000_000
            self._newly = [moment for moment in self._newly if moment > since]
            return len(self._newly) >= breaker.most

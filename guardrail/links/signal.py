"""The facts of links: whom an account acts as, and what tells against it, before rules are read."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar, cast

from guardrail.engine import Decision, FactReader, completed, rule_facts
from guardrail.links.evidence import Evidence, Sighting
from guardrail.links.linking import Standing
from guardrail.links.tally import Scorer, Tallies
from guardrail.model.amounts import DAY, MINUTE, SECOND
from guardrail.model.cells import Pool
from guardrail.model.conditions import compile_condition
from guardrail.model.effects import Effect
from guardrail.model.policy import PolicySet

REMEMBERED_FOR = 30 * SECOND
"""How long a process goes by what it knows of an account, in microseconds."""
LOOKED_AFTER = 10 * MINUTE
"""How long it does, in memory, before it looks whether what changed meanwhile ties the account."""
MOST_REMEMBERED = 20_000
"""How many accounts are remembered, and as many again that were remembered before them."""

_ACTOR = ("actor.id", "actor.accounts", "actor.trusted_accounts")
_SCORE = ("actor.score", "actor.evidence")
ACTOR_FACTS, SCORE_FACTS = frozenset(_ACTOR), frozenset(_SCORE)

K = TypeVar("K", bound="Known")
"""What a signal remembers of accounts."""


def actor_id(number: int) -> str:
    """Return the id of an actor of several accounts."""
    return f"actor-{number:016x}"


class Acting:
    """Whom an account acts as: the values of the facts that say so, and of its score's.

    A value is None where there is none: accounts that act alone have no score. `actor` is 0 for
    them, `account` a number.
    """

    __slots__ = ("account", "actor", "values")

    def __init__(self, account: int, actor: int, values: tuple[object, ...]) -> None:
        self.account, self.actor, self.values = account, actor, values

    @classmethod
    def alone(cls, account: str, *, trusted: bool) -> Self:
        """Return an account as an actor of its own."""
        return cls(0, 0, (account, 1, int(trusted), None, None))

    @property
    def facts(self) -> dict[str, object]:
        """The facts that say so."""
        every = zip((*_ACTOR, *_SCORE), self.values, strict=True)
        return {name: value for name, value in every if value is not None}

    def added_to(self, facts: Mapping[str, object]) -> Mapping[str, object]:
        """Return the facts of a request together with these; what it states goes before."""
        return completed(facts, self.facts)


NOBODY = Acting(0, 0, (None,) * 5)
"""A request that names no account."""


class Marks:
    """How far links have come.

    `version` rises whenever an actor changes in this process, and with `revision`, which rises
    whenever what accounts showed earlier in the day may tie them otherwise: see `Book.revision`.
    """

    __slots__ = ("revision", "version")

    def __init__(self) -> None:
        """Start with nothing known."""
        self.revision = self.version = 0


class Seen(NamedTuple):
    """Whom an account acts as, by the links of a version and of a revision.

    `settled`: seeing it again that day says the same until there is another revision.
    """

    standing: Standing
    version: int
    revision: int
    settled: bool


class LinkStore(Protocol):
    """Keeps links and lets counters follow them, in one step."""

    @property
    def marks(self) -> Marks:
        """Tell by what has changed whether to look again."""
        ...

    @property
    def evidence(self) -> Evidence:
        """What reads the evidence of requests."""
        ...

    @property
    def tallies(self) -> Tallies:
        """What tells against actors."""
        ...

    def see(self, sighting: Sighting, pools: Sequence[Pool], now: int) -> Seen:
        """Return whom an account acts as after a sighting at `now` (microseconds)."""
        ...

    def stands(self, kept: Kept, pools: Sequence[Pool], now: int) -> Seen | None:
        """Return whom an account acts as by what is known already, None if it has to be seen."""
        ...

    def expire(self, pools: Sequence[Pool], now: int) -> None:
        """Let go of all links that have expired by `now` (microseconds)."""
        ...


class ActorSignal(ABC, Generic[K]):
    """Establishes `actor.*` from what a request shows of its account.

    What it found is remembered for a while by all that it was found from, so that most requests
    ask nobody. An account alone, or exempt, is an actor of its own, and has no score. Where it
    `relies` on a fact whose source failed, the account acts alone in this request and no link
    changes: one that is trusted must not become a member for that.
    """

    sources = ()

    def __init__(self, policies: PolicySet, tallies: Tallies, pools: Sequence[Pool]) -> None:
        assert policies.links is not None
        self._reader = FactReader(policies.facts, policies.links.facts, policies.timezone)
        self.looks_at: tuple[str, ...] = tuple(self._reader.facts)
        """The facts that whom an account acts as is found out by."""
        self.provides = ACTOR_FACTS
        self.relies = FactReader(policies.facts, policies.links.relies, policies.timezone).used
        self.needs = frozenset(self.looks_at)
        self._tallies, self._pools = tallies, tuple(pools)
        self._recent: dict[tuple[object, ...], K] = {}
        self._older: dict[tuple[object, ...], K] = {}
        self._scoring = None
        if policies.score is not None:
            self._scoring = _Scoring(policies)
            self.provides |= SCORE_FACTS
            self.needs |= self._scoring.reader.used

    @property
    def scores(self) -> bool:
        """Whether decisions are to be handed to `decided`, or `note`."""
        return self._scoring is not None

    @abstractmethod
    def facts(self, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        """Return whom the account of a request acts as at `now` (seconds since the epoch)."""

    def without(self, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        """Return the facts of a request of which a fact that this relies on is unavailable."""
        account = known.get("account.id")
        return Acting.alone(account, trusted=False).facts if isinstance(account, str) else {}

    @abstractmethod
    def _seen(self, known: Mapping[str, object], now: float) -> Known | None:
        """Return what is known of the account of a request that was just decided."""

    def _told(self, found: Known, known: Mapping[str, object], now: float) -> Acting:
        """Return whom an account acts as by what was found, with what tells against it now."""
        scoring = self._scoring
        if scoring is None or not found.actor:
            return found
        scorer = scoring.scorer
        if found.accounts < scorer.score.min_accounts:
            return found
        result = self._tallies.found(found.actor, scorer, now)
        if not result.score or self._is_spared(found, scoring, known, now):
            return found
        return Acting(found.account, found.actor, (*found.values[: len(_ACTOR)], *result))

    def decided(self, known: Mapping[str, object], now: float, decision: Decision) -> None:
        """Note what a decided request showed, whose account has to be looked up once more."""
        if known.get("actor.accounts") != 1:
            found = self._seen(known, now)
            if found is not None and found.actor:
                self.note(found, decision, now)

    def note(self, acting: Acting, decision: Decision, now: float) -> None:
        """Count what a decided request of an actor showed, and whom a score has acted on.

        What is refused does not count: a score ends by itself, whoever goes on asking.
        """
        scoring = self._scoring
        assert scoring is not None
        scorer, acted, refused = scoring.scorer, False, False
        if decision.ruling.effect is not Effect.ALLOW:
            acted, refused = decision.rule in scoring.rules, not decision.allowed
            if refused and not acted:
                return
        known = decision.facts
        if not refused:
            self._tallies.add(scorer, acting.actor, scorer.read(known, now), now)
        if acted:
            typed, _ = scoring.reader.read(known, now)
            is_established = scoring.established(typed, now) is True
            self._tallies.act(acting.account, scorer, is_established, now)

    def warnings(self, now: float) -> tuple[str, ...]:
        """Return what an operator should know at `now`: that the breaker is open."""
        scoring = self._scoring
        if scoring is None or not self._tallies.tripped(scoring.scorer, now):
            return ()
        breaker = scoring.scorer.score.breaker
        assert breaker is not None
        return (
            f"scores act on no further established account: {breaker.most} were newly refused or "
            f"degraded for one within {breaker.per // SECOND} s; look at `actor.evidence` in "
            "the decision log; untrusted accounts, budgets and whom scores acted on before stay "
            "as they are",
        )

    def _is_spared(
        self, found: Known, scoring: _Scoring, known: Mapping[str, object], now: float
    ) -> bool:
        """Tell whether the breaker keeps the score from telling against an account."""
        if not self._tallies.spares(found.account, scoring.scorer, now):
            return False
        typed, _ = scoring.reader.read(known, now)
        return scoring.established(typed, now) is True

    def _remembered(self, known: Mapping[str, object]) -> tuple[tuple[object, ...], K | None]:
        """Return what a request shows, and what is remembered of it, however old that is."""
        looked_at = tuple(map(known.get, self.looks_at))
        try:
            return looked_at, self._recent.get(looked_at) or self._older.get(looked_at)
        except TypeError:  # a value of a wrong type, which is no evidence
            return (), None

    def _remember(self, looked_at: tuple[object, ...], found: K) -> None:
        """Go by what was found for as long as it is good."""
        if looked_at:
            if len(self._recent) >= MOST_REMEMBERED:
                self._older, self._recent = self._recent, {}
            self._recent[looked_at] = found


def _uncounted(actor: int, shown: tuple[Any, ...], now: float) -> None:
    """Count nothing."""


class LinkSignal(ActorSignal["Kept"]):
    """Establishes `actor.*` by links in this process's memory.

    An account that showed itself once that day is not seen again: its links last as long as they
    do. Only when another actor came to be somewhere it is asked for whom it acts as, and some
    minutes later, if that may have tied it, it is seen again. On another day its links are renewed.
    """

    def __init__(self, policies: PolicySet, store: LinkStore, pools: Sequence[Pool]) -> None:
        super().__init__(policies, store.tallies, pools)
        self._store, self._marks = store, store.marks
        self.names: tuple[str, ...] = (*_ACTOR, *_SCORE)
        """The facts whose values an `Acting` has, in their order."""
        self.shown: tuple[str, ...] = ()
        """The facts that evidence is counted from; none where nothing is scored."""
        self.count: Callable[[int, tuple[Any, ...], float], None] = _uncounted
        """Counts a served request of an actor by what it showed: see `Scorer.read`."""
        self._least = sys.maxsize
        if self._scoring is not None:
            scorer = self._scoring.scorer
            self.shown, self.count = scorer.shown, partial(self._tallies.add, scorer)
            self._least = scorer.score.min_accounts

    def facts(self, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        """Return whom the account of a request acts as at `now` (seconds since the epoch)."""
        return self.recall(tuple(map(known.get, self.looks_at)), known, now).facts

    def recall(
        self, looked_at: tuple[object, ...], known: Mapping[str, object], now: float
    ) -> Acting:
        """Return what `facts` does, given the values of the facts that it looks at.

        They may be as stated, or typed. What is nearly always the case takes no further call.
        """
        try:
            found = self._recent.get(looked_at) or self._older.get(looked_at)
        except TypeError:  # a value of a wrong type, which is no evidence
            looked_at, found = (), None
        if (
            found is None
            or not found.fresh <= now < found.stale
            or found.version != self._marks.version
        ):
            found = self._checked(known, looked_at, found, now)
            if found is None:
                return NOBODY
        return found if found.accounts < self._least else self._told(found, known, now)

    def forget(self) -> None:
        """Forget what is remembered of accounts: the links were emptied."""
        self._recent, self._older, self._marks = {}, {}, self._store.marks

    def begin_day(self, now: float) -> None:
        """Let go of all links that have expired by `now` (seconds)."""
        self._store.expire(self._pools, int(now * SECOND + 0.5))

    def _seen(self, known: Mapping[str, object], now: float) -> Known | None:
        return self._checked(known, *self._remembered(known), now)

    def _checked(
        self,
        known: Mapping[str, object],
        looked_at: tuple[object, ...],
        found: Kept | None,
        now: float,
    ) -> Kept | None:
        """Return what is known of an account by now, given what was found of all that it shows."""
        moment = int(now * SECOND + 0.5)
        if found is None or not found.since <= moment < found.until:
            return self._look(known, looked_at, now, moment)
        if moment >= found.again or found.version != self._marks.version:
            return self._again(looked_at, found, moment)
        return found

    def _look(
        self, known: Mapping[str, object], looked_at: tuple[object, ...], now: float, moment: int
    ) -> Kept | None:
        """See the account of a request for the first time, or as another than before."""
        typed, _ = self._reader.read(known, now)
        evidence = self._store.evidence
        sighting = evidence.sighting(typed, now)
        if sighting is None:
            return None
        seen = self._store.see(sighting, self._pools, moment)
        until, shows = evidence.until(typed, moment), Shown.of(sighting)
        found = Kept(shows, moment, until, seen, scored=self.scores)
        found.look_after(moment)
        self._remember(looked_at, found)
        return found

    def _again(self, looked_at: tuple[object, ...], kept: Kept, moment: int) -> Kept:
        """Return what is known of an account now that days have passed or actors have changed."""
        store, marks = self._store, self._marks
        is_due, is_same_day = moment >= kept.again, moment // DAY == kept.day
        if is_due and is_same_day and kept.is_unmoved(marks):
            kept.look_after(moment)
            return kept
        seen = None
        if is_same_day and not (is_due and kept.may_be_tied(marks.revision)):
            seen = store.stands(kept, self._pools, moment)
        if seen is None:
            seen = store.see(kept.shown.sighting, self._pools, moment)
            is_due = True
        found = kept.found_as(seen, scored=self.scores)
        if is_due:
            found.look_after(moment)
        # Another thread may know better by now: its version is then another than the store's.
        self._remember(looked_at, found)
        return found


class _Scoring:
    """What scores need of a policy set: its evidence, and the rules that go by it."""

    def __init__(self, policies: PolicySet) -> None:
        self.scorer = Scorer(policies)
        score = self.scorer.score
        self.reader = FactReader(policies.facts, score.facts, policies.timezone)
        self.rules = frozenset(
            rule.id
            for rule in policies.rules
            if rule_facts(rule, policies.exemptions) & SCORE_FACTS
        )
        breaker = score.breaker
        self.established = compile_condition(breaker.established) if breaker else _nobody


def _nobody(facts: Mapping[str, object], now: float) -> bool | None:
    return False


class Known(Acting):
    """What is remembered of one account as it showed itself."""

    __slots__ = ("accounts", "since", "until", "version")

    def __init__(
        self,
        sighting: Sighting | Shown,
        since: int,
        until: int,
        standing: Standing,
        version: int,
        *,
        scored: bool,
    ) -> None:
        """Note what was found at a version, `since` when, and `until` when (microseconds).

        An actor that is `scored` has a score of 0 until something tells against it.
        """
        actor, accounts, trusted = standing
        name = actor_id(actor) if actor else sighting.handle
        score = (0, ()) if scored and actor else (None, None)
        super().__init__(sighting.account, actor, (name, accounts, trusted, *score))
        self.accounts = accounts
        self.since, self.until, self.version = since, until, version

    @property
    def standing(self) -> Standing:
        """How the account stood."""
        return Standing(self.actor, self.accounts, cast(int, self.values[2]))


class Shown(NamedTuple):
    """What an account showed, as few bytes."""

    account: int
    handle: str
    is_trusted: bool
    is_exempt: bool
    data: bytes

    @classmethod
    def of(cls, sighting: Sighting) -> Self:
        """Return what a sighting showed."""
        account, handle, is_trusted, is_exempt, *_ = sighting
        return cls(account, handle, is_trusted, is_exempt, sighting.data)

    @property
    def sighting(self) -> Sighting:
        """The sighting once more."""
        return Sighting.read(self.data, self.handle, self.is_trusted, self.is_exempt)


class Kept(Known):
    """What is remembered where nobody else changes links, until it is looked at again."""

    __slots__ = ("again", "day", "fresh", "looked_at", "revision", "settled", "shown", "stale")

    def __init__(self, shown: Shown, since: int, until: int, seen: Seen, *, scored: bool) -> None:
        """Note what was seen; `since` and `until` when facts say so (microseconds)."""
        super().__init__(shown, since, until, seen.standing, seen.version, scored=scored)
        self.shown = shown
        self.revision, self.settled = seen.revision, seen.settled
        self.day = self.looked_at = 0
        self.look_again(0)

    def look_after(self, moment: int) -> None:
        """Have it looked at some minutes after a moment, or when the day is over."""
        self.day, self.looked_at = moment // DAY, self.version
        self.look_again(min(moment + LOOKED_AFTER, (self.day + 1) * DAY, self.until))

    def look_again(self, moment: int) -> None:
        """Have it looked at from a moment on.

        From `fresh` to `stale`, in seconds, it surely need not be: they are rounded by a little
        more than what a float of seconds is from the microsecond that it stands for.
        """
        self.again = moment
        self.fresh, self.stale = (self.since + 2) / SECOND, (moment - 2) / SECOND

    def found_as(self, seen: Seen, *, scored: bool) -> Kept:
        """Return what is remembered after it was seen again, to be looked at when this was."""
        if seen.standing == self.standing:
            self.version, self.revision, self.settled = seen.version, seen.revision, seen.settled
            return self
        found = Kept(self.shown, self.since, self.until, seen, scored=scored)
        found.day, found.looked_at = self.day, self.looked_at
        found.look_again(self.again)
        return found

    def is_unmoved(self, marks: Marks) -> bool:
        """Tell whether nothing at all has changed since it was looked at."""
        stands = self.looked_at == marks.version and self.revision == marks.revision
        return stands and not self.shown.is_exempt

    def may_be_tied(self, revision: int) -> bool:
        """Tell whether what it showed may tie it otherwise by now."""
        return not self.settled or self.revision != revision

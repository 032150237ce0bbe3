"""The facts of links: whom an account acts as, and what tells against it, before rules are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

from guardrail.engine import Decision, FactReader, define, rule_facts
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

ACTOR_FACTS = frozenset({"actor.id", "actor.accounts", "actor.trusted_accounts"})
UNSCORED: Mapping[str, object] = {"actor.score": 0, "actor.evidence": ()}
"""What is told of an actor against which nothing tells."""
SCORE_FACTS = frozenset(UNSCORED)

K = TypeVar("K", bound="Known")
"""What a signal remembers of accounts."""

ALONE = Standing(0, 1, 0)
"""How an account stands that acts alone, and is not known to be trusted."""


def actor_id(number: int) -> str:
    """Return the id of an actor of several accounts."""
    return f"actor-{number:016x}"


def actor_facts(standing: Standing, account: str) -> Mapping[str, object]:
    """Return the facts that say whom an account acts as."""
    actor, accounts, trusted = standing
    return {
        "actor.id": actor_id(actor) if actor else account,
        "actor.accounts": accounts,
        "actor.trusted_accounts": trusted,
    }


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
        self._names = tuple(self._reader.facts)
        self.provides = ACTOR_FACTS
        self.relies = FactReader(policies.facts, policies.links.relies, policies.timezone).used
        self.needs = frozenset(self._names)
        self._tallies, self._pools = tallies, tuple(pools)
        self._recent: dict[tuple[object, ...], K] = {}
        self._older: dict[tuple[object, ...], K] = {}
        self._told_last: tuple[float, Known | None] = (-1.0, None)
        """When whom a request acts as was told last, where scores are kept, and what."""
        self._scoring = None
        if policies.score is not None:
            self._scoring = _Scoring(policies)
            self.provides |= SCORE_FACTS
            self.needs |= self._scoring.reader.used

    @property
    def scores(self) -> bool:
        """Whether decisions are to be handed to `note`."""
        return self._scoring is not None

    @abstractmethod
    def facts(self, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        """Return whom the account of a request acts as at `now` (seconds since the epoch)."""

    def without(self, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        """Return the facts of a request of which a fact that this relies on is unavailable."""
        account = known.get("account.id")
        return actor_facts(ALONE, account) if isinstance(account, str) else {}

    @abstractmethod
    def _seen(self, known: Mapping[str, object], now: float) -> Known | None:
        """Return what is known of the account of a request that was just decided."""

    def _told(self, found: Known, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        """Return the facts of what was found, its score included."""
        scoring = self._scoring
        if scoring is None or not found.actor:
            return found.facts
        self._told_last = now, found
        if found.accounts < scoring.scorer.score.min_accounts:
            return found.facts
        scorer = scoring.scorer
        result = self._tallies.found(found.actor, scorer, now)
        if not result.score or self._is_spared(found, scoring, known, now):
            return found.facts
        return {**found.facts, "actor.score": result.score, "actor.evidence": result.evidence}

    def note(self, known: Mapping[str, object], now: float, decision: Decision) -> None:
        """Count what a decided request showed, and whom a score has acted on.

        What is refused does not count: a score ends by itself, whoever goes on asking.
        """
        scoring = self._scoring
        if scoring is None or known.get("actor.accounts") == 1:
            return
        acted = refused = False
        if decision.ruling.effect is not Effect.ALLOW:
            acted, refused = decision.rule in scoring.rules, not decision.allowed
            if refused and not acted:
                return
        moment, found = self._told_last
        # Mostly it is what this request was told; but another thread may have asked since.
        if moment != now or found is None or found.facts["actor.id"] is not known.get("actor.id"):
            found = self._seen(known, now)
        if found is None or not found.actor:
            return
        if not refused:
            self._tallies.add(found.actor, scoring.scorer, known, now)
        if acted:
            typed, _ = scoring.reader.read(known, now)
            is_established = scoring.established(typed, now) is True
            self._tallies.act(found.account, scoring.scorer, is_established, now)

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
        shown = tuple(map(known.get, self._names))
        try:
            return shown, self._recent.get(shown) or self._older.get(shown)
        except TypeError:  # a value of a wrong type, which is no evidence
            return (), None

    def _remember(self, shown: tuple[object, ...], found: K) -> None:
        """Go by what was found for as long as it is good."""
        if shown:
            if len(self._recent) >= MOST_REMEMBERED:
                self._older, self._recent = self._recent, {}
            self._recent[shown] = found


class LinkSignal(ActorSignal["Kept"]):
    """Establishes `actor.*` by links in this process's memory.

    An account that showed itself once that day is not seen again: its links last as long as they
    do. Only when another actor came to be somewhere it is asked for whom it acts as, and some
    minutes later, if that may have tied it, it is seen again. On another day its links are renewed.
    """

    def __init__(self, policies: PolicySet, store: LinkStore, pools: Sequence[Pool]) -> None:
        super().__init__(policies, store.tallies, pools)
        self._store, self._marks = store, store.marks
        self.recall = self._recalling()
        """Does what `facts` does; what is nearly always the case takes it no further call."""

    def facts(self, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        """Return whom the account of a request acts as at `now` (seconds since the epoch)."""
        return self.recall(known, now)

    def _recalling(self) -> Callable[[Mapping[str, object], float], Mapping[str, object]]:
        """Return the generated function that recalls an account by all that a request shows."""
        shown = ", ".join(f"get({name!r})" for name in self._names)
        lines = [
            "def recall(known, now):",
            "    get = known.get",
            f"    shown = ({shown},)",
            "    try: found = signal._recent.get(shown) or signal._older.get(shown)",
            "    except TypeError: shown = (); found = None",
            "    if found is None or now < found.fresh or now >= found.stale "
            "or found.version != marks.version:",
            "        found = checked(known, shown, found, now)",
            "        if found is None: return {}",
        ]
        if self._scoring is not None:
            least = self._scoring.scorer.score.min_accounts
            lines += [
                "    if found.actor:",
                "        signal._told_last = now, found",
                f"        if found.accounts >= {least}: return told(found, known, now)",
            ]
        constants = {
            "signal": self, "marks": self._marks, "checked": self._checked, "told": self._told,
        }  # fmt: skip
        made: Callable[[Mapping[str, object], float], Mapping[str, object]]
        made = define([*lines, "    return found.facts"], constants, "recall", "links")
        return made

    def begin_day(self, now: float) -> None:
        """Let go of all links that have expired by `now` (seconds)."""
        self._store.expire(self._pools, int(now * SECOND + 0.5))

    def _seen(self, known: Mapping[str, object], now: float) -> Known | None:
        return self._checked(known, *self._remembered(known), now)

    def _checked(
        self,
        known: Mapping[str, object],
        shown: tuple[object, ...],
        found: Kept | None,
        now: float,
    ) -> Known | None:
        """Return what is known of an account by now, given what was found of all that it shows."""
        moment = int(now * SECOND + 0.5)
        if found is None or not found.since <= moment < found.until:
            return self._look(known, shown, now, moment)
        if moment >= found.again or found.version != self._marks.version:
            return self._again(shown, found, moment)
        return found

    def _look(
        self, known: Mapping[str, object], shown: tuple[object, ...], now: float, moment: int
    ) -> Known | None:
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
        self._remember(shown, found)
        return found

    def _again(self, shown: tuple[object, ...], kept: Kept, moment: int) -> Kept:
        """Return what is known of an account now that days have passed or actors have changed."""
        store, marks = self._store, self._marks
        is_due, is_same_day = moment >= kept.again, moment // DAY == kept.day
        if is_due and is_same_day and kept.is_unmoved(marks):
            kept.look_after(moment)
            return kept
        seen = None
        if is_same_day and not (is_due and kept.may_be_tied(marks.revision)):
            seen = store.stands(kept, self._pools, moment)
            if seen is not None and not is_due and kept.stands_as(seen.standing):
                kept.version = seen.version
                return kept
        if seen is None:
            seen = store.see(kept.shown.sighting, self._pools, moment)
            is_due = True
        found = Kept(kept.shown, kept.since, kept.until, seen, scored=self.scores)
        if is_due:
            found.look_after(moment)
        else:
            found.day, found.looked_at = kept.day, kept.looked_at
            found.look_again(kept.again)
        # Another thread may know better by now: its version is then another than the store's.
        self._remember(shown, found)
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


class Known:
    """What is remembered of one account as it showed itself."""

    __slots__ = ("account", "accounts", "actor", "facts", "since", "until", "version")

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
        self.account = sighting.account
        self.actor, self.accounts, _ = standing
        facts = actor_facts(standing, sighting.handle)
        self.facts = {**facts, **UNSCORED} if scored and self.actor else facts
        self.since, self.until, self.version = since, until, version


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

    def stands_as(self, standing: Standing) -> bool:
        """Tell whether the account still acts as it did."""
        return standing == (self.actor, self.accounts, self.facts["actor.trusted_accounts"])

    def is_unmoved(self, marks: Marks) -> bool:
        """Tell whether nothing at all has changed since it was looked at."""
        stands = self.looked_at == marks.version and self.revision == marks.revision
        return stands and not self.shown.is_exempt

    def may_be_tied(self, revision: int) -> bool:
        """Tell whether what it showed may tie it otherwise by now."""
        return not self.settled or self.revision != revision

"""Whom an account acts as, where the links are in a store that has to be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from guardrail.engine import FactReader
from guardrail.errors import StoreError
from guardrail.links.signal import ACTOR_FACTS, REMEMBERED_FOR, Acting, ActorSignal, Known
from guardrail.links.stored import StoredLinks
from guardrail.model.amounts import SECOND
from guardrail.model.cells import Pool
from guardrail.model.conditions import compile_condition
from guardrail.model.policy import PolicySet
from guardrail.stores.steps import Steps, awaited, performed


class Watch(Protocol):
    """Watches over the calls to a store: whether to make one, and how it went."""

    def permit(self) -> int | None:
        """Return the permit for one call, None if the store is not to be asked now."""
        ...

    def heard(self, permit: int) -> None:
        """Note that a call was answered."""
        ...

    def missed(self, permit: int, problem: Exception) -> None:
        """Note that a call failed."""
        ...

    def abandoned(self, permit: int) -> None:
        """Note that a call was broken off, by no fault of the store."""
        ...


class LinkLookup(ActorSignal[Known]):
    """Establishes `actor.*` by links in a store that processes share.

    The store is asked at the first sight of what a request shows, and again when what is
    remembered of it has grown old. Where it does not answer, or others are faster each time, the
    account acts alone in this request: its own limits hold.
    """

    def __init__(
        self, policies: PolicySet, links: StoredLinks, pools: Sequence[Pool], watch: Watch
    ) -> None:
        super().__init__(policies, links.tallies, pools)
        self._links, self._watch = links, watch
        self._trusted = compile_condition(links.links.trusted)
        self._problem: str | None = None
        self._alone = 0
        self._asking: set[tuple[object, ...]] = set()
        """What the store is being asked about now."""

    def facts(self, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        """Return whom the account of a request acts as at `now`, waiting for the store."""
        moment = int(now * SECOND + 0.5)
        shown, found = self._recalled(known, moment)
        if found is None and shown in self._asking:
            # Another request asks anew already: until it knows, the former answer is as good.
            found = self._former(shown)
        if found is not None:
            return self._told(found, known, now).facts
        return performed(self._asked(known, shown, now, moment))

    async def look_up(self, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        """Return what `facts` does, awaited."""
        moment = int(now * SECOND + 0.5)
        shown, found = self._recalled(known, moment)
        if found is None and shown in self._asking:
            # Another request asks anew already: until it knows, the former answer is as good.
            found = self._former(shown)
        if found is not None:
            return self._told(found, known, now).facts
        return await awaited(self._asked(known, shown, now, moment))

    def warnings(self, now: float) -> tuple[str, ...]:
        """Return what an operator should know at `now`: that links are not known."""
        lines = super().warnings(now)
        if self._problem is None:
            return lines
        return (
            *lines,
            f"which accounts act as one is not known now ({self._problem}): each acts alone, "
            f"within its own limits; so did {self._alone} requests since the process started",
        )

    def _seen(self, known: Mapping[str, object], now: float) -> Known | None:
        return self._recalled(known, int(now * SECOND + 0.5))[1]

    def _recalled(
        self, known: Mapping[str, object], moment: int
    ) -> tuple[tuple[object, ...], Known | None]:
        """Return what a request shows, and what is remembered of it, None if it has to be asked."""
        shown, found = self._remembered(known)
        if found is None or not found.since <= moment < found.until:
            return shown, None
        if self._links.changed(found.actor or found.account) > found.version:
            return shown, None
        return shown, found

    def _asked(
        self, known: Mapping[str, object], shown: tuple[object, ...], now: float, moment: int
    ) -> Steps[Mapping[str, object]]:
        typed, _ = self._reader.read(known, now)
        account = typed.get("account.id")
        if not isinstance(account, str):
            return {}
        self._asking.add(shown)
        try:
            found = yield from self._watched(typed, now, moment)
        finally:
            self._asking.discard(shown)
        if found is None:
            self._alone += 1
            return Acting.alone(account, trusted=self._trusted(typed, now) is True).facts
        self._problem = None
        former = self._former(shown)
        if former is not None:
            self._tallies.follow(former.actor, found.actor)
        self._remember(shown, found)
        return self._told(found, known, now).facts

    def _former(self, shown: tuple[object, ...]) -> Known | None:
        return self._recent.get(shown) or self._older.get(shown)

    def _watched(self, typed: Mapping[str, object], now: float, moment: int) -> Steps[Known | None]:
        """Ask the store, if it is to be asked; return None where nothing came of it."""
        permit = self._watch.permit()
        if permit is None:
            self._problem = self._problem or "the store is not asked, as it failed"
            return None
        try:
            found = yield from self._look(typed, now, moment)
        except Exception as problem:  # whatever it is, the request must go on
            if isinstance(problem, StoreError):
                self._problem = str(problem)
                self._watch.missed(permit, problem)
            else:  # of one account's rows, say: the store did answer
                self._problem = f"by a fault of its own, {problem!r}"
                self._watch.abandoned(permit)
            return None
        except BaseException:
            self._watch.abandoned(permit)
            raise
        self._watch.heard(permit)
        if found is None:
            self._problem = "other processes changed the same links each time"
        return found

    def _look(self, typed: Mapping[str, object], now: float, moment: int) -> Steps[Known | None]:
        evidence = yield from self._links.evidence(moment)
        sighting = None if evidence is None else evidence.sighting(typed, now)
        if sighting is None:
            return None
        standing = yield from self._links.see(sighting, self._pools, moment)
        if standing is None:
            return None
        until = moment + REMEMBERED_FOR
        version = self._links.version
        return Known(sighting, moment, until, standing, version, scored=self.scores)


class NoLinks:
    """Says of each account that it acts alone, for a store that keeps no links."""

    provides = ACTOR_FACTS
    needs = frozenset({"account.id"})
    sources = ()

    def __init__(self, policies: PolicySet) -> None:
        links = policies.links
        assert links is not None
        self._reader = FactReader(policies.facts, links.facts, policies.timezone)
        self._trusted = compile_condition(links.trusted)

    def facts(self, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        """Return the account itself as the actor."""
        typed, _ = self._reader.read(known, now)
        account = typed.get("account.id")
        if not isinstance(account, str):
            return {}
        return Acting.alone(account, trusted=self._trusted(typed, now) is True).facts

    def warnings(self, now: float) -> tuple[str, ...]:
        """Return what an operator should know."""
        return (NO_LINKS,)


NO_LINKS = (
    "the policies have `links`, and this store keeps none: each account acts alone, within its own "
    "limits; use `memory://`, `lmdb://` or `redis://`"
)

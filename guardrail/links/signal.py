"""The facts of links: whom an account acts as, found before the rules are looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from guardrail.engine import FactReader
from guardrail.links.evidence import Evidence, Sighting
from guardrail.links.linking import Standing
from guardrail.model.amounts import SECOND
from guardrail.model.cells import Pool
from guardrail.model.policy import PolicySet

REMEMBERED_FOR = 30 * SECOND
"""How long a process goes by what it knows of an account, in microseconds."""
MOST_REMEMBERED = 100_000

ACTOR_FACTS = frozenset({"actor.id", "actor.accounts", "actor.trusted_accounts"})


def actor_id(number: int) -> str:
    """Return the id of an actor of several accounts."""
    return f"actor-{number:016x}"


class LinkStore(Protocol):
    """Keeps links and lets counters follow them, in one step."""

    @property
    def version(self) -> int:
        """Rises whenever an actor changes in this process."""
        ...

    @property
    def evidence(self) -> Evidence:
        """What reads the evidence of requests."""
        ...

    def see(self, sighting: Sighting, pools: Sequence[Pool], now: int) -> Standing:
        """Return whom an account acts as after a sighting at `now` (microseconds)."""
        ...

    def stands(self, sighting: Sighting, pools: Sequence[Pool], now: int) -> Standing:
        """Return whom an account acts as, by what is known of it already."""
        ...


class LinkSignal:
    """Establishes `actor.*` from what a request shows of its account.

    What it found is remembered for half a minute by all that it was found from, so that most
    requests ask nobody. An account alone, or exempt, is an actor of its own.
    """

    provides = ACTOR_FACTS
    sources = ()

    def __init__(self, policies: PolicySet, store: LinkStore, pools: Sequence[Pool]) -> None:
        assert policies.links is not None
        self._reader = FactReader(policies.facts, policies.links.facts, policies.timezone)
        self._names = tuple(self._reader.facts)
        self.needs = frozenset(self._names)
        self._store, self._pools = store, tuple(pools)
        self._recent: dict[tuple[object, ...], _Known] = {}
        self._older: dict[tuple[object, ...], _Known] = {}

    def facts(self, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        """Return whom the account of a request acts as at `now` (seconds since the epoch)."""
        shown = tuple(map(known.get, self._names))
        moment = int(now * SECOND + 0.5)
        try:
            found = self._recent.get(shown) or self._older.get(shown)
        except TypeError:  # a value of a wrong type, which is no evidence
            shown, found = (), None
        if found is not None and found.until > moment >= found.since:
            if found.version != self._store.version:
                found.stand(self._store.stands(found.sighting, self._pools, moment))
                found.version = self._store.version
            return found.facts
        return self._look(known, shown, now, moment)

    def _look(
        self, known: Mapping[str, object], shown: tuple[object, ...], now: float, moment: int
    ) -> Mapping[str, object]:
        typed, _ = self._reader.read(known, now)
        sighting = self._store.evidence.sighting(typed, now)
        if sighting is None:
            return {}
        standing = self._store.see(sighting, self._pools, moment)
        found = _Known(sighting, moment, self._store.version)
        found.stand(standing)
        if shown:
            if len(self._recent) >= MOST_REMEMBERED:
                self._older, self._recent = self._recent, {}
            self._recent[shown] = found
        return found.facts


class _Known:
    """What is remembered of one account as it showed itself."""

    __slots__ = ("facts", "sighting", "since", "until", "version")

    def __init__(self, sighting: Sighting, now: int, version: int) -> None:
        self.sighting = sighting
        self.since, self.until = now, now + REMEMBERED_FOR
        self.version = version
        self.facts: Mapping[str, object] = {}

    def stand(self, standing: Standing) -> None:
        actor, accounts, trusted = standing
        self.facts = {
            "actor.id": actor_id(actor) if actor else self.sighting.handle,
            "actor.accounts": accounts,
            "actor.trusted_accounts": trusted,
        }

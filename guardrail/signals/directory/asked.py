"""Directories that ask a source for each credential: what they keep, and what they conclude."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial

from guardrail.model.facts import STANDARD_FACTS
from guardrail.signals.directory.identity import Credential, Identity
from guardrail.signals.directory.kept import Age, Freshness, Kept, SourceError, Standing
from guardrail.signals.directory.reports import Reports, SourceHealth
from guardrail.signals.directory.vocabulary import Vocabulary

_STATUS = "enforcement.status"
_UNRESTRICTED = STANDARD_FACTS[_STATUS].values[0]

_Facts = dict[str, object]


class AskedDirectory(ABC):
    """A directory whose source is asked once at a time for each credential.

    A source tells a mapping of facts, or None: it knows no such credential. While it fails, the
    last facts are used for a stated time; then they are unavailable, but for a restriction
    (`enforcement.status`), which outlives them: nobody is released by an outage.
    """

    def __init__(self, name: str, vocabulary: Vocabulary, freshness: Freshness) -> None:
        self._name = name
        self._vocabulary = vocabulary
        self._reports = Reports(
            f"directory `{name}`",
            "requests of customers not seen before are refused until it answers: see that it runs, "
            "and tells facts of their types",
        )
        self._kept: Kept[_Facts] = Kept(self._read, freshness, reports=self._reports)

    @property
    def provides(self) -> frozenset[str]:
        """The names of the facts this directory can establish."""
        return self._vocabulary.provides

    def look_up(self, credential: Credential, now: float) -> Identity:
        """Return whose a credential is at `now` (seconds since the epoch); may wait, bounded."""
        origin = credential.origin
        standing = self._kept.get(credential.id, partial(self._ask, credential), now, origin=origin)
        return self._identity(standing, now)

    async def find(self, credential: Credential, now: float) -> Identity:
        """Return the same without blocking the event loop."""
        ask = partial(self._ask, credential)
        standing = await self._kept.find(credential.id, ask, now, origin=credential.origin)
        return self._identity(standing, now)

    def forget(self, credential_id: str) -> None:
        """Drop what is kept of a credential: the source has news, a ban or an upgrade say."""
        self._kept.forget(credential_id)

    @property
    def health(self) -> SourceHealth:
        """How the source is doing, for metrics."""
        return self._reports.health

    def warnings(self, now: float) -> tuple[str, ...]:
        """Return that the source fails, and why, while it does."""
        failures = self._kept.breaker.failures
        away = self._kept.turned_away
        crowded = (
            f"directory `{self._name}`: {away} credentials not seen before were not looked up, as "
            "too many others were; `calls` bounds how many are at once",
        )
        if not failures:
            return crowded if away else ()
        return (
            f"directory `{self._name}` has failed {failures} times in a row: "
            f"{self._kept.last_failure}; the last good answers are used for up to "
            f"{self._kept.freshness.stale:g} s",
        )

    @abstractmethod
    def close(self) -> None:
        """Let go of connections."""

    @abstractmethod
    def _ask(self, credential: Credential) -> Future[object]:
        """Begin to ask the source."""

    def _read(self, told: object) -> _Facts | None:
        if told is None:
            return None
        if not isinstance(told, Mapping):
            raise SourceError("an answer that is no mapping of facts")
        return self._vocabulary.read(told)

    def _identity(self, standing: Standing[_Facts], now: float) -> Identity:
        times, facts = self._kept.freshness, standing.value
        if standing.age is Age.FRESH:
            lasts = times.unknown_ttl if facts is None else times.ttl
            return Identity(facts or {}, expires=standing.at + lasts)
        again = now + times.retry
        if facts is None:
            return Identity({}, self.provides, expires=again)
        if standing.age is Age.STALE:
            return Identity(facts, expires=again)
        held = {}
        if facts.get(_STATUS, _UNRESTRICTED) != _UNRESTRICTED:
            held = {name: facts[name] for name in ("account.id", _STATUS)}
        return Identity(held, self.provides - held.keys(), expires=again)

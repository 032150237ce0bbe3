"""Directories that ask a source for each credential: a host's function, or an HTTP service."""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from threading import Thread

from guardrail.model.facts import STANDARD_FACTS, Fact
from guardrail.signals.directory.cache import Age, Cache, Cached, Freshness
from guardrail.signals.directory.fetching import Background, Fetcher
from guardrail.signals.directory.identity import (
    Credential,
    Identity,
    Secret,
    SourceError,
    Vocabulary,
)
from guardrail.signals.directory.reports import STATUS, Reports, SourceHealth

_UNRESTRICTED = STANDARD_FACTS[STATUS].values[0]

_Facts = dict[str, object]


class SourceDirectory(ABC):
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
        self._cache: Cache[_Facts] = Cache(
            self._read, freshness, reports=self._reports, notice=self._notice
        )

    @property
    def provides(self) -> frozenset[str]:
        """The names of the facts this directory can establish."""
        return self._vocabulary.provides

    def look_up(self, credential: Credential, now: float) -> Identity:
        """Return whose a credential is at `now` (seconds since the epoch); may wait, bounded."""
        origin = credential.origin
        cached = self._cache.get(credential.id, partial(self._ask, credential), now, origin=origin)
        return self._identity(cached, now)

    async def find(self, credential: Credential, now: float) -> Identity:
        """Return the same without blocking the event loop."""
        ask = partial(self._ask, credential)
        cached = await self._cache.find(credential.id, ask, now, origin=credential.origin)
        return self._identity(cached, now)

    def forget(self, credential_id: str) -> None:
        """Drop what is kept of a credential: the source has news, a ban or an upgrade say."""
        self._cache.forget(credential_id)

    @property
    def health(self) -> SourceHealth:
        """How the source is doing, for metrics."""
        return self._reports.health

    def warnings(self, now: float) -> tuple[str, ...]:
        """Return that the source fails, and why, while it does."""
        failures = self._cache.backoff.failures
        away = self._cache.rejected
        crowded = (
            f"directory `{self._name}`: {away} credentials not seen before were not looked up, as "
            "too many others were; `calls` bounds how many are at once",
        )
        if not failures:
            return crowded if away else ()
        return (
            f"directory `{self._name}` has failed {failures} times in a row: "
            f"{self._cache.last_failure}; the last good answers are used for up to "
            f"{self._cache.freshness.stale:g} s",
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

    def _notice(self, facts: _Facts, now: float) -> None:
        self._reports.unlisted(self._vocabulary.unlisted(facts), now)

    def _identity(self, cached: Cached[_Facts], now: float) -> Identity:
        times, facts = self._cache.freshness, cached.value
        if cached.age is Age.FRESH:
            lasts = times.unknown_ttl if facts is None else times.ttl
            return Identity(facts or {}, expires=cached.at + lasts)
        again = now + times.retry
        if facts is None:
            return Identity({}, self.provides, expires=again)
        if cached.age is Age.STALE:
            return Identity(facts, expires=again)
        held = {}
        if facts.get(STATUS, _UNRESTRICTED) != _UNRESTRICTED:
            held = {name: facts[name] for name in ("account.id", STATUS)}
        return Identity(held, self.provides - held.keys(), expires=again)


Told = Mapping[str, object] | None
Function = Callable[[Credential], Told] | Callable[[Credential], Awaitable[Told]]


class CallableDirectory(SourceDirectory):
    """Asks a function for the facts of a credential (None: no such one); to raise is to fail.

    A plain function is called in a thread. An async one is called on the loop of whoever asks, and
    on a loop of the directory's own where there is none.
    """

    def __init__(
        self,
        function: Function,
        facts: Mapping[str, Fact],
        *,
        provides: Iterable[str] | None = None,
        freshness: Freshness | None = None,
    ) -> None:
        """Take the function and a policy set's facts; `provides` names those it gives, if fewer.

        Raises:
            SettingError: a directory cannot provide what is named.
        """
        name = getattr(function, "__qualname__", type(function).__qualname__)
        super().__init__(name, Vocabulary(facts, provides), freshness or Freshness())
        self._function = function
        called = function if inspect.isroutine(function) else type(function).__call__
        self._is_async = inspect.iscoroutinefunction(called)
        self._background = Background()
        self._tasks: set[asyncio.Task[object]] = set()

    def close(self) -> None:
        """Stop the loop of the directory's own; calls in threads end by themselves."""
        self._background.close()

    async def find(self, credential: Credential, now: float) -> Identity:
        """Return whose a credential is without blocking the event loop."""
        ask = self._ask_here if self._is_async else self._ask
        asks = partial(ask, credential)
        cached = await self._cache.find(credential.id, asks, now, origin=credential.origin)
        return self._identity(cached, now)

    def _ask(self, credential: Credential) -> Future[object]:
        if self._is_async:
            return self._background.submit(partial(self._awaited, credential))
        # A thread a call, as many as calls may be under way: one that never returns holds up
        # neither the others nor, as those of a pool would, the end of the process.
        future: Future[object] = Future()
        Thread(
            target=self._called, args=(credential, future), name="guardrail-directory", daemon=True
        ).start()
        return future

    def _called(self, credential: Credential, future: Future[object]) -> None:
        try:
            future.set_result(self._function(credential))
        except BaseException as problem:  # the thread ends here, whatever the function raises
            future.set_exception(problem)

    def _ask_here(self, credential: Credential) -> Future[object]:
        """Call the function on the running loop, in a task that no request's end cancels."""
        future: Future[object] = Future()
        task = asyncio.get_running_loop().create_task(self._awaited(credential))
        self._tasks.add(task)
        task.add_done_callback(partial(self._hand_over, future))
        return future

    def _hand_over(self, future: Future[object], task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        problem = asyncio.CancelledError() if task.cancelled() else task.exception()
        if problem is None:
            future.set_result(task.result())
        else:
            future.set_exception(problem)

    async def _awaited(self, credential: Credential) -> object:
        return await self._function(credential)  # type: ignore[misc]


MOST_BYTES = 1 << 16
"""The size of the largest answer that is read."""

_ANSWERS = frozenset({200, 404})


class ServiceDirectory(SourceDirectory):
    """Asks a service; it never sees a key, only the keyed hash it was told for it."""

    def __init__(
        self,
        url: str,
        facts: Mapping[str, Fact],
        *,
        provides: Iterable[str] | None = None,
        authorization: str | Secret | None = None,
        freshness: Freshness | None = None,
        most_bytes: int = MOST_BYTES,
        plain_http: bool = False,
    ) -> None:
        """Take the service's URL and a policy set's facts.

        `provides` names the facts the service gives, if fewer than a directory may; `authorization`
        is what it is sent in the field of that name.

        Raises:
            SettingError: the URL cannot be used, or a directory cannot provide what is named.
        """
        times = freshness or Freshness()
        secret = authorization
        if isinstance(secret, str):
            secret = Secret(secret.encode())
        self._fetcher = Fetcher(
            url,
            timeout=times.timeout,
            most_bytes=most_bytes,
            authorization=secret,
            plain_http=plain_http,
        )
        self._background = Background(self._fetcher.close)
        super().__init__(self._fetcher.place, Vocabulary(facts, provides), times)

    def close(self) -> None:
        """Let go of the connections; calls under way bring nothing."""
        self._background.close()

    def _ask(self, credential: Credential) -> Future[object]:
        question = {"credential": credential.id}
        return self._background.submit(lambda: self._answer(question))

    async def _answer(self, question: Mapping[str, object]) -> object:
        answer = await self._fetcher.fetch(question, _ANSWERS)
        if not isinstance(answer, dict) or "facts" not in answer:
            raise SourceError("an answer without `facts`")
        return answer["facts"]

"""A directory that is a function of the host's own, plain or async."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from threading import Thread

from guardrail.model.facts import Fact
from guardrail.signals.directory.asked import AskedDirectory
from guardrail.signals.directory.background import Background
from guardrail.signals.directory.identity import Credential, Identity
from guardrail.signals.directory.kept import Freshness
from guardrail.signals.directory.vocabulary import Vocabulary

Told = Mapping[str, object] | None
Function = Callable[[Credential], Told] | Callable[[Credential], Awaitable[Told]]


class CallableDirectory(AskedDirectory):
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
        standing = await self._kept.find(credential.id, asks, now, origin=credential.origin)
        return self._identity(standing, now)

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

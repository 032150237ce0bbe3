"""The guard for event loops and ASGI hosts."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from guardrail.engine import Decision
from guardrail.errors import StoreError
from guardrail.guard.frame import Frame, microseconds
from guardrail.guard.settings import Shell
from guardrail.guard.synchronous import Guard
from guardrail.stores import AsyncStore, Store
from guardrail.stores.memory import MemoryStore


class AsyncGuard(Shell[Store | AsyncStore]):
    """Decides on requests, awaited; `Guard` tells what each method does.

    Safe to share between the tasks of an event loop. A memory store answers without waiting, so
    with one this is a `Guard` in the clothes of a coroutine.
    """

    def __init__(self, frame: Frame, store: Store | AsyncStore) -> None:
        super().__init__(frame, store)
        self._memory: Guard | None = None
        self._remote: AsyncStore
        if isinstance(store, MemoryStore):
            self._memory = Guard(frame, store)
        else:
            self._remote = store  # type: ignore[assignment]

    async def decide(
        self,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None = None,
        *,
        unavailable: frozenset[str] = frozenset(),
        now: float | None = None,
    ) -> Decision:
        """Return the decision on a request, and charge its estimate if it is admitted."""
        if self._memory is not None:
            return self._memory.decide(facts, estimate, unavailable=unavailable, now=now)
        frame = self._frame
        moment = frame.moment(now)
        known, failed = frame.known(facts, moment)
        case, plan = frame.plan(known, estimate, moment, unavailable | failed)
        if not frame.needs_store(plan):
            return frame.concluded(case, plan, None)
        try:
            outcome = await self._remote.acquire(plan.charges, plan.cells, plan.now)
        except StoreError as problem:
            return frame.closed(case, plan, problem)
        return frame.concluded(case, plan, outcome)

    async def settle(
        self,
        decision: Decision,
        usage: Mapping[str, object] | None = None,
        *,
        model: str | None = None,
        now: float | None = None,
    ) -> None:
        """Replace a decision's estimate by what was used; a second time does nothing."""
        if self._memory is not None:
            self._memory.settle(decision, usage, model=model, now=now)
            return
        moment = microseconds(self._frame.moment(now))
        corrections = self._frame.settlement(decision, usage, model)
        if corrections:
            await self._remote.settle(corrections, moment)

    async def release(self, decision: Decision, *, now: float | None = None) -> None:
        """Give everything back: the request failed by our fault, before anything was served."""
        if self._memory is not None:
            self._memory.release(decision, now=now)
            return
        moment = microseconds(self._frame.moment(now))
        corrections = self._frame.release(decision)
        if corrections:
            await self._remote.settle(corrections, moment)

    async def renew(self, decision: Decision, *, now: float | None = None) -> None:
        """Extend the decision's leases from now on: the request is still being served."""
        if self._memory is not None:
            self._memory.renew(decision, now=now)
            return
        moment = microseconds(self._frame.moment(now))
        corrections = self._frame.renewal(decision, moment)
        if corrections:
            await self._remote.settle(corrections, moment)

    async def close(self) -> None:
        """Let go of files and connections."""
        if self._memory is not None:
            self._memory.close()
        else:
            await self._remote.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

"""The guard for event loops and ASGI hosts."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self, cast

from guardrail.engine import Decision, ask_in_rows
from guardrail.guard.frame import LATEST, Frame, microseconds
from guardrail.guard.settings import Shell
from guardrail.guard.synchronous import Guard
from guardrail.guard.watch import Delivery, Watch
from guardrail.model.policy import PolicySet
from guardrail.signals import Signal
from guardrail.stores import AsyncFormStore, AsyncStore, Store
from guardrail.stores.opening import awaited


class AsyncGuard(Shell[Store | AsyncStore]):
    """Decides on requests, awaited; `Guard` tells what each method does.

    Safe to share between the tasks of an event loop. With a store that answers without waiting,
    such as memory, it is a `Guard` in the clothes of a coroutine.
    """

    def __init__(self, frame: Frame, store: Store | AsyncStore, watch: Watch | None = None) -> None:
        super().__init__(frame, store, watch)
        self._direct: Guard | None = None
        self._remote = awaited(store)
        # The event loop holds tasks weakly: settlements that outlive their caller are held here.
        self._sending: set[asyncio.Task[bool]] = set()
        if not inspect.iscoroutinefunction(self._remote.acquire):
            self._direct = Guard(frame, cast(Store, store), self._watch)
        asks = isinstance(self._remote, AsyncFormStore) and not frame.overridden
        self._ask = ask_in_rows(frame.engine, LATEST) if asks else None

    def with_policies(self, policies: PolicySet) -> AsyncGuard:
        """Return a guard that decides by another policy set, over the same store and counters."""
        frame = self._frame.with_policies(policies)
        self._watch.serve(frame)
        guard = AsyncGuard(frame, self._store, self._watch)
        # They share connections, and what is on its way: closing either closes both.
        guard._remote, guard._sending = self._remote, self._sending
        return guard

    @property
    def _counting(self) -> object:
        return self._remote

    async def decide(
        self,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None = None,
        *,
        unavailable: frozenset[str] = frozenset(),
        now: float | None = None,
        asked: Sequence[Signal] = (),
    ) -> Decision:
        """Return the decision on a request, and charge its estimate if it is admitted.

        Cancelled while the store is asked, it charges nothing: undoing it is the store's part.
        """
        frame, direct = self._frame, self._direct
        if direct is not None and not frame.looks_up:
            return direct.decide(facts, estimate, unavailable=unavailable, now=now, asked=asked)
        moment = frame.moment(now)
        if frame.signals:
            facts, failed = await frame.awaited(facts, moment, asked)
            unavailable |= failed
        if direct is not None:
            return direct.decide(
                facts, estimate, unavailable=unavailable, now=moment, asked=frame.signals
            )
        question = None
        if self._ask is not None and not unavailable:
            question = self._ask(facts, estimate, moment)
        if question is None:
            return await self._steps(facts, estimate, moment, unavailable)
        if not question.needs_store:
            return question.unasked()
        watch = self._watch
        permit = watch.permit()
        if permit is None:
            return watch.unasked(question.case, question.plan)
        try:
            reply = await cast(AsyncFormStore, self._remote).ask(question, question.now)
        except Exception as problem:
            return watch.failed(question.case, question.plan, permit, problem)
        except BaseException:
            watch.abandoned(permit)
            raise
        return watch.replied(question, permit, reply)

    async def _steps(
        self,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None,
        moment: float,
        unavailable: frozenset[str],
    ) -> Decision:
        """Decide in three steps: plan, acquire, conclude."""
        frame, watch = self._frame, self._watch
        case, plan = frame.plan(facts, estimate, moment, unavailable)
        if not frame.needs_store(plan):
            return frame.concluded(case, plan, None)
        permit = watch.permit()
        if permit is None:
            return watch.unasked(case, plan)
        try:
            outcome = await self._remote.acquire(plan.charges, plan.cells, plan.now)
        except Exception as problem:
            return watch.failed(case, plan, permit, problem)
        except BaseException:
            watch.abandoned(permit)
            raise
        return watch.answered(case, plan, permit, outcome)

    async def settle(
        self,
        decision: Decision,
        usage: Mapping[str, object] | None = None,
        *,
        model: str | None = None,
        now: float | None = None,
    ) -> None:
        """Replace a decision's estimate by what was used; a second time does nothing.

        Cancelled, it goes on by itself, and `close` waits for it.
        """
        if self._direct is not None:
            self._direct.settle(decision, usage, model=model, now=now)
            return
        moment = microseconds(self._frame.moment(now))
        corrections = self._frame.settlement(decision, usage, model)
        await self._send(self._watch.delivery(decision, corrections, moment))

    async def release(self, decision: Decision, *, now: float | None = None) -> None:
        """Give everything back: the request failed by our fault, before anything was served."""
        if self._direct is not None:
            self._direct.release(decision, now=now)
            return
        moment = microseconds(self._frame.moment(now))
        await self._send(self._watch.delivery(decision, self._frame.release(decision), moment))

    async def renew(self, decision: Decision, *, now: float | None = None) -> None:
        """Extend the decision's leases from now on: the request is still being served."""
        if self._direct is not None:
            self._direct.renew(decision, now=now)
            return
        moment = microseconds(self._frame.moment(now))
        renewals = self._frame.renewal(decision, moment)
        await self._send(self._watch.delivery(decision, renewals, moment))

    async def close(self) -> None:
        """Deliver what waits, if the store answers, and let go of files and connections."""
        if self._direct is not None:
            self._direct.close()
            return
        while self._sending:
            await asyncio.wait(self._sending)
        watch, moment = self._watch, microseconds(self._frame.moment(None))
        while (delivery := watch.leftovers(moment)) is not None and await self._send(delivery):
            pass
        watch.give_up()
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

    async def _send(self, delivery: Delivery | None) -> bool:
        """Send corrections, if there are any, whatever becomes of the caller."""
        if delivery is None:
            return False
        sending = asyncio.ensure_future(self._deliver(delivery))
        self._sending.add(sending)

        def end(task: asyncio.Task[bool]) -> None:
            self._sending.discard(task)
            # A task may be cancelled before its first step: only here is that seen.
            if task.cancelled() or task.exception() is not None:
                self._watch.interrupted(delivery)

        sending.add_done_callback(end)
        return await asyncio.shield(sending)

    async def _deliver(self, delivery: Delivery) -> bool:
        try:
            await self._remote.settle(delivery.corrections, delivery.now)
        except Exception as problem:
            self._watch.undelivered(delivery, problem)
            return False
        self._watch.delivered(delivery)
        return True

"""The guards: for threads and WSGI hosts, and the same awaited."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self, cast

from guardrail.engine import Decide, Decision, Settle, decide_inline, settle_inline
from guardrail.errors import SettingError
from guardrail.guard.context import Context, Establish, microseconds
from guardrail.guard.loading import BaseGuard
from guardrail.guard.supervisor import Delivery, Supervisor
from guardrail.model.policy import PolicySet
from guardrail.signals import Signal
from guardrail.stores import AsyncStore, Store, asking, awaiting
from guardrail.stores.memory import MemoryStore
from guardrail.stores.opening import awaited


class Guard(BaseGuard[Store]):
    """Decides on requests, with counters in a store.

    Safe to share between threads. Make one with `load`, or with `from_policies` for a set that is
    loaded already.
    """

    def __init__(
        self, context: Context, store: Store, supervisor: Supervisor | None = None
    ) -> None:
        super().__init__(context, store, supervisor)
        # What establishes the facts that those signals do not which were asked last: a door asks
        # the same before each of its requests.
        self._establish: tuple[Sequence[Signal], Establish] = ((), context.establish)
        self._beside: tuple[Signal, ...] = ()
        self._clock = context.clock
        self._note = context.note
        self._ask = asking(store)
        self._decide: Decide = self._planned
        self._settle: Settle | None = None
        if isinstance(store, MemoryStore) and not context.overridden:
            self._decide = decide_inline(context.engine, store, self._planned, context.acting)
            if context.acting is not None:
                self._beside, self._note = (context.acting,), None
                self._establish = (), context.establish_but(self._beside)
            self._settle = settle_inline(context.engine)
        else:
            context.plan_in_rows()

    def with_policies(self, policies: PolicySet) -> Guard:
        """Return a guard that decides by another policy set, over the same store and counters.

        What this guard decided, either settles. Close one of them, when both are done.

        Raises:
            SettingError: the environment is not usable for it.
        """
        context = self._context.with_policies(policies)
        self._supervisor.serve(context)
        return Guard(context, self._store, self._supervisor)

    def decide(
        self,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None = None,
        *,
        unavailable: frozenset[str] = frozenset(),
        now: float | None = None,
        asked: Sequence[Signal] = (),
    ) -> Decision:
        """Return the decision on a request, and charge its estimate if it is admitted.

        `facts` is a flat mapping of dotted names to plain values, `estimate` maps units to
        amounts, `now` is in seconds since the epoch (the guard's clock if not given). The
        mappings must not be changed until the decision is settled. `unavailable` names facts
        whose source failed: what hinges on them is refused, never guessed. The signals in `asked`
        gave their facts to `precheck`, and are not asked again.

        Raises:
            SettingError: `now` is not a time.
        """
        if now is None:
            moment = self._clock()
        else:
            moment = now if now.__class__ is float else self._context.moment(now)
        before, establish = self._establish
        if asked is not before:
            establish = self._context.establish_but((*asked, *self._beside))
            self._establish = asked, establish
        known = None if unavailable else establish(facts, moment)
        if known is None:
            context = self._context
            known, failed = context.known(facts, context.moment(moment), asked, unavailable)
            if failed:
                return self._planned(known, estimate, moment, failed)
        decision = self._decide(known, estimate, moment)
        if self._note is not None:
            self._note(known, moment, decision)
        return decision

    def settle(
        self,
        decision: Decision,
        usage: Mapping[str, object] | None = None,
        *,
        model: str | None = None,
        now: float | None = None,
    ) -> None:
        """Replace a decision's estimate by what was used; a second time does nothing.

        `usage` maps units to amounts; what it lacks stays as reserved. `model` is the one that
        was served, where money is counted. Unusable figures are named in `decision.errors`, and so
        is what the store lost; what it cannot take now is kept and delivered later.
        """
        settled = self._settle
        moment = self._context.moment(now)
        if settled is not None and usage is not None and settled(decision, usage, moment, model):
            return
        corrections = self._context.settlement(decision, usage, model)
        self._send(self._supervisor.delivery(decision, corrections, microseconds(moment)))

    def release(self, decision: Decision, *, now: float | None = None) -> None:
        """Give everything back: the request failed by our fault, before anything was served."""
        self._send(self._releasing(decision, now))

    def renew(self, decision: Decision, *, now: float | None = None) -> None:
        """Extend the decision's leases from now on: the request is still being served."""
        self._send(self._renewing(decision, now))

    def empty(self) -> None:
        """Forget all counters and links, as if nothing had been asked yet; they are in memory.

        It takes a small part of what a new guard does. No request may be under way meanwhile.

        Raises:
            SettingError: the store is not in this process's memory.
        """
        if not isinstance(self._store, MemoryStore):
            raise SettingError(
                "only counters in memory can be emptied: make a guard without `store`"
            )
        self._store.empty()
        self._context.forget_links()

    def close(self) -> None:
        """Deliver what waits, if the store answers, and let go of files and connections."""
        supervisor, moment = self._supervisor, microseconds(self._context.moment(None))
        while (delivery := supervisor.leftovers(moment)) is not None and self._send(delivery):
            pass
        supervisor.give_up()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _planned(
        self,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None,
        moment: float,
        unavailable: frozenset[str] = frozenset(),
    ) -> Decision:
        """Decide in three steps: plan, ask the store, conclude."""
        plan = self._context.plan(facts, estimate, moment, unavailable)
        if not plan.needs_store:
            return plan.unasked()
        supervisor = self._supervisor
        permit = supervisor.permit()
        if permit is None:
            return supervisor.unasked(plan)
        try:
            reply = self._ask(plan.form, plan.now)
        except Exception as problem:
            return supervisor.failed(plan, permit, problem)
        except BaseException:
            supervisor.cancelled(plan, permit)
            raise
        decision = supervisor.replied(plan, permit, reply)
        if supervisor.keeps_from(decision):
            self._send(supervisor.leftovers(plan.now))
        return decision

    def _send(self, delivery: Delivery | None) -> bool:
        """Send corrections, if there are any; tell whether they arrived."""
        if delivery is None:
            return False
        try:
            self._store.settle(delivery.corrections, delivery.now)
        except Exception as problem:
            self._supervisor.undelivered(delivery, problem)
            return False
        except BaseException:
            self._supervisor.interrupted(delivery)
            raise
        self._supervisor.delivered(delivery)
        return True


class AsyncGuard(BaseGuard[Store | AsyncStore]):
    """Decides on requests, awaited; `Guard` tells what each method does.

    Safe to share between the tasks of an event loop. With a store that answers without waiting,
    such as memory, it is a `Guard` in the clothes of a coroutine.
    """

    def __init__(
        self, context: Context, store: Store | AsyncStore, supervisor: Supervisor | None = None
    ) -> None:
        self._remote = awaited(store)
        super().__init__(context, store, supervisor)
        self._direct: Guard | None = None
        # The event loop holds tasks weakly: settlements that outlive their caller are held here.
        self._sending: set[asyncio.Task[bool]] = set()
        if not inspect.iscoroutinefunction(self._remote.acquire):
            self._direct = Guard(context, cast(Store, store), self._supervisor)
        self._ask = awaiting(self._remote)
        if self._direct is None:
            context.plan_in_rows()

    def with_policies(self, policies: PolicySet) -> AsyncGuard:
        """Return a guard that decides by another policy set, over the same store and counters."""
        context = self._context.with_policies(policies)
        self._supervisor.serve(context)
        # They share connections, and what is on its way: closing either closes both.
        guard = AsyncGuard(context, self._remote, self._supervisor)
        guard._sending = self._sending
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
        context, direct = self._context, self._direct
        if direct is not None and not context.looks_up:
            return direct.decide(facts, estimate, unavailable=unavailable, now=now, asked=asked)
        moment, known = context.moment(now), None
        if not (context.looks_up or unavailable):
            establish = context.establish_but(asked) if asked else context.establish
            known = establish(facts, moment)
        if known is not None:
            facts = known
        elif context.signals:
            facts, unavailable = await context.awaited(facts, moment, asked, unavailable)
        if direct is not None:
            return direct.decide(
                facts, estimate, unavailable=unavailable, now=moment, asked=context.signals
            )
        decision = await self._planned(facts, estimate, moment, unavailable)
        if context.note is not None and not unavailable:
            context.note(facts, moment, decision)
        return decision

    async def _planned(
        self,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None,
        moment: float,
        unavailable: frozenset[str],
    ) -> Decision:
        """Decide in three steps: plan, ask the store, conclude."""
        plan = self._context.plan(facts, estimate, moment, unavailable)
        if not plan.needs_store:
            return plan.unasked()
        supervisor = self._supervisor
        permit = supervisor.permit()
        if permit is None:
            return supervisor.unasked(plan)
        try:
            reply = await self._ask(plan.form, plan.now)
        except Exception as problem:
            return supervisor.failed(plan, permit, problem)
        except BaseException:
            supervisor.cancelled(plan, permit)
            raise
        decision = supervisor.replied(plan, permit, reply)
        if supervisor.keeps_from(decision):
            await self._send(supervisor.leftovers(plan.now))
        return decision

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
        moment = microseconds(self._context.moment(now))
        corrections = self._context.settlement(decision, usage, model)
        await self._send(self._supervisor.delivery(decision, corrections, moment))

    async def release(self, decision: Decision, *, now: float | None = None) -> None:
        """Give everything back: the request failed by our fault, before anything was served."""
        await self._send(self._releasing(decision, now))

    async def renew(self, decision: Decision, *, now: float | None = None) -> None:
        """Extend the decision's leases from now on: the request is still being served."""
        await self._send(self._renewing(decision, now))

    async def close(self) -> None:
        """Deliver what waits, if the store answers, and let go of files and connections."""
        if self._direct is not None:
            self._direct.close()
            return
        while self._sending:
            await asyncio.wait(self._sending)
        supervisor, moment = self._supervisor, microseconds(self._context.moment(None))
        while (delivery := supervisor.leftovers(moment)) is not None and await self._send(delivery):
            pass
        supervisor.give_up()
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
        if self._direct is not None:
            return self._direct._send(delivery)
        sending = asyncio.ensure_future(self._deliver(delivery))
        self._sending.add(sending)

        def end(task: asyncio.Task[bool]) -> None:
            self._sending.discard(task)
            # A task may be cancelled before its first step: only here is that seen.
            if task.cancelled() or task.exception() is not None:
                self._supervisor.interrupted(delivery)

        sending.add_done_callback(end)
        return await asyncio.shield(sending)

    async def _deliver(self, delivery: Delivery) -> bool:
        try:
            await self._remote.settle(delivery.corrections, delivery.now)
        except Exception as problem:
            self._supervisor.undelivered(delivery, problem)
            return False
        self._supervisor.delivered(delivery)
        return True

"""What the requests of one application share, and what performs the steps of their flows.

`AsyncEnforcer` performs them in the event loop of one process, `SyncEnforcer` in its threads.
Either opens its guard at first use, after any fork.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from guardrail.engine import Decision
from guardrail.errors import GuardrailError, SettingError
from guardrail.guard import AsyncGuard, Guard
from guardrail.http.delays import Threads
from guardrail.http.flow import (
    ClosedError,
    Compute,
    Decide,
    Flow,
    Flows,
    LookUp,
    ReadBody,
    Refresh,
    Renew,
    Reservation,
    Settle,
)
from guardrail.http.identity.caller import NOT_AWAITED
from guardrail.http.leases import LeaseThread
from guardrail.http.request import Delay
from guardrail.http.response import Settlement
from guardrail.http.settings.build import Configured
from guardrail.http.settings.reload import InForce, PerProcess, Reloads
from guardrail.signals import Signal

LOG = logging.getLogger("guardrail")
Sleep = Callable[[float], Awaitable[object]]

LONGEST_LOOK = 2.0
"""How many seconds a request waits for changed policies to be loaded."""
MOST_UNKNOWN_READING = 16
"""How many large bodies wait to be read of callers whom the directory does not know."""

T = TypeVar("T")
Read = Callable[[int], Awaitable[bytes]]


class AsyncSteps:
    """Performs those steps of flows that only ask a guard, awaited.

    `clock` tells the time of decisions and settlements, that of the guard that is asked if it
    tells none.
    """

    def __init__(self, clock: Callable[[], float | None] = lambda: None) -> None:
        self._now = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._perform: dict[type[tuple[Any, ...]], Callable[..., Any]] = {
            Decide: self._decide,
            Settle: self._settle,
            Renew: self._renew,
        }

    async def run(self, flow: Flow[T], read: Read | None = None) -> T:
        """Perform a flow to its end, and return what it returns; `read` reads the body.

        Cancelled, the flow learns of it. What it still settles then is begun, and the guard goes
        on with it: nothing is awaited in a task that may be cancelled again.
        """
        perform = self._perform
        cancelled = False
        try:
            step = flow.send(None)
            while True:
                outcome: object = None
                kind = step.__class__
                try:
                    if kind is ReadBody and read is not None:
                        outcome = await read(*step)
                    elif cancelled:
                        _begin(perform[kind](*step))
                    else:
                        outcome = await perform[kind](*step)
                except Exception as problem:
                    step = flow.throw(problem)
                except GeneratorExit:
                    cancelled = True
                    step = flow.throw(ClosedError())
                except BaseException as problem:
                    cancelled = True
                    step = flow.throw(problem)
                else:
                    step = flow.send(outcome)
        except StopIteration as end:
            value: T = end.value
            return value
        except ClosedError:
            raise GeneratorExit from None

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something in a task that is not forgotten before it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def renew(self, reservation: Reservation, now: float) -> None:
        """Renew in a task the places of what is being served, if that is due at `now`."""
        renewal = reservation.renewal(now)
        if renewal is not None:
            self.start(self.run(renewal))

    def _decide(
        self,
        guard: AsyncGuard,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None,
        unavailable: frozenset[str],
        asked: tuple[Signal, ...],
    ) -> Coroutine[Any, Any, Decision]:
        return guard.decide(facts, estimate, unavailable=unavailable, now=self._now(), asked=asked)

    async def _settle(self, guard: AsyncGuard, decision: Decision, how: Settlement) -> None:
        try:
            if how.usage is None:
                await guard.release(decision, now=self._now())
            else:
                await guard.settle(decision, how.usage, model=how.model, now=self._now())
        except GuardrailError as problem:
            LOG.warning("decision %s stays as reserved: %s", decision.id, problem)

    async def _renew(self, guard: AsyncGuard, decision: Decision) -> None:
        try:
            await guard.renew(decision, now=self._now())
        except GuardrailError as problem:
            LOG.warning("a lease was not renewed: %s", problem)


class AsyncEnforcer(Flows, AsyncSteps):
    """Admits requests and settles them, in the event loop of one process."""

    in_force: InForce[AsyncGuard]

    def __init__(self, configured: Configured, sleep: Sleep = asyncio.sleep) -> None:
        Flows.__init__(self, configured)
        AsyncSteps.__init__(self, configured.clock)
        self._perform |= {
            Refresh: self._refresh,
            LookUp: configured.callers.find,
            Compute: self._compute,
            Delay: sleep,
        }
        self.in_force = InForce(configured.async_guard, configured.reloading)
        self.closed = False
        self._looking: asyncio.Task[None] | None = None
        self._unknown_reading = 0
        # One place each: work in threads shares one interpreter, and more would only take memory.
        self._places = {known: asyncio.Semaphore(1) for known in (True, False)}

    @property
    def guard(self) -> AsyncGuard:
        """This process's guard."""
        return self.in_force.get()

    def is_busy(self, *, known: bool) -> bool:
        """Whether too many large bodies wait to be read of callers who are `known`, or not."""
        return not known and self._unknown_reading >= MOST_UNKNOWN_READING

    def metrics(self) -> str:
        """Return what was counted in this process, in the text format of Prometheus."""
        return self.recorder.metrics(*self.figures(self.guard))

    def renew_if_due(self, reservation: Reservation) -> None:
        """Renew in a task the places of what is being served, if that is due now."""
        self.renew(reservation, self.clock())

    async def look(self) -> None:
        """Look for changed policies where that is set and due, and wait until they are in force.

        Files are looked at beside the event loop. A look that takes longer than `LONGEST_LOOK`
        seconds goes on, and nobody waits for it any more.
        """
        if self.in_force.due(self.clock()):
            self._looking = self.start(asyncio.to_thread(self._reloaded, self.in_force.look))
        looking = self._looking
        if looking is not None and not looking.done():
            await asyncio.wait((looking,), timeout=LONGEST_LOOK)

    async def reload(self) -> Reloads | None:
        """Load the policies anew, and tell how it went; None where the guard is the host's own."""
        await asyncio.to_thread(self._reloaded, self.in_force.load)
        return self.in_force.reloads

    def open(self) -> None:
        """Make the guard now, not at the first request."""
        guard = self.in_force.get()
        self.configured.note(guard.warnings(now=self.clock()))

    async def close(self) -> None:
        """Wait for what is being settled, and let go of what was opened here."""
        self.closed = True
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        guard = self.in_force.taken()
        if guard is not None and self.configured.guard is None:
            await guard.close()
        self._take_figures(guard)
        self.configured.close()

    async def _refresh(self) -> AsyncGuard:
        if self.in_force.looks:
            await self.look()
        return self.in_force.get()

    async def _compute(self, work: Callable[[], object], known: bool) -> object:
        """Do what a large body takes in a thread, while the loop serves others.

        Those whom the directory does not know wait for each other, and nobody else for them.
        """
        place = self._places[known]
        self._unknown_reading += not known
        try:
            await place.acquire()
        finally:
            self._unknown_reading -= not known
        running = asyncio.ensure_future(asyncio.to_thread(work))
        # The thread goes on when a request is cancelled: the place is free when it has ended.
        running.add_done_callback(lambda _: place.release())
        return await asyncio.shield(running)


class SyncEnforcer(Flows):
    """Admits requests and settles them, in the threads of one process."""

    in_force: InForce[Guard]

    def __init__(
        self, configured: Configured, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        super().__init__(configured)
        established = configured.callers.established
        if established is not None and established.is_async:
            raise SettingError(NOT_AWAITED)
        self._perform: dict[type[tuple[Any, ...]], Callable[..., Any]] = {
            Refresh: self._refresh,
            LookUp: configured.callers.look_up,
            Compute: self._compute,
            Delay: sleep,
            Decide: self._decide,
            Settle: self._settle,
            Renew: self._renew,
        }
        self.in_force = InForce(configured.sync_guard, configured.reloading)
        self._leases = PerProcess(LeaseThread)
        self.closed = False
        self._threads = Threads(self.settings.threads)
        # One place each: threads share one interpreter, and more would only take memory.
        self._reading = {known: threading.Semaphore() for known in (True, False)}

    @property
    def leases(self) -> LeaseThread:
        """What renews the leases of this process's requests while their hosts are silent."""
        return self._leases.get()

    @property
    def guard(self) -> Guard:
        """This process's guard."""
        return self.in_force.get()

    @property
    def most_delayed(self) -> int:
        """How many requests may be delayed at once: no more than half of the server's threads."""
        return self._threads.spare

    def run(self, flow: Flow[T], read: Callable[[int], bytes] | None = None) -> T:
        """Perform a flow to its end, and return what it returns; `read` reads the body."""
        perform = self._perform
        try:
            step = flow.send(None)
            while True:
                try:
                    if read is not None and isinstance(step, ReadBody):
                        outcome = read(step.most)
                    else:
                        outcome = perform[step.__class__](*step)
                except GeneratorExit:
                    step = flow.throw(ClosedError())
                except BaseException as problem:
                    step = flow.throw(problem)
                else:
                    step = flow.send(outcome)
        except StopIteration as end:
            value: T = end.value
            return value
        except ClosedError:
            raise GeneratorExit from None

    def seen(self) -> None:
        """Note the thread that serves a request, where requests may be delayed."""
        if self.settings.max_delay:
            self._threads.seen()

    def metrics(self) -> str:
        """Return what was counted in this process, in the text format of Prometheus."""
        return self.recorder.metrics(*self.figures(self.guard))

    def reload(self) -> Reloads | None:
        """Load the policies anew, and tell how it went; None where the guard is the host's own."""
        self._reloaded(self.in_force.load)
        return self.in_force.reloads

    def check(self) -> None:
        """Make a guard as each process will, and let go of it: what is wrong is told now.

        Raises:
            GuardrailError: the store, the hash key or a database cannot be used.
        """
        if self.configured.guard is None:
            self.configured.sync_guard().close()
        else:
            self.configured.sync_guard()

    def close(self) -> None:
        """Let go of what was opened here."""
        self.closed = True
        leases = self._leases.taken()
        if leases is not None:
            leases.close()
        guard = self.in_force.taken()
        if guard is not None and self.configured.guard is None:
            guard.close()
        self._take_figures(guard)
        self.configured.close()

    def _refresh(self) -> Guard:
        if self.in_force.looks and self.in_force.due(self.clock()):
            self._reloaded(self.in_force.look)
        return self.in_force.get()

    def _compute(self, work: Callable[[], object], known: bool) -> object:
        with self._reading[known]:
            return work()

    def _decide(
        self,
        guard: Guard,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None,
        unavailable: frozenset[str],
        asked: tuple[Signal, ...],
    ) -> Decision:
        return guard.decide(facts, estimate, unavailable=unavailable, now=self.clock(), asked=asked)

    def _settle(self, guard: Guard, decision: Decision, how: Settlement) -> None:
        try:
            if how.usage is None:
                guard.release(decision, now=self.clock())
            else:
                guard.settle(decision, how.usage, model=how.model, now=self.clock())
        except GuardrailError as problem:
            LOG.warning("decision %s stays as reserved: %s", decision.id, problem)

    def _renew(self, guard: Guard, decision: Decision) -> None:
        try:
            guard.renew(decision, now=self.clock())
        except GuardrailError as problem:
            LOG.warning("a lease was not renewed: %s", problem)


def _begin(work: Coroutine[Any, Any, object]) -> None:
    """Do what of some work needs no waiting; a guard goes on by itself with what it has begun."""
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()

"""What the requests of one application share: the guard, the directory, and what they wait for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, TypeVar

from guardrail.engine import Decision
from guardrail.errors import GuardrailError
from guardrail.guard import AsyncGuard
from guardrail.http.answers import Answer, refuse
from guardrail.http.asked.folding import AT_ONCE
from guardrail.http.exchange.before import NOTHING, Exchange, Hold, Pass
from guardrail.http.exchange.holding import Places, caller_of
from guardrail.http.exchange.later import Later
from guardrail.http.exchange.serving import Settlement
from guardrail.http.settings.in_force import InForce
from guardrail.http.settings.opening import Configured
from guardrail.http.settings.reloading import Reloads

LOG = logging.getLogger("guardrail")
Sleep = Callable[[float], Awaitable[object]]

LONGEST_LOOK = 2.0
"""How many seconds a request waits for changed policies to be loaded."""

READ_AT_ONCE = AT_ONCE
"""A body of more bytes is read in a thread, while the event loop serves others."""
MOST_UNKNOWN_READING = 16
"""How many large bodies wait to be read of callers whom the directory does not know."""

T = TypeVar("T")


class AsyncDoor:
    """Admits requests and settles them, in the event loop of one process.

    The guard is opened at first use, after any fork.
    """

    def __init__(self, configured: Configured, sleep: Sleep = asyncio.sleep) -> None:
        self.configured = configured
        self.settings = configured.http
        self.clock = configured.clock
        self._asker = configured.asker
        self._guard = InForce(configured.async_guard, configured.reloading)
        self._sleep = sleep
        self.later = Later()
        self.closed = False
        self._looking: asyncio.Task[None] | None = None
        self._held = Places(self.settings.max_held)
        self._unknown_reading = 0
        # One place each: work in threads shares one interpreter, and more would only take memory.
        self._places = {known: asyncio.Semaphore(1) for known in (True, False)}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def guard(self) -> AsyncGuard:
        """This process's guard."""
        return self._guard.get()

    async def admit(
        self, exchange: Exchange, body: Callable[[], Awaitable[bytes | None]] | None
    ) -> Answer | Pass:
        """Return the host's part in a request, or the answer that ends it before.

        `body` reads the body; it is not called for a request that its head already refuses. None
        stands for a body that is not for us to read.
        """
        try:
            await self.look()
            answer = exchange.opened()
            if answer is not None:
                return answer
            identity = await self._asker.find(exchange.asking, self.clock())
            self.configured.note(exchange.notes)
            early = self.configured.early(self.guard.policies)
            answer = exchange.identified(identity.facts, identity.unavailable, early, self.clock())
        except Exception:
            return self._failed(exchange)
        if answer is not None:
            if exchange.refusal is not None:
                self.configured.journal.decided(exchange.refusal, exchange.dialect)
            return answer
        read = None if body is None else await body()
        try:
            if body is None:
                answer = exchange.unread()
            elif read is not None and len(read) > READ_AT_ONCE:
                if not exchange.known and self._unknown_reading >= MOST_UNKNOWN_READING:
                    return exchange.busy()
                answer = await self._beside(exchange, partial(exchange.received, read))
            else:
                answer = exchange.received(read)
            return answer if answer is not None else await self.decide(exchange)
        except Exception:
            return self._failed(exchange)

    async def _beside(self, exchange: Exchange, work: Callable[[], T]) -> T:
        """Do what a large body takes in a thread, one at a time, while the loop serves others.

        Those whom the directory does not know wait for each other, and nobody else for them.
        """
        place = self._places[exchange.known]
        self._unknown_reading += not exchange.known
        try:
            await place.acquire()
        finally:
            self._unknown_reading -= not exchange.known
        running = asyncio.ensure_future(asyncio.to_thread(work))
        # The thread goes on when a request is cancelled: the place is free when it has ended.
        running.add_done_callback(lambda _: place.release())
        return await asyncio.shield(running)

    async def check(self, exchange: Exchange) -> Answer | Pass:
        """Decide on a request whose body is not for us: as `admit` does, by its head alone."""
        return await self.admit(exchange, None)

    async def decide(self, exchange: Exchange) -> Answer | Pass:
        """Decide on a request that was read, and hold it where that is short and allowed."""
        waited = 0.0
        while True:
            decision = await self.guard.decide(
                exchange.facts,
                exchange.estimate,
                unavailable=exchange.unavailable,
                now=self.clock(),
            )
            try:
                if len(exchange.asked.body or b"") > READ_AT_ONCE and exchange.may_change_body(
                    decision
                ):
                    step = await self._beside(exchange, partial(exchange.decided, decision, waited))
                else:
                    step = exchange.decided(decision, waited)
            except BaseException:
                await self.settle(decision, Settlement(None))
                raise
            # A session that is refused only for what its turns may not ask for is let in.
            if not isinstance(step, Hold) and (decision.allowed or not isinstance(step, Pass)):
                self.configured.journal.decided(decision, exchange.dialect)
            if isinstance(step, Hold):
                caller = caller_of(exchange.facts)
                if not self._held.take(caller):
                    self.configured.journal.decided(decision, exchange.dialect)
                    return refuse(decision, exchange.addressee, self.settings.style)
                try:
                    await self._sleep(step.seconds)
                finally:
                    self._held.give(caller)
                waited += step.seconds
                continue
            if isinstance(step, Answer) and decision.allowed:
                await self.settle(decision, Settlement(None))
            return step

    async def decide_turn(
        self,
        exchange: Exchange,
        facts: Mapping[str, object],
        estimate: Mapping[str, int],
        *,
        runs: bool = False,
    ) -> Decision:
        """Decide on one turn of a session; who asks, and by which policies, is established anew.

        `runs` tells that the turn runs already: refused, it is recorded when it is settled.
        """
        await self.look()
        identity = await self._asker.find(exchange.asking, self.clock())
        decision = await self.guard.decide(
            {**exchange.head_facts, **facts, **identity.facts},
            estimate,
            unavailable=identity.unavailable,
            now=self.clock(),
        )
        self.configured.journal.decided(decision, exchange.dialect, owes=runs)
        return decision

    async def decide_anew(
        self,
        exchange: Exchange,
        before: Decision,
        facts: Mapping[str, object],
        estimate: Mapping[str, int],
        *,
        held: bool,
    ) -> Decision:
        """Decide on a request that is being served, with what its host adds to it.

        The decision `before` is given back first if it is still `held`, so that no limit counts the
        request twice, and one with a single place has it for this. Another request may take it
        between the two.
        """
        if held:
            await self.settle(before, Settlement(None))
        decision = await self.guard.decide(
            {**before.facts, **facts},
            estimate,
            unavailable=exchange.unavailable - facts.keys(),
            now=self.clock(),
        )
        self.configured.journal.decided(decision, exchange.dialect)
        return decision

    async def settle(
        self, decision: Decision, settlement: Settlement, *, recorded: bool = True
    ) -> None:
        """Settle a decision; the guard goes on with it even if the caller is cancelled.

        One that only took places anew is no request of its own, and not to be `recorded`.
        """
        if recorded:
            self.configured.journal.settled(decision, settlement)
        await settle(self.guard, decision, settlement, self.clock())

    async def renew(self, decision: Decision) -> None:
        """Extend a decision's leases; a store that does not answer is only noted."""
        try:
            await self.guard.renew(decision, now=self.clock())
        except GuardrailError as problem:
            LOG.warning("a lease was not renewed: %s", problem)

    async def regain(
        self,
        exchange: Exchange,
        facts: Mapping[str, object] | None = None,
        estimate: Mapping[str, object] | None = None,
    ) -> Decision | None:
        """Take the places in flight of a request anew whose leases ran out.

        None if others hold them by now, or the store does not answer: the request goes on without.
        `facts` and `estimate` are those of a turn in a session.
        """
        asked = (exchange.estimate if estimate is None else estimate).keys()
        try:
            decision = await self.guard.decide(
                exchange.facts if facts is None else facts,
                {**dict.fromkeys(asked, 0), **NOTHING},
                unavailable=exchange.unavailable,
                now=self.clock(),
            )
        except GuardrailError as problem:
            LOG.warning("a place whose lease ran out was not taken anew: %s", problem)
            return None
        if decision.allowed:
            return decision
        LOG.warning("a place whose lease ran out is taken: %s goes on without one", decision.id)
        return None

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something in a task that is not forgotten before it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def metrics(self) -> str:
        """Return what was counted in this process, in the text format of Prometheus."""
        return self.configured.journal.metrics(
            self.guard.health, self._guard.reloads, self._asker.health
        )

    async def look(self) -> None:
        """Look for changed policies where that is set and due, and wait until they are in force.

        Files are looked at beside the event loop. A look that takes longer than `LONGEST_LOOK`
        seconds goes on, and nobody waits for it any more.
        """
        if self._guard.due(self.clock()):
            self._looking = self.start(asyncio.to_thread(self._guard.look))
        if self._looking is not None and not self._looking.done():
            await asyncio.wait((self._looking,), timeout=LONGEST_LOOK)

    async def reload(self) -> Reloads | None:
        """Load the policies anew, and tell how it went; None where the guard is the host's own."""
        await asyncio.to_thread(self._guard.load)
        return self._guard.reloads

    def open(self) -> None:
        """Make the guard now, not at the first request."""
        guard = self._guard.get()
        self.configured.note(guard.warnings(now=self.clock()))

    async def close(self) -> None:
        """Wait for what is being settled, and let go of what was opened here."""
        self.closed = True
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        guard = self._guard.taken()
        if guard is not None and self.configured.guard is None:
            await guard.close()
        self.configured.close()

    def note_failure(self) -> None:
        """Note that the guard failed over what is being handled, which is refused."""
        LOG.exception("the guard failed; what it was asked about is refused")
        self.configured.journal.failed()

    def _failed(self, exchange: Exchange) -> Answer:
        self.configured.journal.failed()
        answer = exchange.failed()
        LOG.exception("the guard failed; the request is refused, id %s", exchange.own_id)
        return answer


async def settle(
    guard: AsyncGuard, decision: Decision, settlement: Settlement, now: float | None = None
) -> None:
    """Settle a decision; what is wrong with that is logged, and nothing the host's code meets."""
    try:
        if settlement.usage is None:
            await guard.release(decision, now=now)
        else:
            await guard.settle(decision, settlement.usage, model=settlement.model, now=now)
    except GuardrailError as problem:
        LOG.warning("decision %s stays as reserved: %s", decision.id, problem)

"""The stores on Redis: one script call a decision, for threads and for event loops.

What a store does is written once, in steps; the two stores differ in how they wait, and in when
they do what can be put off: one after an operation, the other in a task.
"""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast

from guardrail.errors import SettingError, StoreError
from guardrail.model.cells import Cell, Charge, Correction, Form, Outcome, Pool
from guardrail.stores.cells import GarbledError, are_numbers, form_of, outcome_of, reply_of
from guardrail.stores.forks import call_in_children
from guardrail.stores.links import MOST_TRIES, TRIES, Decide, Query
from guardrail.stores.redis.address import Address
from guardrail.stores.redis.blocking import BlockingServers
from guardrail.stores.redis.cluster import Scatter, by_slot
from guardrail.stores.redis.faults import OutdatedError
from guardrail.stores.redis.links import every, linked
from guardrail.stores.redis.pipelined import PipelinedServers
from guardrail.stores.redis.protocol import (
    Ask,
    Call,
    CallContext,
    Command,
    Compensation,
    acquired,
    acquiring,
    answered,
    compensating,
    read_reply,
    settled,
    settling,
)
from guardrail.stores.redis.server_state import ServerState, StoreOptions
from guardrail.stores.redis.servers import Servers
from guardrail.stores.steps import Steps, awaited, performed

T = TypeVar("T")

DEADLINE, CONNECT = 0.05, 1.0
AT_ONCE = 100
"""Compensations sent in one call."""
MOST_OWED = 10_000
PAUSE = 0.25
"""Seconds until a cluster is asked again to take back what one of its servers did not."""

Failed = list[tuple[Sequence[Compensation], StoreError]]


class StoreSteps(ABC):
    """What a store on Redis does, in steps, and what it owes.

    `deadline` and `connect` are in seconds; `clock` is the host's. Stores that are handed the same
    `state` share it.
    """

    _servers: Servers[Any]

    def __init__(
        self,
        address: Address,
        options: StoreOptions,
        *,
        deadline: float = DEADLINE,
        connect: float = CONNECT,
        clock: Callable[[], float] = time.time,
        state: ServerState | None = None,
    ) -> None:
        self.address = address
        self.options = options
        self.deadline = deadline
        self.connect = connect
        self._is_cluster = address.kind == "cluster"
        self.state = state or ServerState(
            options, clock=clock, steady=time.monotonic, is_cluster=self._is_cluster
        )
        self._begin()
        call_in_children(self._begin)

    def skewed(self, clock: Callable[[], float]) -> Callable[[], float]:
        """Return the clock to decide by: the host's, set right by the server's."""
        return self.state.skewed(clock)

    def warnings(self, now: float) -> tuple[str, ...]:
        """Return what an operator should know."""
        return self.state.warnings()

    def _begin(self) -> None:
        """Start with nothing owed; for a forked child anew: its parent pays what it owes itself."""
        self._owed: deque[Compensation] = deque()
        self._lost = 0
        # Threads share what is owed: taking it and counting it are several steps.
        self._owing = threading.RLock()
        self._paused = 0.0
        # What is taken back is so at the time of the latest call: hosts may have their own clock.
        self._latest = 0

    @abstractmethod
    def _until(self) -> float:
        """Return when a call that is made now is overdue, by the servers' time."""

    @abstractmethod
    def _maintain(self, until: float) -> Any:
        """Have what is owed taken back, and the server asked anew if that is due."""

    @abstractmethod
    def _wake(self) -> None:
        """Have what is owed taken back though no operation has ended."""

    def _done(
        self,
        work: Callable[..., Steps[T]],
        now: int,
        *arguments: object,
        begun: Steps[T] | None = None,
    ) -> Steps[T]:
        """Do something at a time, once more if the names were outdated; then what is due.

        `begun` are the steps that are left of the first try, where that was begun already.
        """
        until, self._latest = self._until(), now
        self._servers.look()
        try:
            try:
                result = yield from begun or work(*arguments, now, until)
            except OutdatedError:
                result = yield from work(*arguments, now, until)
        except GarbledError:
            self._lose(1)
            raise
        if self._owed or self.state.due:
            yield self._maintain, (until,)
        return result

    def _straight(self, now: int) -> tuple[CallContext, Any] | None:
        """Return how a call is made, and to what, that needs no step before: as nearly all are.

        None where one does: the server has to be asked for its time, or for records under former
        names, or there are several.
        """
        self._latest = now
        servers, context = self._servers, self.state.current()
        if servers.only is None or context is None or context.former is not None:
            return None
        if servers.is_sentinel:
            servers.look()
        return context, servers.only

    def _resumed(self, until: float, call: Call, reply: object) -> Steps[Any]:
        """Go on after a straight call was answered otherwise than it should be."""
        servers = self._servers
        reply = yield from servers.answered(until, call, reply, servers.at(call.slot))
        return reply if call.asked is None else read_reply(reply)

    def _acquired(
        self, charges: Sequence[Charge], cells: Sequence[Cell], now: int, until: float
    ) -> Steps[Outcome]:
        if not self._is_cluster:
            reply = yield from self._replied(form_of(charges, cells), now, until)
            return outcome_of(reply, len(charges), cells)
        context = yield from self._refreshed_if_stale(until)
        send: Ask = partial(self._servers.send, until)

        def ask(form: Form, slot: int, refuse: bool) -> Steps[list[int]]:
            conditions = context.preconditions._replace(refuse=refuse)
            stated = context._replace(preconditions=conditions)
            return acquired(stated, form, now, slot, send)

        scatter = Scatter(context, charges, cells, ask)
        try:
            outcome = yield from scatter.acquired()
        except BaseException:
            self._owe(scatter.owed)
            if scatter.owed:
                self._wake()
            raise
        self._owe(scatter.owed)
        return outcome

    def _replied(self, form: Form, now: int, until: float) -> Steps[list[int]]:
        if self._is_cluster:
            outcome = yield from self._acquired(form.as_charges, form.as_cells, now, until)
            return reply_of(outcome)
        context = self.state.current()
        if context is None:
            context = yield from self._refreshed_if_stale(until)
        return (yield from acquired(context, form, now, 0, partial(self._servers.send, until)))

    def _settled(self, corrections: Sequence[Correction], now: int, until: float) -> Steps[None]:
        context = self.state.current()
        if context is None:
            context = yield from self._refreshed_if_stale(until)
        if not self._is_cluster:
            send = partial(self._servers.send, until)
            yield from settled(context, corrections, now, 0, send)
            return
        parts, failed = yield from self._corrected(context, corrections, now, until)
        if failed and len(failed) == parts:
            # Where no server took anything, the caller keeps all.
            first = failed[0][1]
            if parts == 1 or all(isinstance(problem, OutdatedError) for _, problem in failed):
                raise first
            unsure = any(problem.unsure for _, problem in failed)
            raise StoreError(str(first), unsure=unsure) from first
        self._owe_failed(failed)

    def _corrected(
        self,
        context: CallContext,
        corrections: Sequence[Compensation],
        now: int,
        until: float,
    ) -> Steps[tuple[int, Failed]]:
        """Correct server by server; return how many parts there were, and which failed."""
        parts = by_slot(context, corrections)
        failed: Failed = []
        for slot, part in parts:
            try:
                yield from settled(context, part, now, slot, partial(self._servers.send, until))
            except StoreError as problem:
                failed.append((part, problem))
        return len(parts), failed

    def _linked(self, query: Query, decide: Decide, now: int, until: float) -> Steps[bool]:
        context = self.state.current()
        if context is None:
            context = yield from self._refreshed_if_stale(until)
        send, scripts = partial(self._servers.send, until), self.state.link_scripts
        half_time = time.monotonic() + self.deadline / 2
        for tried in range(1, MOST_TRIES + 1):
            done = yield from linked(context, scripts, self.state.links_slot, query, decide, send)
            if done is not False:
                return bool(done)
            if tried >= TRIES and time.monotonic() >= half_time:
                break
        return False

    def _every(self, now: int, until: float) -> Steps[Mapping[bytes, bytes]]:
        context = yield from self._refreshed_if_stale(until)

        def send(call: Call) -> Steps[object]:
            return self._servers.send(self._until(), call)

        return (yield from every(context, self.state.links_slot, send))

    def share(self, pools: Sequence[Pool]) -> None:
        """Name counters that accounts share, before any of them is charged."""
        self.state.shared |= {pool.ident for pool in pools}

    def _refreshed_if_stale(self, until: float) -> Steps[CallContext]:
        """Return how calls are made, asking the server first if it was not for too long."""
        if self.state.stale:
            yield from self._refreshed(until)
        return self.state.context()

    def _refreshed(self, until: float) -> Steps[None]:
        """Ask the server for its time and for whose names are in force."""

        def ask(command: Command) -> Steps[object]:
            return self._servers.send(until, Call(self.state.slot, command))

        try:
            yield from answered(self.state.refresh(), ask)
        except SettingError as problem:
            raise StoreError(str(problem)) from problem

    def _maintained(self, until: Callable[[], float], *, whole: bool) -> Steps[None]:
        """Take back what is owed, all if `whole`, else what one call can; look at the server."""
        try:
            while self._owed and time.monotonic() >= self._paused:
                yield from self._compensated(until())
                if not whole:
                    break
            if self.state.due:
                yield from self._refreshed(until())
        except StoreError:
            # The decision stands; what is owed is tried again after the next one.
            return

    def _compensated(self, until: float) -> Steps[None]:
        """Take back some of what is owed."""
        context = yield from self._refreshed_if_stale(until)
        batch = self._batch()
        try:
            _, failed = yield from self._corrected(context, batch, self._latest, until)
        except BaseException:
            # What was broken off may have been applied.
            self._lose(len(batch))
            raise
        self._owe_failed(failed)
        if failed:
            raise failed[0][1]

    def _closed(self) -> Steps[None]:
        """Take back what is still owed, and close every connection."""
        self._paused = 0.0
        left = len(self._owed) + 1
        while 0 < len(self._owed) < left:
            # A call takes back so many at once; one that takes nothing back will not.
            left = len(self._owed)
            yield from self._maintained(self._until, whole=False)
        yield self._servers.close, ()
        self._lose(len(self._owed))
        self._owed.clear()

    def _late(self, call: Call, reply: object) -> None:
        """Take note of a reply that came after its deadline: what it charged is taken back."""
        asked = call.asked
        if asked is None or isinstance(reply, Exception):
            # An error was answered before anything was written.
            return
        charges, cells = asked.as_charges, asked.as_cells
        try:
            outcome = outcome_of(read_reply(reply), len(charges), cells)
        except StoreError:
            self._lose(1)
            return
        self._owe([each for _, each in compensating(charges, cells, outcome)])
        self._wake()

    def _owe(self, compensations: Sequence[Compensation]) -> None:
        if compensations:
            with self._owing:
                room = max(0, MOST_OWED - len(self._owed))
                self._lost += max(0, len(compensations) - room)
                self._owed.extend(compensations[:room])

    def _batch(self) -> list[Compensation]:
        with self._owing:
            return [self._owed.popleft() for _ in range(min(AT_ONCE, len(self._owed)))]

    def _owe_failed(self, failed: Failed) -> None:
        """Keep for later what was not applied, unless it may have been."""
        for part, problem in failed:
            if problem.unsure:
                self._lose(len(part))
            else:
                self._owe(part)
        if failed and self._is_cluster:
            # The other servers' decisions must not wait each time for the one that is away.
            self._paused = time.monotonic() + PAUSE

    def _lose(self, many: int) -> None:
        """Count what stays charged for nothing."""
        with self._owing:
            self._lost += many


class RedisStore(StoreSteps):
    """Counts on a server that many processes share; safe to share between threads.

    Connections are opened when they are first needed, and after a fork anew.
    """

    def _begin(self) -> None:
        # The parent's connections stay the parent's: they are let go of, not closed.
        self._servers = BlockingServers(
            self.address, self.state, self.deadline, self.connect, self._late
        )
        super()._begin()

    def _until(self) -> float:
        return time.monotonic() + self.deadline

    def _maintain(self, until: float) -> None:
        performed(self._maintained(lambda: until, whole=False))

    def _wake(self) -> None:
        """Do nothing: what is owed is taken back after the next operation."""

    @property
    def lost(self) -> int:
        """Replies that never came, and corrections given up: what stays charged for nothing."""
        return self._lost + self._servers.lost

    def open(self) -> None:
        """Look at the server, with the time it takes to connect.

        Raises:
            SettingError: it must not be used with these settings.
            StoreError: it does not answer.
        """
        try:
            performed(self._refreshed(time.monotonic() + 2 * self.connect))
        except StoreError as problem:
            if isinstance(problem.__cause__, SettingError):
                raise problem.__cause__ from None
            raise

    def awaited(self) -> AsyncRedisStore:
        """Return the same store for event loops, and close this one."""
        self.close()
        settings: dict[str, Any] = {"deadline": self.deadline, "connect": self.connect}
        return AsyncRedisStore(self.address, self.options, state=self.state, **settings)

    def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Evaluate all cells at `now` (microseconds) and apply the charges that are admitted."""
        return performed(self._done(self._acquired, now, charges, cells))

    def ask(self, form: Form, now: int) -> list[int]:
        """Acquire what a form asks for; see `FormStore.ask`."""
        until, straight = self._until(), self._straight(now)
        if straight is None:
            return performed(self._done(self._replied, now, form))
        context, server = straight
        call = acquiring(context, form, now)
        reply: Any = server.ask((call.command(),), call, until)
        if not are_numbers(reply):
            begun = self._resumed(until, call, reply)
            return performed(self._done(self._replied, now, form, begun=begun))
        if self._owed or self.state.due:
            self._maintain(until)
        return cast(list[int], reply)

    def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Apply corrections to what was charged before.

        What only some servers of a cluster took is owed to the others.
        """
        until, straight = self._until(), self._straight(now)
        if straight is None:
            performed(self._done(self._settled, now, corrections))
            return
        context, server = straight
        call = settling(context, corrections, now)
        reply = server.ask((call.command(),), call, until)
        if isinstance(reply, Exception):
            begun = self._resumed(until, call, reply)
            performed(self._done(self._settled, now, corrections, begun=begun))
        elif self._owed or self.state.due:
            self._maintain(until)

    def linked(self, query: Query, decide: Decide, now: int) -> bool:
        """Read, decide and write in one step; see `LinkedStore.linked`."""
        return performed(self._done(self._linked, now, query, decide))

    def every(self) -> Mapping[bytes, bytes]:
        """Return all rows and notes of links, for tools; each call has a deadline of its own."""
        return performed(self._done(self._every, self._latest))

    def close(self) -> None:
        """Take back what is still owed, and close every connection."""
        performed(self._servers.drained())
        performed(self._closed())


class AsyncRedisStore(StoreSteps):
    """Counts on a server that many processes share; for the tasks of one event loop at a time."""

    _servers: PipelinedServers

    def _begin(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._maintenance: asyncio.Task[None] | None = None
        super()._begin()

    def _until(self) -> float:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                # What the servers still owe is heard by a loop that has ended.
                self._lose(self._servers.lost_with_loop)
            self._servers = PipelinedServers(
                self.address, self.state, self.deadline, self.connect, self._late
            )
            self._loop, self._maintenance = loop, None
        return loop.time() + self.deadline

    async def _maintain(self, until: float) -> None:
        self._wake()

    def _wake(self) -> None:
        """Start a task, if there is none, that takes back what is owed and looks at the server."""
        if self._maintenance is None or self._maintenance.done():
            steps = self._maintained(self._until, whole=True)
            self._maintenance = asyncio.get_running_loop().create_task(awaited(steps))

    @property
    def lost(self) -> int:
        """Replies that never came, and corrections given up: what stays charged for nothing."""
        return self._lost + (0 if self._loop is None else self._servers.lost)

    async def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Evaluate all cells at `now` (microseconds) and apply the charges that are admitted.

        Cancelled, it charges nothing that is not taken back.
        """
        return await awaited(self._done(self._acquired, now, charges, cells))

    async def ask(self, form: Form, now: int) -> list[int]:
        """Acquire what a form asks for; see `FormStore.ask`."""
        until, straight = self._until(), self._straight(now)
        if straight is None:
            return await awaited(self._done(self._replied, now, form))
        context, server = straight
        call = acquiring(context, form, now)
        reply: Any = await server.ask((call.command(),), call, until)
        if not are_numbers(reply):
            begun = self._resumed(until, call, reply)
            return await awaited(self._done(self._replied, now, form, begun=begun))
        if self._owed or self.state.due:
            self._wake()
        return cast(list[int], reply)

    async def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Apply corrections to what was charged before.

        What only some servers of a cluster took is owed to the others.
        """
        until, straight = self._until(), self._straight(now)
        if straight is None:
            await awaited(self._done(self._settled, now, corrections))
            return
        context, server = straight
        call = settling(context, corrections, now)
        reply = await server.ask((call.command(),), call, until)
        if isinstance(reply, Exception):
            begun = self._resumed(until, call, reply)
            await awaited(self._done(self._settled, now, corrections, begun=begun))
        elif self._owed or self.state.due:
            self._wake()

    async def linked(self, query: Query, decide: Decide, now: int) -> bool:
        """Read, decide and write in one step; see `LinkedStore.linked`."""
        return await awaited(self._done(self._linked, now, query, decide))

    async def every(self) -> Mapping[bytes, bytes]:
        """Return all rows and notes of links, for tools; each call has a deadline of its own."""
        return await awaited(self._done(self._every, self._latest))

    async def close(self) -> None:
        """Take back what is still owed, and close every connection."""
        if self._loop is not asyncio.get_running_loop():
            return
        await awaited(self._servers.drained())
        if self._maintenance is not None:
            await asyncio.gather(self._maintenance, return_exceptions=True)
        await awaited(self._closed())

"""The store on Redis for event loops: concurrent decisions share one connection."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Generator, Sequence
from typing import Any, TypeVar, cast

from redis import exceptions as said

from guardrail.errors import SettingError, StoreError
from guardrail.model.cells import Cell, Charge, Correction, Outcome
from guardrail.model.forms import Asked
from guardrail.stores.forms import GarbledError, reply_of
from guardrail.stores.redis.addresses import Address, Place
from guardrail.stores.redis.async_servers import AsyncServers
from guardrail.stores.redis.base import ASKING, REDIRECTS, TRY_AGAIN_AFTER, Failed, RedisBase
from guardrail.stores.redis.bearings import Outlook
from guardrail.stores.redis.dialogue import Call, acquired, asking, parted, settling, spoken
from guardrail.stores.redis.faults import MOVED_AWAY, OutdatedError
from guardrail.stores.redis.spread import acquiring
from guardrail.stores.redis.wire import Undo, read_reply

T = TypeVar("T")


class AsyncRedisStore(RedisBase):
    """Counts on a server that many processes share; for the tasks of one event loop at a time."""

    def __init__(self, address: Address, outlook: Outlook, **settings: Any) -> None:
        super().__init__(address, outlook, **settings)

    def _begin(self) -> None:
        self._servers: AsyncServers | None = None
        self._chores: asyncio.Task[None] | None = None
        super()._begin()

    @property
    def lost(self) -> int:
        """Replies that never came, and corrections given up: what stays charged for nothing."""
        return self._lost + (0 if self._servers is None else self._servers.lost)

    async def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Evaluate all cells at `now` (microseconds) and apply the charges that are admitted.

        Cancelled, it charges nothing that is not taken back.
        """
        until, self._latest = self._until(), now
        try:
            try:
                outcome = await self._acquire(charges, cells, now, until)
            except OutdatedError:
                outcome = await self._acquire(charges, cells, now, until)
        except GarbledError:
            self._lose(1)
            raise
        if self._undo or self.bearings.due:
            self._tidy()
        return outcome

    async def ask(self, asked: Asked, now: int) -> list[int]:
        """Acquire what a form asks for; see `FormStore.ask`."""
        if self.address.kind == "cluster":
            return reply_of(await self.acquire(asked.charges, asked.cells, now))
        until, self._latest = self._until(), now
        try:
            try:
                reply = await self._reply(asked, now, until)
            except OutdatedError:
                reply = await self._reply(asked, now, until)
        except GarbledError:
            self._lose(1)
            raise
        if self._undo or self.bearings.due:
            self._tidy()
        return reply

    async def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Apply corrections to what was charged before.

        What only some servers of a cluster took is owed to the others.
        """
        until, self._latest = self._until(), now
        try:
            await self._settle(corrections, now, until)
        except OutdatedError:
            await self._settle(corrections, now, until)
        if self._undo or self.bearings.due:
            self._tidy()

    async def close(self) -> None:
        """Take back what is still owed, and close every connection."""
        loop = asyncio.get_running_loop()
        if self._servers is None or self._servers.loop is not loop or os.getpid() != self._process:
            return
        await self._servers.drain()
        if self._chores is not None:
            await asyncio.gather(self._chores, return_exceptions=True)
        if self._undo:
            await self._chore()
        await self._servers.close()
        self._give_up()

    async def _acquire(
        self, charges: Sequence[Charge], cells: Sequence[Cell], now: int, until: float
    ) -> Outcome:
        if self.bearings.stale:
            await self._orient(until)
        undo: list[Undo] = []
        try:
            dialogue = acquiring(self.bearings.speech(), charges, cells, now, undo)
            outcome = await self._run(dialogue, until)
        except BaseException:
            self._owe(undo)
            if undo:
                self._tidy()
            raise
        self._owe(undo)
        return outcome

    async def _reply(self, asked: Asked, now: int, until: float) -> list[int]:
        if self.bearings.stale:
            await self._orient(until)
        speech = self.bearings.speech()
        if speech.former is None:
            return read_reply(await self._perform(asking(speech, asked, now), until))
        return await self._run(acquired(speech, asked, now, 0, refuse=False), until)

    async def _settle(self, corrections: Sequence[Correction], now: int, until: float) -> None:
        if self.bearings.stale:
            await self._orient(until)
        self._settled(*await self._correct(corrections, now, until))

    def _until(self) -> float:
        loop = asyncio.get_running_loop()
        if os.getpid() != self._process:
            self._begin()
        if self._servers is None or self._servers.loop is not loop:
            if self._servers is not None:
                # What they still owe is heard by a loop that has ended.
                self._lose(self._servers.lost_with_loop)
            self._servers = AsyncServers(
                self.address, self.bearings, self.deadline, self.connect, self._late
            )
            self._chores = None
        self._servers.look()
        return loop.time() + self.deadline

    async def _run(self, dialogue: Generator[Call, object, T], until: float) -> T:
        try:
            call = next(dialogue)
            while True:
                try:
                    reply = await self._perform(call, until)
                except (StoreError, asyncio.CancelledError) as problem:
                    call = dialogue.throw(problem)
                else:
                    call = dialogue.send(reply)
        except StopIteration as end:
            return cast(T, end.value)

    async def _perform(self, call: Call, until: float) -> object:
        """Return the server's reply to a call, wherever the call's slot is by now."""
        servers = cast(AsyncServers, self._servers)
        line, asking, followed = servers.line(call.slot), False, 0
        clock = servers.loop.time
        while followed < REDIRECTS:
            ahead = [ASKING] if asking else []
            reply = await line.ask([*ahead, self._command(call)], call, until)
            if isinstance(reply, said.NoScriptError):
                whole = self._command(call, whole=True)
                reply = await line.ask([*ahead, whole], call, until)
            if not isinstance(reply, Exception):
                return reply
            if isinstance(reply, said.MovedError | said.AskError):
                place = Place(reply.host or self.address.places[0].host, reply.port)
                asking = not isinstance(reply, said.MovedError)
                if not asking:
                    servers.move(call.slot, place)
                line = servers.line_at(place)
                followed += 1
            elif self._worth_repeating(reply, until - clock()):
                await asyncio.sleep(TRY_AGAIN_AFTER)
            else:
                if isinstance(reply, MOVED_AWAY):
                    servers.forget_table()
                raise self._refused(reply, line.where)
        raise StoreError(f"{line.where} sent a call on too often")

    async def _orient(self, until: float) -> None:
        """Ask the server for its time and for whose names are in force."""
        try:
            await self._run(spoken(self.bearings.sampling(), self.bearings.slot), until)
        except SettingError as problem:
            raise StoreError(str(problem)) from problem

    async def _correct(
        self, corrections: Sequence[Undo], now: int, until: float
    ) -> tuple[int, Failed]:
        """Correct server by server; return how many parts there were, and which failed."""
        speech = self.bearings.speech()
        parts = parted(speech, corrections)
        failed: Failed = []
        for part in parts:
            try:
                await self._run(settling(speech, part, now), until)
            except StoreError as problem:
                failed.append((part, problem))
        return len(parts), failed

    def _late(self, call: Call, reply: object) -> None:
        self._owe_late(call, reply)
        if self._undo:
            self._tidy()

    def _tidy(self) -> None:
        """Start a task, if there is none, that takes back what is owed and looks around."""
        if self._chores is None or self._chores.done():
            self._chores = asyncio.get_running_loop().create_task(self._chore())

    async def _chore(self) -> None:
        try:
            while self._undo:
                if self.bearings.stale:
                    await self._orient(self._until())
                batch = self._batch()
                try:
                    _, failed = await self._correct(batch, self._latest, self._until())
                except BaseException as problem:
                    self._unsent(batch, problem)
                    raise
                self._unbatch(failed)
                if failed:
                    raise failed[0][1]
            if self.bearings.due:
                await self._orient(self._until())
        except StoreError:
            # What is owed is tried again after the next decision.
            return

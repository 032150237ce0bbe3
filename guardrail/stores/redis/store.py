"""The store on Redis for threads: held connections, one script call a decision."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence
from typing import Any, TypeVar, cast

from redis import exceptions as said

from guardrail.errors import SettingError, StoreError
from guardrail.model.cells import Cell, Charge, Correction, Outcome
from guardrail.model.forms import Asked
from guardrail.stores.forms import GarbledError, reply_of
from guardrail.stores.redis.addresses import Address, Place
from guardrail.stores.redis.async_store import AsyncRedisStore
from guardrail.stores.redis.base import ASKING, REDIRECTS, TRY_AGAIN_AFTER, Failed, RedisBase
from guardrail.stores.redis.bearings import Outlook
from guardrail.stores.redis.dialogue import Call, acquired, asking, parted, settling, spoken
from guardrail.stores.redis.faults import (
    MOVED_AWAY,
    OutdatedError,
    overdue,
    unasked,
    unreachable,
    unwrapped,
)
from guardrail.stores.redis.pool import Pool
from guardrail.stores.redis.servers import Servers
from guardrail.stores.redis.spread import acquiring
from guardrail.stores.redis.wire import Undo, read_reply

T = TypeVar("T")


class RedisStore(RedisBase):
    """Counts on a server that many processes share; safe to share between threads.

    Connections are opened when they are first needed, and after a fork anew.
    """

    def __init__(self, address: Address, outlook: Outlook, **settings: Any) -> None:
        super().__init__(address, outlook, **settings)
        self._settings = settings

    def _begin(self) -> None:
        # The parent's connections stay the parent's: they are let go of, not closed.
        self._servers = Servers(self.address, self.bearings, self.deadline, self.connect)
        super()._begin()

    @property
    def lost(self) -> int:
        """Replies that never came, and corrections given up: what stays charged for nothing."""
        return self._lost + sum(pool.lost for pool in self._servers.every())

    def open(self) -> None:
        """Look at the server, with the time it takes to connect.

        Raises:
            SettingError: it must not be used with these settings.
            StoreError: it does not answer.
        """
        try:
            self._orient(time.monotonic() + 2 * self.connect)
        except StoreError as problem:
            if isinstance(problem.__cause__, SettingError):
                raise problem.__cause__ from None
            raise

    def awaited(self) -> AsyncRedisStore:
        """Return the same store for event loops, and close this one."""
        self.close()
        settings = {**self._settings, "bearings": self.bearings}
        return AsyncRedisStore(self.address, self.outlook, **settings)

    def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Evaluate all cells at `now` (microseconds) and apply the charges that are admitted."""
        if os.getpid() != self._process:
            self._begin()
        until, self._latest = time.monotonic() + self.deadline, now
        try:
            try:
                outcome = self._acquire(charges, cells, now, until)
            except OutdatedError:
                outcome = self._acquire(charges, cells, now, until)
        except GarbledError:
            self._lose(1)
            raise
        self._tidy(until)
        return outcome

    def ask(self, asked: Asked, now: int) -> list[int]:
        """Acquire what a form asks for; see `FormStore.ask`."""
        if self.address.kind == "cluster":
            return reply_of(self.acquire(asked.charges, asked.cells, now))
        if os.getpid() != self._process:
            self._begin()
        until, self._latest = time.monotonic() + self.deadline, now
        try:
            try:
                reply = self._reply(asked, now, until)
            except OutdatedError:
                reply = self._reply(asked, now, until)
        except GarbledError:
            self._lose(1)
            raise
        self._tidy(until)
        return reply

    def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Apply corrections to what was charged before.

        What only some servers of a cluster took is owed to the others.
        """
        if os.getpid() != self._process:
            self._begin()
        until, self._latest = time.monotonic() + self.deadline, now
        try:
            self._settle(corrections, now, until)
        except OutdatedError:
            self._settle(corrections, now, until)
        self._tidy(until)

    def close(self) -> None:
        """Take back what is still owed, and close every connection."""
        if os.getpid() != self._process:
            self._begin()
        for pool in self._servers.every():
            pool.drain()
        if self.bearings.known and not self.bearings.stale:
            self._paused = 0.0
            left = len(self._undo) + 1
            while len(self._undo) < left:
                # A call takes back so many at once; one that takes nothing back will not.
                left = len(self._undo)
                self._tidy(time.monotonic() + self.deadline)
        for pool in self._servers.every():
            pool.close()
        self._give_up()

    def _acquire(
        self, charges: Sequence[Charge], cells: Sequence[Cell], now: int, until: float
    ) -> Outcome:
        if self.bearings.stale:
            self._orient(until)
        undo: list[Undo] = []
        try:
            dialogue = acquiring(self.bearings.speech(), charges, cells, now, undo)
            outcome = self._run(dialogue, until)
        except BaseException:
            self._owe(undo)
            raise
        self._owe(undo)
        return outcome

    def _reply(self, asked: Asked, now: int, until: float) -> list[int]:
        if self.bearings.stale:
            self._orient(until)
        speech = self.bearings.speech()
        if speech.former is None:
            return read_reply(self._perform(asking(speech, asked, now), until))
        return self._run(acquired(speech, asked, now, 0, refuse=False), until)

    def _settle(self, corrections: Sequence[Correction], now: int, until: float) -> None:
        if self.bearings.stale:
            self._orient(until)
        self._settled(*self._correct(corrections, now, until))

    def _run(self, dialogue: Generator[Call, object, T], until: float) -> T:
        try:
            call = next(dialogue)
            while True:
                try:
                    reply = self._perform(call, until)
                except StoreError as problem:
                    call = dialogue.throw(problem)
                else:
                    call = dialogue.send(reply)
        except StopIteration as end:
            return cast(T, end.value)

    def _perform(self, call: Call, until: float) -> object:
        """Return the server's reply to a call, wherever the call's slot is by now."""
        pool, asking, followed = self._servers.pool(call.slot), False, 0
        while followed < REDIRECTS:
            reply = self._ask(pool, call, until, asking)
            if isinstance(reply, said.NoScriptError):
                reply = self._ask(pool, call, until, asking, whole=True)
            if not isinstance(reply, Exception):
                return reply
            if isinstance(reply, said.MovedError | said.AskError):
                place = Place(reply.host or self.address.places[0].host, reply.port)
                asking = not isinstance(reply, said.MovedError)
                if not asking:
                    self._servers.move(call.slot, place)
                pool = self._servers.pool_at(place)
                followed += 1
            elif self._worth_repeating(reply, until - time.monotonic()):
                time.sleep(TRY_AGAIN_AFTER)
            else:
                if isinstance(reply, MOVED_AWAY):
                    self._servers.forget_table()
                raise self._refused(reply, pool.where)
        raise StoreError(f"{pool.where} sent a call on too often")

    def _ask(
        self, pool: Pool, call: Call, until: float, asking: bool, *, whole: bool = False
    ) -> object:
        link = pool.take(until)
        sent = self._command(call, whole=whole)
        if time.monotonic() >= until:
            pool.give(link)
            raise unasked(pool.where)
        try:
            if asking:
                link.owe(None)
            link.send([ASKING, sent] if asking else [sent])
            reply = unwrapped(link.receive(until))
        except said.TimeoutError as problem:
            link.owe(call)
            pool.give(link)
            raise overdue(pool.where, self.deadline) from problem
        except BaseException as problem:
            pool.drop(link, call)
            if isinstance(problem, (said.RedisError, OSError)):
                raise unreachable(problem, pool.where, unsure=True) from problem
            raise
        if isinstance(reply, MOVED_AWAY):
            pool.leave(link)
        else:
            pool.give(link)
        return reply

    def _orient(self, until: float) -> None:
        """Ask the server for its time and for whose names are in force."""
        try:
            self._run(spoken(self.bearings.sampling(), self.bearings.slot), until)
        except SettingError as problem:
            raise StoreError(str(problem)) from problem

    def _tidy(self, until: float) -> None:
        """Use what is left of the time to take back what came too late, and to look around."""
        self._servers.look()
        for pool in self._servers.every():
            pool.collect()
            if pool.late:
                for late in pool.late_replies():
                    self._owe_late(*late)
        try:
            if self._undo and time.monotonic() >= self._paused:
                self._take_back(until)
            if self.bearings.due:
                self._orient(until)
        except StoreError:
            # The decision stands; what is owed is tried again after the next one.
            return

    def _take_back(self, until: float) -> None:
        if self.bearings.stale:
            self._orient(until)
        batch = self._batch()
        try:
            _, failed = self._correct(batch, self._latest, until)
        except BaseException as problem:
            self._unsent(batch, problem)
            raise
        self._unbatch(failed)
        if failed:
            raise failed[0][1]

    def _correct(self, corrections: Sequence[Undo], now: int, until: float) -> tuple[int, Failed]:
        """Correct server by server; return how many parts there were, and which failed."""
        speech = self.bearings.speech()
        parts = parted(speech, corrections)
        failed: Failed = []
        for part in parts:
            try:
                self._run(settling(speech, part, now), until)
            except StoreError as problem:
                failed.append((part, problem))
        return len(parts), failed

"""The store on Redis for threads: held connections, one script call a decision."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar, cast

from redis import exceptions as said

from guardrail.errors import StoreError
from guardrail.model.cells import Cell, Charge, Correction, Outcome
from guardrail.stores.redis.addresses import Address, Place
from guardrail.stores.redis.bearings import Bearings, Outlook
from guardrail.stores.redis.dialogue import (
    ACQUIRE,
    LOOK,
    PLAIN,
    AbandonedError,
    Call,
    acquiring,
    settling,
    spoken,
)
from guardrail.stores.redis.faults import MOVED_AWAY, overdue, refusal, unreachable
from guardrail.stores.redis.link import Late, command
from guardrail.stores.redis.pool import Pool
from guardrail.stores.redis.scripts import Script, load_scripts
from guardrail.stores.redis.servers import Servers
from guardrail.stores.redis.wire import Retract, read_outcome, undoing

DEADLINE, CONNECT = 0.05, 1.0
REDIRECTS = 5
AT_ONCE = 100
"""Corrections sent in one call of what has to be taken back."""
MOST_OWED = 10_000
T = TypeVar("T")


class RedisStore:
    """Counts on a server that many processes share; `deadline` and `connect` are in seconds.

    `clock` is the host's. Connections are opened when they are first needed, after a fork anew.
    """

    def __init__(
        self,
        address: Address,
        outlook: Outlook,
        *,
        deadline: float = DEADLINE,
        connect: float = CONNECT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.address = address
        self.deadline = deadline
        self.bearings = Bearings(
            outlook, clock=clock, steady=time.monotonic, spread=address.kind == "cluster"
        )
        self._connect = connect
        self._servers = Servers(address, self.bearings, deadline, connect)
        self._scripts = load_scripts()
        self._undo: deque[Correction | Retract] = deque()
        self._lost = 0

    @property
    def skew(self) -> float:
        """Seconds to add to the host's clock: all processes go by the server's."""
        return self.bearings.skew

    @property
    def lost(self) -> int:
        """Replies that never came, and corrections given up: what stays charged for nothing."""
        return self._lost + sum(pool.lost for pool in self._servers.every())

    def warnings(self, now: float) -> tuple[str, ...]:
        """Return what an operator should know."""
        return self.bearings.warnings()

    def open(self) -> None:
        """Look at the server, with the time it takes to connect.

        Raises:
            SettingError: it must not be used with these settings.
            StoreError: it does not answer.
        """
        self._orient(time.monotonic() + 2 * self._connect)

    def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Evaluate all cells at `now` (microseconds) and apply the charges that are admitted."""
        until = time.monotonic() + self.deadline
        if self.bearings.stale:
            self._orient(until)
        dialogue = acquiring(self.bearings.speech(), charges, cells, now)
        try:
            outcome, undo = self._run(dialogue, until)
        except AbandonedError as problem:
            self._owe(problem.undo)
            raise
        self._owe(undo)
        self._tidy(now, until)
        return outcome

    def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Apply corrections to what was charged before."""
        until = time.monotonic() + self.deadline
        if self.bearings.stale:
            self._orient(until)
        self._run(settling(self.bearings.speech(), corrections, now), until)
        self._tidy(now, until)

    def close(self) -> None:
        """Take back what is still owed, and close every connection."""
        if self.bearings.known and not self.bearings.stale:
            until = time.monotonic() + self.deadline
            self._tidy(int(self.bearings.server_time * 1e6), until, waiting=True)
        for pool in self._servers.every():
            pool.close()

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
        pool, asking = self._servers.pool(call.slot), False
        for _ in range(REDIRECTS):
            reply = self._ask(pool, call, until, asking)
            if isinstance(reply, said.NoScriptError):
                reply = self._ask(pool, call, until, asking, whole=True)
            if isinstance(reply, said.AskError):
                pool, asking = self._servers.pool_at(Place(reply.host, reply.port)), True
            elif isinstance(reply, said.MovedError):
                place = Place(reply.host or self.address.places[0].host, reply.port)
                self._servers.move(call.slot, place)
                pool, asking = self._servers.pool_at(place), False
            elif isinstance(reply, said.TryAgainError) and time.monotonic() < until:
                time.sleep(min(0.002, max(0.0, until - time.monotonic())))
            elif isinstance(reply, Exception):
                raise self._refused(reply, pool)
            else:
                return reply
        raise StoreError(f"{pool.where} sent a call on too often")

    def _refused(self, reply: Exception, pool: Pool) -> StoreError:
        if isinstance(reply, MOVED_AWAY):
            pool.close()
            self._servers.forget_table()
        problem = refusal(reply, pool.where)
        if str(reply).startswith("AHEAD "):
            self.bearings.doubt()
        return problem

    def _ask(
        self, pool: Pool, call: Call, until: float, asking: bool, *, whole: bool = False
    ) -> object:
        link = pool.take(until)
        commands = [command(("ASKING",))] if asking else []
        commands.append(self._command(call, whole))
        try:
            link.send(commands)
            if asking:
                link.receive(until)
            reply = link.receive(until)
        except said.TimeoutError as problem:
            link.owe(call)
            pool.give(link)
            raise overdue(pool.where, self.deadline) from problem
        except BaseException as problem:
            pool.drop(link)
            if isinstance(problem, (said.RedisError, OSError)):
                raise unreachable(problem, pool.where, unsure=True) from problem
            raise
        pool.give(link)
        return reply

    def _command(self, call: Call, whole: bool) -> bytes:
        if call.kind == LOOK:
            return command(("MGET", *call.keys))
        if call.kind == PLAIN:
            return command(call.keys)
        script = self._script(call.kind)
        name = ("EVAL", script.text) if whole else ("EVALSHA", script.sha)
        return command((*name, len(call.keys), *call.keys, *call.arguments))

    def _script(self, kind: str) -> Script:
        if kind == ACQUIRE:
            return self._scripts.acquire
        return (
            self._scripts.settle_full if self.bearings.version >= (7, 0) else self._scripts.settle
        )

    def _orient(self, until: float) -> None:
        """Ask the server for its time and for whose names are in force."""
        self._run(spoken(self.bearings.sampling(), self.bearings.slot), until)

    def _owe(self, undo: Sequence[Correction | Retract]) -> None:
        room = MOST_OWED - len(self._undo)
        self._lost += max(0, len(undo) - room)
        self._undo.extend(undo[:room])

    def _tidy(self, now: int, until: float, *, waiting: bool = False) -> None:
        """Use what is left of the time to take back what came too late, and to look around."""
        for pool in self._servers.every():
            if waiting:
                pool.drain()
            while pool.late:
                self._owe(undone(pool.late.pop()))
        try:
            if self._undo:
                self._take_back(now, until)
            if self.bearings.due and not waiting:
                self._orient(until)
        except StoreError:
            # The decision stands; what is owed is tried again after the next one.
            return

    def _take_back(self, now: int, until: float) -> None:
        batch = [self._undo.popleft() for _ in range(min(AT_ONCE, len(self._undo)))]
        try:
            self._run(settling(self.bearings.speech(), batch, now), until)
        except StoreError as problem:
            if problem.unsure:
                self._lost += len(batch)
            else:
                self._undo.extendleft(reversed(batch))
            raise


def undone(late: Late) -> list[Correction | Retract]:
    """Return what takes back a reply that came after its deadline."""
    call, reply = late
    if call.kind != ACQUIRE or not isinstance(reply, bytes):
        return []
    outcome = read_outcome(reply, len(call.charges), call.cells)
    return undoing(call.charges, call.cells, outcome)

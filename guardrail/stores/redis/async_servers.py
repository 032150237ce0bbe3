"""Which server has a slot, and the shared connection to each, for one event loop."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from redis import exceptions as said

from guardrail.errors import StoreError
from guardrail.stores.redis.addresses import Address, Place
from guardrail.stores.redis.async_opening import greeted, master_of, reach
from guardrail.stores.redis.bearings import Bearings
from guardrail.stores.redis.faults import refusal, unreachable
from guardrail.stores.redis.line import Line, OnLate
from guardrail.stores.redis.link import ANSWERS, command
from guardrail.stores.redis.servers import ANY, LOOK_AGAIN, SlotTable, asked_first, spelled


class AsyncServers:
    """Shared connections, one a server, all of one event loop."""

    def __init__(
        self,
        address: Address,
        bearings: Bearings,
        deadline: float,
        timeout: float,
        on_late: OnLate,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._address = address
        self._bearings = bearings
        self._deadline = deadline
        self._timeout = timeout
        self._on_late = on_late
        self._lines: dict[Place, Line] = {}
        self._table: SlotTable | None = None
        self._stale = True
        self._lost = 0
        self._looked = self.loop.time()
        self._looking: asyncio.Task[None] | None = None
        self._primary: Place | None = None

    @property
    def lost(self) -> int:
        """Replies that never came."""
        return self._lost + sum(line.lost for line in self._lines.values())

    @property
    def lost_with_loop(self) -> int:
        """Replies that never came, and those that never will, as nobody listens any more."""
        return self.lost + sum(line.owed for line in self._lines.values())

    def line(self, slot: int) -> Line:
        """Return the connection to the server that has a slot, or to one that knows who has."""
        if self._address.kind != "cluster":
            return self.line_at(self._address.places[0])
        place = None if self._table is None else self._table.place(slot)
        return self.line_at(place or ANY)

    def line_at(self, place: Place) -> Line:
        """Return the connection to a server."""
        line = self._lines.get(place)
        if line is None:
            where = spelled(self._address, place)
            line = Line(partial(self._opened, place), where, self._deadline, self._on_late)
            self._lines[place] = line
        return line

    def move(self, slot: int, place: Place) -> None:
        """Note that a slot has another server now."""
        if self._table is not None:
            self._table.move(slot, place)

    def forget_table(self) -> None:
        """Ask for the slots again with the next connection that is opened."""
        self._stale = True

    async def drain(self) -> None:
        """Wait for what the servers owe, no longer than a deadline each."""
        for line in self._lines.values():
            await line.drain()

    def look(self) -> None:
        """Ask the sentinels now and then, in a task, whether the primary is another one."""
        if self._address.kind == "sentinel" and self.loop.time() - self._looked > LOOK_AGAIN:
            self._looked = self.loop.time()
            self._looking = self.loop.create_task(self._follow())

    async def _follow(self) -> None:
        try:
            primary = await master_of(self._address, self._timeout)
        except (said.RedisError, OSError):
            return
        if self._primary not in (None, primary):
            await self._close_lines()

    async def close(self) -> None:
        """Close every connection."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self._close_lines()

    async def _close_lines(self) -> None:
        lines, self._lines = self._lines, {}
        for line in lines.values():
            await line.close()
            self._lost += line.lost

    async def _opened(self, place: Place) -> Any:
        address, timeout = self._address, self._timeout
        if address.kind == "sentinel":
            place = self._primary = await master_of(address, timeout)
        elif place is ANY or (address.kind == "cluster" and self._stale):
            answered = await self._learn(doubtful=place)
            place = answered if place is ANY else place
        try:
            return await greeted(address, place, self._bearings, timeout)
        except (said.RedisError, OSError):
            self.forget_table()
            raise

    async def _learn(self, doubtful: Place) -> Place:
        """Ask the cluster for its slots, at any server that answers; return which did."""
        problem = StoreError("no server of the cluster is named")
        for place in asked_first(self._address, self._table, doubtful):
            try:
                connection = await reach(self._address, place, self._timeout)
            except (said.RedisError, OSError) as error:
                problem = unreachable(error, str(place))
                continue
            try:
                await connection.send_packed_command([command(("CLUSTER", "SLOTS"))], False)
                reply = await connection.read_response(disable_decoding=True)
                self._table = SlotTable.read(reply, place)
                self._stale = False
                return place
            except ANSWERS as answer:
                problem = refusal(answer, str(place))
            except (said.RedisError, OSError) as error:
                problem = unreachable(error, str(place))
            finally:
                await connection.disconnect(nowait=True)
        raise problem

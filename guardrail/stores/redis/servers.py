"""Which server has a slot, and the pools of connections to them."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from time import monotonic

from redis import exceptions as said

from guardrail.errors import StoreError
from guardrail.stores.redis.addresses import Address, Place
from guardrail.stores.redis.bearings import Bearings
from guardrail.stores.redis.faults import refusal, unreachable
from guardrail.stores.redis.link import ANSWERS, Connection, command, read
from guardrail.stores.redis.opening import greeted, master_of, reach
from guardrail.stores.redis.pool import Pool

ANY = Place("", 0)
"""Whichever server of a cluster answers: the first call goes there, and is sent on."""


LOOK_AGAIN = 1.0
"""Seconds between two questions to the sentinels which server is the primary."""


class SlotTable:
    """The primaries of a cluster by the slots they have."""

    def __init__(self, rows: Sequence[tuple[int, int, Place]]) -> None:
        self._rows = sorted(rows, key=lambda row: row[0])
        self._starts = [first for first, _, _ in self._rows]
        self._moved: dict[int, Place] = {}

    @classmethod
    def read(cls, reply: object, asked: Place) -> SlotTable:
        """Return the table that `CLUSTER SLOTS` answered with; `asked` stands for a nameless host.

        Raises:
            StoreError: the reply is no such table, or leaves slots out.
        """
        rows = []
        try:
            for first, last, primary, *_ in reply:  # type: ignore[attr-defined]
                host = primary[0].decode() if primary[0] else asked.host
                rows.append((int(first), int(last), Place(host or asked.host, int(primary[1]))))
        except (TypeError, ValueError, AttributeError) as problem:
            raise StoreError(f"`{asked}` does not tell its slots: is it a cluster?") from problem
        if not rows:
            raise StoreError(f"the cluster of `{asked}` has no slots yet")
        return cls(rows)

    def place(self, slot: int) -> Place | None:
        """Return who has a slot, None if nobody does."""
        if slot in self._moved:
            return self._moved[slot]
        at = bisect_right(self._starts, slot) - 1
        if at < 0 or slot > self._rows[at][1]:
            return None
        return self._rows[at][2]

    def move(self, slot: int, place: Place) -> None:
        """Note that a slot has another server now."""
        self._moved[slot] = place

    def places(self) -> set[Place]:
        """Return every primary."""
        return {place for _, _, place in self._rows} | set(self._moved.values())


def asked_first(address: Address, table: SlotTable | None, doubtful: Place) -> list[Place]:
    """Return the servers of a cluster in the order to ask them, a doubtful one last."""
    known = [] if table is None else sorted(table.places(), key=str)
    every = dict.fromkeys((*known, *address.places))
    return sorted(every, key=lambda place: place == doubtful)


def spelled(address: Address, place: Place) -> str:
    """Return how errors name a server."""
    named = ", ".join(map(str, address.places))
    if address.kind == "sentinel":
        return f"`{address.service}` of the sentinels {named}"
    return f"the cluster of {named}" if place is ANY else str(place)


class Servers:
    """Pools of held connections, one a server; safe to share between threads."""

    def __init__(
        self, address: Address, bearings: Bearings, deadline: float, timeout: float
    ) -> None:
        self._address = address
        self._bearings = bearings
        self._deadline = deadline
        self._timeout = timeout
        self._lock = threading.Lock()
        self._pools: dict[Place, Pool] = {}
        self._table: SlotTable | None = None
        self._stale = True
        self._looked = monotonic()
        self._primary: Place | None = None

    def pool(self, slot: int) -> Pool:
        """Return the connections to the server that has a slot, or to one that knows who has."""
        if self._address.kind != "cluster":
            return self._pool_at(self._address.places[0])
        table = self._table
        place = None if table is None else table.place(slot)
        return self._pool_at(place or ANY)

    def pool_at(self, place: Place) -> Pool:
        """Return the connections to a server that another one pointed to."""
        return self._pool_at(place)

    def move(self, slot: int, place: Place) -> None:
        """Note that a slot has another server now."""
        if self._table is not None:
            self._table.move(slot, place)

    def forget_table(self) -> None:
        """Ask for the slots again with the next connection that is opened."""
        self._stale = True

    def look(self) -> None:
        """Ask the sentinels now and then, in a thread, whether the primary is another one.

        One that was replaced by order may go on as if it had not been, for ten seconds.
        """
        if self._address.kind == "sentinel" and monotonic() - self._looked > LOOK_AGAIN:
            self._looked = monotonic()
            threading.Thread(target=self._followed, name="guardrail-look", daemon=True).start()

    def _followed(self) -> None:
        began = monotonic()
        try:
            primary = master_of(self._address, self._timeout)
        except (said.RedisError, OSError):
            return
        if self._primary not in (None, primary):
            for pool in self.every():
                pool.retire(began)

    def every(self) -> list[Pool]:
        """Return the pools there are."""
        return list(self._pools.values())

    def learn(self, doubtful: Place) -> Place:
        """Ask the cluster for its slots, at any server that answers; return which did.

        Raises:
            StoreError: none does.
        """
        problem: StoreError | None = None
        for place in asked_first(self._address, self._table, doubtful):
            try:
                connection = reach(self._address, place, self._timeout)
            except (said.RedisError, OSError) as error:
                problem = unreachable(error, str(place))
                continue
            try:
                connection.send_packed_command([command(("CLUSTER", "SLOTS"))], False)
                reply = read(connection, self._timeout)
                self._table = SlotTable.read(reply, place)
                self._stale = False
                return place
            except ANSWERS as answer:
                problem = refusal(answer, str(place))
            except (said.RedisError, OSError) as error:
                problem = unreachable(error, str(place))
            finally:
                connection.disconnect()
        raise problem or StoreError("no server of the cluster is named")

    def _pool_at(self, place: Place) -> Pool:
        pool = self._pools.get(place)
        if pool is None:
            with self._lock:
                pool = self._pools.get(place)
                if pool is None:
                    pool = self._pools[place] = self._made(place)
        return pool

    def _made(self, place: Place) -> Pool:
        where = spelled(self._address, place)
        return Pool(partial(self._opened, place), where, self._deadline)

    def _opened(self, place: Place) -> Connection:
        """Open a connection, in whichever thread: asking for directions may take long."""
        address, timeout = self._address, self._timeout
        if address.kind == "sentinel":
            place = self._primary = master_of(address, timeout)
        elif place is ANY or (address.kind == "cluster" and self._stale):
            answered = self.learn(doubtful=place)
            place = answered if place is ANY else place
        try:
            return greeted(address, place, self._bearings, timeout)
        except (said.RedisError, OSError):
            self.forget_table()
            raise

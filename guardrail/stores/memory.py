"""The store of one process: exact, forgetful at restart, and bounded under a flood of new keys."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import ModuleType
from typing import cast

from guardrail.errors import SettingError
from guardrail.model.amounts import MINUTE
from guardrail.model.cells import (
    IDENT_LENGTH,
    LEFT_OUT,
    Cell,
    Charge,
    Correction,
    Counter,
    CounterReply,
    Leave,
    Outcome,
    Reply,
)
from guardrail.stores import records
from guardrail.stores.admission import admission
from guardrail.stores.arithmetic import (
    charged,
    corrected,
    member_of,
    read_counter,
    read_set,
    refuses,
)
from guardrail.stores.records import Record, drained_pair, windowed_slots
from guardrail.stores.tables import MASK, Table

MAX_KEYS = 10_000_000


class MemoryStore:
    """Counts in this process's memory.

    At `max_keys` records, a request that has a `spill` key and whose own key is not yet known is
    counted under that instead; known keys stay exact, so what is blocked stays blocked.
    """

    def __init__(self, *, max_keys: int = MAX_KEYS) -> None:
        if max_keys < 1:
            raise SettingError(f"`max_keys` is {max_keys}: it must be at least 1")
        self.lock = threading.Lock()
        self.max_keys = max_keys
        self._tables: dict[int, Table] = {}
        self._homes: dict[str, Table] = {}

    def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Evaluate all cells at `now` (microseconds) and apply the charges that are admitted."""
        with self.lock:
            return self._acquire(charges, cells, now)

    def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Apply corrections to what was charged before."""
        with self.lock:
            for correction in corrections:
                self._correct(correction, now)

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def __len__(self) -> int:
        """Return how many records are kept, those about to be forgotten included."""
        return sum(table.size for table in self._tables.values())

    def is_full(self) -> bool:
        """Tell whether unknown keys are now counted under their spill."""
        return len(self) >= self.max_keys

    @property
    def codec(self) -> ModuleType:
        """The module that reads and writes this store's records."""
        return records

    @property
    def shard_mask(self) -> int:
        """What a key's hash is masked with to find its shard."""
        return MASK

    def home(self, ident: str, ttl: int) -> Table:
        """Return the table where the records of `ident` are kept for at least `ttl`.

        A longer `ttl` than before moves them to another table, each at its next use.
        """
        table = self._homes.get(ident)
        if table is not None and table.lifetime >= ttl:
            return table
        lifetime = MINUTE
        while lifetime < ttl:
            lifetime *= 2
        longer = self._tables.get(lifetime)
        if longer is None:
            longer = self._tables[lifetime] = Table(lifetime)
        if table is not None:
            longer.former[ident] = table
        self._homes[ident] = longer
        return longer

    def read(self, cell: Cell, now: int) -> Reply:
        """Return what a cell's record says to it; whoever calls holds the lock."""
        record, spilled = self._locate(cell)
        if isinstance(cell, Counter):
            return read_counter(cell, record, now, spilled)
        return read_set(cell, record, cell.member, now, spilled)

    def refuses(self, cell: Cell, reply: Reply) -> bool:
        """Tell whether what a record said refuses the cell."""
        return refuses(cell, reply)

    def apply(self, cell: Cell, reply: Reply, now: int) -> None:
        """Charge a cell, given what its record said; whoever calls holds the lock."""
        key = cast(str, cell.spill) if reply.spilled else cell.key
        table = self.home(key[:IDENT_LENGTH], cell.ttl)
        slot = reply.slot if isinstance(reply, CounterReply) else 0
        record = charged(cell, table.find(key), member_of(cell), slot, now)
        if record is not None:
            table.put(key, record, now)

    def slots(self, key: str) -> dict[int, int]:
        """Return a windowed counter's record, slots to values, for tests and tools."""
        return dict(windowed_slots(self._known(key)))

    def drained(self, key: str) -> tuple[int, int]:
        """Return a draining counter's value and all that was refunded to it."""
        return drained_pair(self._known(key))

    def members(self, key: str) -> dict[str, int]:
        """Return a set's members and their expiries, those past included."""
        return dict(self._known(key) or {})

    def _known(self, key: str) -> Record | None:
        table = self._homes.get(key[:IDENT_LENGTH])
        return table.find(key) if table is not None else None

    def _acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        refused = [False] * len(charges)
        left_out: set[int] = set()
        replies: list[Reply] = []
        for cell in cells:
            reply = self.read(cell, now)
            if refuses(cell, reply):
                refused[cell.charge] = True
            replies.append(reply)
            if reply.spilled and cell.spill == LEFT_OUT:
                left_out.add(cell.charge)
        admitted, applied = admission(charges, refused, left_out)
        for cell, reply in zip(cells, replies, strict=True):
            if applied[cell.charge]:
                self.apply(cell, reply, now)
        return Outcome(admitted, refused, replies)

    def _locate(self, cell: Cell) -> tuple[Record | None, bool]:
        record = self.home(cell.key[:IDENT_LENGTH], cell.ttl).find(cell.key)
        if record is None and cell.spill is not None and self.is_full():
            if cell.spill == LEFT_OUT:
                return None, True
            return self.home(cell.spill[:IDENT_LENGTH], cell.ttl).find(cell.spill), True
        return record, False

    def _correct(self, correction: Correction, now: int) -> None:
        ident = correction.key[:IDENT_LENGTH]
        if isinstance(correction, Leave):
            if ident in self._homes:
                self._homes[ident].leave(correction.key, correction.member)
            return
        table = self.home(ident, correction.ttl)
        found = table.find(correction.key)
        record = corrected(correction, found, member_of(correction), now)
        if record is not None:
            table.put(correction.key, record, now)


class AsyncMemoryStore:
    """The memory store behind the awaited contract; it never actually waits."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()

    async def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Evaluate and apply; see `Store.acquire`."""
        return self.store.acquire(charges, cells, now)

    async def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Apply corrections; see `Store.settle`."""
        self.store.settle(corrections, now)

    async def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

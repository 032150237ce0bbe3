"""The store of one process: exact, forgetful at restart, and bounded under a flood of new keys.

Records stand in sharded tables that forget by whole generations. A table holds the records of one
lifetime. Each of its shards has two generations: a record is written to the current one; when the
shard turns, the current generation becomes the previous one and the previous one is dropped whole.
A record thus lives between one and two lifetimes after its last write, without a thread, a scan, or
an expiry of its own. Shards keep every dict small, so that neither a resize nor a drop takes long,
and records are ints wherever possible: up to Python 3.13 the garbage collector does not follow a
dict of texts and ints.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import repeat
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
    Drain,
    Leave,
    Outcome,
    Pool,
    Reply,
)
from guardrail.stores import cells
from guardrail.stores.cells import (
    Record,
    acquired,
    charged,
    copied,
    corrected,
    drained_pair,
    member_of,
    read_counter,
    read_set,
    refuses,
    united,
    windowed_slots,
)
from guardrail.stores.forks import call_around_forks
from guardrail.stores.links import MOST_MOVES, MOVED_FOR

MAX_KEYS = 10_000_000
PATIENCE = 1.0
"""Seconds that a fork waits for who counts."""


class MemoryStore:
    """Counts in this process's memory.

    At `max_keys` records, a request that has a `spill` key and whose own key is not yet known is
    counted under that instead; known keys stay exact, so what is blocked stays blocked.
    """

    def __init__(self, *, max_keys: int = MAX_KEYS) -> None:
        if max_keys < 1:
            raise SettingError(f"`max_keys` is {max_keys}: it must be at least 1")
        self.lock = threading.Lock()
        self.takes = map(self.lock.acquire, repeat(True))
        """Takes the lock at each step, without a moment between this and what follows the step."""
        self.tries = map(self.lock.acquire, repeat(False))
        """Takes the lock at each step if nobody holds it, and tells whether it did."""
        self.late: deque[Callable[[], object]] = deque()
        """What is to be put right, and could not be at once: see `settle`."""
        self._kept_for_fork = False
        self.max_keys = max_keys
        self._tables: dict[int, Table] = {}
        self.homes: dict[str, Table] = {}
        """The table of each counter that was ever looked for, by its ident."""
        self.moves = Table(MOVED_FOR)
        call_around_forks(self._before_fork, self._after_fork, self._begin_in_child)

    def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Evaluate all cells at `now` (microseconds) and apply the charges that are admitted."""
        with self.lock:
            self.catch_up()
            return self._acquire(charges, cells, now)

    def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Apply corrections to what was charged before.

        It never waits: an abandoned stream may be settled by the collector of garbage, which runs
        wherever it likes, in a call of the same thread that holds the lock. Whoever takes the lock
        next applies them before all else.
        """
        for held in self.tries:
            if not held:
                self.late.append(partial(self._correct_all, corrections, now))
                return
            try:
                self.catch_up()
                self._correct_all(corrections, now)
            finally:
                self.lock.release()
            return

    def catch_up(self) -> None:
        """Apply what came while the lock was held; whoever calls holds it."""
        while self.late:
            self.late.popleft()()

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def empty(self) -> None:
        """Forget every record at once; tables stay, as generated decisions look into them."""
        with self.lock:
            self.late.clear()
            for table in (*self._tables.values(), self.moves):
                table.empty()

    def __len__(self) -> int:
        """Return how many records are kept, those about to be forgotten included."""
        return sum(table.size for table in self._tables.values())

    def is_full(self) -> bool:
        """Tell whether unknown keys are now counted under their spill."""
        return len(self) >= self.max_keys

    @property
    def codec(self) -> ModuleType:
        """The module that reads and writes this store's records."""
        return cells

    @property
    def shard_mask(self) -> int:
        """What a key's hash is masked with to find its shard."""
        return MASK

    def home(self, ident: str, ttl: int) -> Table:
        """Return the table where the records of `ident` are kept for at least `ttl`.

        A longer `ttl` than before moves them to another table, each at its next use.
        """
        table = self.homes.get(ident)
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
        self.homes[ident] = longer
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

    def unite(self, pools: Sequence[Pool], into: str, others: Sequence[str], now: int) -> None:
        """Add what `others` have used to what `into` has; whoever calls holds the lock.

        Each is what a key says after its counter's ident. The others' records stay as they are;
        what is settled of them from now on goes to `into`.
        """
        for ident, kind in pools:
            table = self.homes.get(ident)
            if table is None:
                continue
            key, record = ident + into, table.find(ident + into)
            self.moves.discard(key)
            for other in others:
                found = table.find(ident + other)
                if found is not None:
                    record = united(kind, record, found)
                    self.moves.put(ident + other, key, now)
            if record is not None:
                table.put(key, record, now)

    def hand_on(self, pools: Sequence[Pool], whole: str, part: str, now: int) -> None:
        """Let `part` have used what `whole` has; whoever calls holds the lock."""
        for ident, _ in pools:
            table = self.homes.get(ident)
            record = None if table is None else table.find(ident + whole)
            self.moves.discard(ident + part)
            if table is not None and record is not None:
                table.put(ident + part, copied(record), now)

    def keep(self, pools: Sequence[Pool], whose: str) -> None:
        """Have what is settled of `whose` counters go to these again; the caller holds the lock."""
        for ident, _ in pools:
            self.moves.discard(ident + whose)

    def moved(self, key: str) -> str:
        """Return the key under which is counted what was charged under another."""
        if not self.moves.size:
            return key
        seen = 0
        while (into := self.moves.find(key)) is not None and seen < MOST_MOVES:
            key, seen = into, seen + 1
        return key

    def kept(self) -> Iterator[tuple[int, str, Record]]:
        """Yield every record with its key and for how many microseconds it is kept at least."""
        with self.lock:
            self.catch_up()
            for lifetime, table in sorted(self._tables.items()):
                for key, record in sorted(table.records().items()):
                    if self.homes.get(key[:IDENT_LENGTH]) is table and record is not EMPTIED:
                        yield lifetime, key, copied(record)

    def put_back(self, key: str, lifetime: int, record: Record, now: int) -> None:
        """Keep a record as `kept` told of it, as if written at `now` (microseconds)."""
        with self.lock:
            self.home(key[:IDENT_LENGTH], lifetime).put(key, record, now)

    def slots(self, key: str) -> dict[int, int]:
        """Return a windowed counter's record, slots to values, for tests and tools."""
        return dict(windowed_slots(self._known(key)))

    def drained(self, key: str) -> tuple[int, int]:
        """Return a draining counter's value and all that was refunded to it."""
        return drained_pair(self._known(key))

    def members(self, key: str) -> dict[str, int]:
        """Return a set's members and their expiries, those past included."""
        return dict(self._known(key) or {})

    def _correct_all(self, corrections: Sequence[Correction], now: int) -> None:
        for correction in corrections:
            self.correct(correction, now)

    def _before_fork(self) -> None:
        """Let no other thread be within a call: nothing would end it in the child."""
        if self.lock.acquire(timeout=PATIENCE):
            self._kept_for_fork = True

    def _after_fork(self) -> None:
        if self._kept_for_fork:
            self._kept_for_fork = False
            self.lock.release()

    def _begin_in_child(self) -> None:
        self._kept_for_fork = False
        # There is no other thread: whoever holds it, if not the fork, will never let go of it.
        self.lock.acquire(False)
        self.lock.release()

    def _known(self, key: str) -> Record | None:
        table = self.homes.get(key[:IDENT_LENGTH])
        return table.find(key) if table is not None else None

    def _acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        return acquired(
            charges,
            cells,
            lambda cell: self.read(cell, now),
            lambda cell, reply: self.apply(cell, reply, now),
        )

    def _locate(self, cell: Cell) -> tuple[Record | None, bool]:
        record = self.home(cell.key[:IDENT_LENGTH], cell.ttl).find(cell.key)
        if record is None and cell.spill is not None and self.is_full():
            if cell.spill == LEFT_OUT:
                return None, True
            return self.home(cell.spill[:IDENT_LENGTH], cell.ttl).find(cell.spill), True
        return record, False

    def correct(self, correction: Correction, now: int) -> None:
        """Apply a correction; whoever calls holds the lock."""
        key = correction.key
        if self.moves.size and (into := self.moved(key)) != key:
            if isinstance(correction, Drain) and correction.delta < 0:
                return  # the later of two lines stands: less may be due to the other
            key = into
        ident = key[:IDENT_LENGTH]
        if isinstance(correction, Leave):
            if ident in self.homes:
                self.homes[ident].leave(key, correction.member)
            return
        table = self.home(ident, correction.ttl)
        # Written in place where it can be: as nearly always, the record was just charged.
        shard = table.current[hash(key) & MASK]
        found = shard.get(key)
        record = corrected(correction, found or table.find(key), member_of(correction), now)
        if record is not None and found is not None:
            shard[key] = record
        elif record is not None:
            table.put(key, record, now)


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


FEW, SHARDS = 16, 1024
FEW_KEYS = 4096
"""How many records a table has before it goes from few shards to all of them."""
MASK = SHARDS - 1

_NOTHING: dict[str, Record] = {}
EMPTIED: Record = {}
"""Stands for a set without members; it is never changed in place, so that one will do for all."""


class Table:
    """The records that must be kept for `lifetime` microseconds after their last write.

    Small tables have few shards, so that they stay in the processor's cache: each stands in the
    list in every place that has its number in its last bits.
    """

    __slots__ = (
        "_cursor",
        "_shards",
        "_turns_at",
        "current",
        "former",
        "lifetime",
        "previous",
        "size",
    )

    def __init__(self, lifetime: int) -> None:
        self.lifetime = lifetime
        self.current: list[dict[str, Record]] = []
        self.previous: list[dict[str, Record]] = []
        self.former: dict[str, Table] = {}
        self.empty()

    def empty(self) -> None:
        """Forget every record, in the lists that generated decisions look into."""
        self.size = 0
        few: list[dict[str, Record]] = [{} for _ in range(FEW)]
        self.current[:] = few * (SHARDS // FEW)
        self.previous[:] = [_NOTHING] * SHARDS
        self.former.clear()
        self._shards = FEW
        self._turns_at = [0] * FEW
        self._cursor = 0

    def find(self, key: str) -> Record | None:
        """Return the record of a key, None if there is none."""
        shard = hash(key) & MASK
        record = self.current[shard].get(key)
        return self.find_older(key) if record is None else record

    def find_older(self, key: str) -> Record | None:
        """Return the record of a key that the current generation lacks, None if there is none."""
        record = self.previous[hash(key) & MASK].get(key)
        if record is None and self.former:
            former = self.former.get(key[:8])
            if former is not None:
                return former.find(key)
        return record

    def put(self, key: str, record: Record, now: int) -> bool:
        """Write a record, and give one shard the chance to turn if the key is new to this one.

        Tells whether other records may have moved.
        """
        shard = hash(key) & MASK
        current, moved = self.current[shard], False
        if key not in current:
            if self.previous[shard].pop(key, None) is None:
                self.size += 1
            self._cursor = turning = (self._cursor + 1) % self._shards
            # A wait that long is due to a clock that was ahead, and is right again.
            if not 0 < self._turns_at[turning] - now <= 2 * self.lifetime:
                moved = self._turn(turning, now)
            if self._shards == FEW and self.size > FEW_KEYS:
                moved = self._spread()
            # The turn may have been this very shard's.
            current = self.current[shard]
        current[key] = record
        return moved

    def discard(self, key: str) -> None:
        """Forget a key."""
        shard = hash(key) & MASK
        generation = self.current if key in self.current[shard] else self.previous
        if generation[shard].pop(key, None) is not None:
            self.size -= 1

    def leave(self, key: str, member: str) -> None:
        """End a member's stay in a set; an emptied one takes its time to be forgotten.

        Its next member will then find its place, as with other records.
        """
        current = self.current[hash(key) & MASK]
        members = current.get(key)
        is_current = members is not None
        if not is_current:
            members = self.find_older(key)
        if not members:
            return
        members.pop(member, None)
        if members:
            return
        if is_current:
            current[key] = EMPTIED
        else:
            self.discard(key)

    def _turn(self, shard: int, now: int) -> bool:
        """Let a shard's current generation become the previous one, if its time has come."""
        is_due = now >= self._turns_at[shard]
        self._turns_at[shard] = now + self.lifetime
        if not is_due:
            return False
        self.size -= len(self.previous[shard])
        places, times = slice(shard, None, self._shards), SHARDS // self._shards
        self.previous[places] = [self.current[shard] or _NOTHING] * times
        self.current[places] = [{}] * times
        return True

    def _spread(self) -> bool:
        """Give every place a shard of its own, once."""
        for generation in (self.current, self.previous):
            few = generation[:FEW]
            generation[:] = [{} for _ in range(SHARDS)]
            for shard in few:
                for key, record in shard.items():
                    generation[hash(key) & MASK][key] = record
        self._turns_at *= SHARDS // FEW
        self._shards = SHARDS
        return True

    def records(self) -> dict[str, Record]:
        """Return a copy of every record kept, for tests and tools."""
        merged: dict[str, Record] = {}
        for shard in range(self._shards):
            merged |= self.previous[shard]
            merged |= self.current[shard]
        return merged

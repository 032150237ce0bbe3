"""The store of one host: counters in a file that all of its processes share, exactly."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from guardrail.errors import SettingError
from guardrail.model.amounts import MINUTE
from guardrail.model.cells import (
    CELL,
    LEFT_OUT,
    MILLISECOND,
    Cell,
    Charge,
    Correction,
    Counter,
    CounterReply,
    Drain,
    Form,
    Leave,
    Outcome,
    Pool,
    Reply,
)
from guardrail.model.cells import SET as SET_ROW
from guardrail.stores.cells import (
    Record,
    acquired,
    admission,
    charged,
    corrected,
    drained_pair,
    member_of,
    read_counter,
    read_set,
    reply_of,
    windowed_slots,
)
from guardrail.stores.links import Decide, Query
from guardrail.stores.lmdb.connection import Connection
from guardrail.stores.lmdb.environment import Options
from guardrail.stores.lmdb.links import LinkRows, every
from guardrail.stores.lmdb.records import (
    LINE,
    SET,
    WINDOW,
    Answered,
    answer_line,
    answer_set,
    answer_window,
    expiry,
    kind_of,
)
from guardrail.stores.lmdb.recovery import Files, boot_id
from guardrail.stores.lmdb.transaction import Change, Epochs, Transaction
from guardrail.stores.naming import OVERLAP

DEADLINE = 50_000
MAX_SIZE = 8 << 30
MAX_UNKNOWN = 1_000_000
COPY_EVERY = 10 * MINUTE


class LmdbStore:
    """Counts in a file, shared by all processes of a host that open it.

    Every call is one write transaction. The file is opened at the first call of each process, so
    a store may be made before a server forks. Calls wait for the writer lock at most `deadline`
    microseconds. At `max_unknown` records of unknown credentials, further ones are counted under
    their spill. A copy is made every `copy_every` microseconds: after a crash of the host, the
    counters are those of the last one.

    `hash_keys` are the current and former keys that names are made with, `layouts` the layouts
    that this release reads, both newest first; without keys, one is kept in the folder.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        hash_keys: Sequence[bytes] = (),
        deadline: int = DEADLINE,
        layouts: Sequence[int] = (1,),
        max_size: int = MAX_SIZE,
        max_unknown: int = MAX_UNKNOWN,
        copy_every: int = COPY_EVERY,
        overlap: int = OVERLAP,
        boot: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Check that the folder can be used; `clock` and `boot` tell the time and the boot.

        Raises:
            SettingError: it cannot, or its records need another hash key or layout.
            StoreError: another process holds the folder for too long.
        """
        for name, value in (("deadline", deadline), ("max_unknown", max_unknown)):
            if value < 1:
                raise SettingError(f"`{name}` is {value}: it must be at least 1")
        files = Files(Path(path).absolute())
        files.check()
        keys = tuple(hash_keys) or (files.hash_key(),)
        options = Options(
            deadline=deadline,
            max_size=max_size,
            max_unknown=max_unknown,
            copy_every=copy_every,
            boot=boot_id() if boot is None else boot,
            clock=clock,
        )
        self.connection = Connection(files, Epochs(keys, layouts, overlap, files.folder), options)
        self.connection.check()
        weakref.finalize(self, self.connection.close)

    def awaited(self) -> AsyncLmdbStore:
        """Return the same store for event loops."""
        return AsyncLmdbStore(self)

    def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Evaluate all cells at `now` (microseconds) and apply the charges that are admitted."""
        with self._begin(now) as transaction:
            return self._acquire(transaction, charges, cells)

    def ask(self, form: Form, now: int) -> list[int]:
        """Acquire what a form asks for; see `FormStore.ask`."""
        with self._begin(now) as transaction:
            return self._ask(transaction, form)

    def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Apply corrections to what was charged before."""
        with self._begin(now) as transaction:
            for correction in corrections:
                self._correct(transaction, correction)

    def linked(self, query: Query, decide: Decide, now: int) -> bool:
        """Read, decide and write in one step; see `LinkedStore.linked`."""
        with self._begin(now) as transaction:
            return LinkRows(transaction).apply(query, decide)

    def share(self, pools: Sequence[Pool]) -> None:
        """Name counters that accounts share, before any of them is charged."""
        self.connection.shared |= {pool.ident for pool in pools}

    def every(self) -> dict[bytes, bytes]:
        """Return all rows and notes of links, for tools."""
        with self.connection.read() as (transaction, tables):
            return every(transaction, tables.links)

    def close(self) -> None:
        """Close the file; the last process to do so writes all of it to the disk."""
        self.connection.close()

    def __len__(self) -> int:
        """Return how many records are kept, those about to be forgotten included."""
        with self._begin() as transaction:
            return transaction.count

    def slots(self, key: str) -> dict[int, int]:
        """Return a windowed counter's record, slots to values, for tests and tools."""
        with self._begin() as transaction:
            return dict(windowed_slots(transaction.find(key, WINDOW).record))

    def drained(self, key: str) -> tuple[int, int]:
        """Return a draining counter's value and all that was refunded to it."""
        with self._begin() as transaction:
            return drained_pair(transaction.find(key, LINE).record)

    def members(self, key: str) -> dict[str, int]:
        """Return a set's members, as hashes, and their expiries, those past included."""
        with self._begin() as transaction:
            record = transaction.find(key, SET).record or {}
            return {member.decode(): expires for member, expires in record.items()}

    def member_name(self, member: str) -> str:
        """Return what `members` calls a member."""
        with self._begin() as transaction:
            return transaction.member(member).decode()

    def _begin(self, now: int | None = None) -> Transaction:
        self.connection.acquire()
        return self.connection.begin(self.connection.options.now if now is None else now)

    def _acquire(
        self, transaction: Transaction, charges: Sequence[Charge], cells: Sequence[Cell]
    ) -> Outcome:
        read, apply = partial(self._read, transaction), partial(self._apply, transaction)
        return acquired(charges, cells, read, apply)

    def _read(self, transaction: Transaction, cell: Cell) -> Reply:
        record, spilled = _located(transaction, cell)
        if isinstance(cell, Counter):
            return read_counter(cell, record, transaction.now, spilled)
        member = transaction.member(cell.member)
        return read_set(cell, record, member, transaction.now, spilled)

    def _apply(self, transaction: Transaction, cell: Cell, reply: Reply) -> None:
        key = cast(str, cell.spill) if reply.spilled else cell.key
        entry = transaction.find(key, kind_of(cell), cell.spill is not None)
        slot = reply.slot if isinstance(reply, CounterReply) else 0
        member = b"" if isinstance(cell, Counter) else transaction.member(cell.member)
        record = charged(cell, entry.record, member, slot, transaction.now)
        if record is not None:
            entry.put(record, expiry(transaction.now, cell.ttl))

    def _ask(self, transaction: Transaction, form: Form) -> list[int]:
        reply = _answer(transaction, form)
        if reply is None:
            reply = reply_of(self._acquire(transaction, form.as_charges, form.as_cells))
        return reply

    def _correct(self, transaction: Transaction, correction: Correction) -> None:
        refund = isinstance(correction, Drain) and correction.delta < 0
        if refund and transaction.moved(correction.key) is not None:
            return  # the later of two lines stands: less may be due to the other
        entry = transaction.find(correction.key, kind_of(correction))
        member = transaction.member(member_of(correction))
        if isinstance(correction, Leave):
            entry.remove_member(member)
            return
        record = corrected(correction, entry.record, member, transaction.now)
        if record is not None:
            entry.put(record, expiry(transaction.now, correction.ttl))


class AsyncLmdbStore:
    """The store of one host behind the awaited contract.

    A transaction takes some tens of microseconds and never waits, so it runs on the loop: a thread
    would cost more than it. Only the writer lock is waited for, without blocking the loop; a call
    that is cancelled while it waits applies nothing.
    """

    def __init__(self, store: LmdbStore) -> None:
        self.store = store

    async def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Evaluate and apply; see `Store.acquire`. Cancelled in time, nothing is applied."""
        with await self._begin(now) as transaction:
            return self.store._acquire(transaction, charges, cells)

    async def ask(self, form: Form, now: int) -> list[int]:
        """Acquire; see `FormStore.ask`. Cancelled in time, nothing is applied."""
        with await self._begin(now) as transaction:
            return self.store._ask(transaction, form)

    async def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Apply corrections; see `Store.settle`."""
        with await self._begin(now) as transaction:
            for correction in corrections:
                self.store._correct(transaction, correction)

    async def linked(self, query: Query, decide: Decide, now: int) -> bool:
        """Read, decide and write in one step; see `LinkedStore.linked`."""
        with await self._begin(now) as transaction:
            return LinkRows(transaction).apply(query, decide)

    async def every(self) -> dict[bytes, bytes]:
        """Return all rows and notes of links, for tools."""
        return await asyncio.to_thread(self.store.every)

    def share(self, pools: Sequence[Pool]) -> None:
        """Name counters that accounts share; see `LinkedStore.share`."""
        self.store.share(pools)

    async def close(self) -> None:
        """Close the file; the last process to do so writes all of it to the disk."""
        await asyncio.to_thread(self.store.close)

    async def _begin(self, now: int) -> Transaction:
        connection = self.store.connection
        for pause in connection.attempts():
            await asyncio.sleep(pause)
        return connection.begin(now)


def _located(transaction: Transaction, cell: Cell) -> tuple[Record | None, bool]:
    """Return the record that a cell asks, and whether it is that of its spill, or none at all."""
    kind, spill = kind_of(cell), cell.spill
    entry = transaction.find(cell.key, kind, spill is not None)
    if entry.data is not None or spill is None or not transaction.full:
        return entry.record, False
    if spill == LEFT_OUT:
        return None, True
    return transaction.find(spill, kind).record, True


def _answer(transaction: Transaction, form: Form) -> list[int] | None:
    """Return the reply to a form, and charge what it admits, from bytes to bytes.

    None, and nothing is changed, where `_acquire` has to decide over the cells: a record may stand
    elsewhere (a credential is unknown, names are changing), or is charged twice; a refusal is to
    tell what makes room, or something follows from it.
    """
    keys, charges, cells, _ = form
    if transaction.renaming:
        return None
    get, name_of, now = transaction.lmdb.get, transaction.name, transaction.now
    _, known, unknown, _ = transaction.tables
    reply = [1, *([0] * (len(charges) // 2))]
    changes: list[tuple[int, Change]] = []
    answered: Answered | None
    every = zip(*[iter(cells)] * CELL, strict=True)
    for kind, charge, place, ttl, spill, slot, span, floor, amount, ceiling in every:
        key = keys[place - 1]
        name = name_of(key)
        if transaction.shared and transaction.is_shared(key):
            name = transaction.followed(name)
        data: Any = get(name, None, known)
        if spill or (data is None and get(name, None, unknown) is not None):
            return None
        kept = ttl * MILLISECOND
        if kind == SET_ROW:
            answered = answer_set(data, transaction.member(slot), span, ceiling, now, kept)
        elif floor:
            answered = answer_line(data, floor, amount, ceiling, now, kept)
        else:
            answered = answer_window(data, slot, span, amount, ceiling, now, kept)
        if answered is None:
            return None
        numbers, record = answered
        reply += numbers
        if not record:
            reply[charge] = 1
        # What comes after a charge is for when that one is refused.
        elif not charges[2 * charge - 1] and (amount or kind == SET_ROW):
            changes.append((charge, (name, record, known, data is None, None)))
    refused = [flag == 1 for flag in reply[1 : 1 + len(charges) // 2]]
    if True in refused:
        if any(charges[1::2]):
            return None
        admitted, applied = admission(form.as_charges, refused, ())
        reply[0] = int(admitted)
        changes = [change for change in changes if applied[change[0] - 1]]
    if len({change[0] for _, change in changes}) < len(changes):
        return None
    transaction.written += [change for _, change in changes]
    return reply

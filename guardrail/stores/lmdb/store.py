"""The store of one host: counters in a file that all of its processes share, exactly."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from guardrail.errors import SettingError
from guardrail.model.amounts import MINUTE
from guardrail.model.cells import (
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
from guardrail.model.forms import Asked
from guardrail.stores.admission import admission
from guardrail.stores.arithmetic import (
    charged,
    corrected,
    member_of,
    read_counter,
    read_set,
    refuses,
)
from guardrail.stores.epochs import OVERLAP
from guardrail.stores.forms import reply_of
from guardrail.stores.lmdb.answering import answer
from guardrail.stores.lmdb.codec import expiry
from guardrail.stores.lmdb.files import Files, boot_id
from guardrail.stores.lmdb.ledger import LINE, SET, WINDOWED, Ledger, kind_of
from guardrail.stores.lmdb.names import Names
from guardrail.stores.lmdb.session import Session
from guardrail.stores.records import Record, drained_pair, windowed_slots

DEADLINE = 50_000
MAX_SIZE = 8 << 30
MAX_UNKNOWN = 1_000_000
COPY_EVERY = 10 * MINUTE


class LmdbStore:
    """Counts in a file, shared by all processes of a host that open it.

    Every call is one write transaction. The file is opened at the first call of each process, so
    a store may be made before a server forks. Calls wait for their turn at most `deadline`
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
        self.session = Session(
            files,
            Names(keys, layouts, overlap, files.folder),
            deadline=deadline,
            max_size=max_size,
            max_unknown=max_unknown,
            copy_every=copy_every,
            boot=boot_id() if boot is None else boot,
            clock=clock,
        )
        self.session.check()
        weakref.finalize(self, self.session.close)

    def awaited(self) -> AsyncLmdbStore:
        """Return the same store for event loops."""
        return AsyncLmdbStore(self)

    def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Evaluate all cells at `now` (microseconds) and apply the charges that are admitted."""
        self.session.enter()
        return self.decide(charges, cells, now)

    def ask(self, asked: Asked, now: int) -> list[int]:
        """Acquire what a form asks for; see `FormStore.ask`."""
        self.session.enter()
        return self.reply(asked, now)

    def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Apply corrections to what was charged before."""
        self.session.enter()
        self.correct(corrections, now)

    def close(self) -> None:
        """Let go of the file; the last process to do so writes all of it to the disk."""
        self.session.close()

    def __len__(self) -> int:
        """Return how many records are kept, those about to be forgotten included."""
        with self._reading() as ledger:
            return ledger.count

    def slots(self, key: str) -> dict[int, int]:
        """Return a windowed counter's record, slots to values, for tests and tools."""
        with self._reading() as ledger:
            return dict(windowed_slots(ledger.find(key, WINDOWED).record))

    def drained(self, key: str) -> tuple[int, int]:
        """Return a draining counter's value and all that was refunded to it."""
        with self._reading() as ledger:
            return drained_pair(ledger.find(key, LINE).record)

    def members(self, key: str) -> dict[str, int]:
        """Return a set's members, as hashes, and their expiries, those past included."""
        with self._reading() as ledger:
            record = ledger.find(key, SET).record or {}
            return {member.decode(): expires for member, expires in record.items()}

    def member_name(self, member: str) -> str:
        """Return what `members` calls a member."""
        with self._reading() as ledger:
            return ledger.member(member).decode()

    def _reading(self) -> Ledger:
        self.session.enter()
        return self.session.transaction(self.session.now)

    def decide(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Acquire once the turn was taken, and leave it."""
        with self.session.transaction(now) as ledger:
            return self._acquire(ledger, charges, cells)

    def reply(self, asked: Asked, now: int) -> list[int]:
        """Answer a form once the turn was taken, and leave it."""
        with self.session.transaction(now) as ledger:
            found = answer(ledger, asked.form)
            if found is None:
                found = reply_of(self._acquire(ledger, asked.charges, asked.cells))
            return found

    def correct(self, corrections: Sequence[Correction], now: int) -> None:
        """Settle once the turn was taken, and leave it."""
        with self.session.transaction(now) as ledger:
            for correction in corrections:
                self._correct(ledger, correction)

    def _acquire(self, ledger: Ledger, charges: Sequence[Charge], cells: Sequence[Cell]) -> Outcome:
        refused = [False] * len(charges)
        left_out: set[int] = set()
        replies: list[Reply] = []
        for cell in cells:
            reply = self._read(ledger, cell)
            if refuses(cell, reply):
                refused[cell.charge] = True
            replies.append(reply)
            if reply.spilled and cell.spill == LEFT_OUT:
                left_out.add(cell.charge)
        admitted, applied = admission(charges, refused, left_out)
        for cell, reply in zip(cells, replies, strict=True):
            if applied[cell.charge]:
                self._apply(ledger, cell, reply)
        return Outcome(admitted, refused, replies)

    def _read(self, ledger: Ledger, cell: Cell) -> Reply:
        record, spilled = self._locate(ledger, cell)
        if isinstance(cell, Counter):
            return read_counter(cell, record, ledger.now, spilled)
        return read_set(cell, record, ledger.member(cell.member), ledger.now, spilled)

    def _locate(self, ledger: Ledger, cell: Cell) -> tuple[Record | None, bool]:
        kind, spill = kind_of(cell), cell.spill
        entry = ledger.find(cell.key, kind, spill is not None)
        if entry.data is not None or spill is None or not ledger.full:
            return entry.record, False
        if spill == LEFT_OUT:
            return None, True
        return ledger.find(spill, kind).record, True

    def _apply(self, ledger: Ledger, cell: Cell, reply: Reply) -> None:
        key = cast(str, cell.spill) if reply.spilled else cell.key
        entry = ledger.find(key, kind_of(cell), cell.spill is not None)
        slot = reply.slot if isinstance(reply, CounterReply) else 0
        member = b"" if isinstance(cell, Counter) else ledger.member(cell.member)
        record = charged(cell, entry.record, member, slot, ledger.now)
        if record is not None:
            entry.put(record, expiry(ledger.now, cell.ttl))

    def _correct(self, ledger: Ledger, correction: Correction) -> None:
        entry = ledger.find(correction.key, kind_of(correction))
        member = ledger.member(member_of(correction))
        if isinstance(correction, Leave):
            if entry.record and member in entry.record:
                left = {m: e for m, e in entry.record.items() if m != member}
                entry.put(left or None, entry.stays())
            return
        record = corrected(correction, entry.record, member, ledger.now)
        if record is not None:
            entry.put(record, expiry(ledger.now, correction.ttl))


class AsyncLmdbStore:
    """The store of one host behind the awaited contract.

    A transaction takes some tens of microseconds and never waits, so it runs on the loop: a thread
    would cost more than it. Only the turn is waited for, and that without blocking the loop.
    """

    def __init__(self, store: LmdbStore) -> None:
        self.store = store

    async def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Evaluate and apply; see `Store.acquire`. Cancelled in time, nothing is applied."""
        await self._turn()
        return self.store.decide(charges, cells, now)

    async def ask(self, asked: Asked, now: int) -> list[int]:
        """Acquire; see `FormStore.ask`. Cancelled in time, nothing is applied."""
        await self._turn()
        return self.store.reply(asked, now)

    async def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Apply corrections; see `Store.settle`."""
        await self._turn()
        self.store.correct(corrections, now)

    async def close(self) -> None:
        """Let go of the file; the last process to do so writes all of it to the disk."""
        await asyncio.to_thread(self.store.close)

    async def _turn(self) -> None:
        for pause in self.store.session.attempts():
            await asyncio.sleep(pause)

"""Space in the data file: allocated ahead of need, and freed by removing expired records.

LMDB writes through its map, several times as fast as by calls; but a page of the map that the disk
has no room for kills the process that touches it. So disk space is allocated before a transaction
may need it, and a full disk is an error and no signal. Others write as well: `SLACK` is what a few
transactions of theirs can take.

No index of expiries is kept: it would cost as much space as the records. Records are checked by
their names, round and round; whoever makes records checks eight for each one made, so that records
go at least as fast as they come.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import lmdb

from guardrail.errors import StoreError
from guardrail.stores.lmdb.records import expired_before
from guardrail.stores.lmdb.transaction import Change, Tables

USUAL_PAGES = 64
"""Pages that a transaction takes at most unless it says otherwise."""
CHECK_EVERY = 8
"""Transactions, of whatever process, between two checks of how many pages are in use."""
SLACK = USUAL_PAGES * CHECK_EVERY
CHUNK = 1024
"""Pages allocated at a time at least, and an eighth of what is in use."""
RESERVE = 96
"""Pages kept for removing records when all others are in use."""
ZEROS = 1 << 18
"""Bytes written at once where space can only be had so."""
RECORD_PAGES, OWN_PAGES = 8, 12
"""What writing a record takes of pages, and a transaction by itself; a page of a long record takes
as much as a record, since LMDB looks for such pages in a row."""


def pages_for(changes: Sequence[Change]) -> int:
    """Return how many pages it takes at most to write these records."""
    records = 0
    for _, data, _, _, _ in changes:
        records += 1 + len(data) // 2048
    return OWN_PAGES + RECORD_PAGES * records


def hold(file: int, start: int, end: int) -> None:
    """Have the disk hold a file's bytes up to `end`; nothing was written yet from `start` on.

    Raises:
        OSError: the disk has no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, end)
        return
    # macOS has none: what is written is held, and let go of again where there is not enough.
    place, size, zeros = start, os.fstat(file).st_size, bytes(ZEROS)
    try:
        while place < end:
            place += os.pwrite(file, zeros[: end - place], place)
    except OSError:
        os.ftruncate(file, start)
        os.ftruncate(file, size)
        raise


class Space:
    """How much of a data file is allocated, as far as one process knows."""

    def __init__(self, env: lmdb.Environment, path: Path) -> None:
        self._env = env
        self._path = path
        self._page = env.stat()["psize"]
        self._most = env.info()["map_size"] // self._page
        self._allocated = 0
        self._checked = -CHECK_EVERY

    def allocate(self, transaction: lmdb.Transaction, need: int) -> None:
        """Make sure that a transaction can take so many pages.

        Raises:
            StoreError: the disk is full.
        """
        if self._allocated >= self._most:
            return
        if need <= USUAL_PAGES and transaction.id() - self._checked < CHECK_EVERY:
            return
        used = self._env.info()["last_pgno"] + 1
        if used + need + SLACK > self._allocated:
            self._extend(used, need)
        if used + need + SLACK <= self._allocated:
            self._checked = transaction.id()

    def _extend(self, used: int, need: int) -> None:
        wanted = used + need + SLACK
        file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            for pages in (wanted + max(CHUNK, used // 8), wanted, used + need):
                try:
                    hold(file, used * self._page, min(pages, self._most) * self._page)
                except OSError as problem:
                    full = problem
                else:
                    self._allocated = max(self._allocated, min(pages, self._most))
                    return
        finally:
            os.close(file)
        if used + need > self._allocated:
            raise StoreError(f"no room for `{self._path}`: {full.strerror}") from full

    def check_reserve(self, transaction: lmdb.Transaction, need: int, tables: Tables) -> None:
        """Make sure that a transaction with new records leaves pages to remove old ones with.

        Raises:
            MapFullError: it does not.
        """
        if self._allocated < self._most - RESERVE:
            return
        stats = [transaction.stat(table) for table in tables]
        used = sum(s["branch_pages"] + s["leaf_pages"] + s["overflow_pages"] for s in stats)
        if used + need + RESERVE > self._most:
            raise lmdb.MapFullError("no pages are left but those for removing records")


CHECKED_PER_NEW, CHECKED_AT_ONCE, MOST_REMOVED = 8, 32, 16
CHECKED_IF_FULL, REMOVED_IF_FULL = 512, 128
IDLE_EVERY = 8
"""Transactions between two that check some records of a table that got none."""


class Expiry:
    """Removes records that may go; it knows how far a process has come in each table.

    Whoever makes records owes eight checks for each. They are made four records' worth at a time,
    since finding the place costs as much as a few checks; a process begins with three owed, so that
    one which ends soon has made them too, and wherever in the table chance will have it.
    """

    def __init__(self) -> None:
        self._places: dict[Any, bytes] = {}
        self._owed: dict[Any, int] = {}
        self._idle = 0

    def remove_some(
        self,
        transaction: lmdb.Transaction,
        tables: Tables,
        fresh: Sequence[Any],
        believed: Callable[[], int],
    ) -> None:
        """Remove a few records that may go at the time that is `believed`.

        `fresh` has the table of each record just made. A table that got none is looked at by one
        transaction in `IDLE_EVERY`.
        """
        owed = self._owed
        for table in fresh:
            owed[table] = owed.get(table, CHECKED_AT_ONCE - CHECKED_PER_NEW) + CHECKED_PER_NEW
            if owed[table] >= CHECKED_AT_ONCE:
                owed[table] = 0
                self._remove(transaction, table, CHECKED_AT_ONCE, MOST_REMOVED, believed())
        self._idle += 1
        if self._idle % IDLE_EVERY == 0:
            idle = [table for table in tables[1:] if table not in fresh]
            if idle:
                table = idle[self._idle // IDLE_EVERY % len(idle)]
                self._remove(transaction, table, CHECKED_PER_NEW, MOST_REMOVED, believed())

    def remove_many(self, transaction: lmdb.Transaction, tables: Tables, now: int) -> None:
        """Remove many records that may go, for the file is full."""
        for table in tables[1:]:
            self._remove(transaction, table, CHECKED_IF_FULL, REMOVED_IF_FULL, now)

    def _remove(
        self, transaction: lmdb.Transaction, table: Any, count: int, most: int, now: int
    ) -> None:
        """Check `count` records from where the last call came to, remove at most `most`."""
        removed, limit = 0, expired_before(now)
        with transaction.cursor(table) as cursor:
            value, following = cast(Callable[[], bytes], cursor.value), cursor.next
            place = self._places.get(table)
            if place is None:
                place = urlsafe_b64encode(os.urandom(3))
            found = cursor.set_range(place) or cursor.first()
            for _ in range(count):
                if not found:
                    break
                if value() < limit:
                    # After a removal the cursor stands at the next record, or at none.
                    found = cursor.delete() and bool(cursor.key())
                    removed += 1
                    if removed == most:
                        break
                else:
                    found = following()
            self._places[table] = bytes(cursor.key()) if found else b""

"""Room in the data file, allocated ahead of need, so that a full disk is an error and no signal.

LMDB writes through its map, several times as fast as by calls; but a page of the map that the disk
has no room for kills the process that touches it. So disk space is allocated before a transaction
may need it. Others write as well: `SLACK` is what a few transactions of theirs can take.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lmdb

from guardrail.errors import StoreError

USUAL = 64
"""Pages that a transaction takes at most unless it says otherwise."""
EVERY = 8
"""Transactions, of whatever process, between two looks at how many pages are in use."""
SLACK = USUAL * EVERY
CHUNK = 1024
"""Pages allocated at a time at least, and an eighth of what is in use."""
RESERVE = 96
RECORD_PAGES, OWN_PAGES = 8, 12
"""What writing a record takes of pages, and a transaction by itself; a page of a long record takes
as much as a record, since LMDB looks for such pages in a row."""


def pages_for(records: Sequence[bytes]) -> int:
    """Return how many pages it takes at most to write these records."""
    return OWN_PAGES + sum(RECORD_PAGES * (1 + len(data) // 2048) for data in records)


class Room:
    """How much of a data file is allocated, as far as one process knows."""

    def __init__(self, env: lmdb.Environment, path: Path) -> None:
        self._env = env
        self._path = path
        self._page = env.stat()["psize"]
        self._most = env.info()["map_size"] // self._page
        self._allocated = 0
        self._looked_at = -EVERY

    def keep(self, transaction: lmdb.Transaction, need: int, homes: Sequence[Any]) -> None:
        """Make sure that a transaction with new records leaves pages to remove old ones with.

        Raises:
            MapFullError: it does not.
        """
        if self._allocated < self._most - RESERVE:
            return
        stats = [transaction.stat(home) for home in homes]
        used = sum(s["branch_pages"] + s["leaf_pages"] + s["overflow_pages"] for s in stats)
        if used + need + RESERVE > self._most:
            raise lmdb.MapFullError("no pages are left but those for removing records")

    def make(self, transaction: lmdb.Transaction, need: int) -> None:
        """Make sure that a transaction can take so many pages.

        Raises:
            StoreError: the disk is full.
        """
        if self._allocated >= self._most:
            return
        if need <= USUAL and transaction.id() - self._looked_at < EVERY:
            return
        used = self._env.info()["last_pgno"] + 1
        if used + need + SLACK > self._allocated:
            self._extend(used, need)
        if used + need + SLACK <= self._allocated:
            self._looked_at = transaction.id()

    def _extend(self, used: int, need: int) -> None:
        wanted = used + need + SLACK
        file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            for pages in (wanted + max(CHUNK, used // 8), wanted, used + need):
                try:
                    os.posix_fallocate(file, 0, min(pages, self._most) * self._page)
                except OSError as problem:
                    full = problem
                else:
                    self._allocated = max(self._allocated, min(pages, self._most))
                    return
        finally:
            os.close(file)
        if used + need > self._allocated:
            raise StoreError(f"no room for `{self._path}`: {full.strerror}") from full

"""Forgetting: each transaction looks at a few records, by their names, round and round.

No index of expiries is kept: it would cost as much room as the records. Whoever makes records looks
at eight for each one made, so that records go at least as fast as they come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import lmdb

from guardrail.stores.lmdb.codec import expired_before

LOOKED_AT, MOST_LOOKED_AT, MOST_REMOVED = 8, 32, 8
WAY_LOOKED_AT, WAY_REMOVED = 512, 128
EVERY = 8
"""Transactions without a new record between two that look at some."""


class Sweep:
    """Where a process is on its way through the records."""

    def __init__(self) -> None:
        self._places: dict[Any, bytes] = {}
        self._idle = 0

    def go_on(
        self, transaction: lmdb.Transaction, fresh: list[Any], homes: Sequence[Any], now: int
    ) -> int:
        """Remove a few records that may go, and return how many; `homes` are the sub-databases.

        `fresh` has the sub-database of each record just made.
        """
        if fresh:
            return sum(
                self.look(
                    transaction, home, min(LOOKED_AT * fresh.count(home), MOST_LOOKED_AT), now
                )
                for home in homes
                if home in fresh
            )
        self._idle += 1
        if self._idle % EVERY:
            return 0
        return self.look(transaction, homes[self._idle // EVERY % len(homes)], LOOKED_AT, now)

    def make_way(self, transaction: lmdb.Transaction, homes: Sequence[Any], now: int) -> int:
        """Remove many records that may go from each sub-database, and return how many."""
        return sum(self.look(transaction, home, WAY_LOOKED_AT, now, WAY_REMOVED) for home in homes)

    def look(
        self,
        transaction: lmdb.Transaction,
        home: Any,
        count: int,
        now: int,
        most: int = MOST_REMOVED,
    ) -> int:
        """Look at so many records of a sub-database, remove those that may go, return how many."""
        removed, limit = 0, expired_before(now)
        with transaction.cursor(home) as cursor:
            value, following = cast(Callable[[], bytes], cursor.value), cursor.next
            found = cursor.set_range(self._places.get(home, b"")) or cursor.first()
            for _ in range(count):
                if not found:
                    break
                if value() < limit:
                    found = cursor.delete() and bool(cursor.key())
                    removed += 1
                    if removed == most:
                        break
                else:
                    found = following()
            self._places[home] = bytes(cursor.key()) if found else b""
        return removed

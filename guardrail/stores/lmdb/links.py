"""Links in the file: rows, notes and days in a table of their own, and counters that move.

What a record is stands first in its name; a day's record, which is empty, is found by the space,
the day and the node in its name, so that those due come first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import lmdb

from guardrail.model.amounts import DAY
from guardrail.model.cells import LINE as LINES
from guardrail.model.cells import WINDOW as WINDOWS
from guardrail.model.cells import Pool
from guardrail.stores.cells import copied, united
from guardrail.stores.links import (
    DUE,
    LONGEST_PATH,
    MOVED,
    MOVED_FOR,
    NAME,
    NO_NAME,
    NODE,
    NOTE,
    Changes,
    Decide,
    Found,
    HandOn,
    Move,
    Party,
    Query,
    Unite,
)
from guardrail.stores.lmdb.records import EXPIRY_BYTES, LINE, SET, WINDOW, Kind, expiry
from guardrail.stores.lmdb.transaction import Entry, Transaction

_DAY_BYTES = 2
_DAY_KEPT = 400 * DAY
"""For how long after its day a node's record of it is kept."""


def every(transaction: lmdb.Transaction, table: Any) -> dict[bytes, bytes]:
    """Return all rows and notes."""
    found: dict[bytes, bytes] = {}
    with transaction.cursor(table) as cursor:
        for kind in (NODE, NOTE):
            more = cursor.set_range(kind)
            while more and cursor.key()[:1] == kind:
                found[bytes(cursor.key())] = bytes(cursor.value()[EXPIRY_BYTES:])
                more = cursor.next()
    return found


class LinkRows:
    """What one transaction reads and writes of links."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._table = transaction.tables.links
        self._now = transaction.now

    def apply(self, query: Query, decide: Decide) -> bool:
        """Read what a call needs, and note what it changes, for the transaction to write.

        Tell whether that was done: it is not where a path is too long to read.
        """
        due = dict(self._due(query))
        rows: dict[bytes, bytes] = {}
        for name in (*query.nodes, *due):
            if not self._climb(name, rows):
                return False
        notes = {name: data for name in query.notes if (data := self._get(NOTE + name)) is not None}
        namings = self._transaction.namings
        secrets = [(naming.epoch.key, naming.link_secret) for naming in namings]
        changes = decide(Found(rows, notes, due, namings[0].party, secrets))
        if changes:
            self._write(query, rows, changes)
        return True

    def _due(self, query: Query) -> Iterable[tuple[bytes, int]]:
        start = DUE + query.space
        if not query.most:
            return
        with self._transaction.lmdb.cursor(self._table) as cursor:
            more = cursor.set_range(start)
            for _ in range(query.most):
                key = bytes(cursor.key())
                if not more or not key.startswith(start):
                    return
                day = int.from_bytes(key[len(start) : -NAME], "big")
                if day >= query.before:
                    return
                yield key[-NAME:], day
                more = cursor.next()

    def _climb(self, name: bytes, rows: dict[bytes, bytes]) -> bool:
        """Read a row and those above it; tell whether it is not too far to the last."""
        for _ in range(LONGEST_PATH):
            data = None if name == NO_NAME or name in rows else self._get(NODE + name)
            if data is None:
                return True
            rows[name] = data
            name = data[:NAME]
        return False

    def _get(self, name: bytes) -> bytes | None:
        data: Any = self._transaction.lmdb.get(name, None, self._table)
        return None if data is None else data[EXPIRY_BYTES:]

    def _write(self, query: Query, rows: Mapping[bytes, bytes], changes: Changes) -> None:
        for move in changes.moves:
            self._move(move, changes.pools)
        for name in rows.keys() | changes.rows.keys():
            data = changes.rows.get(name, rows.get(name, b""))
            self._put(NODE + name, data, changes.ttls.get(name, 0), bool(data))
        for name, (data, ttl) in changes.notes.items():
            self._put(NOTE + name, data, ttl, bool(data))
        for name, (was, day) in changes.days.items():
            if was:
                self._put(self._day(query, was, name), b"", 0, False)
            if day:
                ttl = max(0, day * DAY - self._now) + _DAY_KEPT
                self._put(self._day(query, day, name), b"", ttl, True)

    @staticmethod
    def _day(query: Query, day: int, name: bytes) -> bytes:
        return DUE + query.space + day.to_bytes(_DAY_BYTES, "big") + name

    def _put(self, name: bytes, data: bytes, ttl: int, there: bool) -> None:
        """Write a record, kept for no less long than before, or remove it."""
        before: Any = self._transaction.lmdb.get(name, None, self._table)
        changed = b""
        if there:
            until = expiry(self._now, ttl)
            if before is not None:
                until = max(until, int.from_bytes(before[:EXPIRY_BYTES], "big"))
            changed = until.to_bytes(EXPIRY_BYTES, "big") + data
        if changed != (before or b""):
            self._transaction.written.append((name, changed, self._table, before is None, None))

    def _move(self, move: Move, pools: Iterable[Pool]) -> None:
        for pool in pools:
            if isinstance(move, Unite):
                self._unite(pool, move)
            elif isinstance(move, HandOn):
                whole, part = self._entry(pool, move.whole), self._entry(pool, move.part)
                self._put(MOVED + part.name, b"", 0, False)
                if whole.record is not None:
                    part.put(copied(whole.record), max(part.until, whole.until))
            else:
                self._put(MOVED + self._entry(pool, move.party).name, b"", 0, False)

    def _unite(self, pool: Pool, move: Unite) -> None:
        into = self._entry(pool, move.into)
        self._put(MOVED + into.name, b"", 0, False)
        for party in move.others:
            other = self._entry(pool, party)
            self._put(MOVED + other.name, into.name, MOVED_FOR, True)
            if other.record is not None:
                record = united(pool.kind, into.record, other.record)
                into.put(record, max(into.until, other.until))

    def _entry(self, pool: Pool, party: Party) -> Entry:
        kind: Kind = {WINDOWS: WINDOW, LINES: LINE}.get(pool.kind, SET)
        transaction = self._transaction
        if isinstance(party, bytes):
            return transaction.named(party + pool.ident.encode(), kind)
        return transaction.own(pool.ident + party, kind)

"""The part of a forest that one call looks at, out of the rows of a store and back into them.

A row, big-endian: above it (8 bytes, zeros for none), the expiry and the first day of the edge
between (2, 2), accounts and trusted ones below (4, 4), kind (1), degree (4), the day under which it
is due (2), its actor's name if it is a root (8), and for an account the hash that names its
counters.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from struct import Struct
from typing import NamedTuple

from guardrail.links.forest import FIRST_EVIDENCE, NOBODY, STRANGER, Forest, is_account
from guardrail.stores.links import NAME

_ROW = Struct(">QHHiiBIHQ")

SLACK = 3
"""Days for which a row is kept after its last edge has expired: time to cut it."""


class Row(NamedTuple):
    """A node as a store keeps it; names are numbers, 0 for none."""

    above: int
    expiry: int
    since: int
    accounts: int
    trusted: int
    kind: int
    degree: int
    entered: int
    actor: int
    handle: bytes = b""

    @classmethod
    def read(cls, data: bytes) -> Row:
        """Return the row that bytes hold."""
        return cls._make((*_ROW.unpack_from(data), data[_ROW.size :]))

    @property
    def data(self) -> bytes:
        """The row as bytes."""
        return _ROW.pack(*self[:-1]) + self.handle


def name_of(number: int) -> bytes:
    """Return a node's number as a store names its row."""
    return number.to_bytes(NAME, "big")


class Excerpt:
    """Some rows as a forest, each with all rows above it, and what becomes of them.

    `handles` has what names the counters of each account among them. An edge to a row that is
    gone, which only a store that lost some has, is kept to a root that stands in for it.
    """

    def __init__(self, rows: Mapping[bytes, bytes], due: Mapping[bytes, int]) -> None:
        self.before = {int.from_bytes(name, "big"): Row.read(data) for name, data in rows.items()}
        self.handles = {n: row.handle for n, row in self.before.items() if row.handle}
        self.forest = forest = Forest({}, array("Q"))
        for number, row in self.before.items():
            self._add(number, row)
        for number, row in self.before.items():
            if row.above:
                self._hang(number, row)
        for name, day in due.items():
            at = forest.index.get(int.from_bytes(name, "big"), NOBODY)
            if at != NOBODY:
                forest.enter(at, day)

    def _add(self, number: int, row: Row) -> None:
        forest = self.forest
        at = forest.index[number] = len(forest.name)
        forest.name.append(number)
        forest.parent.append(NOBODY)
        forest.expiry.append(row.expiry)
        forest.since.append(row.since)
        forest.accounts.append(row.accounts)
        forest.trusted.append(row.trusted)
        forest.kind.append(row.kind)
        forest.degree.append(row.degree)
        forest.entered.append(row.entered)
        if row.actor:
            forest.actor[at] = row.actor

    def _hang(self, number: int, row: Row) -> None:
        forest = self.forest
        if row.above not in forest.index:
            kind = FIRST_EVIDENCE if is_account(row.kind) else STRANGER
            several = row.accounts > 1
            self._add(
                row.above,
                Row(0, 0, 0, row.accounts, row.trusted, kind, 1, 0, number if several else 0),
            )
        forest.parent[forest.index[number]] = forest.index[row.above]

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Yield each node that there is now, with its row."""
        forest = self.forest
        for number, at in forest.index.items():
            above = forest.parent[at]
            handle = self.handles.get(number, b"") if is_account(forest.kind[at]) else b""
            yield (
                number,
                Row(
                    0 if above == NOBODY else forest.name[above],
                    forest.expiry[at],
                    forest.since[at],
                    max(0, forest.accounts[at]),
                    max(0, forest.trusted[at]),
                    forest.kind[at],
                    max(0, forest.degree[at]),
                    forest.entered[at],
                    forest.actor.get(at, 0),
                    handle,
                ),
            )

    def last_days(self) -> dict[int, int]:
        """Return for each node the last day of an edge that it is needed for, as far as is known.

        Those are its own, and all below it.
        """
        forest, parent = self.forest, self.forest.parent
        last = [0] * len(forest.name)
        for at in range(len(last)):
            day = 0 if parent[at] == NOBODY else forest.expiry[at]
            while at != NOBODY and last[at] < day:
                last[at] = day
                at = parent[at]
        return {number: last[at] for number, at in forest.index.items()}

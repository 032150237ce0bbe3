"""The records that one transaction reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import lmdb

from guardrail.model.cells import Cell, Correction, Counter, Drain, Leave, Member, Renew
from guardrail.stores.lmdb import codec
from guardrail.stores.lmdb.names import Namer
from guardrail.stores.records import Record

WINDOWED, LINE, SET = range(3)
READ = (codec.read_windowed, codec.read_line, codec.read_members)
WRITE = (codec.windowed, codec.line, codec.members)
TIMETABLE, COPIED = b"timetable", b"copied"


class Homes(NamedTuple):
    """The sub-databases: what the store says of itself, records, those of unknown credentials."""

    about: Any
    known: Any
    guests: Any


Change = tuple[bytes, bytes, Any, bool, bytes | None]
"""A name, what stands there from now on (empty: nothing), where, whether it is new, and what name
it had before."""

End = Callable[["Ledger", BaseException | None], None]
"""What ends a transaction: takes its ledger, and the error that it ends with."""


def kind_of(cell: Cell | Correction) -> int:
    """Return which kind of record a cell or a correction is about."""
    if isinstance(cell, Counter):
        return LINE if cell.floor else WINDOWED
    if isinstance(cell, Member | Leave | Renew):
        return SET
    return LINE if isinstance(cell, Drain) else WINDOWED


class Entry:
    """A record in a transaction: where it stands, what it says, and what becomes of it."""

    __slots__ = ("changed", "data", "expires", "former", "home", "kind", "name", "record")

    def __init__(self, name: bytes, home: Any, kind: int, data: bytes | None) -> None:
        self.name = name
        self.home = home
        self.kind = kind
        self.data = data
        self.record: Record | None = None if data is None else READ[kind](data)
        self.former: bytes | None = None
        self.changed = False
        self.expires = 0

    def put(self, record: Record | None, expires: int) -> None:
        """Change what the record says; None removes it."""
        self.record = record
        self.changed = True
        if expires > self.expires:
            self.expires = expires

    def stays(self) -> int:
        """Return the expiry that the record has so far."""
        return int.from_bytes((self.data or b"")[: codec.EXPIRY_BYTES], "big")


class Ledger:
    """All records of one transaction, each read once and written once.

    As a context, it ends the transaction: what was changed is written, unless an error is raised.
    """

    __slots__ = (
        "_end",
        "_former",
        "_full",
        "_switched",
        "entries",
        "homes",
        "member",
        "namer",
        "now",
        "plain",
        "transaction",
    )

    def __init__(
        self,
        transaction: lmdb.Transaction,
        homes: Homes,
        names: tuple[Namer, Namer | None, bytes | None],
        now: int,
        full: int,
        end: End,
    ) -> None:
        """Start with nothing read; `full` is how many records of unknown credentials are kept."""
        self.transaction = transaction
        self.homes = homes
        self.namer, self._former, self._switched = names
        self.member = self.namer.member
        self.entries: dict[str, Entry] = {}
        self.plain: list[Change] = []
        self._full = full
        self._end = end
        self.now = now

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(self, problem)

    def find(self, key: str, kind: int, unknown: bool = False) -> Entry:
        """Return the entry of a key, that of an unknown credential's if so told."""
        entry = self.entries.get(key)
        if entry is not None:
            return entry
        name, (_, home, other) = self.namer.name(key), self.homes
        if unknown:
            home, other = other, home
        data: Any = self.transaction.get(name, None, home)
        if data is None:
            entry = self._find_elsewhere(key, name, kind, home, other)
        else:
            entry = Entry(name, home, kind, data)
        self.entries[key] = entry
        return entry

    def _find_elsewhere(self, key: str, name: bytes, kind: int, home: Any, other: Any) -> Entry:
        # Whose credential became known, or unknown, keeps its record where it is.
        get: Callable[..., Any] = self.transaction.get
        data = get(name, None, other)
        if data is not None:
            return Entry(name, other, kind, data)
        if self._former is not None:
            former = self._former.name(key)
            for place in (home, other):
                data = get(former, None, place)
                if data is not None:
                    entry = Entry(name, place, kind, data)
                    entry.former = former
                    return entry
        return Entry(name, home, kind, None)

    @property
    def full(self) -> bool:
        """Whether no more records of unknown credentials are made."""
        return bool(self.transaction.stat(self.homes.guests)["entries"] >= self._full)

    @property
    def count(self) -> int:
        """How many records are kept."""
        return sum(int(self.transaction.stat(home)["entries"]) for home in self.homes[1:])

    @property
    def renaming(self) -> bool:
        """Whether records may stand under former names, or other names are to be recorded."""
        return self._former is not None or self._switched is not None

    def changes(self) -> list[Change]:
        """Return what is to be written."""
        return self.plain + [
            (
                entry.name,
                b"" if entry.record is None else WRITE[entry.kind](entry.record, entry.expires),
                entry.home,
                entry.data is None,
                entry.former,
            )
            for entry in self.entries.values()
            if entry.changed
        ]

    def write(self, changes: Sequence[Change]) -> list[Any]:
        """Write changes down, take over what stood under former names, record a switch.

        Returns the sub-database of each record that is new.
        """
        transaction = self.transaction
        fresh = []
        for name, data, home, new, former in changes:
            if data:
                transaction.put(name, data, True, True, False, home)
            elif not new and former is None:
                transaction.delete(name, b"", home)
            if former is not None:
                transaction.delete(former, b"", home)
            if new:
                fresh.append(home)
        if self._switched is not None:
            transaction.put(TIMETABLE, self._switched, db=self.homes.about)
        return fresh

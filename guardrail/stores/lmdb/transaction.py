"""What one transaction reads and writes: the names and the places of its records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, cast

import lmdb

from guardrail.errors import StoreError
from guardrail.model.cells import IDENT_LENGTH
from guardrail.stores.cells import Record
from guardrail.stores.links import MOST_MOVES, MOVED
from guardrail.stores.lmdb.records import EXPIRY_BYTES, Kind, expired_before
from guardrail.stores.naming import Epoch, Naming, Timetable, timetable_for

REMEMBERED_NAMES = 50_000
"""Names a process keeps in memory, so as not to hash those of busy keys again."""


class Namer:
    """Names records under one hash key: whose first, so that one account's counters are near."""

    __slots__ = ("_known", "_whose", "member", "naming")

    def __init__(self, naming: Naming) -> None:
        self.naming = naming
        self._whose = naming.whose
        self.member = naming.member
        self._known: dict[str, bytes] = {}

    def name(self, key: str) -> bytes:
        """Return the name of a key's record."""
        name = self._known.get(key)
        if name is None:
            name = self._whose(key) + key[:IDENT_LENGTH].encode()
            if len(self._known) >= REMEMBERED_NAMES:
                self._known.clear()
            self._known[key] = name
        return name


class Names(NamedTuple):
    """How records are named in one transaction.

    `former` names those not yet taken over, None if there are none; `switched` is the timetable
    to record, if this is the first transaction after a switch.
    """

    current: Namer
    former: Namer | None = None
    switched: bytes | None = None


class Epochs:
    """The epochs (a hash key, a layout) that a process knows, and which of them is in force."""

    def __init__(
        self, hash_keys: Sequence[bytes], layouts: Sequence[int], overlap: int, path: object
    ) -> None:
        namings = [Naming(secret, layout) for layout in layouts for secret in hash_keys]
        self._epochs = [naming.epoch for naming in namings]
        self._overlap = overlap
        self._path = path
        self._namers = {naming.epoch: Namer(naming) for naming in namings}
        self._text: bytes | None = None
        self._table = Timetable(self._epochs[0])
        # What `names` returns at any time, where the timetable names one epoch alone.
        self._lasting: Names | None = None

    def start(self, text: bytes | None, now: int) -> bytes:
        """Return the timetable after this process has started; `text` is the recorded one.

        Raises:
            SettingError: the process lacks a hash key or a layout that the records need.
        """
        recorded = None if text is None else Timetable.read(text)
        return timetable_for(recorded, self._epochs, now, self._overlap).text().encode()

    def names(self, text: bytes | None, now: int) -> Names:
        """Return how records are named at `now` by the recorded timetable, `text`.

        The first to write after a switch records it. Then all that come later have switched,
        whatever their clocks say.

        Raises:
            StoreError: this process lacks a hash key or a layout.
        """
        if text == self._text:
            if self._lasting is not None:
                return self._lasting
        else:
            if text is None:
                raise StoreError(f"`{self._path}` has lost its own record: is it ours?")
            table = Timetable.read(text)
            names = Names(self._namer(table.current))
            alone = table.upcoming is None and table.former is None
            self._text, self._table, self._lasting = text, table, names if alone else None
        table, switched = self._table, None
        if table.upcoming is not None and now >= table.at:
            table = table.at_time(now)
            switched = table.text().encode()
        ended = table.former is None or now >= table.until
        former = None if ended else self._namer(cast(Epoch, table.former))
        return Names(self._namer(table.current), former, switched)

    def _namer(self, epoch: Epoch) -> Namer:
        namer = self._namers.get(epoch)
        if namer is None:
            raise StoreError(
                f"`{self._path}` has gone on to the hash key `{epoch.key}` in layout "
                f"{epoch.layout}, which this process does not know: restart it with them"
            )
        return namer


TIMETABLE, COPIED = b"timetable", b"copied"
"""What stands in `Tables.about`: the timetable of epochs, when the last copy was started."""


class Tables(NamedTuple):
    """LMDB's named databases: about the store, records, those of unknown credentials, links."""

    about: Any
    known: Any
    unknown: Any
    links: Any


Change = tuple[bytes, bytes, Any, bool, bytes | None]
"""A record to write: its name, its bytes (empty: it is removed), its table, whether it is new, and
the name it had before."""

End = Callable[["Transaction", BaseException | None], None]
"""What ends a transaction, given the error that it ends with."""


class Entry:
    """A record in a transaction: where it stands, what it says, and what becomes of it."""

    __slots__ = ("changed", "data", "expires", "former", "kind", "name", "record", "table")

    def __init__(
        self, name: bytes, table: Any, kind: Kind, data: bytes | None, former: bytes | None = None
    ) -> None:
        self.name = name
        self.table = table
        self.kind = kind
        self.data = data
        self.record: Record | None = None if data is None else kind.read(data)
        self.former = former
        self.changed = False
        self.expires = 0

    def put(self, record: Record | None, expires: int) -> None:
        """Change what the record says; None removes it."""
        self.record = record
        self.changed = True
        if expires > self.expires:
            self.expires = expires

    @property
    def until(self) -> int:
        """The step after which it may go, as far as is written or known."""
        return max(self.expires, int.from_bytes((self.data or b"")[:EXPIRY_BYTES], "big"))

    def remove_member(self, member: bytes) -> None:
        """Take a member out of a set, which then expires as before."""
        if self.record and member in self.record:
            left = {name: expires for name, expires in self.record.items() if name != member}
            self.put(left or None, int.from_bytes((self.data or b"")[:EXPIRY_BYTES], "big"))


class Transaction:
    """All records of one transaction, each read once and written once.

    As a context, it ends the transaction: what was changed is written, unless an error is raised.
    """

    __slots__ = (
        "_end",
        "_most_unknown",
        "_names",
        "entries",
        "lmdb",
        "member",
        "name",
        "now",
        "shared",
        "tables",
        "written",
    )

    def __init__(
        self,
        transaction: lmdb.Transaction,
        tables: Tables,
        names: Names,
        now: int,
        most_unknown: int,
        shared: Collection[str],
        end: End,
    ) -> None:
        """Start with nothing read.

        `written` takes changes whose bytes are there already; `most_unknown` is how many records
        of unknown credentials are kept; `shared` has the idents of counters that may be moved.
        """
        self.lmdb = transaction
        self.tables = tables
        self.name, self.member = names.current.name, names.current.member
        self.now = now
        self.written: list[Change] = []
        self._names = names
        self.entries: dict[str, Entry] = {}
        self._most_unknown = most_unknown
        self.shared = shared
        self._end = end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(self, problem)

    def find(self, key: str, kind: Kind, unknown: bool = False) -> Entry:
        """Return the entry of a key, made among those of unknown credentials if `unknown`.

        Whose credential became known, or unknown, keeps its record where it is; so does, until it
        is next written, a record that still has its former name.
        """
        entry = self.entries.get(key)
        if entry is None:
            moved = self.moved(key)
            if moved is not None:
                entry = self.named(moved, kind)
            elif self.is_shared(key):
                entry = self.own(key, kind, unknown)
            else:
                entry = self._read(key, kind, unknown)
            self.entries[key] = entry
        return entry

    def own(self, key: str, kind: Kind, unknown: bool = False) -> Entry:
        """Return the entry of a key's own record, though it may have been moved to another."""
        name = self.name(key).decode()
        entry = self.entries.get(name)
        if entry is None:
            entry = self.entries[name] = self._read(key, kind, unknown)
        return entry

    def named(self, name: bytes, kind: Kind) -> Entry:
        """Return the entry of a record that accounts share, by its name."""
        entry = self.entries.get(name.decode())
        if entry is None:
            data: Any = None
            for table in (self.tables.known, self.tables.unknown):
                data = self.lmdb.get(name, None, table)
                if data is not None:
                    break
            else:
                table = self.tables.known
            entry = self.entries[name.decode()] = Entry(name, table, kind, data)
        return entry

    def moved(self, key: str) -> bytes | None:
        """Return the name of the record that another's counter was moved to, None for none."""
        if key[:IDENT_LENGTH] not in self.shared:
            return None
        name = self.name(key)
        into = self.followed(name)
        return None if into == name else into

    def followed(self, name: bytes) -> bytes:
        """Return the name of the record where what is charged to a shared one is counted."""
        for _ in range(MOST_MOVES):
            data: Any = self.lmdb.get(MOVED + name, None, self.tables.links)
            if data is None or data < expired_before(self.now):
                break
            name = data[EXPIRY_BYTES:]
        return name

    def is_shared(self, key: str) -> bool:
        """Tell whether a key's counter is one that accounts share."""
        return key[:IDENT_LENGTH] in self.shared

    def _read(self, key: str, kind: Kind, unknown: bool) -> Entry:
        get: Callable[..., Any] = self.lmdb.get
        name, tables = self.name(key), [self.tables.known, self.tables.unknown]
        if unknown:
            tables.reverse()
        for table in tables:
            data = get(name, None, table)
            if data is not None:
                return Entry(name, table, kind, data)
        if self._names.former is not None:
            former = self._names.former.name(key)
            for table in tables:
                data = get(former, None, table)
                if data is not None:
                    return Entry(name, table, kind, data, former)
        return Entry(name, tables[0], kind, None)

    @property
    def full(self) -> bool:
        """Whether no more records of unknown credentials are made."""
        return bool(self.lmdb.stat(self.tables.unknown)["entries"] >= self._most_unknown)

    @property
    def count(self) -> int:
        """How many records are kept."""
        return sum(int(self.lmdb.stat(table)["entries"]) for table in self.tables[1:3])

    @property
    def namings(self) -> tuple[Naming, ...]:
        """How records are named, and how they were before, if some may still be so."""
        former = self._names.former
        current = self._names.current.naming
        return (current,) if former is None else (current, former.naming)

    @property
    def renaming(self) -> bool:
        """Whether records may stand under former names, or other names are to be recorded."""
        return self._names.former is not None or self._names.switched is not None

    def changes(self) -> list[Change]:
        """Return what is to be written."""
        if not self.entries:
            return self.written
        return self.written + [
            (
                entry.name,
                b"" if entry.record is None else entry.kind.written(entry.record, entry.expires),
                entry.table,
                entry.data is None,
                entry.former,
            )
            for entry in dict.fromkeys(self.entries.values())
            if entry.changed
        ]

    def write(self, changes: Sequence[Change]) -> None:
        """Write changes down, take over what stood under former names, record a switch."""
        transaction = self.lmdb
        for name, data, table, new, former in changes:
            if data:
                transaction.put(name, data, True, True, False, table)
            elif not new and former is None:
                transaction.delete(name, b"", table)
            if former is not None:
                transaction.delete(former, b"", table)
        if self._names.switched is not None:
            transaction.put(TIMETABLE, self._names.switched, db=self.tables.about)

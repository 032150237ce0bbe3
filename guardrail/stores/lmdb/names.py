"""Under which names records stand now, by the timetable that the store keeps."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.errors import StoreError
from guardrail.model.cells import IDENT_LENGTH
from guardrail.stores.epochs import Epoch, Timetable, timetable_for
from guardrail.stores.naming import Naming

REMEMBERED = 50_000
"""Names a process keeps in memory, so as not to hash those of busy keys again."""


class Namer:
    """Names records under one hash key: whose first, so that one account's counters are near."""

    __slots__ = ("_known", "_whose", "member")

    def __init__(self, naming: Naming) -> None:
        self._whose = naming.whose
        self.member = naming.member
        self._known: dict[str, bytes] = {}

    def name(self, key: str) -> bytes:
        """Return the name of a key's record."""
        name = self._known.get(key)
        if name is None:
            name = self._whose(key) + key[:IDENT_LENGTH].encode()
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[key] = name
        return name


class Names:
    """The epochs that a process knows, and which of them is in force."""

    def __init__(
        self, hash_keys: Sequence[bytes], layouts: Sequence[int], overlap: int, path: object
    ) -> None:
        namings = [Naming(secret, layout) for layout in layouts for secret in hash_keys]
        self.epochs = [naming.epoch for naming in namings]
        self.overlap = overlap
        self._path = path
        self._namers = {naming.epoch: Namer(naming) for naming in namings}
        self._text: bytes | None = None
        self._table = Timetable(self.epochs[0])
        self._current = self._namers[self.epochs[0]]
        self._former: Namer | None = None

    def start(self, text: bytes | None, now: int) -> bytes:
        """Return the timetable after this process has started; `text` is the recorded one.

        Raises:
            SettingError: the process lacks a hash key or a layout that the records need.
        """
        recorded = None if text is None else Timetable.read(text)
        return timetable_for(recorded, self.epochs, now, self.overlap).text().encode()

    def at(self, text: bytes | None, now: int) -> tuple[Namer, Namer | None, bytes | None]:
        """Return the namer in force, that of records not yet taken over, and what to record.

        The first to write after a switch records it. Then all that come later have switched,
        whatever their clocks say.

        Raises:
            StoreError: this process lacks a hash key or a layout.
        """
        if text != self._text:
            self._read(text)
        table = self._table
        if table.upcoming is not None and now >= table.at:
            switched = table.at_time(now)
            return (*self._namers_of(switched, now), switched.text().encode())
        if table.former is None or now >= table.until:
            return self._current, None, None
        return self._current, self._former or self._namer(table.former), None

    def _read(self, text: bytes | None) -> None:
        if text is None:
            raise StoreError(f"`{self._path}` has lost its own record: is it ours?")
        table = Timetable.read(text)
        self._current = self._namer(table.current)
        self._former = None if table.former is None else self._namers.get(table.former)
        self._text, self._table = text, table

    def _namers_of(self, table: Timetable, now: int) -> tuple[Namer, Namer | None]:
        former = None if table.former is None or now >= table.until else table.former
        return self._namer(table.current), None if former is None else self._namer(former)

    def _namer(self, epoch: Epoch) -> Namer:
        namer = self._namers.get(epoch)
        if namer is None:
            raise StoreError(
                f"`{self._path}` has gone on to the hash key `{epoch.key}` in layout "
                f"{epoch.layout}, which this process does not know: restart it with them"
            )
        return namer

"""A directory in a file: read whole or not at all, and again when it changes."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock

from guardrail.errors import DataError, Diagnostic, SettingError
from guardrail.http.identity.entries import RESTRICTING, Entries, Table
from guardrail.http.identity.hashing import WrittenNames
from guardrail.model.facts import Fact
from guardrail.signals.directory import REPORT_EVERY, Credential, Identity, SourceHealth, Vocabulary

MOST_BYTES = 64 << 20
"""The size of the largest CSV file; a YAML file has at most 1 MiB."""

CHECK_EVERY = 1.0
"""Seconds between two looks at whether the file has changed."""

LOG = logging.getLogger("guardrail")
_SHOWN = 20
_RESTRICTION = re.compile(rf"\b(?:{'|'.join(RESTRICTING)})\b")
_Stamp = tuple[int, int, int]


class DirectoryFileError(DataError):
    """A directory file cannot be used; `diagnostics` lists what is wrong with it.

    `restricted` are the accounts that it restricts or bans, as far as it can be read; None where
    nothing of it can.
    """

    def __init__(
        self,
        path: Path,
        diagnostics: Sequence[Diagnostic],
        restricted: Iterable[str] | None = None,
    ) -> None:
        self.diagnostics = tuple(diagnostics)
        self.restricted = None if restricted is None else frozenset(restricted)
        lines = [_line(found) for found in diagnostics[:_SHOWN]]
        if len(diagnostics) > _SHOWN:
            lines.append(f"and {len(diagnostics) - _SHOWN} more")
        super().__init__(f"directory `{path}` not loaded\n" + "\n".join(lines))


class FileDirectory:
    """Reads a YAML or CSV file of accounts by their credentials' keyed hashes.

    A changed file is taken at the first request a second or more after the last look at it; one
    with anything wrong in it is not taken, and the old one stays: that is logged at once, then
    once a minute, and shows in `health`; a ban in it that is not in force is an alarm. Replace a
    file by renaming a new one over it: one that is being written to may look whole and lack
    accounts.
    """

    def __init__(
        self, path: str | Path, facts: Mapping[str, Fact], *, hash_keys: Sequence[bytes]
    ) -> None:
        """Take the file, a policy set's facts, and the hash keys, the current one first.

        Raises:
            DataError: the file cannot be read, or something in it is wrong.
            SettingError: it is neither YAML nor CSV by its name, or no hash key is given.
        """
        self._path = Path(path)
        if self._path.suffix not in (".yaml", ".yml", ".csv"):
            raise SettingError(f"`{path}` is no directory; name a `.yaml` or a `.csv` file")
        if not hash_keys:
            raise SettingError("a directory file needs the hash key its credentials are made with")
        self._facts = dict(facts)
        self._names = WrittenNames(hash_keys)
        self.provides = Vocabulary(facts).provides
        self._reloading = Lock()
        self._looked = float("-inf")
        self._problem: str | None = None
        self._refused: _Stamp | None = None
        self._failures = self._waiting = 0
        self._said = float("-inf")
        self._restricted: frozenset[str] = frozenset()
        self._words = 0
        self._stamp, self._table = self._load()

    def look_up(self, credential: Credential, now: float) -> Identity:
        """Return whose a credential is at `now` (seconds since the epoch)."""
        if self._is_due(now):
            self._refresh(now)
        return self._identity(credential, now)

    async def find(self, credential: Credential, now: float) -> Identity:
        """Return the same; a changed file is read in a thread."""
        if self._is_due(now):
            await asyncio.to_thread(self._refresh, now)
        return self._identity(credential, now)

    @property
    def health(self) -> SourceHealth:
        """Whether the file is in use as it stands, for metrics."""
        return SourceHealth(self._failures, self._problem is not None, self._waiting)

    def warnings(self, now: float) -> tuple[str, ...]:
        """Return why a changed file was not taken, while it is not."""
        return () if self._problem is None else (f"{self._problem}\nthe old one stays in use",)

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def _identity(self, credential: Credential, now: float) -> Identity:
        table = self._table
        for key in table.keys:
            facts = table.facts.get(self._names.of(credential, key))
            if facts is not None:
                return Identity(facts, expires=now + CHECK_EVERY)
        return Identity(expires=now + CHECK_EVERY)

    def _is_due(self, now: float) -> bool:
        return not abs(now - self._looked) < CHECK_EVERY

    def _refresh(self, now: float) -> None:
        if not self._reloading.acquire(blocking=False):
            return  # another request is reading it; the old one serves
        stamp: _Stamp | None = None
        try:
            self._looked = now
            stamp = _stamp_of(self._path)
            if stamp == self._refused:
                self._alarm(now, again=True)
                return
            if stamp != self._stamp:
                self._stamp, self._table = self._load()
            if self._problem is not None:
                LOG.warning("directory `%s` is in use as it stands in the file", self._path)
            self._problem = self._refused = None
            self._waiting = 0
        except DataError as problem:
            again = str(problem) == self._problem
            self._failures += not again
            self._problem = str(problem)
            self._refused = stamp if isinstance(problem, DirectoryFileError) else None
            self._waiting = self._bans_in(problem)
            self._alarm(now, again=again)
        finally:
            self._reloading.release()

    def _bans_in(self, problem: DataError) -> int:
        """Return how many restrictions may stand in a file that is not taken, and not be in force.

        That is one at least where nothing of it can be read.
        """
        if not isinstance(problem, DirectoryFileError):
            return 0
        waiting = 1 if problem.restricted is None else len(problem.restricted - self._restricted)
        with suppress(DataError):
            # Half a file may hold a ban in the half that was not understood.
            waiting = max(waiting, _words_of(_text_of(self._path)) - self._words)
        return waiting

    def _alarm(self, now: float, *, again: bool) -> None:
        """Log that the file is not in force: at once, then once a minute."""
        if again and abs(now - self._said) < REPORT_EVERY:
            return
        self._said = now
        if self._waiting:
            LOG.critical(
                "restrictions or bans (%d) that may stand in directory `%s` ARE NOT IN FORCE, as "
                "the file is not taken: %s\nthe old one stays in use: mend the file",
                self._waiting,
                self._path,
                self._problem,
            )
            return
        LOG.error("%s\nthe old one stays in use: mend the file, or put it back", self._problem)

    def _load(self) -> tuple[_Stamp, Table]:
        before = _stamp_of(self._path)
        text = _text_of(self._path)
        if _stamp_of(self._path) != before:
            raise DataError(f"directory `{self._path}` changed while it was read")
        entries = Entries(str(self._path), text, self._facts, self._names)
        table = entries.table(self._path.suffix == ".csv")
        if entries.findings.diagnostics:
            restricted = entries.restricted if table.facts or entries.restricted else None
            raise DirectoryFileError(self._path, entries.findings.in_order(), restricted)
        self._restricted, self._words = frozenset(entries.restricted), _words_of(text)
        return before, table


def _line(found: Diagnostic) -> str:
    said = [found.message, *(part for part in (found.label, found.help) if part)]
    return f"{found.span}: {found.code} {'; '.join(said)}"


def _words_of(text: str) -> int:
    """Return how many restrictions a text seems to hold, whatever its form."""
    return len(_RESTRICTION.findall(text))


def _stamp_of(path: Path) -> _Stamp:
    try:
        found = os.stat(path)
    except OSError as problem:
        raise _unreadable(path, problem) from problem
    return found.st_mtime_ns, found.st_size, found.st_ino


def _text_of(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as problem:
        raise _unreadable(path, problem) from problem
    if len(data) > MOST_BYTES:
        raise DataError(f"directory `{path}` is larger than 64 MiB; ask a service instead")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"directory `{path}` is not UTF-8 text; save it as UTF-8") from None


def _unreadable(path: Path, problem: OSError) -> DataError:
    why = (problem.strerror or "it cannot be read").lower()
    return DataError(f"directory `{path}`: {why}; check the path")

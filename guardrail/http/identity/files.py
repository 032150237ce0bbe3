"""A directory in a file: read whole or not at all, and again when it changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock

from guardrail.diagnostics import Diagnostic
from guardrail.errors import DataError, SettingError
from guardrail.http.identity.entries import Entries, Table
from guardrail.http.identity.hashing import WrittenNames
from guardrail.model.facts import Fact
from guardrail.signals.directory import Credential, Identity
from guardrail.signals.directory.vocabulary import Vocabulary

MOST_BYTES = 64 << 20
"""The size of the largest CSV file; a YAML file has at most 1 MiB."""

CHECK_EVERY = 1.0
"""Seconds between two looks at whether the file has changed."""

_SHOWN = 20
_Stamp = tuple[int, int, int]


class DirectoryFileError(DataError):
    """A directory file cannot be used; `diagnostics` lists what is wrong with it."""

    def __init__(self, path: Path, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        lines = [f"{found.span}: {found.code} {found.message}" for found in diagnostics[:_SHOWN]]
        if len(diagnostics) > _SHOWN:
            lines.append(f"and {len(diagnostics) - _SHOWN} more")
        super().__init__(f"directory `{path}` not loaded\n" + "\n".join(lines))


class FileDirectory:
    """Reads a YAML or CSV file of accounts by their credentials' keyed hashes.

    A changed file is taken at the first request a second or more after the last look at it; one
    with anything wrong in it is not taken, and the old one stays. Replace a file by renaming a
    new one over it: one that is being written to may look whole and lack accounts.
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
        try:
            self._looked = now
            if _stamp_of(self._path) != self._stamp:
                self._stamp, self._table = self._load()
            self._problem = None
        except DataError as problem:
            self._problem = str(problem)
        finally:
            self._reloading.release()

    def _load(self) -> tuple[_Stamp, Table]:
        before = _stamp_of(self._path)
        text = _text_of(self._path)
        if _stamp_of(self._path) != before:
            raise DataError(f"directory `{self._path}` changed while it was read")
        entries = Entries(str(self._path), text, self._facts, self._names)
        table = entries.table(self._path.suffix == ".csv")
        if entries.findings.diagnostics:
            raise DirectoryFileError(self._path, entries.findings.in_order())
        return before, table


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

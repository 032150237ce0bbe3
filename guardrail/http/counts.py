"""Counts of events by series: in this process, or in a folder that the workers of a host share."""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from guardrail.errors import SettingError

LOG = logging.getLogger("guardrail")

MOST_SERIES = 10_000
"""How many series are counted each by itself: rules come and go with reloads."""

_ENTRY = 1024
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_COUNT = struct.Struct("<q")
_LENGTH = struct.Struct("<H")
_TEXT_AT = _COUNT.size + _LENGTH.size
LONGEST_SERIES = _ENTRY - _TEXT_AT


class Counts:
    """Counts in the memory of this process; safe between threads."""

    def __init__(self) -> None:
        # A request that is collected as garbage may end within a call of the same thread.
        self._lock = threading.RLock()
        self._counts: dict[str, int] = {}
        # Events are counted without a lock, and without a call of ours: a count goes up by one
        # when it is looked at, too, and that is taken off.
        self._events: dict[str, Iterator[int]] = {}
        self._looks = 0

    def counter(self, series: str, otherwise: str) -> Callable[[], object]:
        """Return what counts one event of a series, or of the coarser one if there are too many."""
        with self._lock:
            if series not in self._events and len(self._events) >= MOST_SERIES:
                series = otherwise
            count = self._events.get(series)
            if count is None:
                # Those before it have been looked at so often.
                count = self._events[series] = itertools.count(self._looks)
            return count.__next__

    def put(self, figures: Mapping[str, int]) -> None:
        """Take figures of this process that are counted elsewhere, or that go up and down."""
        with self._lock:
            self._counts.update(figures)

    def totals(self) -> dict[str, int]:
        """Return every series and its count."""
        with self._lock:
            looks = self._looks
            self._looks += 1
            counted = {series: next(count) - looks for series, count in self._events.items()}
            return self._counts | {series: count for series, count in counted.items() if count}

    def close(self) -> None:
        """Let go of what was opened: nothing."""


class SharedCounts(Counts):
    """Counts in a file for each process in a folder that the workers of a host share.

    A file is an array of entries of 1,024 bytes: the count (8 bytes), the length of the series'
    name (2 bytes), the name. Its process writes into it as it counts, others read it whenever
    they are asked, so that any of them tells the sum over all. A process holds a lock on its file
    while it lives; who finds one without adds it to `ended` and removes it. Series that do not
    end in `_total` go up and down: of those the largest counts, and an ended process has none.

    A file that cannot be written stops no request: the process goes on counting for itself, and
    says so once. It is written, not mapped into memory, as a full disk would end the process.
    """

    def __init__(self, folder: Path) -> None:
        """Take a folder of the host's own, made if it is not there.

        Raises:
            SettingError: it cannot be written to.
        """
        super().__init__()
        self._folder = folder
        self._process = os.getpid()
        self._file = -1
        self._path: Path | None = None
        self._places: dict[str, int] = {}
        self._failed = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._folder_lock():
                pass
        except OSError as problem:
            why = (problem.strerror or str(problem)).lower()
            raise SettingError(f"`metrics_dir` is `{folder}`: {why}") from problem

    def counter(self, series: str, otherwise: str) -> Callable[[], object]:
        """Return what counts one event of a series, or of the coarser one if there are too many."""
        return partial(self._add, series, otherwise)

    def _add(self, series: str, otherwise: str) -> None:
        with self._lock:
            self._begin()
            known = series in self._counts or len(self._counts) < MOST_SERIES
            self._raise(series if known else otherwise, 1)

    def put(self, figures: Mapping[str, int]) -> None:
        """Take figures of this process that are counted elsewhere, or that go up and down."""
        with self._lock:
            self._begin()
            for series, figure in figures.items():
                before = self._counts.get(series)
                if figure != before:
                    self._raise(series, figure - (before or 0))

    def totals(self) -> dict[str, int]:
        """Return every series and its count over all processes, ended ones included."""
        with self._lock:
            self._begin()
            totals = Counter(self._counts)
            own = self._path
        try:
            with self._folder_lock():
                self._fold()
                for path in [self._folder / "ended", *self._folder.glob("*.counts")]:
                    for series, count in _read(path) if path != own else ():
                        before = totals[series]
                        totals[series] = before + count if _rises(series) else max(before, count)
        except OSError as problem:
            self._note(problem)
        return dict(totals)

    def close(self) -> None:
        """Let go of this process's file; what it counted stays."""
        with self._lock:
            if self._file >= 0 and self._process == os.getpid():
                os.close(self._file)
            self._file, self._path, self._places = -1, None, {}
            self._counts.clear()

    def _begin(self) -> None:
        """Count from nothing after a fork: what was counted before is the parent's."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._file, self._path, self._places = -1, None, {}
            self._counts.clear()

    def _raise(self, series: str, by: int) -> None:
        self._counts[series] = self._counts.get(series, 0) + by
        try:
            if self._file < 0:
                self._open()
            at = self._places.setdefault(series, len(self._places) * _ENTRY)
            # Whole and at once: who reads meanwhile sees no entry, or all of it.
            os.pwrite(self._file, _entry(series, self._counts[series]), at)
        except OSError as problem:
            self._note(problem)

    def _open(self) -> None:
        path = self._folder / f"{os.getpid()}-{time.time_ns()}.counts"
        with self._folder_lock():
            self._file, self._path = os.open(path, _CREATE, 0o640), path
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def _note(self, problem: OSError) -> None:
        if not self._failed:
            self._failed = True
            LOG.error(
                "counts in `%s` cannot be shared, and are those of each process alone: %s",
                self._folder,
                (problem.strerror or str(problem)).lower(),
            )

    def _fold(self) -> None:
        """Add what ended processes counted to `ended`; called under the lock of the folder."""
        gone: list[Path] = []
        sums: Counter[str] = Counter()
        for path in self._folder.glob("*.counts"):
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue
                gone.append(path)
                sums.update({series: count for series, count in _read(path) if _rises(series)})
        if not gone:
            return
        sums.update(dict(_read(self._folder / "ended")))
        new = self._folder / "ended.new"
        new.write_bytes(b"".join(_entry(*pair) for pair in sums.most_common()))
        new.replace(self._folder / "ended")
        for path in gone:
            path.unlink()

    @contextmanager
    def _folder_lock(self) -> Iterator[None]:
        with (self._folder / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _rises(series: str) -> bool:
    return series.partition("{")[0].endswith("_total")


def _entry(series: str, count: int) -> bytes:
    name = series.encode()[:LONGEST_SERIES]
    return (_COUNT.pack(count) + _LENGTH.pack(len(name)) + name).ljust(_ENTRY, b"\0")


def _read(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the series in a file and their counts; what was cut off of it is passed over."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        while len(entry := file.read(_ENTRY)) == _ENTRY:
            (length,) = _LENGTH.unpack_from(entry, _COUNT.size)
            if not length:
                continue
            name = entry[_TEXT_AT : _TEXT_AT + length].decode("utf-8", "replace")
            yield name, _COUNT.unpack_from(entry)[0]

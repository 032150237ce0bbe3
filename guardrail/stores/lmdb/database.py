"""The LMDB environment of a store: opened late, closed before a fork, checked, restored."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import lmdb

from guardrail.errors import SettingError, StoreError
from guardrail.model.amounts import SECOND
from guardrail.stores.lmdb.copies import Copier
from guardrail.stores.lmdb.files import PAGE, Files, State, sync_file
from guardrail.stores.lmdb.ledger import TIMETABLE, Homes
from guardrail.stores.lmdb.locks import FileLock
from guardrail.stores.lmdb.room import USUAL, Room

LOG = logging.getLogger("guardrail.stores.lmdb")

TORN = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    # Versions before 3 have no name for it.
    getattr(lmdb, "ProblemError", lmdb.CorruptedError),
    lmdb.VersionMismatchError,
)
"""What LMDB says of a file that is not as it left it."""
READERS = 1024
_NAMES = (b"about", b"known", b"guests")

Register = Callable[[bytes | None, int], bytes]


class Database:
    """An open environment with its sub-databases, its locks and its room on the disk."""

    env: lmdb.Environment
    homes: Homes
    room: Room

    def __init__(
        self,
        files: Files,
        *,
        max_size: int,
        boot: str,
        seconds: float,
        clock: Callable[[], float],
        register: Register,
    ) -> None:
        """Open the environment; `seconds` is how long to wait for other processes.

        `register` takes the timetable that the store has, and the time; it returns the one to keep.

        Raises:
            SettingError: the file cannot be opened.
            StoreError: another process holds a lock for longer.
        """
        self.files = files
        self.boot = boot
        self.seconds = seconds
        self.copier = Copier(files)
        self._locks: list[FileLock] = []
        try:
            self.writer, self._opening, self._users = map(self._lock, _lock_paths(files))
            with self._opening.held(seconds), self.writer.held(seconds):
                self._users.attempt(shared=True)
                self._prepare(clock)
                self._open(max_size, register, int(clock() * SECOND))
        except BaseException:
            if hasattr(self, "env"):
                self.env.close()
            self._let_go()
            raise

    def _lock(self, path: Path) -> FileLock:
        lock = FileLock(path)
        self._locks.append(lock)
        return lock

    def _prepare(self, clock: Callable[[], float]) -> None:
        """Set data aside that may be torn, and record that they are in use."""
        state = self.files.read_state()
        if self.files.data.exists():
            crashed = state is None or not (state.clean or state.boot == self.boot)
            if crashed or (state is not None and state.damaged) or not self._sound():
                self._restore(clock, "the host crashed" if crashed else "it is damaged")
        if state != State(self.boot):
            try:
                self.files.write_state(State(self.boot))
            except OSError as problem:
                raise SettingError(_unopened(self.files, problem)) from problem

    def _sound(self) -> bool:
        size = self.files.data.stat().st_size
        if size < 2 * PAGE:
            # Not even its two first pages: LMDB would take a file of nothing for a new one.
            return False
        try:
            with lmdb.open(
                str(self.files.data),
                subdir=False,
                readonly=True,
                max_readers=READERS,
                max_dbs=len(_NAMES),
            ) as env:
                whole = (env.info()["last_pgno"] + 1) * env.stat()["psize"] <= size
                return whole and self._leads_somewhere(env)
        except TORN:
            return False
        except lmdb.Error as problem:
            raise SettingError(_unopened(self.files, problem)) from problem

    def _leads_somewhere(self, env: lmdb.Environment) -> bool:
        """Tell whether the ends of each sub-database can be reached; raise LMDB's error if not."""
        with env.begin() as transaction:
            for name in _NAMES:
                try:
                    home = env.open_db(name, transaction, create=False)
                except lmdb.NotFoundError:
                    continue
                with transaction.cursor(home) as cursor:
                    cursor.first()
                    cursor.last()
        return True

    def _restore(self, clock: Callable[[], float], why: str) -> None:
        if not self._users.attempt():
            raise SettingError(
                f"`{self.files.data}` is to be restored ({why}), and other processes use it: "
                "stop all of them, and start again"
            )
        aside = self.files.set_aside(clock())
        found = self.files.restore()
        self._users.attempt(shared=True)
        LOG.error(
            "%s: `%s` was set aside as `%s`, and %s",
            why,
            self.files.data,
            aside.name,
            "the last copy restored" if found else "there was no copy: all counters start anew",
        )

    def _open(self, max_size: int, register: Register, now: int) -> None:
        # A smaller map would cut off what others, with a larger one, have in use.
        size = max(max_size, self.files.data.stat().st_size if self.files.data.exists() else 0)
        try:
            self.env = lmdb.open(
                str(self.files.data),
                subdir=False,
                map_size=size,
                max_dbs=3,
                max_readers=READERS,
                mode=0o600,
                sync=False,
                writemap=True,
                meminit=False,
                readahead=False,
            )
            self.room = Room(self.env, self.files.data)
            self.env.reader_check()
            with self.env.begin(write=True) as transaction:
                self.room.make(transaction, USUAL)
                self.homes = Homes(*(self.env.open_db(name, transaction) for name in _NAMES))
                recorded = transaction.get(TIMETABLE, None, self.homes.about)
                transaction.put(TIMETABLE, register(recorded, now), db=self.homes.about)
        except (lmdb.Error, OSError) as problem:
            raise SettingError(_unopened(self.files, problem)) from problem

    def begin(self) -> lmdb.Transaction:
        """Start a transaction; the writer's lock is held.

        Raises:
            StoreError: the file has grown beyond the map, and a copy is being made of it.
        """
        try:
            return self.env.begin(write=True)
        except lmdb.MapResizedError as problem:
            if self.copier.busy:
                raise StoreError("the file has grown: the map follows after the copy") from problem
            self.env.set_mapsize(self.files.data.stat().st_size)
            self.room = Room(self.env, self.files.data)
            return self.env.begin(write=True)

    def damaged(self) -> None:
        """Record that the file is damaged: the next to open it alone restores the copy."""
        try:
            self.files.write_state(State(self.boot, damaged=True))
        except OSError as problem:
            LOG.error("that `%s` is damaged cannot be recorded: %s", self.files.data, problem)

    def close(self, *, last: bool = True) -> None:
        """Let go of everything; with `last`, the last process to do so syncs the data first."""
        self.copier.wait()
        try:
            if last:
                with self._opening.held(self.seconds):
                    self._part()
                    self.env.close()
                    self._users.leave()
        except (StoreError, OSError, lmdb.Error) as problem:
            LOG.warning("`%s` is closed without a sync: %s", self.files.data, problem)
        finally:
            self.env.close()
            self._let_go()

    def _part(self) -> None:
        if not self._users.attempt():
            return
        self.env.sync(True)
        sync_file(self.files.data)
        state = self.files.read_state()
        if state is not None and not state.damaged:
            self.files.write_state(State(self.boot, clean=True))

    def _let_go(self) -> None:
        for lock in self._locks:
            lock.close()
        self._locks.clear()


def _lock_paths(files: Files) -> tuple[Path, Path, Path]:
    return files.writer, files.opening, files.users


def _unopened(files: Files, problem: Exception) -> str:
    if "already open in this process" in str(problem):
        return (
            f"`{files.folder}` is open in this process already: give the same store to every guard"
        )
    return f"`{files.data}` cannot be opened: {problem}"

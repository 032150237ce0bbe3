"""An open LMDB environment: checked before it is used, restored if it is torn, closed cleanly.

Three file locks stand beside the data. `opening` is held while a process opens or closes, so that
two never prepare the data at once. `writer` is held for each transaction. `users` is shared by all
that have the data open: whoever gets it alone knows that no other process uses them, and may set
them aside or call them clean. A process takes `opening` first, then `writer`, then `users`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import lmdb

from guardrail.errors import SettingError, StoreError
from guardrail.model.amounts import SECOND
from guardrail.stores.lmdb.locks import FileLock
from guardrail.stores.lmdb.recovery import PAGE, Copier, Files, State, sync
from guardrail.stores.lmdb.space import USUAL_PAGES, Space
from guardrail.stores.lmdb.transaction import TIMETABLE, Tables

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
_NAMES = (b"about", b"known", b"guests", b"links")

Register = Callable[[bytes | None, int], bytes]
"""Takes the timetable that the store has, and the time; returns the one to keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a store was asked for; `clock` tells seconds, `boot` names the host's boot."""

    deadline: int
    max_size: int
    max_unknown: int
    copy_every: int
    boot: str
    clock: Callable[[], float]

    @property
    def seconds(self) -> float:
        """The deadline of a call in seconds."""
        return self.deadline / SECOND

    @property
    def now(self) -> int:
        """The time of the store's own clock, in microseconds."""
        return int(self.clock() * SECOND)


class Environment:
    """An open environment with its tables, its locks and its space on the disk."""

    env: lmdb.Environment
    tables: Tables
    space: Space

    def __init__(self, files: Files, options: Options, register: Register, seconds: float) -> None:
        """Open the environment; `seconds` is how long to wait for other processes.

        Raises:
            SettingError: the file cannot be opened.
            StoreError: another process holds a lock for longer.
        """
        self.files = files
        self.seconds = seconds
        self.copier = Copier(files)
        self._options = options
        self._locks = ExitStack()
        opened = False
        try:
            self.writer = self._lock(files.writer)
            self._opening = self._lock(files.opening)
            self._users = self._lock(files.users)
            with self._opening.held(seconds), self.writer.held(seconds):
                self._users.attempt(shared=True)
                self._prepare()
                self._open()
                opened = True
                self._register(register)
        except BaseException:
            if hasattr(self, "env"):
                # Whoever lacks a key leaves a file that was closed as it was.
                self.close(last=opened)
            self._locks.close()
            raise

    def _lock(self, path: Path) -> FileLock:
        return self._locks.enter_context(closing(FileLock(path)))

    def _prepare(self) -> None:
        """Set data aside that may be torn, and record that they are in use."""
        boot, state = self._options.boot, self.files.read_state()
        if self.files.data.exists():
            crashed = state is None or not (state.clean or state.boot == boot)
            if crashed or (state is not None and state.damaged) or not self._is_sound():
                self._restore("the host crashed" if crashed else "it is damaged")
        if state != State(boot):
            try:
                self.files.write_state(State(boot))
            except OSError as problem:
                raise self._unopened(problem) from problem

    def _is_sound(self) -> bool:
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
            raise self._unopened(problem) from problem

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

    def _restore(self, why: str) -> None:
        if not self._users.attempt():
            raise SettingError(
                f"`{self.files.data}` is to be restored ({why}), and other processes use it: "
                "stop all of them, and start again"
            )
        aside = self.files.set_aside(self._options.clock())
        found = self.files.restore()
        self._users.attempt(shared=True)
        LOG.error(
            "%s: `%s` was set aside as `%s`, and %s",
            why,
            self.files.data,
            aside.name,
            "the last copy restored" if found else "there was no copy: all counters start anew",
        )

    def _open(self) -> None:
        data = self.files.data
        # A smaller map would cut off what others, with a larger one, have in use.
        size = max(self._options.max_size, data.stat().st_size if data.exists() else 0)
        try:
            self.env = lmdb.open(
                str(data),
                subdir=False,
                map_size=size,
                max_dbs=len(Tables._fields),
                max_readers=READERS,
                mode=0o600,
                sync=False,
                writemap=True,
                meminit=False,
                readahead=False,
            )
            self.space = Space(self.env, data)
            self.env.reader_check()
            with self.env.begin(write=True) as transaction:
                self.space.allocate(transaction, USUAL_PAGES)
                # The names in the file are those of the first release.
                self.tables = Tables(*(self.env.open_db(name, transaction) for name in _NAMES))
        except (lmdb.Error, OSError) as problem:
            raise self._unopened(problem) from problem

    def _register(self, register: Register) -> None:
        """Record the timetable of names as it is once this process has started."""
        now, about = self._options.now, self.tables.about
        try:
            with self.env.begin(write=True) as transaction:
                recorded = transaction.get(TIMETABLE, None, about)
                transaction.put(TIMETABLE, register(recorded, now), db=about)
        except (lmdb.Error, OSError) as problem:
            raise self._unopened(problem) from problem

    def _unopened(self, problem: Exception) -> SettingError:
        if "already open in this process" in str(problem):
            folder = self.files.folder
            return SettingError(
                f"`{folder}` is open in this process already: give the same store to every guard"
            )
        return SettingError(f"`{self.files.data}` cannot be opened: {problem}")

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
            self.space = Space(self.env, self.files.data)
            return self.env.begin(write=True)

    def record_damage(self) -> None:
        """Record that the file is damaged: the next to open it alone restores the copy."""
        try:
            self.files.write_state(State(self._options.boot, damaged=True))
        except OSError as problem:
            LOG.error("that `%s` is damaged cannot be recorded: %s", self.files.data, problem)

    def close(self, *, last: bool = True) -> None:
        """Close everything; with `last`, the last process to do so syncs the data first."""
        self.copier.wait()
        try:
            if last:
                with self._opening.held(self.seconds):
                    if self._users.attempt():
                        self._sync()
                    self.env.close()
                    self._users.release()
        except (StoreError, OSError, lmdb.Error) as problem:
            LOG.warning("`%s` is closed without a sync: %s", self.files.data, problem)
        finally:
            self.env.close()
            self._locks.close()

    def _sync(self) -> None:
        self.env.sync(True)
        sync(self.files.data)
        state = self.files.read_state()
        if state is not None and not state.damaged:
            self.files.write_state(State(self._options.boot, clean=True))

"""What a process has of a store: an open database, a turn to write, a transaction at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import Any, cast

import lmdb

from guardrail.errors import SettingError, StoreError
from guardrail.model.amounts import SECOND
from guardrail.stores.lmdb.database import TORN, Database
from guardrail.stores.lmdb.files import Files
from guardrail.stores.lmdb.forking import watch_forks
from guardrail.stores.lmdb.ledger import COPIED, TIMETABLE, Ledger
from guardrail.stores.lmdb.locks import pauses
from guardrail.stores.lmdb.names import Names
from guardrail.stores.lmdb.room import pages_for
from guardrail.stores.lmdb.sweep import Sweep

JUMP = 3600.0
"""Seconds by which a clock may go ahead of what has passed and be believed at once."""
PATIENCE = 5.0
"""Seconds to wait for other processes where no request waits: at the start and at the end."""


class Session:
    """Opens a store's database when it is first needed, and leads its transactions.

    It is closed before the process forks, and opened again by each of the two as it needs it: no
    file, map or lock is ever inherited.
    """

    def __init__(
        self,
        files: Files,
        names: Names,
        *,
        deadline: int,
        max_size: int,
        max_unknown: int,
        copy_every: int,
        boot: str,
        clock: Callable[[], float],
    ) -> None:
        self.files = files
        self.names = names
        self.seconds = deadline / SECOND
        self.max_unknown = max_unknown
        self.copy_every = copy_every
        self._max_size = max_size
        self._boot = boot
        self._clock = clock
        self._threads = threading.Lock()
        self._database: Database | None = None
        self._closed = False
        self._watched = False
        self._sweep = Sweep()
        self._copied = 0
        # When the clock was believed last, by what never jumps, and what it told.
        self._anchor = (monotonic(), clock())
        self._ahead: float | None = None
        self._held = False
        self._transaction: lmdb.Transaction

    def check(self) -> None:
        """Open the database and close it again: what cannot work fails now, not at a request."""
        self._open(PATIENCE).close()

    @property
    def now(self) -> int:
        """The time of the store's own clock, in microseconds."""
        return int(self._clock() * SECOND)

    @property
    def used_bytes(self) -> int:
        """How much of the file is in use, pages free for new records included."""
        env = self._opened().env
        return int((env.info()["last_pgno"] + 1) * env.stat()["psize"])

    def enter(self) -> None:
        """Take the turn to write, waiting for it until the deadline.

        Raises:
            StoreError: others had it for too long, or the store cannot be opened.
        """
        if not self._threads.acquire(timeout=self.seconds):
            raise self._late()
        try:
            writer = self._opened().writer
            if writer.attempt():
                return
            until = monotonic() + self.seconds
            for pause in pauses():
                if monotonic() > until:
                    raise self._late()
                sleep(pause)
                if writer.attempt():
                    return
        except BaseException:
            self._threads.release()
            raise

    def attempts(self) -> Iterator[float]:
        """Take the turn without ever blocking: yield how long to wait before the next attempt.

        Raises:
            StoreError: others had it for too long, or the store cannot be opened.
        """
        until = monotonic() + self.seconds
        for pause in pauses():
            if self._threads.acquire(blocking=False):
                try:
                    if self._opened().writer.attempt():
                        return
                except BaseException:
                    self._threads.release()
                    raise
                self._threads.release()
            if monotonic() > until:
                raise self._late()
            yield pause

    def transaction(self, now: int) -> Ledger:
        """Start a transaction, the turn being taken; at its end the turn is left."""
        database = self._opened()
        try:
            transaction = self._transaction = database.begin()
            try:
                text: Any = transaction.get(TIMETABLE, None, database.homes.about)
                names = self.names.at(text, now)
            except BaseException:
                transaction.abort()
                raise
        except lmdb.Error as problem:
            raise self._failed(database, problem) from problem
        except BaseException:
            self._leave(database)
            raise
        return Ledger(transaction, database.homes, names, now, self.max_unknown, self._end)

    def close(self) -> None:
        """Let go of the database for good; closing twice is harmless."""
        if not self._threads.acquire(timeout=PATIENCE):
            return
        try:
            self._closed = True
            database, self._database = self._database, None
            if database is not None:
                database.close()
        finally:
            self._threads.release()

    def _opened(self) -> Database:
        if self._database is None:
            if self._closed:
                raise StoreError("the store is closed")
            if not self._watched:
                self._watched = True
                watch_forks(self)
            try:
                self._database = self._open(self.seconds)
            except SettingError as problem:
                raise StoreError(str(problem)) from problem
        return self._database

    def _open(self, seconds: float) -> Database:
        return Database(
            self.files,
            max_size=self._max_size,
            boot=self._boot,
            seconds=seconds,
            clock=self._clock,
            register=self.names.start,
        )

    def _end(self, ledger: Ledger, problem: BaseException | None) -> None:
        database, transaction = cast(Database, self._database), self._transaction
        try:
            changes = () if problem else ledger.changes()
            if changes:
                need = pages_for([data for _, data, _, _, _ in changes])
                database.room.make(transaction, need)
                if any(new for _, _, _, new, _ in changes):
                    database.room.keep(transaction, need, database.homes)
                fresh = ledger.write(changes)
                self._sweep.go_on(
                    transaction, fresh, database.homes[1:], min(ledger.now, self._believed())
                )
                copy = self._copy_is_due(database, ledger.now)
                transaction.commit()
                if copy:
                    database.copier.start(database.env)
        except lmdb.Error as failure:
            transaction.abort()
            raise self._failed(database, failure) from failure
        except BaseException:
            transaction.abort()
            self._leave(database)
            raise
        if not changes:
            transaction.abort()
        if isinstance(problem, lmdb.Error):
            raise self._failed(database, problem) from problem
        self._leave(database)

    def _believed(self) -> int:
        """Return the latest time that records are forgotten by, in microseconds.

        A clock that jumps ahead, or a call that says it is a year later, must not end everybody's
        counters: time goes on by as much as passes since the store was opened, and an hour. A
        clock that stays ahead for another hour is right.
        """
        passed, told = monotonic(), self._clock()
        at, since = self._anchor
        if told <= since + passed - at + JUMP:
            self._ahead = None
        elif self._ahead is None:
            self._ahead = passed
        elif passed - self._ahead > JUMP:
            self._anchor, self._ahead = (passed, told), None
        at, since = self._anchor
        return int((since + passed - at + JUMP) * SECOND)

    def _copy_is_due(self, database: Database, now: int) -> bool:
        # A clock that jumped is a reason for a copy, not for none in a long time.
        if abs(now - self._copied) < self.copy_every:
            return False
        text = self._transaction.get(COPIED, None, database.homes.about)
        if text is not None and abs(now - int(text)) < self.copy_every:
            self._copied = int(text)
            return False
        self._copied = now
        self._transaction.put(COPIED, str(now).encode(), db=database.homes.about)
        return text is not None and not database.copier.busy

    def _failed(self, database: Database, problem: lmdb.Error) -> StoreError:
        """Leave the turn after an error, and return what the call ends with."""
        if isinstance(problem, lmdb.MapFullError):
            self._make_way(database)
            told = f"`{self.files.data}` has reached its `max_size`: raise it"
        elif isinstance(problem, TORN):
            database.damaged()
            told = (
                f"`{self.files.data}` is damaged ({problem}): stop all processes that use it; the "
                "first to start again restores the last copy"
            )
        else:
            told = f"`{self.files.data}` cannot be used: {problem}"
            if not database.copier.busy:
                # It may be that only a new environment goes on.
                database.close(last=False)
                self._database = None
                self._threads.release()
                return StoreError(told)
        self._leave(database)
        return StoreError(told)

    def _make_way(self, database: Database) -> None:
        # Without room for a record there may still be some for removing a few.
        with contextlib.suppress(lmdb.Error), database.env.begin(write=True) as transaction:
            self._sweep.make_way(transaction, database.homes, self.now)

    def before_fork(self) -> None:
        """Close the database; no thread is within a transaction then."""
        self._held = self._threads.acquire(timeout=PATIENCE)
        if self._held and self._database is not None:
            self._database.close(last=False)
            self._database = None

    def after_fork(self, child: bool) -> None:
        """Go on; the database is opened when it is needed."""
        if child:
            self._threads = threading.Lock()
            if self._database is not None:
                # The fork did not announce itself.
                self._database.close(last=False)
                self._database = None
        elif self._held:
            self._threads.release()

    def _leave(self, database: Database) -> None:
        database.writer.leave()
        self._threads.release()

    def _late(self) -> StoreError:
        return StoreError(
            f"no turn to write within {self.seconds * 1000:g} ms: another process, or another "
            "thread, holds the lock"
        )

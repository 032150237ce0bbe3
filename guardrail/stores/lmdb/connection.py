"""A process's connection to the store: opened when it is needed, one transaction at a time.

Two locks are held from `acquire` to the end of a transaction, always taken in this order: that of
the process's threads, then the writer's file lock. Whatever ends a transaction releases both.
LMDB's own writer lock has no time-out, and is only ever asked for by who has these.

The environment is closed before the process forks, and opened again by each of the two as it needs
it: no file, map or lock is ever inherited.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from itertools import repeat
from time import monotonic
from types import FrameType
from typing import Any, cast

import lmdb

from guardrail.errors import SettingError, StoreError
from guardrail.model.amounts import SECOND
from guardrail.stores.cells import NestedCallError
from guardrail.stores.lmdb.environment import TORN, Environment, Options
from guardrail.stores.lmdb.locks import pauses
from guardrail.stores.lmdb.recovery import Files
from guardrail.stores.lmdb.space import Expiry, pages_for
from guardrail.stores.lmdb.transaction import (
    COPIED,
    TIMETABLE,
    Change,
    Epochs,
    Tables,
    Transaction,
)

JUMP = 3600.0
"""Seconds by which a clock may go ahead of what has passed and be believed at once."""
PATIENCE = 5.0
"""Seconds to wait for other processes where no request waits: at the start and at the end."""


class Connection:
    """Opens a store's environment when it is first needed, and leads its transactions."""

    def __init__(self, files: Files, epochs: Epochs, options: Options) -> None:
        self.options = options
        self.shared: set[str] = set()
        """The idents of counters that accounts share."""
        self._files = files
        self._epochs = epochs
        self._begin_threads()
        self._environment: Environment | None = None
        self._closed = False
        self._watched = False
        self._held = False
        self._expiry = Expiry()
        self._copied = 0
        # When the clock was believed last, by what never jumps, and what it told.
        self._anchor = (monotonic(), options.clock())
        self._ahead: float | None = None

    def _begin_threads(self) -> None:
        self._threads = threading.Lock()
        # No interrupt comes between a step of an iterator and what follows it: who holds the lock
        # is known, whatever becomes of its call.
        self._tries = map(self._threads.acquire, repeat(False))
        self._takes = map(self._threads.acquire, repeat(True), repeat(self.options.seconds))
        self._holder = 0
        """The thread that holds that lock, 0 if none does."""

    def check(self) -> None:
        """Open the environment and close it: what cannot work fails now, not at a request."""
        self._open(PATIENCE).close()

    @property
    def used_bytes(self) -> int:
        """How much of the file is in use, pages free for new records included."""
        env = self._opened().env
        return int((env.info()["last_pgno"] + 1) * env.stat()["psize"])

    def acquire(self) -> None:
        """Take both locks, waiting for them until the deadline.

        Raises:
            StoreError: others had them for too long, or the store cannot be opened.
            NestedCallError: this thread has them.
        """
        if not self._has_threads():
            thread = threading.get_ident()
            for held in self._takes:
                if held:
                    self._holder = thread
                break
            if self._holder != thread:
                raise self._late()
        try:
            if not self._opened().writer.acquire(self.options.seconds):
                raise self._late()
        except BaseException:
            self._leave()
            raise

    def attempts(self) -> Iterator[float]:
        """Take both locks without ever blocking: yield how long to wait before the next attempt.

        Raises:
            StoreError: others had them for too long, or the store cannot be opened.
        """
        until = monotonic() + self.options.seconds
        for pause in pauses():
            if self._has_threads():
                try:
                    if self._opened().writer.attempt():
                        return
                except BaseException:
                    self._leave()
                    raise
                self._leave()
            if monotonic() > until:
                raise self._late()
            yield pause

    def _has_threads(self) -> bool:
        """Take the lock between threads if it is free, and tell whether this thread has it.

        Raises:
            NestedCallError: it has it for a call that goes on.
        """
        thread = threading.get_ident()
        for held in self._tries:
            if held:
                self._holder = thread
            break
        if self._holder != thread:
            return False
        if not held:
            self._take_over()
        return True

    def _take_over(self) -> None:
        """Go on with the locks that this thread has: its former call was broken off, by a signal.

        Raises:
            NestedCallError: that call goes on, and this one came within it.
        """
        if _is_within_another(sys._getframe(1)):
            raise NestedCallError("the store was asked from within another call to it")
        self._drop()

    def begin(self, now: int) -> Transaction:
        """Start a transaction, both locks being held; its end releases them."""
        environment = self._opened()
        try:
            transaction = environment.begin()
            try:
                text: Any = transaction.get(TIMETABLE, None, environment.tables.about)
                names = self._epochs.names(text, now)
            except BaseException:
                transaction.abort()
                raise
        except lmdb.Error as problem:
            raise self._failed(environment, problem) from problem
        except BaseException:
            self._release(environment)
            raise
        most_unknown = self.options.max_unknown
        tables, shared = environment.tables, self.shared
        return Transaction(transaction, tables, names, now, most_unknown, shared, self._end)

    @contextlib.contextmanager
    def read(self) -> Iterator[tuple[lmdb.Transaction, Tables]]:
        """Let the file be read as it stands, for tools: nobody who writes waits for that.

        Raises:
            StoreError: the store cannot be opened, or read.
        """
        environment = self._opened()
        try:
            with environment.env.begin() as transaction:
                yield transaction, environment.tables
        except lmdb.Error as problem:
            raise StoreError(f"`{self._files.data}` cannot be read: {problem}") from problem

    def close(self) -> None:
        """Close the environment for good; closing twice is harmless."""
        if not self._threads.acquire(timeout=PATIENCE):
            return
        try:
            self._closed = True
            environment, self._environment = self._environment, None
            if environment is not None:
                environment.close()
        finally:
            self._threads.release()

    def _opened(self) -> Environment:
        if self._environment is None:
            if self._closed:
                raise StoreError("the store is closed")
            if not self._watched:
                self._watched = True
                _watch_forks(self)
            try:
                self._environment = self._open(self.options.seconds)
            except SettingError as problem:
                raise StoreError(str(problem)) from problem
        return self._environment

    def _open(self, seconds: float) -> Environment:
        return Environment(self._files, self.options, self._epochs.start, seconds)

    def _end(self, transaction: Transaction, problem: BaseException | None) -> None:
        environment = cast(Environment, self._environment)
        try:
            changes = [] if problem else transaction.changes()
            if changes:
                copy = self._write(environment, transaction, changes)
                transaction.lmdb.commit()
                if copy:
                    environment.copier.start(environment.env)
        except lmdb.Error as failure:
            transaction.lmdb.abort()
            raise self._failed(environment, failure) from failure
        except BaseException:
            transaction.lmdb.abort()
            self._release(environment)
            raise
        if not changes:
            transaction.lmdb.abort()
        if isinstance(problem, lmdb.Error):
            raise self._failed(environment, problem) from problem
        self._release(environment)

    def _write(
        self, environment: Environment, transaction: Transaction, changes: list[Change]
    ) -> bool:
        """Write changes, remove some expired records, and tell whether a copy is due.

        Space comes first: past that point nothing may touch a page that the disk has none for.
        """
        space, tables, need = environment.space, environment.tables, pages_for(changes)
        fresh = [table for _, _, table, new, _ in changes if new]
        space.allocate(transaction.lmdb, need)
        if fresh:
            space.check_reserve(transaction.lmdb, need, tables)
        transaction.write(changes)
        self._expiry.remove_some(
            transaction.lmdb, tables, fresh, lambda: min(transaction.now, self._believed())
        )
        return self._copy_is_due(environment, transaction)

    def _believed(self) -> int:
        """Return the latest time that records are forgotten by, in microseconds.

        A clock that jumps ahead, or a call that says it is a year later, must not end everybody's
        counters: time goes on by as much as passes since the store was opened, and an hour. A
        clock that stays ahead for another hour is right.
        """
        passed, told = monotonic(), self.options.clock()
        at, since = self._anchor
        if told <= since + passed - at + JUMP:
            self._ahead = None
        elif self._ahead is None:
            self._ahead = passed
        elif passed - self._ahead > JUMP:
            self._anchor, self._ahead = (passed, told), None
        at, since = self._anchor
        return int((since + passed - at + JUMP) * SECOND)

    def _copy_is_due(self, environment: Environment, transaction: Transaction) -> bool:
        now, about = transaction.now, environment.tables.about
        # A clock that jumped is a reason for a copy, not for none in a long time.
        if abs(now - self._copied) < self.options.copy_every:
            return False
        text = transaction.lmdb.get(COPIED, None, about)
        if text is not None and abs(now - int(text)) < self.options.copy_every:
            self._copied = int(text)
            return False
        self._copied = now
        transaction.lmdb.put(COPIED, str(now).encode(), db=about)
        return text is not None and not environment.copier.busy

    def _failed(self, environment: Environment, problem: lmdb.Error) -> StoreError:
        """Release the locks after an error, and return what the call ends with."""
        data = self._files.data
        message = f"`{data}` cannot be used: {problem}"
        if isinstance(problem, lmdb.MapFullError):
            message = f"`{data}` has reached its `max_size`: raise it"
            # Without space for a record there may still be some for removing a few.
            with contextlib.suppress(lmdb.Error), environment.env.begin(write=True) as transaction:
                self._expiry.remove_many(transaction, environment.tables, self.options.now)
        elif isinstance(problem, TORN):
            environment.record_damage()
            message = (
                f"`{data}` is damaged ({problem}): stop all processes that use it; the first to "
                "start again restores the last copy"
            )
        elif not environment.copier.busy:
            # It may be that only a new environment goes on; closing this one releases its lock.
            environment.close(last=False)
            self._environment = None
            self._leave()
            return StoreError(message)
        self._release(environment)
        return StoreError(message)

    def before_fork(self) -> None:
        """Close the environment; no thread is within a transaction then."""
        self._held = self._threads.acquire(timeout=PATIENCE)
        if self._held:
            self._drop()

    def after_fork(self, child: bool) -> None:
        """Go on; the environment is opened when it is needed."""
        if child:
            self._begin_threads()
            # Still open, if the fork did not announce itself.
            self._drop()
        elif self._held:
            self._threads.release()

    def _drop(self) -> None:
        if self._environment is not None:
            self._environment.close(last=False)
            self._environment = None

    def _release(self, environment: Environment) -> None:
        environment.writer.release()
        self._leave()

    def _leave(self) -> None:
        self._holder = 0
        self._threads.release()

    def _late(self) -> StoreError:
        return StoreError(
            f"no turn to write within {self.options.seconds * 1000:g} ms: another process, or "
            "another thread, holds the lock"
        )


_HERE = os.path.dirname(__file__)


def _is_within_another(frame: FrameType | None) -> bool:
    """Tell whether a call to a store came within another: others' frames stand between the two."""
    apart = False
    while frame is not None:
        ours = os.path.dirname(frame.f_code.co_filename) == _HERE
        if ours and apart:
            return True
        apart = apart or not ours
        frame = frame.f_back
    return False


def _watch_forks(connection: Connection) -> None:
    """Tell a connection, for as long as it lives, of every fork of this process."""
    reference = weakref.ref(connection)

    def call(method: Callable[[Connection], None]) -> None:
        living = reference()
        if living is not None:
            method(living)

    os.register_at_fork(
        before=lambda: call(Connection.before_fork),
        after_in_parent=lambda: call(lambda living: living.after_fork(False)),
        after_in_child=lambda: call(lambda living: living.after_fork(True)),
    )

"""What is known of accounts' verifications, in a file that the processes of a host share."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from guardrail.errors import DataError, SettingError
from guardrail.signals.kyc.providers import FINAL, Event

WAIT = 2.0
"""Seconds that a write waits for another process's."""

SHORTEST, LONGEST = 16, 64
"""Bytes of a hash key."""

_RISING = ("unknown", "verified", "pending", "expired", "action_required", "rejected")
"""Statuses in the order in which they go over each other at one time."""

_TABLES = """
CREATE TABLE IF NOT EXISTS accounts (
    account BLOB NOT NULL, final INTEGER NOT NULL, status TEXT NOT NULL, at REAL NOT NULL,
    place INTEGER NOT NULL, PRIMARY KEY (account, final)
) WITHOUT ROWID;
"""
_NEWER = """
INSERT INTO accounts VALUES (?, ?, ?, ?, ?) ON CONFLICT (account, final) DO UPDATE
SET status = excluded.status, at = excluded.at, place = excluded.place
WHERE (excluded.at, excluded.place) > (accounts.at, accounts.place)
"""


class KycLedger:
    """Keeps, for each account, the latest end of a verification and the latest step towards one.

    Events may come often and in any order: each counts by its own time, and those of one time in
    a fixed order, in which no end goes over a rejection. A verified account that begins another
    verification stays verified until that one ends otherwise.

    The file names accounts by keyed hashes, and is made for its owner alone. It is opened when it
    is first asked, in each process and thread; a write waits up to `WAIT` seconds for others.
    """

    def __init__(self, path: str | Path, hash_keys: bytes | Sequence[bytes]) -> None:
        """Take the path of the file, and the keys to name accounts with, the current one first.

        Raises:
            SettingError: there is no key, or one is too short or too long.
        """
        self._keys = (hash_keys,) if isinstance(hash_keys, bytes) else tuple(hash_keys)
        if not self._keys or not all(SHORTEST <= len(key) <= LONGEST for key in self._keys):
            raise SettingError(
                f"the ledger `{path}` needs the store's hash key, {SHORTEST} to {LONGEST} bytes"
            )
        self._path = str(path)
        self._local = threading.local()

    def take(self, event: Event) -> bool:
        """Keep what an event says; tell whether it changed anything.

        Raises:
            DataError: the file cannot be written, or the account is no text.
        """
        place = _RISING.index(event.status)
        name = self._names(event.account)[0]
        row = (name, event.status in FINAL, event.status, event.at, place)
        try:
            taken = self._connection().execute(_NEWER, row)
        except sqlite3.Error as problem:
            raise DataError(f"the ledger `{self._path}` is not writable: {problem}") from problem
        return bool(taken.rowcount)

    def status(self, account: str) -> str:
        """Return an account's status, `unknown` if nothing was told of it.

        Raises:
            DataError: the file cannot be read, or the account is no text.
        """
        names = self._names(account)
        # Under a former key there may be older rows of the same account.
        marks = ",".join("?" * len(names))
        question = (
            f"SELECT final, status, at FROM accounts WHERE account IN ({marks}) ORDER BY at, place"
        )
        try:
            rows = self._connection().execute(question, names).fetchall()
        except sqlite3.Error as problem:
            raise DataError(f"the ledger `{self._path}` is not readable: {problem}") from problem
        latest = {bool(final): (str(status), at) for final, status, at in rows}
        end, step = latest.get(True), latest.get(False)
        if end is None or (step is not None and end[0] != "verified" and step[1] > end[1]):
            end = step
        return "unknown" if end is None else end[0]

    def close(self) -> None:
        """Let go of this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _names(self, account: str) -> tuple[bytes, ...]:
        try:
            text = account.encode()
        except UnicodeEncodeError as problem:
            raise DataError("the account is no text: it has half a character") from problem
        return tuple(
            blake2b(text, key=key, digest_size=16, person=b"kyc account").digest()
            for key in self._keys
        )

    def _connection(self) -> sqlite3.Connection:
        """Return this thread's connection, made anew after a fork."""
        local = self._local
        if getattr(local, "connection", None) is None or local.process != os.getpid():
            # What a fork left is neither used nor closed: its locks are the other process's.
            local.inherited = getattr(local, "connection", None)
            local.connection, local.process = self._opened(), os.getpid()
        found: sqlite3.Connection = local.connection
        return found

    def _opened(self) -> sqlite3.Connection:
        with suppress(OSError):
            # Only of a new file: to close another one here would free the locks that SQLite has.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self._path, timeout=WAIT, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_TABLES)
        except BaseException:
            connection.close()
            raise
        return connection

"""What is known of accounts' verifications, in a file that the processes of a host share."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

from guardrail.errors import DataError
from guardrail.signals.kyc.providers import Event

FINAL = frozenset({"verified", "rejected", "expired"})
"""Statuses that end a verification; others never go over them."""

WAIT = 2.0
"""Seconds that a write waits for another process's."""

_TABLES = """
CREATE TABLE IF NOT EXISTS accounts (
    account TEXT NOT NULL, final INTEGER NOT NULL, status TEXT NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (account, final)
) WITHOUT ROWID;
"""
_NEWER = """
INSERT INTO accounts VALUES (?, ?, ?, ?) ON CONFLICT (account, final) DO UPDATE
SET status = excluded.status, at = excluded.at
WHERE excluded.at > accounts.at OR (excluded.at = accounts.at AND excluded.status <> 'verified')
"""


class KycLedger:
    """Keeps, for each account, the latest end of a verification and the latest step towards one.

    Events may come often and in any order: each counts by its own time, so that none does a
    second time. Of two that tell the same time, the one that does not verify counts. A verified
    account that begins another verification stays verified until that one ends otherwise.
    """

    def __init__(self, path: str | Path) -> None:
        """Take the path of the file, which is made if there is none.

        Raises:
            DataError: it cannot be opened.
        """
        self._path = str(path)
        self._local = threading.local()
        try:
            self._connection().executescript(_TABLES)
        except sqlite3.Error as problem:
            raise DataError(f"the ledger `{path}` cannot be opened: {problem}") from problem

    def take(self, event: Event) -> bool:
        """Keep what an event says; tell whether it changed anything.

        Raises:
            DataError: the file cannot be written.
        """
        row = (event.account, event.status in FINAL, event.status, event.at)
        try:
            taken = self._connection().execute(_NEWER, row)
        except sqlite3.Error as problem:
            raise DataError(f"the ledger `{self._path}` is not writable: {problem}") from problem
        return bool(taken.rowcount)

    def status(self, account: str) -> str:
        """Return an account's status, `unknown` if nothing was told of it.

        Raises:
            DataError: the file cannot be read.
        """
        question = "SELECT final, status, at FROM accounts WHERE account = ? ORDER BY final DESC"
        try:
            rows = self._connection().execute(question, (account,)).fetchall()
        except sqlite3.Error as problem:
            raise DataError(f"the ledger `{self._path}` is not readable: {problem}") from problem
        if not rows:
            return "unknown"
        _, status, at = rows[0]
        if len(rows) > 1 and status != "verified" and rows[1][2] > at:
            status = rows[1][1]
        return str(status)

    def close(self) -> None:
        """Let go of this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _connection(self) -> sqlite3.Connection:
        """Return this thread's connection, made anew after a fork."""
        local = self._local
        if getattr(local, "connection", None) is None or local.process != os.getpid():
            connection = sqlite3.connect(self._path, timeout=WAIT, isolation_level=None)
            connection.execute("PRAGMA journal_mode=WAL")
            local.connection, local.process = connection, os.getpid()
        found: sqlite3.Connection = local.connection
        return found

"""What is known of accounts' verifications: the file it stands in, the webhooks that tell it."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from guardrail.errors import DataError, SettingError
from guardrail.signals.kyc.providers import FINAL, TOLERANCE, Event, Provider, event_of, is_signed

WAIT = 2.0
"""Seconds that a write waits for another process's."""

SHORTEST, LONGEST = 16, 64
"""Bytes of a hash key."""

_RISING = ("unknown", "verified", "pending", "expired", "action_required", "rejected")
"""Statuses in the order in which they go over each other at one time."""

_STEPS = b""
"""Stands for the attempt of what is on its way: of all attempts, the latest step is kept."""

_TABLES = """
CREATE TABLE IF NOT EXISTS attempts (
    account BLOB NOT NULL, session BLOB NOT NULL, ending TEXT NOT NULL, status TEXT NOT NULL,
    at REAL NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (account, session, ending)
) WITHOUT ROWID;
"""
_FORMER = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'accounts'"
_TAKEN_OVER = """
INSERT OR IGNORE INTO attempts
SELECT account, x'', CASE final WHEN 1 THEN status ELSE '' END, status, at, place FROM accounts
"""
# Of each attempt the latest event of each ending is kept, so that any order of arrival ends alike.
_NEWER = """
INSERT INTO attempts VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (account, session, ending) DO UPDATE
SET status = excluded.status, at = excluded.at, place = excluded.place
WHERE (excluded.at, excluded.place) > (attempts.at, attempts.place)
"""


class KycLedger:
    """Keeps, for each account, how each attempt to verify it ended, and the latest step of one.

    Events may come often and in any order: each counts by its own time, and those of one time in
    a fixed order, in which no end goes over a rejection. What one attempt ended with changes by
    its own events alone: a verified account that begins another verification, or cancels it,
    stays verified. A rejection stands whatever other attempts end with, until its own attempt
    ends as verified, or the host `lift`s it.

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
        final = event.status in FINAL
        names = self._names(event.account)
        attempt = blake2b(event.session.encode(), digest_size=16).digest()
        session = attempt if final and event.session else _STEPS
        try:
            connection = self._connection()
            name = self._kept_under(connection, names, session) if final else names[0]
            ending = event.status if final else ""
            row = (name, session, ending, event.status, event.at, place)
            taken = connection.execute(_NEWER, row)
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
            f"SELECT session, status FROM attempts WHERE account IN ({marks}) ORDER BY at, place"
        )
        try:
            rows = self._connection().execute(question, names).fetchall()
        except sqlite3.Error as problem:
            raise DataError(f"the ledger `{self._path}` is not readable: {problem}") from problem
        ends: dict[bytes, str] = {}
        for session, status in rows:
            rejected = ends.get(session) == "rejected"
            if status in FINAL and (status == "verified" or not rejected):
                ends[session] = status
        for standing in ("rejected", "verified"):
            if standing in ends.values():
                return standing
        return str(rows[-1][1]) if rows else "unknown"

    def lift(self, account: str) -> bool:
        """Take back an account's rejections, after an appeal say; tell whether there were any.

        What is left of its other attempts stands; an event that tells of a rejected one again is
        taken again.

        Raises:
            DataError: the file cannot be written, or the account is no text.
        """
        names = self._names(account)
        marks = ",".join("?" * len(names))
        change = f"DELETE FROM attempts WHERE status = 'rejected' AND account IN ({marks})"
        try:
            lifted = self._connection().execute(change, names)
        except sqlite3.Error as problem:
            raise DataError(f"the ledger `{self._path}` is not writable: {problem}") from problem
        return bool(lifted.rowcount)

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

    def _kept_under(
        self, connection: sqlite3.Connection, names: Sequence[bytes], session: bytes
    ) -> bytes:
        """Return the name that an attempt's end is kept under: a former one, or the current one."""
        question = "SELECT 1 FROM attempts WHERE account = ? AND session = ? AND ending != ''"
        for name in names[1:]:
            if connection.execute(question, (name, session)).fetchone():
                return name
        return names[0]

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
            if connection.execute(_FORMER).fetchone():
                connection.execute(_TAKEN_OVER)
        except BaseException:
            connection.close()
            raise
        return connection


class KycSignal:
    """Tells an account's `kyc.status`; policies declare it, as a server fact of those values.

    A request path never asks a provider: what webhooks told before is all there is to know.
    """

    provides = frozenset({"kyc.status"})
    needs = frozenset({"account.id"})
    sources: tuple[str, ...] = ()

    def __init__(self, ledger: KycLedger) -> None:
        self._ledger = ledger

    def facts(self, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        """Return the status of the account, `unknown` if nothing was told of it.

        Raises:
            DataError: the ledger cannot be read.
        """
        return {"kyc.status": self._ledger.status(str(known["account.id"]))}


LOG = logging.getLogger("guardrail")

MOST_BYTES = 1 << 18
SHORTEST_SECRET = 16
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


class KycWebhooks:
    """What a host's own endpoint hands webhooks to, and answers their status with.

    `secrets` are those that the providers sign with, by the provider's name.

    Raises:
        SettingError: a provider is not known, or its secret is too short to be one.
    """

    def __init__(self, ledger: KycLedger, secrets: Mapping[str, str]) -> None:
        self._ledger = ledger
        self._secrets: dict[Provider, bytes] = {}
        for name, secret in secrets.items():
            known = [provider.value for provider in Provider]
            if name not in known:
                raise SettingError(f"`{name}` is no provider: it can be {', '.join(known)}")
            if len(secret) < SHORTEST_SECRET:
                raise SettingError(f"the secret of `{name}` is shorter than {SHORTEST_SECRET}")
            self._secrets[Provider(name)] = secret.encode()

    def receive(
        self, provider: str, headers: Iterable[tuple[str, str]], body: bytes, now: float
    ) -> int:
        """Take one webhook at `now` (seconds since the epoch); return the status to answer.

        204: taken, or known already, or of no account. 400: not signed as it must be, stale, of a
        time to come, or not readable. 404: no such provider here. 503: it could not be kept; the
        provider will send it again. It may wait some seconds for a file that others write: an
        event loop calls it in a thread.
        """
        of = next((each for each in self._secrets if each.value == provider), None)
        if of is None:
            return 404
        named = {name.lower(): value for name, value in headers}
        if len(body) > MOST_BYTES or not is_signed(of, named, body, self._secrets[of], now):
            LOG.warning("a webhook of `%s` is not signed as it must be; it is not taken", provider)
            return 400
        try:
            event = event_of(of, json.loads(body))
        except _UNREADABLE:
            LOG.warning("a webhook of `%s` is of another shape than expected", provider)
            return 400
        # Taken, it would go over all that happens until then.
        if event is not None and event.at > now + TOLERANCE:
            LOG.warning("a webhook of `%s` tells of a time to come; it is not taken", provider)
            return 400
        try:
            if event is not None and not self._ledger.take(event):
                LOG.info("a webhook of `%s` tells nothing new: %s", provider, event.id)
        except DataError as problem:
            LOG.error("a webhook of `%s` is not kept: %s", provider, problem)
            return 503
        return 204

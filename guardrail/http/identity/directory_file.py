"""A directory in a file, YAML or CSV: read whole or not at all, and again when it changes.

YAML, with the entries of one account a map each::

    guardrail_directory: 1
    accounts:
      - credentials: [1f2e3d4c.CBw-jQugc9CtTj29A-vLeMv7]
        account.id: acct_42
        account.tier: verified

CSV, with a column for each fact, the credential's among them; an empty cell is no value::

    credential,account.id,account.tier
    1f2e3d4c.CBw-jQugc9CtTj29A-vLeMv7,acct_42,verified

A credential is named by the id of a hash key and the keyed hash it gives, never by the key itself:
`python -m guardrail.http.identity` makes it.
"""

from __future__ import annotations

import asyncio
import csv
import io
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from guardrail.errors import DataError, Diagnostic, SettingError, Span
from guardrail.loading import (
    Entry,
    Findings,
    ListNode,
    MapNode,
    Node,
    Scalar,
    Scope,
    did_you_mean,
    kind_of,
    quoted,
    read_yaml,
    typed,
)
from guardrail.model.facts import Fact, FactType
from guardrail.signals.directory import (
    REPORT_EVERY,
    Credential,
    Identity,
    SourceHealth,
    Vocabulary,
    credential_id,
)
from guardrail.stores.naming import key_id

_WRITTEN = re.compile(r"([0-9a-f]{8})\.[A-Za-z0-9_-]{24}")


class UnknownHashKeyError(ValueError):
    """A credential is written with a hash key that is not given."""


def written(secret: bytes | str, hash_key: bytes) -> str:
    """Return how a file names a credential: `1f2e3d4c.` and its keyed hash, 24 characters."""
    return f"{key_id(hash_key)}.{credential_id(secret, hash_key)}"


class WrittenNames:
    """Reads credentials as files name them, and names those of requests alike."""

    __slots__ = ("_keys",)

    def __init__(self, hash_keys: Sequence[bytes]) -> None:
        """Take the hash keys, the one that credentials of requests are hashed with first."""
        self._keys: Mapping[str, bytes] = {key_id(key): key for key in hash_keys}

    def key_of(self, text: object) -> str:
        """Return the id of the hash key a name is written with.

        Raises:
            UnknownHashKeyError: that key is not given.
            ValueError: the text is no such name.
        """
        match = _WRITTEN.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            # The text is not shown: it may be the key itself, written here by mistake.
            raise ValueError("is not a credential's keyed hash")
        if match[1] not in self._keys:
            raise UnknownHashKeyError(f"is made with the hash key `{match[1]}`, which is not given")
        return match[1]

    def of(self, credential: Credential, key: str) -> str:
        """Return the name of a request's credential under one of the hash keys, by its id."""
        current = next(iter(self._keys))
        if key == current:
            return f"{key}.{credential.id}"
        return written(credential.secret.reveal(), self._keys[key])


VERSION = "guardrail_directory"
_INTEGER, _NUMBER = re.compile(r"-?[0-9]{1,20}"), re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")
_STATUS = "enforcement.status"
RESTRICTING = ("restricted", "banned")
"""The values of `enforcement.status` that must not be missed."""

_UNRESTRICTED = "unrestricted"
_LESS = (_UNRESTRICTED, "pending")

_NAMES = ("credential", "credentials")
_MAKE = "make it with `python -m guardrail.http.identity`"


class Table(NamedTuple):
    """Facts by the written names of credentials, and the ids of the hash keys in use."""

    facts: Mapping[str, Mapping[str, object]]
    keys: frozenset[str]


class Entries:
    """Reads one file's text; what is wrong is reported to `findings`."""

    def __init__(
        self, file: str, text: str, facts: Mapping[str, Fact], names: WrittenNames
    ) -> None:
        self.findings = Findings()
        self.findings.add_source(file, text)
        self._file = file
        self._text = text
        self._facts = facts
        self._names = names
        self._scope = Scope(self.findings, facts=dict(facts))
        self._able = Vocabulary(facts).provides
        self._table: dict[str, dict[str, object]] = {}
        self._keys: set[str] = set()
        self.restricted: set[str] = set()
        """The accounts that the file restricts or bans, as far as it can be read."""

    def table(self, is_csv: bool) -> Table:
        """Return what the file holds, as far as nothing is wrong with it."""
        for node in self._rows() if is_csv else self._accounts():
            self._account(node)
        if not self._table and not self.findings.diagnostics:
            # This is what a failed download or a torn write leaves.
            self.findings.report_file("GR108", self._file, "the file lists no account")
        return Table(self._table, frozenset(self._keys))

    def _accounts(self) -> Iterator[MapNode]:
        root = read_yaml(self._text, self._file, self.findings.diagnostics)
        if root is None:
            return
        if not isinstance(root, MapNode):
            self._report(root, f"a directory is a map, not {kind_of(root)}")
            return
        for entry in root.entries:
            if entry.key.text not in (VERSION, "accounts"):
                self._unknown(entry.key, (VERSION, "accounts"), "key")
        version, accounts = root.get(VERSION), root.get("accounts")
        if not isinstance(version, Scalar) or version.value != 1:
            self._report(version or root, f"start with `{VERSION}: 1`")
        if not isinstance(accounts, ListNode):
            self._report(accounts or root, "write the accounts as a list under `accounts`")
            return
        for part in accounts.parts:
            if isinstance(part, MapNode):
                yield part
            else:
                self._report(part, f"an account is a map, not {kind_of(part)}")

    def _rows(self) -> Iterator[MapNode]:
        reader = csv.reader(io.StringIO(self._text.removeprefix("\ufeff"), newline=""))
        try:
            header = [name.strip() for name in next(reader, [])]
            keys = [self._scalar(1, name) for name in header]
            for name in {name for name in header if header.count(name) > 1}:
                self._report(keys[header.index(name)], f"two columns are called `{name}`", "GR103")
            for row in reader:
                line = min(reader.line_num, self._text.count("\n") + 1)
                if len(row) > len(header):
                    self._report(self._scalar(line, ""), "the line has more cells than the header")
                elif row:
                    entries = [
                        Entry(key, self._cell(line, key.text, text.strip()))
                        for key, text in zip(keys, row, strict=False)
                        if text.strip()
                    ]
                    yield MapNode(tuple(entries), self._span(line))
        except csv.Error as problem:
            self._report(self._scalar(1, ""), f"the file is no CSV: {problem}")

    def _account(self, node: MapNode) -> None:
        facts: dict[str, object] = {}
        credentials: list[Node] = []
        for entry in node.entries:
            name = entry.key.text
            if name in _NAMES:
                value = entry.value
                credentials += value.parts if isinstance(value, ListNode) else (value,)
            elif name not in self._able:
                self._unknown(entry.key, (*sorted(self._able), *_NAMES), "fact of a directory")
            else:
                facts[name] = typed(self._facts[name], entry.value, self._scope)
        # A status that cannot be read may be a ban.
        if facts.get(_STATUS, _UNRESTRICTED) not in _LESS:
            self.restricted.add(str(facts.get("account.id") or node.span))
        if not facts.get("account.id"):
            self._report(node, "an account needs an `account.id`", "GR111")
        if not credentials:
            self._report(node, f"an account needs a `credential`; {_MAKE}", "GR111")
        for credential in credentials:
            self._add(credential, facts)

    def _add(self, node: Node, facts: dict[str, object]) -> None:
        text = node.value if isinstance(node, Scalar) else None
        try:
            self._keys.add(self._names.key_of(text))
        except UnknownHashKeyError as problem:
            self._report(node, f"a credential {problem}")
            return
        except ValueError as problem:
            self._report(node, f"what is written for a credential {problem}; {_MAKE}")
            return
        if text in self._table:
            self._report(node, f"the credential `{text}` stands twice", "GR103")
        self._table[str(text)] = facts

    def _unknown(self, key: Scalar, known: tuple[str, ...], kind: str) -> None:
        hint = did_you_mean(key.text, known, kind)
        self._report(key, f"{quoted(key.text)} is no {kind}; {hint}", "GR101")

    def _cell(self, line: int, name: str, text: str) -> Node:
        kind = self._facts[name].type if name in self._facts else FactType.STRING
        value: bool | int | float | str = text
        if kind is FactType.LIST:
            parts = tuple(self._scalar(line, part.strip()) for part in text.split(","))
            return ListNode(parts, self._span(line))
        if kind is FactType.BOOL and text in ("true", "false"):
            value = text == "true"
        elif kind in (FactType.INTEGER, FactType.NUMBER) and _INTEGER.fullmatch(text):
            value = int(text)
        elif kind is FactType.NUMBER and _NUMBER.fullmatch(text):
            value = float(text)
        return Scalar(value, text, isinstance(value, str), self._span(line))

    def _scalar(self, line: int, text: str) -> Scalar:
        return Scalar(text, text, True, self._span(line))

    def _span(self, line: int) -> Span:
        return Span(self._file, line, 1, line, 1)

    def _report(self, node: Node, message: str, code: str = "GR102") -> None:
        self.findings.report(code, node, message)


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

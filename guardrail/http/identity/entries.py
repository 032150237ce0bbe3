"""The text of a directory file, YAML or CSV, as facts by credential.

YAML, with the entries of one account a map each::

    guardrail_directory: 1
    accounts:
      - credentials: [1f2e3d4c.CBw-jQugc9CtTj29A-vLeMv7]
        account.id: acct_42
        account.tier: verified

CSV, with a column for each fact, the credential's among them; an empty cell is no value::

    credential,account.id,account.tier
    1f2e3d4c.CBw-jQugc9CtTj29A-vLeMv7,acct_42,verified

A credential is a keyed hash, never the key: `python -m guardrail.http.identity` makes it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from guardrail.errors import Span
from guardrail.http.identity.hashing import UnknownHashKeyError, WrittenNames
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
from guardrail.signals.directory import Vocabulary

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

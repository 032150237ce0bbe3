"""The named lists of a policy set, inline or from a file, read as the types they are used as."""

from __future__ import annotations

import ipaddress
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from guardrail.errors import Span
from guardrail.loading.files import PolicyFile
from guardrail.loading.findings import Place, Scope
from guardrail.loading.nodes import Entry, ListNode, MapNode, Node, Scalar, kind_of
from guardrail.loading.notation import NotationError, as_fact_of_texts, report_notation, typed
from guardrail.loading.shaping import report_unknown_key
from guardrail.loading.suggest import did_you_mean
from guardrail.loading.text import quoted
from guardrail.model.facts import Fact, FactType

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
T = TypeVar("T")

_NUMBERS = (FactType.INTEGER, FactType.NUMBER)


@dataclass(frozen=True, slots=True)
class NamedList:
    """A list as declared: its entries, none of them a list; a file's lines are all texts."""

    entries: tuple[Node, ...]
    from_file: bool


@dataclass(slots=True)
class Lists:
    """Reads named and inline lists; what a named list holds is checked once per use it has."""

    scope: Scope
    named: dict[str, NamedList] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    _read: dict[tuple[str, str, str], object] = field(default_factory=dict)

    def values(self, fact: Fact, node: Node, entries: tuple[Node, ...]) -> frozenset[object] | None:
        """Return the entries of a list under `in` or `not_in` as values of a fact."""
        return self._members("value", fact, node, entries, typed, frozenset)

    def networks(
        self, fact: Fact, node: Node, entries: tuple[Node, ...]
    ) -> tuple[Network, ...] | None:
        """Return the entries of a list under `cidr` as networks."""
        return self._members("network", fact, node, entries, _network, tuple)

    def prefixes(self, fact: Fact, node: Node, entries: tuple[Node, ...]) -> tuple[str, ...] | None:
        """Return the entries of a list under `prefix`, none of them empty."""
        return self._members("prefix", fact, node, entries, _prefix, tuple)

    def _members(
        self,
        use: str,
        fact: Fact,
        node: Node,
        entries: tuple[Node, ...],
        read: Callable[[Fact, Node, Scope], object | None],
        gather: Callable[..., T],
    ) -> T | None:
        one = as_fact_of_texts(fact)
        name = list_name(node)
        if name is None:
            values = [read(one, entry, self.scope) for entry in entries]
            return None if None in values else gather(values)
        known = self._known(name, node)
        if known is None:
            return None
        cached = (name, fact.name, use)
        if cached not in self._read:
            lines = known.from_file and one.type in _NUMBERS
            entries = tuple(map(_number_line, known.entries)) if lines else known.entries
            found = self.scope.findings.diagnostics
            before = len(found)
            values = [read(one, entry, self.scope) for entry in entries]
            if known.from_file and 2 * values.count(None) > len(values):
                # What is no list may be anything: its lines are for no terminal and no log.
                del found[before:]
                self._not_a_list(name, one, node, values.count(None), len(values))
            self._read[cached] = None if None in values else gather(values)
        return self._read[cached]  # type: ignore[return-value]

    def _not_a_list(self, name: str, fact: Fact, node: Node, wrong: int, lines: int) -> None:
        message = f"the file of list {quoted(name)} is no list of values for {quoted(fact.name)}"
        label = f"{wrong} of its {lines} lines are not of type {fact.type.value}"
        help = "name the file that is meant; the lines of this one are not shown"
        self.scope.report("GR102", node, message, label=label, help=help)

    def _known(self, name: str, node: Node) -> NamedList | None:
        found = self.named.get(name)
        self.used.add(name)
        doubtful = self.scope.partial or f"${name}" in self.scope.doubtful
        if found is None and not doubtful:
            known = tuple(self.named)
            help = did_you_mean(name, known, "lists")
            message = f"unknown list {quoted(name)}"
            self.scope.report("GR107", node, message, help=help)
        return found


def list_name(node: Node) -> str | None:
    """Return the name of the list that `$name` stands for, None for anything else."""
    if isinstance(node, Scalar) and not node.quoted and node.text.startswith("$"):
        return node.text[1:]
    return None


def parse_lines(file: str, text: str) -> tuple[Scalar, ...]:
    """Return the entries of a list file: one value a line, `#` starts a comment."""
    entries = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        value = _without_comment(line).strip()
        if value:
            column = line.find(value) + 1
            span = Span(file, number, column, number, column + len(value))
            entries.append(Scalar(value, value, True, span))
    return tuple(entries)


def _without_comment(line: str) -> str:
    if line.lstrip().startswith("#"):
        return ""
    return line.partition(" #")[0].partition("\t#")[0]


def _number_line(entry: Node) -> Node:
    assert isinstance(entry, Scalar)
    for number in (int, float):
        try:
            return Scalar(number(entry.text), entry.text, False, entry.span)
        except ValueError:
            continue
    return entry


def _network(fact: Fact, entry: Node, scope: Scope) -> Network | None:
    text = entry.value if isinstance(entry, Scalar) else None
    help = "write it as `192.0.2.0/24` or `2001:db8::/32`"
    try:
        if not isinstance(text, str):
            raise ValueError
        try:
            return ipaddress.ip_network(text)
        except ValueError:
            help = f"did you mean `{ipaddress.ip_network(text, strict=False)}`?"
            raise
    except ValueError:
        report_notation(scope, entry, NotationError("is not a network", help, code="GR102"))
        return None


def _prefix(fact: Fact, entry: Node, scope: Scope) -> object | None:
    value = typed(fact, entry, scope)
    if value == "":
        error = NotationError(
            "is empty: every text starts with it", "use `exists: true`", code="GR102"
        )
        report_notation(scope, entry, error)
        return None
    return value


_LARGEST = 16 << 20


def list_texts(
    entry: Entry, source: PolicyFile, scope: Scope, contents: list[tuple[str, bytes]]
) -> tuple[tuple[Node, ...], bool] | None:
    """Return a list's entries, and whether they are the lines of a file.

    A file that was read is added to `contents` by its path within the set. What is wrong is
    reported, and None returned.
    """
    node = entry.value
    if isinstance(node, ListNode):
        return _inline(entry, node, scope)
    if isinstance(node, MapNode) and node.entries:
        return _from_file(node, source, scope, contents)
    help = "write `[A, B]`, or `{file: PATH}`"
    message = f"list {quoted(entry.key.text)} must be a list, not {kind_of(node)}"
    scope.report("GR102", node, message, help=help)
    return None


def _inline(entry: Entry, node: ListNode, scope: Scope) -> tuple[tuple[Node, ...], bool] | None:
    if not node.parts:
        message = f"list {quoted(entry.key.text)} is empty"
        scope.report("GR108", node, message, help="nothing would ever be in it")
        return None
    for part in node.parts:
        if not isinstance(part, Scalar):
            message = f"a list holds single values, not {kind_of(part)}"
            scope.report("GR102", part, message)
            return None
    return node.parts, False


def _from_file(
    node: MapNode, source: PolicyFile, scope: Scope, contents: list[tuple[str, bytes]]
) -> tuple[tuple[Node, ...], bool] | None:
    place = Place(node, scope.findings)
    unknown = [e.key.text for e in node.entries if e.key.text != "file"]
    for name in unknown:
        report_unknown_key(place, (name,), ("file",))
    written = place.at("file")
    if written is node:
        return None
    if not isinstance(written, Scalar) or not isinstance(written.value, str):
        place.report("GR102", ("file",), f"`file` must be a path, not {kind_of(written)}")
        return None
    try:
        content = _read(source, written.value)
    except (OSError, ValueError) as error:
        _unreadable(place, source, written.value, error)
        return None
    name = posixpath.normpath(posixpath.join(posixpath.dirname(source.relative), written.value))
    if (name, content) not in contents:
        contents.append((name, content))
    return _lines(place, source, written.value, content, scope)


def _read(source: PolicyFile, written: str) -> bytes:
    path = source.path.parent / written
    if not path.is_file():
        raise FileNotFoundError("it does not exist" if not path.exists() else "it is not a file")
    if path.stat().st_size > _LARGEST:
        raise OSError("it is larger than 16 MiB")
    return path.read_bytes()


def _unreadable(place: Place, source: PolicyFile, written: str, error: Exception) -> None:
    reason = str(error) if error.args and len(error.args) == 1 else None
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror.lower()
    help = f"it is looked for beside {quoted(source.name)}"
    message = f"cannot read the list file {quoted(written)}"
    place.report("GR102", ("file",), message, label=reason, help=help)


def _lines(
    place: Place, source: PolicyFile, written: str, content: bytes, scope: Scope
) -> tuple[tuple[Node, ...], bool] | None:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        message = f"the list file {quoted(written)} is not UTF-8 text"
        place.report("GR102", ("file",), message, help="save it as UTF-8")
        return None
    file = posixpath.normpath(posixpath.join(posixpath.dirname(source.name), written))
    scope.findings.add_source(file, text)
    entries = parse_lines(file, text)
    if not entries:
        message = f"the list file {quoted(written)} holds no value"
        place.report("GR108", ("file",), message, help="write one value a line")
        return None
    return entries, True

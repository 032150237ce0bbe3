"""The named lists of a policy set, inline or from a file, read as the types they are used as."""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guardrail.errors import Span
from guardrail.loading.files import PolicyFile
from guardrail.loading.findings import Place, Scope
from guardrail.loading.nodes import Entry, ListNode, MapNode, Node, Scalar, kind_of
from guardrail.loading.notation import NotationError, as_fact_of_texts, report_notation, typed
from guardrail.loading.shaping import only_keys
from guardrail.loading.suggest import did_you_mean
from guardrail.loading.text import quoted
from guardrail.model.facts import Fact, FactType

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LARGEST = 16 << 20
_NAMED = re.compile(r"\$(?!\{)")
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
    _read: dict[tuple[str, str, object], object] = field(default_factory=dict)

    def declare(self, entry: Entry, source: PolicyFile, contents: list[tuple[str, bytes]]) -> None:
        """Take over a declared list; what is wrong is reported, and its name doubtful.

        A file that was read is added to `contents` by its path within the set.
        """
        node, kind = entry.value, f"list {quoted(entry.key.text)}"
        declared: NamedList | None = None
        if isinstance(node, MapNode) and node.get("empty") is not None:
            declared = self._empty(Place(node, self.scope.findings))
        elif isinstance(node, MapNode) and node.entries:
            declared = self._from_file(Place(node, self.scope.findings), source, contents)
        elif not isinstance(node, ListNode):
            message = f"{kind} must be a list, not {kind_of(node)}"
            self.scope.report("GR102", node, message, help="write `[A, B]`, or `{file: PATH}`")
        elif not node.parts:
            help = "nothing would ever be in it; write `{empty: intended}` if that is meant"
            self.scope.report("GR108", node, f"{kind} is empty", help=help)
        else:
            nested = next((part for part in node.parts if not isinstance(part, Scalar)), None)
            if nested is None:
                declared = NamedList(node.parts, from_file=False)
            else:
                message = f"a list holds single values, not {kind_of(nested)}"
                self.scope.report("GR102", nested, message)
        if declared is None:
            self.scope.doubtful.add(f"${entry.key.text}")
        else:
            self.named[entry.key.text] = declared

    def _empty(self, place: Place) -> NamedList | None:
        """Take over a list that is said to hold nothing."""
        entries = place.node.entries if isinstance(place.node, MapNode) else ()
        if not only_keys(place, ("empty", "file")):
            return None
        written = place.at("empty")
        if not isinstance(written, Scalar) or written.value != "intended" or len(entries) > 1:
            help = "write `{empty: intended}` alone, or list the values"
            place.report(
                "GR102", ("empty",), "a list is empty only as `empty: intended`", help=help
            )
            return None
        return NamedList((), from_file=False)

    def _from_file(
        self, place: Place, source: PolicyFile, contents: list[tuple[str, bytes]]
    ) -> NamedList | None:
        only_keys(place, ("file",))
        node, at = place.at("file"), ("file",)
        if node is place.node:
            return None
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            place.report("GR102", at, f"`file` must be a path, not {kind_of(node)}")
            return None
        written, name = node.value, f"the list file {quoted(node.value)}"
        try:
            content = _content(source.path.parent / written)
        except (OSError, ValueError) as error:
            reason = str(error) if len(error.args) == 1 else None
            if isinstance(error, OSError) and error.strerror:
                reason = error.strerror.lower()
            help = f"it is looked for beside {quoted(source.name, whole=True)}"
            place.report("GR102", at, f"cannot read {name}", label=reason, help=help)
            return None
        within = posixpath.normpath(posixpath.join(posixpath.dirname(source.relative), written))
        if (within, content) not in contents:
            contents.append((within, content))
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            place.report("GR102", at, f"{name} is not UTF-8 text", help="save it as UTF-8")
            return None
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source.name), written))
        self.scope.findings.add_source(file, text)
        lines = parse_lines(file, text)
        if not lines:
            place.report("GR108", at, f"{name} holds no value", help="write one value a line")
            return None
        return NamedList(lines, from_file=True)

    def values(self, operator: str, fact: Fact, node: Node, entries: tuple[Node, ...]) -> Any:
        """Return the entries of a list as an operator compares a fact with them.

        That is a tuple of networks for `cidr`, of texts for `prefix`, and a set of values for all
        others; None if something is wrong, which is reported.
        """
        read, gather = _READERS.get(operator, (typed, frozenset))
        one = as_fact_of_texts(fact)
        name = list_name(node)
        if name is None:
            values = [read(one, entry, self.scope) for entry in entries]
            return None if None in values else gather(values)
        known = self._known(name, node)
        if known is None:
            return None
        cached = (name, fact.name, read)
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
        return self._read[cached]

    def _not_a_list(self, name: str, fact: Fact, node: Node, wrong: int, lines: int) -> None:
        message = f"the file of list {quoted(name)} is no list of values for {quoted(fact.name)}"
        label = f"{wrong} of its {lines} lines are not of type {fact.type.value}"
        help = "name the file that is meant; the lines of this one are not shown"
        self.scope.report("GR102", node, message, label=label, help=help)

    def _known(self, name: str, node: Node) -> NamedList | None:
        found = self.named.get(name)
        doubtful = self.scope.partial or f"${name}" in self.scope.doubtful
        if found is None and not doubtful:
            help = did_you_mean(name, self.named, "lists")
            self.scope.report("GR107", node, f"unknown list {quoted(name)}", help=help)
        return found


def list_name(node: Node) -> str | None:
    """Return the name of the list that `$name` stands for, None for anything else."""
    if isinstance(node, Scalar) and not node.quoted and _NAMED.match(node.text):
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


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError("it does not exist" if not path.exists() else "it is not a file")
    if path.stat().st_size > _LARGEST:
        raise OSError("it is larger than 16 MiB")
    return path.read_bytes()


_Reader = Callable[[Fact, Node, Scope], object | None]
_READERS: dict[str, tuple[_Reader, Callable[[list[object]], object]]] = {
    "cidr": (_network, tuple),
    "prefix": (_prefix, tuple),
}

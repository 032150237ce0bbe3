"""The named lists of a policy set, inline or from a file, read as the types they are used as."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from guardrail.errors import Span
from guardrail.loading.findings import Scope
from guardrail.loading.nodes import Node, Scalar
from guardrail.loading.notation import NotationError
from guardrail.loading.suggest import did_you_mean, nearest
from guardrail.loading.text import quoted
from guardrail.loading.values import as_fact_of_texts, report_notation, typed
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
        self.scope.findings.report("GR102", node.span, message, label=label, help=help)

    def _known(self, name: str, node: Node) -> NamedList | None:
        found = self.named.get(name)
        self.used.add(name)
        doubtful = self.scope.partial or f"${name}" in self.scope.doubtful
        if found is None and not doubtful:
            known = tuple(self.named)
            help = did_you_mean(name, nearest(name, known), known, "lists")
            message = f"unknown list {quoted(name)}"
            self.scope.findings.report("GR107", node.span, message, help=help)
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

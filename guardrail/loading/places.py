"""Where the parts of a construct stand, and the plain values its shape is checked on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

from guardrail.errors import Span
from guardrail.loading.findings import Findings
from guardrail.loading.nodes import ListNode, MapNode, Node, Scalar

Path = tuple[str | int, ...]


class Nothing:
    """The value of a key with nothing after it, which no construct takes for an absent key."""


NOTHING: Final = Nothing()


def plain(node: Node) -> object:
    """Return a node as plain data: dicts, lists, and scalars, decimals kept exact."""
    if type(node) is Scalar:
        value = node.value
        if value is None:
            return NOTHING
        return _exact(node) if type(value) is float else value
    if type(node) is MapNode:
        return {entry.key.text: plain(entry.value) for entry in node.entries}
    assert type(node) is ListNode
    return [plain(part) for part in node.parts]


def plain_but(node: MapNode, kept: Collection[str]) -> dict[str, object]:
    """Return a map as plain data, the values under some of its keys left out."""
    return {
        entry.key.text: None if entry.key.text in kept else plain(entry.value)
        for entry in node.entries
    }


def _exact(node: Scalar) -> object:
    try:
        exact = Decimal(node.text)
    except InvalidOperation:
        return node.value
    return exact if exact.is_finite() else node.value


def kind_of(node: Node) -> str:
    """Return what a node is, in the author's words."""
    if isinstance(node, MapNode):
        return "a map"
    if isinstance(node, ListNode):
        return "a list"
    if node.value is None:
        return "nothing"
    if isinstance(node.value, bool):
        return f"`{str(node.value).lower()}`"
    return "text" if isinstance(node.value, str) else "a number"


@dataclass(frozen=True, slots=True)
class Place:
    """A construct in a file: its node, and where errors in it are reported.

    `title` is the node that stands for the whole construct, such as a rule's id.
    """

    node: Node
    findings: Findings
    title: Node | None = None

    def at(self, *path: str | int) -> Node:
        """Return the node at a path, or the nearest one around it."""
        node = self.node
        for name in path:
            inner = _child(node, name)
            if inner is None:
                break
            node = inner
        return node

    def key_span(self, path: Path) -> Span:
        """Return where the last key of a path is written; of the whole construct, its title."""
        node = self.node
        span = (self.title or self.node).span
        for name in path:
            inner = _child(node, name)
            if inner is None:
                break
            span = inner.span
            if isinstance(node, MapNode):
                span = next(e.key.span for e in node.entries if e.key.text == name)
            node = inner
        return span

    def report(
        self,
        code: str,
        path: Path,
        message: str,
        *,
        label: str | None = None,
        help: str | None = None,
    ) -> None:
        """Record an error at the value of a path."""
        self.findings.report(code, self.at(*path).span, message, label=label, help=help)

    def report_key(
        self,
        code: str,
        path: Path,
        message: str,
        *,
        label: str | None = None,
        help: str | None = None,
    ) -> None:
        """Record an error at the key of a path."""
        self.findings.report(code, self.key_span(path), message, label=label, help=help)


def _child(node: Node, name: str | int) -> Node | None:
    if isinstance(node, MapNode) and isinstance(name, str):
        return node.get(name)
    if isinstance(node, ListNode) and isinstance(name, int) and name < len(node.parts):
        return node.parts[name]
    return None

"""YAML as nodes that remember where they stand: the tree every later stage of loading reads."""

from __future__ import annotations

from dataclasses import dataclass

from guardrail.errors import Span


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar: its text, and its value under the YAML 1.2 core schema.

    `value` is None, a bool, an int, a float or a str. `quoted` tells a quoted or block scalar
    (always a str) from a plain one.
    """

    value: bool | int | float | str | None
    text: str
    quoted: bool
    span: Span


@dataclass(frozen=True, slots=True)
class ListNode:
    """A list of nodes."""

    parts: tuple[Node, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Entry:
    """One `key: value` of a mapping; keys are scalars."""

    key: Scalar
    value: Node


@dataclass(frozen=True, slots=True)
class MapNode:
    """A mapping, in the order written; its keys differ."""

    entries: tuple[Entry, ...]
    span: Span

    def get(self, name: str) -> Node | None:
        """Return the value under a key, None if it is absent."""
        for entry in self.entries:
            if entry.key.text == name:
                return entry.value
        return None


Node = Scalar | ListNode | MapNode

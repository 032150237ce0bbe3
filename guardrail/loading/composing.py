"""Builds nodes from the events of a YAML parser, within the bounds of a policy file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
)

from guardrail.errors import Diagnostic, Span
from guardrail.loading.complaints import MAX_EXPANDED, Complaints
from guardrail.loading.findings import quoted
from guardrail.loading.nodes import Entry, ListNode, MapNode, Node, Scalar
from guardrail.loading.scalars import (
    LIST_TAGS,
    MAP_TAGS,
    TEXT_TAGS,
    NumberLengthError,
    TagError,
    Value,
    resolve,
    tagged,
)
from guardrail.loading.source import Source
from guardrail.loading.syntax import MAX_LEVELS

_HALF_CHARACTER: Final = re.compile("[\ud800-\udfff]")


@dataclass(slots=True)
class _Open:
    """A map or list still being read: its start, its parts, and how many levels it is.

    `counted` is the number of nodes before it. The outermost, without a start, holds the root.
    """

    start: CollectionStartEvent | None = None
    counted: int = 0
    parts: list[Node] = field(default_factory=list)
    levels: int = 1


@dataclass(frozen=True, slots=True)
class _Anchored:
    """A node with a name, and its size: nodes with all aliases expanded, levels of nesting."""

    node: Node
    size: int
    levels: int


class Composer:
    """Builds the nodes of one document.

    Its stack is a list, so no text makes it recurse; nesting and aliases are bounded while
    reading, before anything deep or large exists.
    """

    __slots__ = ("_anchors", "_complaints", "_counted", "_end", "_expanded", "_file", "_stack")

    def __init__(self, source: Source, findings: list[Diagnostic]) -> None:
        self._file = source.file
        self._complaints = Complaints(source, findings)
        self._stack = [_Open()]
        self._anchors: dict[str, _Anchored | None] = {}
        self._counted = 0
        self._expanded = 0
        # A mark has a line and a column from 0; those of the two parsers share no type.
        self._end: Any = None

    @property
    def reached(self) -> tuple[int, int]:
        """The line and the column, from 1, where the last value read ends."""
        return (self._end.line + 1, self._end.column + 1) if self._end else (1, 1)

    def compose(self, events: Iterable[Event]) -> Node | None:
        """Return the document's node, None if nothing is written in it.

        What is wrong with one key, tag or alias is reported, and reading goes on without it.

        Raises:
            UnreadableError: nesting, aliases, errors or documents are more than a file may have.
        """
        documents = 0
        for event in events:
            if isinstance(event, ScalarEvent):
                node: Node = self._scalar(event)
            elif isinstance(event, CollectionEndEvent):
                node = self._close(event)
            elif isinstance(event, CollectionStartEvent):
                self._open(event)
                continue
            elif isinstance(event, AliasEvent):
                node = self._alias(event)
            else:
                documents += isinstance(event, DocumentStartEvent)
                if documents > 1:
                    self._complaints.second_document(self._span(event.start_mark, event.end_mark))
                continue
            self._stack[-1].parts.append(node)
        root = self._stack[0].parts[0] if documents else None
        if isinstance(root, Scalar) and not root.text and not root.quoted:
            return None
        return root

    def _span(self, start: Any, end: Any) -> Span:
        return Span(self._file, start.line + 1, start.column + 1, end.line + 1, end.column + 1)

    def _scalar(self, event: ScalarEvent) -> Scalar:
        self._counted += 1
        self._end = event.end_mark
        span = self._span(event.start_mark, event.end_mark)
        text: str = event.value
        plain = event.implicit[0] if event.tag is None else event.tag not in TEXT_TAGS
        if not text.isascii() and _HALF_CHARACTER.search(text):
            self._complaints.half_character(span)
        node = Scalar(self._value(event, span) if plain else text, text, not plain, span)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchored(node, 1, 0)
        return node

    def _value(self, event: ScalarEvent, span: Span) -> Value:
        text: str = event.value
        try:
            return resolve(text) if event.tag is None else tagged(event.tag, text)
        except NumberLengthError:
            self._complaints.long_number(text, span)
        except TagError:
            shown = quoted(text) if text else "nothing"
            self._complaints.wrong_tag(event.tag or "!", shown, span)
        return text

    def _open(self, event: CollectionStartEvent) -> None:
        if len(self._stack) > MAX_LEVELS:
            self._complaints.too_deep(self._span(event.start_mark, event.end_mark))
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._stack.append(_Open(event, self._counted))
        self._counted += 1

    def _close(self, event: CollectionEndEvent) -> Node:
        opened = self._stack.pop()
        start = opened.start
        assert start is not None
        # The parser finds the end of a block map or list only at whatever comes next, perhaps
        # pages below; it ends with the last of its parts.
        if start.flow_style or self._end is None:
            self._end = event.end_mark
        span = self._span(start.start_mark, self._end)
        node = self._collection(start, opened.parts, span)
        if start.anchor is not None:
            size = self._counted - opened.counted
            self._anchors[start.anchor] = _Anchored(node, size, opened.levels)
        self._stack[-1].levels = max(self._stack[-1].levels, opened.levels + 1)
        return node

    def _collection(self, start: CollectionStartEvent, parts: list[Node], span: Span) -> Node:
        if isinstance(start, MappingStartEvent):
            if start.tag is not None and start.tag not in MAP_TAGS:
                self._complaints.wrong_tag(start.tag, "a map", span)
            return MapNode(self._entries(parts), span)
        if start.tag is not None and start.tag not in LIST_TAGS:
            self._complaints.wrong_tag(start.tag, "a list", span)
        return ListNode(tuple(parts), span)

    def _entries(self, parts: list[Node]) -> tuple[Entry, ...]:
        entries: list[Entry] = []
        seen: dict[object, Scalar] = {}
        for key, value in zip(parts[::2], parts[1::2], strict=True):
            if not isinstance(key, Scalar):
                self._complaints.wrong_key(key)
            elif key.text == "<<" and not key.quoted:
                self._complaints.merge_key(key)
            elif (first := _first(key, seen)) is not None:
                self._complaints.duplicate_key(key, first)
            else:
                entries.append(Entry(key, value))
        return tuple(entries)

    def _alias(self, event: AliasEvent) -> Node:
        self._end = event.end_mark
        span = self._span(event.start_mark, event.end_mark)
        name = event.anchor or ""
        anchored = self._anchors.get(name)
        if anchored is None:
            self._complaints.unknown_alias(name, self._anchors, span)
            text = Scalar(f"*{name}", f"*{name}", True, span)
            anchored = _Anchored(text, 1, 0)
        self._counted += anchored.size
        self._expanded += anchored.size
        if self._expanded > MAX_EXPANDED:
            self._complaints.too_much_repeated(span)
        if len(self._stack) - 1 + anchored.levels > MAX_LEVELS:
            self._complaints.too_deep(span)
        self._stack[-1].levels = max(self._stack[-1].levels, anchored.levels + 1)
        return anchored.node


def _first(key: Scalar, seen: dict[object, Scalar]) -> Scalar | None:
    """Return the key of the same text or value seen before, None if this is the first."""
    first = seen.get(key.text)
    if first is not None:
        return first
    seen[key.text] = key
    if isinstance(key.value, str):
        return None
    same = seen.setdefault((type(key.value), key.value), key)
    return None if same is key else same

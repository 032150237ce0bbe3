"""Reads the text of one policy file, a strict and bounded part of YAML 1.2, as nodes."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, Unpack

import yaml
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
from guardrail.loading.nodes import (
    CORE_TAGS,
    LIST_TAGS,
    MAP_TAGS,
    TEXT_TAGS,
    Entry,
    ListNode,
    MapNode,
    Node,
    NumberLengthError,
    Scalar,
    TagError,
    Value,
    kind_of,
    resolve,
    short_tag,
    tagged,
)
from guardrail.loading.suggest import nearest
from guardrail.loading.text import UNPRINTABLE, Advice, Source, quoted
from guardrail.loading.yaml_messages import MAX_LEVELS, NEST_LESS, NO_TAGS, TOO_DEEP, syntax_error

MAX_BYTES: Final = 1 << 20
"""The size of the largest policy file, in bytes of UTF-8."""

_MAX_DIRECTIVES: Final = 20
_DIRECTIVE: Final = re.compile(r"^%", re.MULTILINE)
_PARSER: Final[type[yaml.SafeLoader | yaml.CSafeLoader]] = getattr(
    yaml, "CSafeLoader", yaml.SafeLoader
)


def read_yaml(text: str, file: str, findings: list[Diagnostic]) -> Node | None:
    """Return the node of a policy file's one document, appending what is wrong to `findings`.

    None if nothing but comments is written in the file, or if it cannot be read to its end:
    GR100, text that is not YAML, is too large or nested too deep. Duplicate keys (GR103), merge
    keys and tags (GR109), and aliases and keys that cannot be (GR100) are left out, and reading
    goes on, so that all of them are found at once. Nothing is raised for any text.

    Scalars have the values of the core schema; `!!str` and `!` count as quotes. Nodes repeated
    by an alias are one object.
    """
    source = Source(file, text.removeprefix("\ufeff"))
    unfit = _unfit(source)
    if unfit is not None:
        findings.append(unfit)
        return None
    composer = Composer(source, findings)
    try:
        with _collector_at_rest():
            return composer.compose(yaml.parse(source.text, Loader=_PARSER))
    except UnreadableError as error:
        findings.append(error.finding)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # Escapes in tags and quotes can name what is no character, which either parser lets
        # Python's own conversions refuse.
        findings.append(syntax_error(error, source, composer.reached))
    return None


def too_large(source: Source) -> Diagnostic:
    """Return the finding about a file of more than `MAX_BYTES`."""
    return source.error(
        "GR100",
        f"the file is larger than 1 MiB ({MAX_BYTES:,} bytes)",
        source.span(1, 1),
        help="split it; the files of a folder are one policy set",
    )


def _unfit(source: Source) -> Diagnostic | None:
    """Return what keeps a text from the parser, None if nothing does."""
    text = source.text
    if len(text) > MAX_BYTES:
        return too_large(source)
    unprintable = UNPRINTABLE.search(text)
    if unprintable is not None:
        return _unprintable(source, unprintable.start())
    if len(text.encode()) > MAX_BYTES:
        return too_large(source)
    # The parser compares each `%TAG` with all before it.
    directives = [found.start() for found in _DIRECTIVE.finditer(text)]
    if len(directives) > _MAX_DIRECTIVES:
        return source.error(
            "GR100",
            f"more than {_MAX_DIRECTIVES} lines of this file start with `%`",
            source.span(*source.place(directives[_MAX_DIRECTIVES])),
            help="remove them; a policy file needs no directives",
        )
    return None


def _unprintable(source: Source, index: int) -> Diagnostic:
    character = source.text[index]
    if character == "\0":
        advice = "save the file as plain text in UTF-8"
    else:
        advice = "remove it, or write it as an escape in double quotes"
    return source.error(
        "GR100",
        f"the character U+{ord(character):04X}, which cannot be seen, is not allowed here",
        source.span(*source.place(index)),
        help=advice,
    )


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Hold off the garbage collector: nodes make no cycles, and it would walk all of them often."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


MAX_EXPANDED: Final = 10_000
MAX_REPORTED: Final = 100

_MAX_COMPARED: Final = 1_000
_QUOTE: Final = "put it in quotes if it is meant as text"
_NAME_IT: Final = "conditions and lists that repeat can have a name"
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


class UnreadableError(Exception):
    """A file cannot be read any further; `finding` says why."""

    def __init__(self, finding: Diagnostic) -> None:
        self.finding = finding
        super().__init__(finding.message)


class Composer:
    """Builds the nodes of one document.

    Its stack is a list, so no text makes it recurse; nesting and aliases are bounded while
    reading, before anything deep or large exists. What is wrong is appended to `findings`; reading
    stops, by `UnreadableError`, at what cannot be left out, and at the hundredth finding.
    """

    def __init__(self, source: Source, findings: list[Diagnostic]) -> None:
        self._source = source
        self._findings = findings
        self._reported = 0
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
                    help = "a file holds one document: remove this line, or make what follows its "
                    help += "own file"
                    self._stop("a second document starts here", self._span_of(event), help=help)
                continue
            self._stack[-1].parts.append(node)
        root = self._stack[0].parts[0] if documents else None
        if isinstance(root, Scalar) and not root.text and not root.quoted:
            return None
        return root

    def _span(self, start: Any, end: Any) -> Span:
        file = self._source.file
        return Span(file, start.line + 1, start.column + 1, end.line + 1, end.column + 1)

    def _span_of(self, event: Event) -> Span:
        return self._span(event.start_mark, event.end_mark)

    def _scalar(self, event: ScalarEvent) -> Scalar:
        self._counted += 1
        self._end = event.end_mark
        span = self._span_of(event)
        text: str = event.value
        plain = event.implicit[0] if event.tag is None else event.tag not in TEXT_TAGS
        if not text.isascii() and _HALF_CHARACTER.search(text):
            # A surrogate, which no encoding has bytes for.
            self._stop("an escape in this text does not name a character", span)
        node = Scalar(self._value(event, span) if plain else text, text, not plain, span)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchored(node, 1, 0)
        return node

    def _value(self, event: ScalarEvent, span: Span) -> Value:
        text: str = event.value
        try:
            return resolve(text) if event.tag is None else tagged(event.tag, text)
        except NumberLengthError:
            message = f"a number of {len(text):,} characters is too long"
            self._report("GR100", message, span, help=_QUOTE)
        except TagError:
            shown = quoted(text) if text else "nothing"
            self._wrong_tag(event.tag or "!", shown, span)
        return text

    def _open(self, event: CollectionStartEvent) -> None:
        if len(self._stack) > MAX_LEVELS:
            self._stop(TOO_DEEP, self._span_of(event), help=NEST_LESS)
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
                self._wrong_tag(start.tag, "a map", span)
            return MapNode(self._entries(parts), span)
        if start.tag is not None and start.tag not in LIST_TAGS:
            self._wrong_tag(start.tag, "a list", span)
        return ListNode(tuple(parts), span)

    def _entries(self, parts: list[Node]) -> tuple[Entry, ...]:
        entries: list[Entry] = []
        seen: dict[object, Scalar] = {}
        for key, value in zip(parts[::2], parts[1::2], strict=True):
            if not isinstance(key, Scalar):
                help = "put text that starts with a bracket in quotes"
                self._report("GR100", f"{kind_of(key)} cannot be a key", key.span, help=help)
            elif key.text == "<<" and not key.quoted:
                help = f"write the keys out; {_NAME_IT}"
                self._report("GR109", "the merge key `<<` is not allowed", key.span, help=help)
            elif (first := _first(key, seen)) is not None:
                message = f"the key {quoted(key.text)} is there twice in this map"
                label = f"first written in line {first.span.line}"
                label += "" if first.text == key.text else f" as {quoted(first.text)}"
                help = "keep one of them"
                self._report("GR103", message, key.span, label=label, help=help)
            else:
                entries.append(Entry(key, value))
        return tuple(entries)

    def _alias(self, event: AliasEvent) -> Node:
        self._end = event.end_mark
        span = self._span_of(event)
        name = event.anchor or ""
        anchored = self._anchors.get(name)
        if anchored is None:
            self._unknown_alias(name, span)
            text = Scalar(f"*{name}", f"*{name}", True, span)
            anchored = _Anchored(text, 1, 0)
        self._counted += anchored.size
        self._expanded += anchored.size
        if self._expanded > MAX_EXPANDED:
            message = f"the aliases up to here repeat more than {MAX_EXPANDED:,} values"
            self._stop(message, span, help=f"repeat less; {_NAME_IT}")
        if len(self._stack) - 1 + anchored.levels > MAX_LEVELS:
            self._stop(TOO_DEEP, span, help=NEST_LESS)
        self._stack[-1].levels = max(self._stack[-1].levels, anchored.levels + 1)
        return anchored.node

    def _unknown_alias(self, name: str, span: Span) -> None:
        """Report an alias of nothing, or of a part that is still open and would hold itself."""
        known = self._anchors
        message, help = f"unknown alias {quoted(f'*{name}')}", _QUOTE
        near = nearest(name, known) if len(known) <= _MAX_COMPARED else None
        if name in known:
            message = f"{quoted(f'*{name}')} stands inside the part it repeats"
            help = "write that part out"
        elif near is not None:
            help = f"did you mean {quoted(f'*{near}')}?"
        self._report("GR100", message, span, help=help)

    def _wrong_tag(self, tag: str, what: str, span: Span) -> None:
        shown = short_tag(tag)
        message = f"the tag {quoted(shown)} is not allowed"
        if tag in CORE_TAGS:
            message = f"{what} is not what the tag {quoted(shown)} says"
        place = self._source.span(span.line, span.column, len(shown))
        self._report("GR109", message, place, help=NO_TAGS)

    def _report(self, code: str, message: str, span: Span, **advice: Unpack[Advice]) -> None:
        self._findings.append(self._source.error(code, message, span, **advice))
        self._reported += 1
        if self._reported == MAX_REPORTED:
            message = f"reading stops after {MAX_REPORTED} errors"
            self._stop(message, span, help="correct these first")

    def _stop(self, message: str, span: Span, **advice: Unpack[Advice]) -> NoReturn:
        raise UnreadableError(self._source.error("GR100", message, span, **advice))


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

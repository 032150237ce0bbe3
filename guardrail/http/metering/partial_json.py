"""Reads a few members out of JSON of any length, as it comes, holding no more than those.

A response of a hundred megabytes tells its usage in two hundred bytes, mostly the last ones. What
a model wrote may look like a usage: so members count by where they stand, never by their look.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from guardrail.http.documents import UNDECODABLE
from guardrail.http.metering.texts import Unread

_PATHS = [
    path.split(".")
    for path in (
        "id model modelVersion type event_type object status background done index usage "
        "usageMetadata usage_metadata svg_usage x_groq meta meta_info metrics error duration "
        "amazon-bedrock-invocationMetrics prompt_eval_count eval_count delta.usage "
        "prompt_token_count generation_token_count tokens_predicted tokens_evaluated stop "
        "usage_breakdown tool_usage response.tool_usage inputTextTokenCount input_token_count "
        "totalOutputTextTokenCount num_tokens_prompt_total num_tokens_generated results "
        "response.id response.usage response.model response.status response.background "
        "response.reasoning response.meta message.id message.usage message.model "
        "interaction.id interaction.status interaction.usage result.usage result.model "
        "metadata.total_usage"
    ).split()
]
WANTED = frozenset(map(tuple, _PATHS))
"""The members that are kept, by the keys that lead to them."""
LONGEST_KEPT = 16_384
"""How many bytes of one member are kept; a longer one is left out."""

LONGEST_TEXT = 1 << 18
"""How many bytes of one document are held whole, so that what a model wrote can be counted."""

LONGEST_WHOLE = 1 << 20
"""How many bytes an object may have to be read at once, where it comes in one piece."""

WHOLE_ENDS = (b"}", b"}\n")
"""How an object ends that may be read at once."""

_PARENTS = frozenset(path[:-1] for path in WANTED)
# Of an object that is there whole; the commonest come first, as each is looked for in this order.
_WHOLE = [
    name
    for name in dict.fromkeys(path[0] for path in _PATHS)
    if name not in ("delta", "interaction", "metadata")  # which events alone have
]
_LONGEST_KEY = 32
_BLANK = re.compile(rb"[ \t\r\n]*+")
_SCALAR = re.compile(rb"[^\s\"{}\[\],:]++")
_INSIDE = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
# All up to the next bracket: whole strings are passed over, one that is cut is where it stops.
_DEEP = re.compile(rb'[^"{}\[\]]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"{}\[\]]*+)*', re.DOTALL)
_OPENING = frozenset(b"{[")
_CLOSING = frozenset(b"}]")
_QUOTE, _BACKSLASH, _COMMA, _COLON = b'"\\,:'

Kept = dict[str, object]
"""A document of which only the wanted members are left."""


class _List(msgspec.Struct):
    """How long the list of results is."""

    data: Any = None


_TOP: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    msgspec.defstruct(
        "_Top",
        [(name.replace("-", "_"), Any, None) for name in _WHOLE],
        rename=lambda name: name if name in _WHOLE else name.replace("_", "-"),
        omit_defaults=True,
    )
)
_LIST = msgspec.json.Decoder(_List)


def read_whole(data: bytes) -> Kept | None:
    """Return what is kept of an object that is there whole; None if it is not, or nothing is kept.

    It is read at a fraction of what following it costs; null stands for nothing here.
    """
    if len(data) > LONGEST_WHOLE or not data.endswith(WHOLE_ENDS):
        return None
    try:
        kept: Kept = msgspec.to_builtins(_TOP.decode(data))
    except UNDECODABLE:
        return None
    return kept or None


def items_of(data: bytes) -> int:
    """Return how many entries the `data` of an object has that is there whole."""
    try:
        listed = _LIST.decode(data).data
    except UNDECODABLE:
        return 0
    return len(listed) if isinstance(listed, list) else 0


class _Statistics(msgspec.Struct):
    token_count: int = 0


class _Embedding(msgspec.Struct):
    statistics: _Statistics | None = None


class _Prediction(msgspec.Struct):
    embeddings: _Embedding | None = None


class _Count(msgspec.Struct):
    totalTokens: int = 0  # noqa: N815 - as it is written


class _Counts(msgspec.Struct):
    inputTokenCount: _Count  # noqa: N815 - as it is written
    outputTokenCount: _Count  # noqa: N815 - as it is written


class _Metadata(msgspec.Struct):
    tokenMetadata: _Counts | None = None  # noqa: N815 - as it is written


class _Predicted(msgspec.Struct):
    """What Vertex tells of what it predicted: of texts beside them all, of vectors in each."""

    predictions: list[_Prediction]
    metadata: _Metadata | None = None


_PREDICTED = msgspec.json.Decoder(_Predicted)


def predicted(data: bytes) -> dict[str, object]:
    """Return the usage that Vertex's predictions tell, in the names of Gemini's."""
    try:
        told = _PREDICTED.decode(data)
    except UNDECODABLE:
        return {}
    counts = None if told.metadata is None else told.metadata.tokenMetadata
    if counts is not None:
        into, out = counts.inputTokenCount.totalTokens, counts.outputTokenCount.totalTokens
        return {"promptTokenCount": into, "candidatesTokenCount": out}
    embedded = [one.embeddings for one in told.predictions if one.embeddings is not None]
    read = [one.statistics.token_count for one in embedded if one.statistics is not None]
    if not read or len(read) < len(told.predictions):
        return {}
    return {"promptTokenCount": sum(read), "candidatesTokenCount": 0}


class Skim:
    """Follows JSON text cut anywhere, and hands out each document that ends.

    A list at the top counts as its elements, one document each, as does each line of many. The
    text of a document is in `text` when it is handed out, and while it is read, if it is short.
    """

    # A text that comes whole needs none of these: an instance holds what is its own.
    complete = False
    """Whether the text has ended where JSON may end."""
    listed_whole = False
    """Whether it was a list, and that has ended."""
    text: bytes | None = b""
    """The document that ended last, as it came; None if it was too long to be held."""
    items = 0
    """How many entries the list `data` at the top of an object has so far."""
    _listed = _counts = False
    # Where the text of the document being read goes on in the data at hand.
    _from = 0
    # The keys that lead to the object being read, None outside; how deep in another value.
    _path: tuple[str, ...] | None = None
    _deep = 0
    _key = b""
    _key_next = _in_string = _escaped = False
    _capture: bytearray | None = None

    def __init__(self) -> None:
        self.unread = Unread()
        """What the document that was too long to be held last was worth, so far or in all."""
        self._found: dict[tuple[str, ...], bytes] = {}
        # The text of the document being read so far.
        self._text: bytearray | None = bytearray()

    @property
    def listed(self) -> bool:
        """Whether the document being read, or just ended, is in a list."""
        return self._listed

    def document(self) -> Kept:
        """Return what is kept of the document being read, whether it has ended or not."""
        kept: Kept = {}
        for path, raw in self._found.items():
            try:
                value = msgspec.json.decode(raw)
            except UNDECODABLE:
                continue
            inner = kept
            for key in path[:-1]:
                inner = inner.setdefault(key, {})  # type: ignore[assignment]
            inner[path[-1]] = value
        return kept

    def feed(self, data: bytes) -> Iterator[Kept]:
        """Take the next bytes; yield each document that ends in them."""
        at, end = 0, len(data)
        self._from = 0
        while at < end:
            if self._in_string:
                at = self._string(data, at)
            elif self._deep:
                at = self._below(data, at)
            else:
                outside, start = self._path is None, at
                at = self._shallow(data, at)
                if outside and self._path is not None:
                    self._from, self._text = start, bytearray()
                elif self._path is None and not outside:
                    self._hold(data, at)
                    self.text = None if self._text is None else bytes(self._text)
                    yield self.document()
                    self._found = {}
                    self._text = bytearray()
        if self._path is not None:
            self._hold(data, end)

    @property
    def begun(self) -> bytes | None:
        """The text so far of the document being read, None if it is too long to be held."""
        return None if self._text is None else bytes(self._text)

    def _hold(self, data: bytes, end: int) -> None:
        """Keep what the data at hand holds of the document being read, while that is short."""
        if self._text is None:
            self.unread.take(data[self._from : end])
        elif len(self._text) + end - self._from > LONGEST_TEXT:
            self.unread = Unread()
            self.unread.take(bytes(self._text))
            self.unread.take(data[self._from : end])
            self._text = None
        else:
            self._text += memoryview(data)[self._from : end]

    def _string(self, data: bytes, at: int) -> int:
        """Read on in a string, to its end or the end of the data."""
        start = at
        if self._escaped:
            self._escaped = False
            at += 1
        at = _INSIDE.match(data, at).end()  # type: ignore[union-attr]
        if at < len(data):
            self._in_string = data[at] != _QUOTE
            self._escaped = data[at] == _BACKSLASH
            at += 1
        self._keep(data[start:at])
        if not self._in_string and not self._deep:
            self._store()
        return at

    def _below(self, data: bytes, at: int) -> int:
        """Pass over a value of no interest, or keep it whole, up to the next bracket."""
        start = at
        at = _DEEP.match(data, at).end()  # type: ignore[union-attr]
        if at < len(data):
            byte = data[at]
            at += 1
            self._in_string = byte == _QUOTE
            if self._counts and self._deep == 1:
                self.items += byte in _OPENING
            self._deep += (byte in _OPENING) - (byte in _CLOSING)
        self._keep(data[start:at])
        if not self._deep:
            self._store()
        return at

    def _shallow(self, data: bytes, at: int) -> int:
        """Read one token in an object whose members may be wanted, or outside of any."""
        at = _BLANK.match(data, at).end()  # type: ignore[union-attr]
        if at == len(data):
            return at
        byte = data[at]
        if byte == _QUOTE:
            self._in_string = True
            self._begin(b'"')
        elif byte in _OPENING:
            self._open(byte)
        elif byte in _CLOSING:
            self._store()
            self._close(byte)
        elif byte == _COMMA:
            self._store()
            self._key_next = self._path is not None
        elif byte == _COLON:
            self._key_next = False
        else:
            return self._scalar(data, at)
        return at + 1

    def _scalar(self, data: bytes, at: int) -> int:
        match = _SCALAR.match(data, at)
        if match is None:
            return at + 1
        if self._capture is None:
            self._begin(b"")
        self._keep(match[0])
        return match.end()

    def _open(self, byte: int) -> None:
        self.complete = False
        if self._path is None:
            if byte == b"["[0]:
                if self._listed:
                    self._deep = 1
                self._listed = True
                return
            self._path, self._key_next = (), True
            return
        here = (*self._path, self._name())
        if byte == b"{"[0] and here in _PARENTS:
            self._path, self._key_next = here, True
            return
        self._begin(bytes([byte]))
        self._counts = here == ("data",)
        self._deep = 1

    def _close(self, byte: int) -> None:
        if self._path:
            self._path, self._key_next = self._path[:-1], False
            return
        if self._path is None and self._listed:
            self._listed = False
            self.listed_whole = True
        self._path, self._key_next = None, False
        self.complete = not self._listed

    def _begin(self, opening: bytes) -> None:
        """Start to read a key, or a value, which is kept if it is wanted."""
        wanted = self._key_next or (
            self._path is not None and (*self._path, self._name()) in WANTED
        )
        self._capture = bytearray(opening) if wanted else None

    def _keep(self, piece: bytes) -> None:
        if self._capture is not None:
            self._capture += piece
            if len(self._capture) > (_LONGEST_KEY if self._key_next else LONGEST_KEPT):
                self._capture = None
                if self._key_next:
                    self._key = b""

    def _store(self) -> None:
        """End the key or value being read, if there is one that is kept."""
        if self._capture is None:
            return
        if self._key_next:
            self._key = bytes(self._capture)
        elif self._path is not None:
            self._found[(*self._path, self._name())] = bytes(self._capture)
        self._capture = None

    def _name(self) -> str:
        """Return the key that was read last, empty if it is none of ours."""
        try:
            name = msgspec.json.decode(self._key)
        except UNDECODABLE:
            return ""
        return name if isinstance(name, str) else ""

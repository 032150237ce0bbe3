"""JSON bodies, read within bounds: no doubled keys, no endless nesting, nothing half understood.

Where two readers of one text may differ, the guard and the host could see different requests.
So what is ambiguous is refused: a key twice in one object, NaN, a lone surrogate, another
encoding than UTF-8. `Members` keeps the members of an object as they were written, byte for byte.
"""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Set
from functools import partial
from operator import call
from typing import NamedTuple

import msgspec

from guardrail.http.documents import UNDECODABLE, bytes_in
from guardrail.http.parsing.folding import AT_ONCE, MARK, PIECE, Folded, fold, pieces_of
from guardrail.http.parsing.media import (
    LONG,
    MEDIA_MEMBERS,
    READ_MEMBERS,
    SHOWING,
    WORDED_LISTS,
    ShownPictures,
    is_base64,
    is_media,
    is_read,
    is_thought,
    may_list_media,
    shows_frames,
)
from guardrail.http.parsing.values import ReadingLimits, RewriteError, UnreadableError

_MEDIA_BYTES_PER_TOKEN = 64
TEXT_BYTES_PER_TOKEN = 4
"""How many bytes of text count as a token."""
_SHORT = 1024
# Of the strings of a large text some are kept, and of those that follow the beginnings, so that
# four bytes a character do not add up.
_MOST_KEPT = 8 << 20
_BEGINNING = 256
_CALLED: Callable[[Callable[[], object]], object] = call
_KEY = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"[ \t\r\n]*+(:?)', re.DOTALL)


class Document(NamedTuple):
    """A decoded body, and about how many tokens its text, numbers and media are."""

    value: object
    tokens: int


def read_document(text: bytes, limits: ReadingLimits) -> Document:
    """Decode JSON, strictly, and estimate its tokens.

    An estimate is a token for four bytes of UTF-8, keys and values alike, one for each number in
    a list of numbers, and for media, which are told by their encoding, `media_tokens` and one
    for each 64 bytes. A tokenizer would be exact for one model and take the event loop with it.

    Raises:
        UnreadableError: it is too long, not JSON, or ambiguous; the message says which.
    """
    value, tokens, _ = read_named(text, limits)
    return Document(value, tokens)


def read_named(text: bytes, limits: ReadingLimits) -> tuple[object, int, Set[str]]:
    """Decode JSON in the same way, and return the keys of the objects within it besides.

    Raises:
        UnreadableError: it is too long, not JSON, or ambiguous; the message says which.
    """
    if len(text) > limits.max_body:
        raise UnreadableError(
            f"the body is longer than {limits.max_body} bytes; send less at once", status=413
        )
    try:
        if len(text) > AT_ONCE:
            return _large_document(text, limits)
        value = msgspec.json.decode(text)
    except RecursionError:
        raise _too_deep(limits) from None
    except UNDECODABLE:
        raise _not_json() from None
    measure = _Measure(limits)
    tokens = measure.of(value)
    if not _is_canonical(text, value) and measure.members != sum(map(len, _KEY.findall(text))):
        raise _doubled()
    return value, tokens, measure.names


def _large_document(text: bytes, limits: ReadingLimits) -> tuple[object, int, Set[str]]:
    """Decode a text in pieces. Of a string that is very long, the document holds the beginning."""
    folded = fold(text, limits)
    value = _decoded(folded.outline)
    measure = _FoldedMeasure(limits, text, folded)
    if value.__class__ is str:
        alone: list[object] = [value]
        tokens = measure.of(alone)
        return alone[0], tokens, frozenset()
    tokens = measure.of(value)
    if measure.members != folded.keys:
        raise _doubled()
    return value, tokens, measure.names


def _decoded(text: bytes) -> object:
    """Decode a text whose size was counted, in which nothing is garbage while it is decoded.

    Before version 3.12, Python collects garbage as objects are made: over many of them it goes
    through the whole process, again and again. (Later ones do so when a function returns, once.)
    The collector is the whole process's, so it stops and starts without a point between where
    Python lets another thread run, and none sees it stopped: `map` calls both in one step, and
    what follows that step is `finally`.
    """
    if sys.version_info >= (3, 12) or not gc.isenabled():
        return msgspec.json.decode(text)
    steps: tuple[Callable[[], object], ...] = (gc.disable, partial(msgspec.json.decode, text))
    try:
        _, value = map(_CALLED, steps)
    finally:
        gc.enable()
    return value


def _is_canonical(text: bytes, value: object) -> bool:
    """Tell whether a text is, but for white space, how its value is written: no key is lost then.

    Most clients write so, and texts are compared at a fraction of what finding their keys takes.
    """
    written = msgspec.json.encode(value)
    if written == text:
        return True
    return len(text) > _SHORT and written == msgspec.json.format(text, indent=-1)


class _Measure:
    """Counts what a document holds, without recursion and within bounds."""

    members = _bytes = _media = _numbers = 0
    _reading = False

    def __init__(self, limits: ReadingLimits) -> None:
        self.names: set[str] = set()
        self._limits = limits
        self._words: list[object] = []
        # What a stored prompt is filled in with: its texts are read, its media are not.
        self._filled_in: set[int] = set()

    def of(self, value: object) -> int:
        """Return the tokens of a value."""
        limits = self._limits
        # What a model reads word for word is gone through apart: there, nothing is media.
        nodes: list[object] = [value]
        words: list[object] = []
        depth = count = 0
        most = limits.max_nodes
        while nodes or words:
            if depth > limits.max_depth:
                raise _too_deep(limits)
            count += len(nodes) + len(words)
            if count > most:
                raise UnreadableError(
                    f"the body holds more than {most} objects and lists; send less at once"
                )
            inner: list[object] = []
            self._words, self._reading = [], False
            self._level(nodes, inner, depth)
            if words:
                self._reading = True
                self._level(words, self._words, depth)
            nodes, words = inner, self._words
            depth += 1
        text = -(-self._bytes // TEXT_BYTES_PER_TOKEN)
        return text + self._numbers + self._media

    def _level(self, level: Iterable[object], inner: list[object], depth: int) -> None:
        for node in level:
            if node.__class__ is dict:
                if depth:
                    self.names.update(node)
                self._object(node, inner)
            elif node.__class__ is list:
                self._list(node, inner)
            elif node.__class__ is str:
                self._text(node)

    def _object(self, node: dict[str, object], inner: list[object]) -> None:
        self.members += len(node)
        size = 0
        for key, value in node.items():
            size += len(key)
            if value.__class__ is str:
                length = len(value)
                if (length >= LONG or key in MEDIA_MEMBERS) and self._holds_media(key, value, node):
                    picture = self._limits.media_tokens + length // _MEDIA_BYTES_PER_TOKEN
                    if is_thought(key, node):
                        picture = min(picture, length // TEXT_BYTES_PER_TOKEN + 1)
                    self._media += picture
                elif key == SHOWING and ShownPictures.OPENS in value:
                    shown = ShownPictures()
                    shown.take(value)
                    self._show(shown)
                elif value.isascii():
                    size += length
                else:
                    self._text(value)
            elif value.__class__ is dict:
                if key == "variables":
                    self._filled_in.add(id(value))
                words = key in READ_MEMBERS and is_read(key, node)
                (self._words if words else inner).append(value)
            elif value.__class__ is list:
                if key in READ_MEMBERS and is_read(key, node):
                    self._words.append(value)
                elif key not in WORDED_LISTS and not self._reading and may_list_media(key):
                    inner.append(self._without_media(key, value, node))
                else:
                    inner.append(value)
        self._bytes += size

    def _show(self, shown: ShownPictures, *, times: int = 1) -> None:
        """Count what a text shows; minus once takes back what is counted elsewhere."""
        limits = self._limits
        pictures = shown.pictures * limits.media_tokens + shown.media // _MEDIA_BYTES_PER_TOKEN
        self._bytes += times * shown.text
        self._media += times * pictures

    def _holds_media(self, key: str, value: str, node: dict[str, object]) -> bool:
        known = self._reading or id(node) in self._filled_in
        return not known and is_media(key, value, node)

    def _without_media(
        self, key: str, listed: list[object], node: dict[str, object], *, within: bool = False
    ) -> list[object]:
        """Count the bytes in a list, or in lists within it, as media; return what else it holds."""
        left: list[object] = []
        for one in listed:
            if isinstance(one, list) and not within:
                left.append(self._without_media(key, one, node, within=True))
            elif isinstance(one, str) and self._holds_media(key, one, node):
                self._media += self._limits.media_tokens + len(one) // _MEDIA_BYTES_PER_TOKEN
            else:
                left.append(one)
        return left

    def _list(self, node: list[object], inner: list[object]) -> None:
        kinds = set(map(type, node))
        if kinds == {dict}:
            inner += node
        elif kinds <= {int, float}:
            self._numbers += len(node)
        elif kinds == {str}:
            for text in node:
                self._text(str(text))
        else:
            inner += [value for value in node if value.__class__ in (dict, list)]
            for value in node:
                if value.__class__ is str:
                    self._text(value)
                elif value.__class__ is int or value.__class__ is float:
                    self._numbers += 1

    def _text(self, text: str) -> None:
        self._bytes += bytes_in(text)


class _FoldedMeasure(_Measure):
    """Counts what an outline stands for, and puts the strings in it that were folded away."""

    def __init__(self, limits: ReadingLimits, text: bytes, folded: Folded) -> None:
        super().__init__(limits)
        self._source = text
        self._strings = folded.strings
        self._kept = 0

    def _object(self, node: dict[str, object], inner: list[object]) -> None:
        for key, value in node.items():
            if value.__class__ is str and value[:1] == MARK:
                node[key] = self._unfolded(value, key, node)
            elif value.__class__ is list and not self._reading and may_list_media(key):
                for listed in (value, *(one for one in value if one.__class__ is list)):
                    self._unfold_in(listed, key, node)
        super()._object(node, inner)

    def _list(self, node: list[object], inner: list[object]) -> None:
        if str in set(map(type, node)):
            self._unfold_in(node)
        super()._list(node, inner)

    def _unfold_in(
        self, listed: list[object], key: str = "", node: dict[str, object] | None = None
    ) -> None:
        for at, value in enumerate(listed):
            if value.__class__ is str and str(value)[:1] == MARK:
                listed[at] = self._unfolded(str(value), key, node)

    def _unfolded(self, mark: str, key: str, node: dict[str, object] | None) -> str:
        """Return the string a mark stands for, or its beginning, and count what is left of it."""
        begin, end = self._strings[int(mark[1:])]
        if end - begin <= PIECE and self._kept <= _MOST_KEPT:
            # All of it is kept, between its quotes.
            self._kept += end - begin
            return msgspec.json.decode(self._source[begin - 1 : end + 1], type=str)
        pieces = pieces_of(self._source, begin, end)
        first = next(pieces, "")
        if key == SHOWING and self._kept <= _MOST_KEPT:
            return self._shown(first, pieces)
        media = node is not None and self._holds_media(key, first, node)
        if self._kept > _MOST_KEPT:
            self._left(first[_BEGINNING:], media, frames=shows_frames(first))
            first = first[:_BEGINNING]
        self._kept += end - begin if end - begin < PIECE else PIECE
        frames = shows_frames(first)
        for piece in pieces:
            self._left(piece, media, frames=frames)
        return first

    def _shown(self, first: str, pieces: Iterator[str]) -> str:
        """Count the pictures and the words that follow the first piece of a text; return that."""
        shown = ShownPictures()
        shown.take(first)
        self._show(shown, times=-1)
        self._kept += len(first)
        for piece in pieces:
            shown.take(piece)
        self._show(shown)
        return first

    def _left(self, piece: str, media: bool, *, frames: bool = False) -> None:
        if media and is_base64(piece, frames=frames):
            self._media += len(piece) // _MEDIA_BYTES_PER_TOKEN
        else:
            self._text(piece)


def _not_json() -> UnreadableError:
    return UnreadableError("the body is not valid JSON in UTF-8; check how it is made")


def _doubled() -> UnreadableError:
    return UnreadableError("the body has a key twice in one object; send each key once")


def _too_deep(limits: ReadingLimits) -> UnreadableError:
    return UnreadableError(
        f"the body is nested deeper than {limits.max_depth} levels; make it flatter"
    )


Members = dict[str, msgspec.Raw]
"""An object, its members as text."""
EVERY = list[msgspec.Raw]
"""A list, its elements as text."""


def members_of(text: bytes) -> Members:
    """Return the members of an object."""
    return msgspec.json.decode(text, type=Members)


def inner_of(members: Members, name: str) -> Members | None:
    """Return an object within another, None if there is none, or another thing in its place."""
    raw = members.get(name)
    if raw is None or bytes(raw)[:1] != b"{":
        return None
    return members_of(bytes(raw))


def each_changed(batch: Members, change: Callable[[Members], Members]) -> Members:
    """Return a batch with each of its requests changed, wherever its vendor puts them.

    Raises:
        RewriteError: it holds none, or what is no request.
    """
    for name in ("batch", "input_config", "inputConfig", "requests"):
        inner = inner_of(batch, name)
        if inner is not None:
            changed = each_changed(inner, change)
            return batch if changed is inner else {**batch, name: raw_of(changed)}
    listed = batch.get("requests")
    if listed is None or bytes(listed)[:1] != b"[":
        raise RewriteError("the requests of the batch were sent before it")
    before = msgspec.json.decode(listed, type=EVERY)
    after = [_one_changed(one, change) for one in before]
    same = all(old is new for old, new in zip(before, after, strict=True))
    return batch if same else {**batch, "requests": raw_of(after)}


def _one_changed(one: msgspec.Raw, change: Callable[[Members], Members]) -> msgspec.Raw:
    text = bytes(one)
    members = members_of(text) if text[:1] == b"{" else {}
    for name in ("params", "request"):
        body = inner_of(members, name)
        if body is not None:
            after = change(body)
            return one if alike(body, after) else raw_of({**members, name: raw_of(after)})
    raise RewriteError("the batch holds what is no request")


def raw_of(value: object) -> msgspec.Raw:
    """Return a value as text."""
    return msgspec.Raw(msgspec.json.encode(value))


def alike(before: Members, after: Members) -> bool:
    """Whether two objects have the same members, each written the same."""
    return before.keys() == after.keys() and all(
        bytes(raw) == bytes(after[name]) for name, raw in before.items()
    )

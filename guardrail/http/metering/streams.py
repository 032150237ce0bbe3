"""The streams of responses, cut anywhere: compressed, of server-sent events, of Amazon's frames.

A compressed response is read piece by piece, bounded against bombs; the client gets the bytes as
the host sent them. Events: lines end in LF, CR or CRLF; an event's data may stand on several lines;
comments and other fields are passed over (WHATWG HTML, 9.2). Data is held whole while short, and
skimmed when long. A frame of `application/vnd.amazon.eventstream`: the length of all and of its
headers, a checksum of these, headers, payload, a checksum. The checksums are the client's to
verify. Where a model's own events are passed on, each is `bytes` in a payload, in base64.
"""

from __future__ import annotations

import binascii
import importlib
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

from guardrail.http.documents import decoded, text_of
from guardrail.http.metering.partial_json import Kept, Skim
from guardrail.http.metering.texts import Unread

PIECE = 65_536
"""How many bytes are read at once, at most, where the library can be bounded."""

MOST_TIMES = 200
"""How many times as long as it came a response may become; JSON reaches some thirty."""
ALWAYS = 1 << 20
"""How many bytes it may become in any case."""

_MOST_CODINGS = 3
_ZLIB_HEAD, _DEFLATED = 2, 8  # RFC 1950
_SLICE = 128
_WINDOW = 1 << 23  # the most a client has to take (RFC 9659)


class UndecodableError(Exception):
    """A response cannot be read: its coding is not known, broken, or a bomb."""


_LIBRARIES: Mapping[bytes, tuple[str, ...]] = {
    b"gzip": (),
    b"x-gzip": (),
    b"deflate": (),
    b"identity": (),
    b"zstd": ("zstandard",),
    b"br": ("brotli", "brotlicffi"),
}


@lru_cache(64)
def readable(accepted: bytes) -> bytes | None:
    """Return what of a client's `Accept-Encoding` can be read here, None where all of it can.

    A host is asked for no other coding, since a response in it could not be metered.
    """
    wanted = [one for one in accepted.split(b",") if one.strip()]
    kept = [one for one in wanted if _is_readable(one.partition(b";")[0].strip().lower())]
    if len(kept) == len(wanted):
        return None
    return b",".join(kept).strip() or b"identity"


def _is_readable(coding: bytes) -> bool:
    names = _LIBRARIES.get(coding)
    return names is not None and (not names or any(find_spec(name) for name in names))


class Decoder:
    """Reads one response; feed it the bytes as they were sent, cut anywhere."""

    def __init__(self, codings: bytes) -> None:
        """Take the value of `Content-Encoding`.

        Raises:
            UndecodableError: a coding is not known, or its library is not installed.
        """
        names = [name.strip().lower() for name in codings.split(b",")]
        names = [name for name in names if name not in (b"", b"identity")]
        if len(names) > _MOST_CODINGS:
            raise UndecodableError
        self._steps = [_step(name) for name in reversed(names)]
        self._left = ALWAYS

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes; yield what they become.

        Raises:
            UndecodableError: they are none of the coding, or become far too many.
        """
        self._left += len(data) * MOST_TIMES
        pieces: Iterator[bytes] = iter((data,))
        for step in self._steps:
            pieces = _through(step, pieces)
        try:
            for piece in pieces:
                self._left -= len(piece)
                if self._left < 0:
                    raise UndecodableError
                if piece:
                    yield piece
        except UndecodableError:
            raise
        except Exception as problem:  # each library has errors of its own
            raise UndecodableError from problem


_Step = Callable[[bytes], Iterator[bytes]]


def _through(step: _Step, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield from step(piece)


def _step(name: bytes) -> _Step:
    if name in (b"gzip", b"x-gzip"):
        return _Zlib(31).feed
    if name == b"deflate":
        return _Zlib(15, or_raw=True).feed
    if name == b"zstd":
        return _sliced(_zstd(_library(name)))
    if name == b"br":
        return _sliced(_brotli(_library(name)))
    raise UndecodableError


class _Zlib:
    """Members one after the other, as gzip may have; or the raw kind that some call deflate."""

    def __init__(self, window: int, *, or_raw: bool = False) -> None:
        self._window = window
        # The first two bytes tell the raw kind, which has no head, from the other.
        self._head: bytes | None = b"" if or_raw else None
        self._reader = zlib.decompressobj(window)

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._head is not None:
            data = self._head + data
            if len(data) < _ZLIB_HEAD:
                self._head = data
                return
            self._head = None
            if data[0] & 15 != _DEFLATED or int.from_bytes(data[:_ZLIB_HEAD], "big") % 31:
                self._window = -15
                self._reader = zlib.decompressobj(self._window)
        while data:
            if self._reader.eof:
                self._reader = zlib.decompressobj(self._window)
            piece = self._reader.decompress(data, PIECE)
            data = self._reader.unconsumed_tail or self._reader.unused_data
            yield piece


def _sliced(read: Callable[[bytes], bytes]) -> _Step:
    """Feed a library that cannot be bounded little by little, so that it gives little at once."""

    def step(data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), _SLICE):
            yield read(data[at : at + _SLICE])

    return step


def _zstd(library: Any) -> Callable[[bytes], bytes]:
    reader = library.ZstdDecompressor(max_window_size=_WINDOW).decompressobj(
        read_across_frames=True
    )
    return reader.decompress  # type: ignore[no-any-return]


def _brotli(library: Any) -> Callable[[bytes], bytes]:
    reader = library.Decompressor()
    return getattr(reader, "process", None) or reader.decompress  # type: ignore[no-any-return]


def _library(coding: bytes) -> Any:
    """Return the library that reads a coding; a host that compresses has one."""
    for name in _LIBRARIES[coding]:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise UndecodableError


LONGEST_HELD = 65_536
"""How many bytes of one event are held whole."""

_LINE = re.compile(rb"([^\r\n]*+)(\r\n|\r|\n|\Z)")
_FIELD = b"data:"
_DATA = b"data: "
_OTHER_LINES = (b":", b"event", b"id", b"retry", b"data")
_MARK = b"\xef\xbb\xbf"
_MOST_KEPT = 1_000


class Event(NamedTuple):
    """The data of an event: its text, or what is kept of one too long to hold.

    `size` is how many bytes of text it is, or is worth.
    """

    text: bytes | None
    kept: tuple[Kept, ...]
    size: int


class EventStream:
    """Takes a stream's bytes as they come and gives its events."""

    __slots__ = (
        "_after_cr",
        "_data",
        "_head",
        "_is_data",
        "_kept",
        "_size",
        "_skim",
        "_strays",
        "_unread",
        "between",
        "stray",
    )
    broken = False

    def __init__(self) -> None:
        self.stray = 0
        """How many bytes stood in lines that are neither fields of an event nor comments."""
        self.between = True
        """Whether no event, and no line, has begun that has not ended."""
        self._strays = False
        self._after_cr = False
        # The line being read: its first bytes, until they tell whether it is data.
        self._head = b""
        self._is_data: bool | None = None
        # The event being read: its data, or from the moment it is too long, what is kept of it.
        self._data = bytearray()
        self._size = 0
        self._skim: Skim | None = None
        self._unread = Unread()
        self._kept: list[Kept] = []

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes; return the events that end in them."""
        if self.between:
            alone = _alone(chunk)
            if alone is not None:
                return [alone]
        ended: list[Event] = []
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        for match in _LINE.finditer(chunk):
            piece, ending = match.groups()
            if piece and self._is_data is not False:
                self._take(piece)
            elif self._strays:
                self.stray += len(piece)
            if ending:
                self._after_cr = ending == b"\r" and match.end() == len(chunk)
                if self._end_line() and self._size:
                    ended.append(self._end_event())
        begun = self._size or self._head or self._after_cr or self._is_data is not None
        self.between = not begun
        return ended

    def unfinished(self) -> Event | None:
        """Return the event that would end if the stream ended here, None if there is none."""
        value = _value(self._head) or b""
        size = self._size + len(value)
        if self._skim is not None:
            return Event(None, (*self._kept, self._skim.document()), self._unread.size + len(value))
        return Event(bytes(self._data) + value, (), size) if size else None

    def _take(self, piece: bytes) -> None:
        if self._is_data:
            self._add(piece)
            return
        self._head += piece
        enough = len(_FIELD) + 1 + (len(_MARK) if self._head[:1] == _MARK[:1] else 0)
        if len(self._head) < enough:
            return
        value = _value(self._head)
        self._strays = value is None and not self._head.startswith(_OTHER_LINES)
        self.stray += len(self._head) if self._strays else 0
        self._head = b""
        self._is_data = value is not None
        if value is not None:
            self._add(value)

    def _end_line(self) -> bool:
        """End the line being read; whether it is the empty one that ends an event."""
        value = _value(self._head)
        empty = self._is_data is None and not self._head
        if value is not None or self._is_data:
            self._add((value or b"") + b"\n")
        self._head, self._is_data, self._strays = b"", None, False
        return empty

    def _add(self, value: bytes) -> None:
        self._size += len(value)
        if self._skim is None:
            self._data += value
            if len(self._data) <= LONGEST_HELD:
                return
            self._skim, value = Skim(), bytes(self._data)
            self._data.clear()
        self._unread.take(value)
        self._kept += self._skim.feed(value)
        del self._kept[:-_MOST_KEPT]

    def _end_event(self) -> Event:
        if self._skim is None:
            event = Event(bytes(self._data), (), self._size)
        else:
            event = Event(None, (*self._kept, self._skim.document()), self._unread.size)
            self._unread = Unread()
        self._data.clear()
        self._size = 0
        self._skim = None
        self._kept = []
        return event


def _alone(chunk: bytes) -> Event | None:
    """Return the event of the commonest chunk, which holds a whole one, None for another chunk."""
    at = chunk.find(b"\n") + 1 if chunk.startswith(b"event: ") else 0
    one = chunk.startswith(_DATA, at) and chunk.endswith(b"\n\n")
    if not one or chunk.count(b"\n", at) != 2 or b"\r" in chunk or len(chunk) > LONGEST_HELD:
        return None
    text = chunk[at + len(_DATA) : -1]
    return Event(text, (), len(text))


def _value(line: bytes) -> bytes | None:
    """Return the value of a line of data, None for another line."""
    line = line.removeprefix(_MARK)
    return line[len(_FIELD) :].removeprefix(b" ") if line.startswith(_FIELD) else None


_PRELUDE = struct.Struct(">III")
_CHECKSUM = 4


class FrameStream:
    """Takes a stream's bytes as they come and gives the payloads of its frames."""

    stray = 0
    between = True
    __slots__ = ("_head", "_held", "_left", "_size", "_skip", "broken")

    def __init__(self) -> None:
        self.broken = False
        """Whether the bytes are no such stream: nothing more is read of it."""
        self._head = b""
        # Of the frame being read: bytes to pass over before its payload, and those of the payload.
        self._skip = self._left = self._size = 0
        self._held: bytearray | None = bytearray()

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes; return the payloads of the frames that end in them."""
        ended: list[Event] = []
        at = 0
        while at < len(chunk) and not self.broken:
            if not self._size:
                taken = min(_PRELUDE.size - len(self._head), len(chunk) - at)
                self._head += chunk[at : at + taken]
                at += taken
                if len(self._head) == _PRELUDE.size:
                    self._open()
                continue
            at += self._take(chunk, at)
            if not self._size:
                ended.append(self._event())
        return ended

    def unfinished(self) -> Event | None:
        """Return nothing: a frame counts when it is complete."""
        return None

    def _open(self) -> None:
        whole, headers, _ = _PRELUDE.unpack(self._head)
        self._head = b""
        payload = whole - _PRELUDE.size - headers - _CHECKSUM
        self.broken = payload < 0
        self._skip, self._left = headers, payload
        self._size = headers + payload + _CHECKSUM
        self._held = bytearray() if payload <= LONGEST_HELD else None

    def _take(self, chunk: bytes, at: int) -> int:
        """Read on in a frame; return how many bytes of the chunk belong to it."""
        part = min(self._size, len(chunk) - at)
        skipped = min(self._skip, part)
        self._skip -= skipped
        payload = min(self._left, part - skipped)
        self._left -= payload
        self._size -= part
        if self._held is not None:
            self._held += chunk[at + skipped : at + skipped + payload]
        return part

    def _event(self) -> Event:
        if self._held is None:
            return Event(None, (), LONGEST_HELD)
        text = bytes(self._held)
        return Event(_unwrapped(text), (), len(text))


def _unwrapped(text: bytes) -> bytes:
    inner = text_of(decoded(text) or {}, "bytes")
    try:
        return text if inner is None else binascii.a2b_base64(inner)
    except ValueError:
        return text

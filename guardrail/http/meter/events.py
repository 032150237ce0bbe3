"""Server-sent events, cut anywhere: the data of each, held whole while short, skimmed when long.

Lines end in LF, CR or CRLF; an event's data may stand on several lines; comments and other
fields are passed over (WHATWG HTML, 9.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from guardrail.http.meter.skim import Kept, Skim
from guardrail.http.meter.texts import Unread

LONGEST_HELD = 65_536
"""How many bytes of one event are held whole."""

_LINE = re.compile(rb"([^\r\n]*+)(\r\n|\r|\n|\Z)")
_FIELD = b"data:"
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
        "stray",
    )
    broken = False

    def __init__(self) -> None:
        self.stray = 0
        """How many bytes stood in lines that are neither fields of an event nor comments."""
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

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Take the next bytes; yield each event that ends in them."""
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
                    yield self._end_event()

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


def _value(line: bytes) -> bytes | None:
    """Return the value of a line of data, None for another line."""
    line = line.removeprefix(_MARK)
    return line[len(_FIELD) :].removeprefix(b" ") if line.startswith(_FIELD) else None

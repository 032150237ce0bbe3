"""Large JSON texts in small: long strings folded away, and what is left counted before it is read.

A decoder holds the interpreter for as long as it runs, and makes of two bytes an object of eighty.
So a text of more than `AT_ONCE` bytes is gone through in pieces first. What it will cost is counted
in it, and strings are replaced by short marks, to be read later and one by one. What remains is
small enough to be decoded, or changed, in one go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from guardrail.http.parsing.values import ReadingLimits, UnreadableError

AT_ONCE = 1 << 16
"""A text of no more bytes is read in one go."""
MARK = "\0"
"""What a mark begins with, once decoded; the number of its string follows."""
LONGEST_OUTLINE = 4 << 20
"""How many bytes of a text may stand outside its strings, and in its long keys."""
PIECE = 1 << 15
"""How many bytes of a string are decoded in one go, and at most kept."""

_LONG = 40
_NUL = b"\\u0000"
_COLON = re.compile(rb"[ \t\r\n]*+:")
_MARKED = re.compile(rb'"\\u0000([0-9]++)"(?![ \t\r\n]*+:)')
_HIGH_SURROGATE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}")
_LONGEST_ESCAPE = 12


class Folded(NamedTuple):
    """The outline of a text, where in it its long strings stand, and how many keys it has.

    `strings` are the places between their quotes, by their numbers.
    """

    outline: bytes
    strings: list[tuple[int, int]]
    keys: int


class Work:
    """What decoding some texts takes, added up before they are decoded.

    Of a text that is not JSON, what precedes the fault is counted right, which is as far as a
    decoder goes.
    """

    def __init__(self, limits: ReadingLimits) -> None:
        self._limits = limits
        self._nodes = self._strings = self._values = self._plain = 0
        self.keys = 0

    def add(self, text: bytes) -> None:
        """Count a text in.

        Raises:
            UnreadableError: they hold more values, keys, strings, objects or lists than are read.
        """
        for _, parts, inside in _quoted(text):
            self.take(parts, inside)

    def take(self, parts: list[bytes], inside: bool) -> None:
        """Count what stands between quotes, the first of it `inside` a string or not."""
        plain = b"".join(parts[inside::2])
        openers, keys = plain.count(b"[") + plain.count(b"{"), plain.count(b":")
        self._nodes += openers
        self._values += openers + plain.count(b",") + keys
        self.keys += keys
        self._strings += len(parts) // 2
        self._plain += len(plain)
        limits = self._limits
        for count, most, what in (
            (self._nodes, limits.max_nodes, "objects and lists"),
            (self.keys, limits.max_keys, "keys"),
            (self._strings, limits.max_strings, "keys and strings"),
            (self._values, limits.max_values, "keys and values"),
            (self._plain, LONGEST_OUTLINE, "bytes of numbers and white space"),
        ):
            if count > most:
                raise UnreadableError(f"the body holds more than {most} {what}; send less at once")


def fold(text: bytes, limits: ReadingLimits | None = None) -> Folded:
    """Return the outline of a text, whose decoding is bounded in time and memory.

    It takes time in proportion to the length, never more than a millisecond at once. Without
    `limits`, for a text that was read within them, nothing is counted.

    Raises:
        UnreadableError: the text holds more values, keys, strings, objects or lists than are read.
    """
    work = None if limits is None else Work(limits)
    pieces: list[bytes] = []
    strings: list[tuple[int, int]] = []
    copied = key_bytes = begin = 0
    open_string = False
    for at, parts, inside in _quoted(text):
        if work is not None:
            work.take(parts, inside)
        open_string = inside
        for part in parts[:-1]:
            at += len(part)
            if open_string and (at - begin > _LONG or text.find(_NUL, begin, at) >= 0):
                if _COLON.match(text, at + 1) is None:
                    pieces += text[copied:begin], _NUL + b"%d" % len(strings)
                    strings.append((begin, at))
                    copied = at
                else:
                    key_bytes += at - begin
                    if limits is not None and key_bytes > LONGEST_OUTLINE:
                        raise UnreadableError(
                            f"the body holds more than {LONGEST_OUTLINE} bytes of keys; "
                            "send less at once"
                        )
            open_string = not open_string
            at += 1
            begin = at
    if open_string:
        raise UnreadableError("the body is not valid JSON in UTF-8; check how it is made")
    pieces.append(text[copied:])
    return Folded(b"".join(pieces), strings, 0 if work is None else work.keys)


def unfold(outline: bytes, text: bytes, folded: Folded) -> bytes:
    """Return a changed outline with the strings of its text in it, byte for byte."""
    pieces: list[bytes] = []
    copied = 0
    for mark in _MARKED.finditer(outline):
        begin, end = folded.strings[int(mark[1])]
        pieces += outline[copied : mark.start() + 1], text[begin:end]
        copied = mark.end() - 1
    pieces.append(outline[copied:])
    return b"".join(pieces)


def pieces_of(text: bytes, begin: int, end: int) -> Iterator[str]:
    """Yield a string between two places of a text, decoded, in pieces of at most `PIECE` bytes.

    Raises:
        msgspec.DecodeError: it is not a string of JSON.
    """
    while begin < end:
        raw = text[begin : min(begin + PIECE, end)]
        if begin + len(raw) < end:
            raw = raw[: _cut(raw)]
        yield msgspec.json.decode(b'"%b"' % raw, type=str)
        begin += len(raw)


def _quoted(text: bytes) -> Iterator[tuple[int, list[bytes], bool]]:
    """Yield a text in chunks, as what stands between quotes, each with its place.

    With it goes whether the first part is inside a string; then they alternate. Escaped quotes
    are blotted out. No chunk ends within an escaped quote or backslash.
    """
    at, inside = 0, False
    while at < len(text):
        chunk = text[at : at + AT_ONCE]
        if (len(chunk) - len(chunk.rstrip(b"\\"))) % 2 and len(chunk) > 1:
            chunk = chunk[:-1]
        size = len(chunk)
        if b"\\" in chunk:
            chunk = chunk.replace(b"\\\\", b"__").replace(b'\\"', b"__")
        parts = chunk.split(b'"')
        yield at, parts, inside
        inside ^= len(parts) % 2 == 0
        at += size


def _cut(raw: bytes) -> int:
    """Return where to cut the beginning of a string, so that no character is cut in two."""
    size = len(raw)
    hidden = raw.replace(b"\\\\", b"__")
    escape = hidden.rfind(b"\\", size - _LONGEST_ESCAPE)
    if escape >= 0:
        pair = _HIGH_SURROGATE.fullmatch(hidden, escape - 6, escape)
        return escape if pair is None else escape - 6
    # At most three bytes follow the first of a character in UTF-8.
    for back in range(1, 5):
        if raw[-back] & 0xC0 != 0x80:
            return size if raw[-back] < 0x80 else size - back
    return size

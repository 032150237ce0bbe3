"""Reads compressed responses as they pass, piece by piece, bounded against bombs.

The client gets the bytes as the host sent them; what is read here is only metered.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

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


def readable(accepted: bytes) -> bytes | None:
    """Return what of a client's `Accept-Encoding` can be read here, None where all of it can.

    A host is asked for no other coding, since a response in it could not be metered.
    """
    wanted = [one for one in accepted.split(b",") if one.strip()]
    kept = [one for one in wanted if _is_readable(one.partition(b";")[0].strip().lower())]
    if len(kept) == len(wanted):
        return None
    return b",".join(kept).strip() or b"identity"


@lru_cache(64)
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

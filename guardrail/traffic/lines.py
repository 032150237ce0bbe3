"""Traffic files as lines: plain, gzip or Zstandard, told apart by their first bytes."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO, Self

import zstandard

from guardrail.errors import DataError

MAX_LINE = 1 << 20
"""The longest line that is read whole, in bytes; a longer one is given out cut, as a bad line."""

_BLOCK = 1 << 18
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BOM = b"\xef\xbb\xbf"
_DAMAGES = (EOFError, zlib.error, zstandard.ZstdError, OSError)
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
# 256 bytes of Zstandard can stand for at most 8 MiB, which bounds what one step may allocate.
_ZSTD_STEP = 1 << 8
MAX_DOCUMENT = 512 << 20
"""The largest JSON document that is read whole, in bytes."""
MOST_EXPANSION = 500
"""How many times its size a compressed file may unpack to; logs of requests stay far below it."""

_UNQUESTIONED = 64 << 20


class _Counted(io.RawIOBase):
    """A stream that knows how many bytes were read from it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        read = getattr(self._stream, "read1", self._stream.read)
        data: bytes = read(len(buffer))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)


class LineSource:
    """A traffic file opened for one pass over its lines; `-` is the standard input.

    `size` is the file's length in bytes as stored (None where there is none to know), and
    `position` how far reading has come in it.

    Raises:
        DataError: the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = "standard input" if path == "-" else path
        try:
            self._file = sys.stdin.buffer if path == "-" else open(path, "rb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise DataError(f"cannot read `{path}`: {_reason(error)}") from error
        self.size = None if path == "-" else os.fstat(self._file.fileno()).st_size or None
        self.is_torn = False
        """Whether the line that was given out last has no line feed: writing it was cut short."""
        self.share = (0, 1)
        """Which blocks of lines are given out: this one of so many."""
        self.encoding = "utf-8"
        """How its text is encoded; lines are given out in UTF-8."""
        self.replaced = 0
        """How many characters could not be decoded, and were replaced."""
        self._counted = _Counted(self._file)
        self._buffered = io.BufferedReader(self._counted, _BLOCK)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.path != "-":
            self._file.close()

    @property
    def position(self) -> int:
        """How many bytes of the file, as stored, have been read."""
        return self._counted.position

    def is_utf16(self) -> bool:
        """Tell whether the first bytes, which this reads, are the mark of UTF-16 text.

        Raises:
            DataError: the file is damaged.
        """
        try:
            return next(self._unpacked(), b"").startswith(_UTF16)
        except _DAMAGES as error:
            raise self._damaged(error) from error

    def blocks(self) -> Iterator[tuple[int, list[bytes]]]:
        """Yield runs of consecutive lines, each with the number of its first one, from 1.

        Lines come without their line feed, blank ones included. A line longer than `MAX_LINE`
        comes cut to one byte more than that, and what follows of it is skipped.

        Raises:
            DataError: the file ends early, is damaged, or is not text in UTF-8's family; lines
                before the damage have been given out.
        """
        share, of = self.share
        for count, block in enumerate(self._every_block()):
            if count % of == share:
                yield block

    def _every_block(self) -> Iterator[tuple[int, list[bytes]]]:
        number, rest, skipping = 1, b"", False
        for chunk in self._chunks():
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            if lines and len(lines[0]) > MAX_LINE:
                lines[0] = lines[0][: MAX_LINE + 1]
            if lines and skipping:
                del lines[0]
                skipping = False
            if lines:
                yield number, lines
                number += len(lines)
            if skipping:
                rest = b""
            elif len(rest) > MAX_LINE:
                yield number, [rest[: MAX_LINE + 1]]
                number, rest, skipping = number + 1, b"", True
        if rest and not skipping:
            self.is_torn = True
            yield number, [rest]

    def whole(self) -> bytes:
        """Return all that the file holds.

        Raises:
            DataError: it is larger than `MAX_DOCUMENT`, or damaged.
        """
        pieces, size = [], 0
        for piece in self._chunks():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_DOCUMENT:
                raise DataError(
                    f"`{self.name}` is one document of more than {MAX_DOCUMENT >> 20} MiB; write "
                    "a row a line, and read it with `format: jsonl`"
                )
        return b"".join(pieces)

    def _chunks(self) -> Iterator[bytes]:
        try:
            chunks = self._unpacked()
            if self.encoding != "utf-8":
                yield from self._decoded(chunks)
                return
            first = next(chunks, b"")
            if first.startswith(_UTF16):
                raise DataError(
                    f"`{self.name}` is UTF-16 text; save it as UTF-8, or say `encoding: utf-16` in "
                    "a map"
                )
            yield first.removeprefix(_BOM)
            yield from chunks
        except _DAMAGES as error:
            raise self._damaged(error) from error

    def _damaged(self, error: BaseException) -> DataError:
        return DataError(f"`{self.name}` could not be read to its end: {_reason(error)}")

    def _decoded(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(self.encoding)("replace")
        for chunk in chunks:
            text = decoder.decode(chunk)
            self.replaced += text.count("\ufffd")
            yield text.encode("utf-8", "surrogatepass")
        rest = decoder.decode(b"", final=True)
        self.replaced += rest.count("\ufffd")
        yield rest.encode()

    def _unpacked(self) -> Iterator[bytes]:
        magic = self._buffered.peek(4)
        if magic.startswith(_ZSTD):
            yield from self._within_bounds(_zstd_chunks(self._buffered))
        elif magic.startswith(_GZIP):
            # read1 hands out all that precedes a damaged place before it fails.
            stream = gzip.GzipFile(fileobj=self._buffered)
            yield from self._within_bounds(iter(lambda: stream.read1(_BLOCK), b""))
        else:
            yield from iter(lambda: self._buffered.read1(_BLOCK), b"")

    def _within_bounds(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Pass on what was unpacked, unless it is far more than any log would be."""
        unpacked = 0
        for chunk in chunks:
            unpacked += len(chunk)
            if unpacked > max(_UNQUESTIONED, MOST_EXPANSION * self.position):
                raise DataError(
                    f"`{self.name}` unpacks to more than {MOST_EXPANSION} times its size, which no "
                    "log of requests does; unpack it yourself if it is one"
                )
            yield chunk


def _zstd_chunks(stream: BinaryIO) -> Iterator[bytes]:
    """Unpack one Zstandard frame after another; unlike a stream reader, notices a missing end."""
    unpacker, whole = zstandard.ZstdDecompressor().decompressobj(), True
    while piece := stream.read(_ZSTD_STEP):
        while piece:
            whole = False
            unpacked = unpacker.decompress(piece)
            for start in range(0, len(unpacked), _BLOCK):
                yield unpacked[start : start + _BLOCK]
            piece = b""
            if unpacker.eof:
                piece, whole = unpacker.unused_data, True
                unpacker = zstandard.ZstdDecompressor().decompressobj()
    if not whole:
        raise EOFError


def _reason(error: BaseException) -> str:
    if isinstance(error, EOFError):
        return "the compressed data is cut short"
    if isinstance(error, gzip.BadGzipFile | zlib.error | zstandard.ZstdError):
        return "the compressed data is damaged"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)

"""Amazon's event streams (`application/vnd.amazon.eventstream`), cut anywhere.

A frame: the length of all and of its headers, a checksum of these, headers, payload, a checksum.
The checksums are the client's to verify. Where a model's own events are passed on, each is the
member `bytes` of a payload, in base64.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterator

import msgspec

from guardrail.http.meter.events import LONGEST_HELD, Event

_PRELUDE = struct.Struct(">III")
_CHECKSUM = 4


class FrameStream:
    """Takes a stream's bytes as they come and gives the payloads of its frames."""

    stray = 0
    __slots__ = ("_head", "_held", "_left", "_size", "_skip", "broken")

    def __init__(self) -> None:
        self.broken = False
        """Whether the bytes are no such stream: nothing more is read of it."""
        self._head = b""
        # Of the frame being read: bytes to pass over before its payload, and those of the payload.
        self._skip = self._left = self._size = 0
        self._held: bytearray | None = bytearray()

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Take the next bytes; yield the payload of each frame that ends in them."""
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
                yield self._event()

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
    try:
        payload = msgspec.json.decode(text)
        inner = payload.get("bytes") if isinstance(payload, dict) else None
        return binascii.a2b_base64(inner) if isinstance(inner, str) else text
    except (msgspec.DecodeError, ValueError, RecursionError):
        return text

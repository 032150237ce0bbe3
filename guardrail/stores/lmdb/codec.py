"""How a record is written down in the file: when it may go, then its numbers, all of fixed width.

The kind of a record's cell tells how to read it; the numbers mean what `stores.records` says.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import cast

from guardrail.model.amounts import SECOND
from guardrail.stores.records import SLOT_BITS, SLOT_MASK, Record, windowed_slots

STEP = 4 * SECOND
"""Expiries are counted in steps of four seconds, so that four bytes last until the year 2514."""
LAST = 2**32 - 1
EXPIRY_BYTES = 4
MEMBER_BYTES = 12
_SLOT_BYTES, _ENTRY_BYTES = 16, MEMBER_BYTES + 8

_EXPIRY = Struct(">I")
_ONE_SLOT = Struct(">IQQ")
_LINE = Struct(">Iq")
_REFUNDED = Struct(">Iqq")


def expiry(now: int, ttl: int) -> int:
    """Return the step after which a record written at `now` may go."""
    return min((now + ttl) // STEP + 1, LAST)


def expired_before(now: int) -> bytes:
    """Return what the bytes of records that may go at `now` are smaller than."""
    return _EXPIRY.pack(min(now // STEP, LAST))


def read_windowed(data: bytes) -> Record:
    """Return the record of a windowed counter."""
    if len(data) == _ONE_SLOT.size:
        _, slot, value = _ONE_SLOT.unpack(data)
        return value << SLOT_BITS | slot
    count = (len(data) - EXPIRY_BYTES) // _SLOT_BYTES
    fields = _slots(count).unpack(data)
    return dict(zip(fields[1 : count + 1], fields[count + 1 :], strict=True))


def windowed(record: Record, expires: int) -> bytes:
    """Return a windowed counter's record as bytes."""
    if record.__class__ is int:
        return _ONE_SLOT.pack(expires, record & SLOT_MASK, record >> SLOT_BITS)
    slots = windowed_slots(record)
    return _slots(len(slots)).pack(expires, *slots, *slots.values())


def read_line(data: bytes) -> Record:
    """Return the record of a draining counter."""
    if len(data) == _LINE.size:
        return _LINE.unpack(data)[1]
    return _REFUNDED.unpack(data)[1:]


def line(record: Record, expires: int) -> bytes:
    """Return a draining counter's record as bytes."""
    if record.__class__ is int:
        return _LINE.pack(expires, record)
    return _REFUNDED.pack(expires, *record)


def read_members(data: bytes) -> Record:
    """Return the record of a set."""
    fields = _members((len(data) - EXPIRY_BYTES) // _ENTRY_BYTES).unpack(data)
    return dict(zip(fields[1::2], fields[2::2], strict=True))


def members(record: Record, expires: int) -> bytes:
    """Return a set's record as bytes."""
    entries = cast(dict[bytes, int], record)
    return _members(len(entries)).pack(
        expires, *(part for pair in entries.items() for part in pair)
    )


@lru_cache(maxsize=256)
def _slots(count: int) -> Struct:
    return Struct(f">I{count}Q{count}Q")


@lru_cache(maxsize=256)
def _members(count: int) -> Struct:
    return Struct(">I" + f"{MEMBER_BYTES}sQ" * count)

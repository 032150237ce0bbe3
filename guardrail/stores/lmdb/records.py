"""The bytes of records: how those of each kind of cell are read, written, and charged.

A record's value is when it may go (four bytes, in steps of `STEP`), then its numbers, all
big-endian and of fixed width; its length tells which of two forms it has:

    window   one slot: slot, value (8 + 8)     several: all slots, then all values (8 each)
    line     value (8, signed)                 refunded: value, refunds (8 + 8, signed)
    set      per member: its hash (12), its expiry (8)

The kind of the cell that asks tells how to read it: nothing in the file does. Values that begin
with their expiry compare as expiries, so that `space` finds what may go without reading more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from typing import NamedTuple, cast

from guardrail.model.amounts import SECOND
from guardrail.model.cells import TOP, Cell, Correction, Counter, Drain, Leave, Member, Renew
from guardrail.stores.cells import (
    SLOT_BITS,
    SLOT_MASK,
    Record,
    charged_window,
    draining,
    entered,
    furthest_slot,
    horizon,
    read_members,
    read_window,
    windowed_slots,
)

STEP = 4 * SECOND
"""Expiries are counted in steps of four seconds, so that four bytes last until the year 2514."""
_LAST_STEP = 2**32 - 1
EXPIRY_BYTES, _MEMBER_BYTES = 4, 12
_SLOT_BYTES, _ENTRY_BYTES = 16, _MEMBER_BYTES + 8

_EXPIRY = Struct(">I")
_ONE_SLOT = Struct(">IQQ")
_LINE = Struct(">Iq")
_REFUNDED = Struct(">Iqq")


def expiry(now: int, ttl: int) -> int:
    """Return the step after which a record written at `now` may go."""
    return min((now + ttl) // STEP + 1, _LAST_STEP)


def expired_before(now: int) -> bytes:
    """Return what the bytes of records that may go at `now` are smaller than."""
    return _EXPIRY.pack(min(now // STEP, _LAST_STEP))


def read_window_bytes(data: bytes) -> Record:
    """Return the record of a windowed counter."""
    if len(data) == _ONE_SLOT.size:
        _, slot, value = _ONE_SLOT.unpack(data)
        return value << SLOT_BITS | slot
    count = (len(data) - EXPIRY_BYTES) // _SLOT_BYTES
    fields = _slots(count).unpack(data)
    return dict(zip(fields[1 : count + 1], fields[count + 1 :], strict=True))


def window_bytes(record: Record, expires: int) -> bytes:
    """Return a windowed counter's record as bytes."""
    if record.__class__ is int:
        return _ONE_SLOT.pack(expires, record & SLOT_MASK, record >> SLOT_BITS)
    slots = windowed_slots(record)
    return _slots(len(slots)).pack(expires, *slots, *slots.values())


def read_line_bytes(data: bytes) -> Record:
    """Return the record of a draining counter."""
    return _LINE.unpack(data)[1] if len(data) == _LINE.size else _REFUNDED.unpack(data)[1:]


def line_bytes(record: Record, expires: int) -> bytes:
    """Return a draining counter's record as bytes."""
    if record.__class__ is int:
        return _LINE.pack(expires, record)
    return _REFUNDED.pack(expires, *record)


def read_set_bytes(data: bytes) -> Record:
    """Return the record of a set."""
    fields = _members((len(data) - EXPIRY_BYTES) // _ENTRY_BYTES).unpack(data)
    return dict(zip(fields[1::2], fields[2::2], strict=True))


def set_bytes(record: Record, expires: int) -> bytes:
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
    return Struct(">I" + f"{_MEMBER_BYTES}sQ" * count)


class Kind(NamedTuple):
    """How the records of one kind of cell are read from bytes and written as such."""

    read: Callable[[bytes], Record]
    written: Callable[[Record, int], bytes]


WINDOW = Kind(read_window_bytes, window_bytes)
LINE = Kind(read_line_bytes, line_bytes)
SET = Kind(read_set_bytes, set_bytes)


def kind_of(cell: Cell | Correction) -> Kind:
    """Return which kind of record a cell or a correction is about."""
    if isinstance(cell, Counter):
        return LINE if cell.floor else WINDOW
    if isinstance(cell, Member | Leave | Renew):
        return SET
    return LINE if isinstance(cell, Drain) else WINDOW


Answered = tuple[tuple[int, int, int, int, int], bytes]
"""What a store replies of a cell, and its record's bytes once it is charged: none if it refuses."""


def answer_line(
    data: bytes | None, floor: int, amount: int, ceiling: int, now: int, ttl: int
) -> Answered | None:
    """Return what a draining counter answers, None where only a wrong clock can have written it.

    A `ceiling` below 0 refuses nothing.
    """
    value = refunded = 0
    if data is not None:
        if len(data) == _LINE.size:
            _, value = _LINE.unpack(data)
        else:
            _, value, refunded = _REFUNDED.unpack(data)
    used = value if value > floor else floor
    if used + amount > ceiling >= 0:
        return None if value > horizon(now, ttl) else ((used, 0, -1, refunded, 0), b"")
    record = draining(used + amount, refunded)
    return (used, 0, -1, refunded, 0), line_bytes(record, expiry(now, ttl))


def answer_window(
    data: bytes | None, slot: int, span: int, amount: int, ceiling: int, now: int, ttl: int
) -> Answered | None:
    """Return what a windowed counter answers to a charge in the present `slot`.

    None where it holds what only a wrong clock can have written, or refuses and has to tell which
    of its slots makes room. A `ceiling` below 0 refuses nothing.
    """
    if data is None or len(data) == _ONE_SLOT.size:
        # Most have one slot, the present one, or none yet: no record is made of it.
        _, newest, used = (0, slot, 0) if data is None else _ONE_SLOT.unpack(data)
        if newest == slot:
            value = used + amount
            if value > ceiling >= 0:
                return ((used, slot, -1, 0, 0), b"") if span == 1 else None
            value = value if value < TOP else TOP
            return (used, slot, -1, 0, 0), _ONE_SLOT.pack(expiry(now, ttl), slot, value)
    used, present, record = 0, slot, None
    if data is not None:
        record = read_window_bytes(data)
        used, slot = read_window(record, slot, span)
        if slot > present and slot > furthest_slot(present, span, ttl):
            return None
    if used + amount > ceiling >= 0:
        return None
    charged = charged_window(record, slot, span, amount)
    return (used, slot, -1, 0, 0), window_bytes(charged, expiry(now, ttl))


def answer_set(
    data: bytes | None, member: bytes, until: int, ceiling: int, now: int, ttl: int
) -> Answered | None:
    """Return what a set answers to a member that stays until then, None if it has no room.

    A `ceiling` below 0 refuses nobody.
    """
    record = None if data is None else read_set_bytes(data)
    live, present = read_members(record, member, now)
    if live >= ceiling >= 0 and not present:
        return None
    changed = set_bytes(entered(record, member, until, now), expiry(now, ttl))
    return (live, int(present), -1, 0, 0), changed

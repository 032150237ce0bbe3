"""What a cell says to a record, and the record after it: the arithmetic of stores in Python.

A store finds records and writes them down; between the two it asks here. None stands for no record
and, as an answer, for nothing to write.
"""

from __future__ import annotations

from typing import cast

from guardrail.model.cells import (
    Adjust,
    Cell,
    Correction,
    Counter,
    CounterReply,
    Drain,
    Member,
    MemberReply,
    Renew,
    Reply,
)
from guardrail.stores.records import (
    Record,
    believed_members,
    believed_window,
    charged_window,
    drained_pair,
    draining,
    entered,
    expiry_frees,
    horizon,
    read_members,
    read_window,
    readjusted,
    redrained,
    slot_frees,
)


def read_counter(
    cell: Counter, record: Record | None, now: int, spilled: bool = False
) -> CounterReply:
    """Return what a counter's record says to a cell at `now`."""
    if cell.floor:
        value, refunded = believed_line(cell, record, now)
        return CounterReply(max(value, cell.floor), 0, None, refunded, spilled)
    record = believed_window(record, cell.slot, cell.span, cell.ttl)
    used, slot = (0, cell.slot) if record is None else read_window(record, cell.slot, cell.span)
    frees = None
    if cell.span > 1 and cell.ceiling is not None:
        frees = slot_frees(record, slot, cell.span, used + cell.amount - cell.ceiling)
    return CounterReply(used, slot, frees, 0, spilled)


def read_set(
    cell: Member, record: Record | None, member: str | bytes, now: int, spilled: bool = False
) -> MemberReply:
    """Return what a set's record says to a cell; `member` is its member as the store names it."""
    record = believed_members(record, now, cell.expires)
    live, present = read_members(record, member, now)
    frees = None
    if cell.ceiling and not present and live >= cell.ceiling:
        frees = expiry_frees(record, live - cell.ceiling, now)
    return MemberReply(live, present, frees, spilled)


def refuses(cell: Cell, reply: Reply) -> bool:
    """Tell whether what a record said refuses the cell."""
    if cell.ceiling is None:
        return False
    if isinstance(cell, Counter):
        return cast(CounterReply, reply).used + cell.amount > cell.ceiling
    seen = cast(MemberReply, reply)
    return not seen.present and seen.live >= cell.ceiling


def charged(
    cell: Cell, record: Record | None, member: str | bytes, slot: int, now: int
) -> Record | None:
    """Return the record after a cell was applied, in `slot` if it is a windowed counter."""
    if isinstance(cell, Member):
        return entered(record, member, cell.expires, now)
    if not cell.amount:
        return None
    if cell.floor:
        value, refunded = believed_line(cell, record, now)
        return draining(max(value, cell.floor) + cell.amount, refunded)
    record = believed_window(record, cell.slot, cell.span, cell.ttl)
    return charged_window(record, slot, cell.span, cell.amount)


def believed_line(cell: Counter, record: Record | None, now: int) -> tuple[int, int]:
    """Return a draining counter's value and refunds, none if a clock that was ahead wrote it."""
    value, refunded = drained_pair(record)
    return (0, 0) if value > horizon(now, cell.ttl) else (value, refunded)


def corrected(
    correction: Adjust | Drain | Renew, record: Record | None, member: str | bytes, now: int
) -> Record | None:
    """Return the record after a correction other than a leave."""
    if isinstance(correction, Drain):
        return redrained(record, correction, now)
    if isinstance(correction, Adjust):
        return readjusted(record, correction.slot, correction.delta)
    if record is None or record.get(member, 0) <= now:
        return None
    return {**record, member: max(record[member], correction.expires)}


def member_of(cell: Cell | Correction) -> str:
    """Return the member that a cell or a correction names, empty if it is none of a set."""
    return getattr(cell, "member", "")

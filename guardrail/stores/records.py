"""How the memory store writes a record down: as few objects as its content allows.

A windowed counter with one slot is a single int, value above slot, else a dict of slots; a
draining counter is an int, or a pair once something was refunded; a set is a dict of expiries.
"""

from __future__ import annotations

from typing import Any, cast

from guardrail.model.amounts import DAY, SECOND
from guardrail.model.cells import TOP, Drain

Record = Any
"""An int, a pair of ints, or a dict of ints: the kind of its cell tells how to read it."""

SLOT_BITS = 34
SLOT_MASK = (1 << SLOT_BITS) - 1


def horizon(now: int, ttl: int) -> int:
    """Return the latest time, in microseconds, that a record of such a `ttl` may speak of at `now`.

    What lies beyond was written by a clock that was ahead, and counts for nothing: it would bind
    its key for as long as that clock was wrong. No debt reaches so far, see `redrained`, and none
    is remembered for so long after its last write.
    """
    return now + 4 * ttl + DAY


def furthest_slot(slot: int, span: int, ttl: int) -> int:
    """Return the newest slot that a windowed counter may have while `slot` is the present one.

    Calendar windows are named by their first second, and kept for longer than one lasts.
    """
    return slot + (span + 1 if span > 1 else ttl // SECOND)


def believed_window(record: Record | None, slot: int, span: int, ttl: int) -> Record | None:
    """Return a windowed counter's record without slots that only a wrong clock can have written."""
    furthest = furthest_slot(slot, span, ttl)
    if record is None or (record.__class__ is int and record & SLOT_MASK <= furthest):
        return record
    slots = {k: v for k, v in windowed_slots(record).items() if k <= furthest}
    return packed(slots) if slots else None


def believed_members(record: Record | None, now: int, expires: int) -> Record | None:
    """Return a set's record without members that only a wrong clock can have entered.

    `expires` is when one that enters now would go.
    """
    furthest = horizon(now, expires - now)
    if record is None or max(record.values(), default=0) <= furthest:
        return record
    return {member: expiry for member, expiry in record.items() if expiry <= furthest}


def windowed_slots(record: Record | None) -> dict[int, int]:
    """Return a windowed counter's slots and values."""
    if record is None:
        return {}
    if isinstance(record, int):
        return {record & SLOT_MASK: record >> SLOT_BITS}
    return cast(dict[int, int], record)


def packed(slots: dict[int, int]) -> Record:
    """Return the record of at least one slot."""
    if len(slots) > 1:
        return slots
    ((slot, value),) = slots.items()
    return value << SLOT_BITS | slot


def drained_pair(record: Record | None) -> tuple[int, int]:
    """Return a draining counter's value and all that was refunded to it."""
    if record is None:
        return 0, 0
    return (record, 0) if isinstance(record, int) else cast(tuple[int, int], record)


def draining(value: int, refunded: int) -> Record:
    """Return the record of a draining counter."""
    return (min(value, TOP), refunded) if refunded else min(value, TOP)


def makes_room(others: dict[int, int], slot: int, excess: int) -> int:
    """Return the oldest slot by whose leaving `excess` is gone, `slot` if none does."""
    for oldest in sorted(others):
        excess -= others[oldest]
        if excess <= 0:
            return oldest
    return slot


def slot_frees(record: Record | None, slot: int, span: int, excess: int) -> int | None:
    """Return the slot whose leaving makes room for `excess`, None if there is no excess."""
    if excess <= 0:
        return None
    others = {k: v for k, v in windowed_slots(record).items() if slot - span < k < slot}
    return makes_room(others, slot, excess)


def expiry_frees(record: Record | None, over: int, now: int) -> int:
    """Return when a place is free in a set with `over` members more than one too many."""
    expiries: dict[str, int] = record or {}
    return sorted(expiry for expiry in expiries.values() if expiry > now)[over]


def ban_of(record: Record | None, now: int, ttl: int) -> int:
    """Return until when a ban of the length `ttl` lasts, 0 if a clock that was ahead wrote it."""
    value, _ = drained_pair(record)
    return 0 if value > horizon(now, ttl) else value


def adjusted(slots: dict[int, int], slot: int, delta: int) -> dict[int, int]:
    """Return the slots after a correction; empty if there is nothing to correct."""
    if delta > 0:
        slot = max(slot, *slots) if slots else slot
    elif slot not in slots:
        return {}
    return {**slots, slot: min(max(0, slots.get(slot, 0) + delta), TOP)}


def readjusted(record: Record | None, slot: int, delta: int) -> Record | None:
    """Return a windowed counter's record after a correction, None if there is none to make."""
    if record.__class__ is int and (
        record & SLOT_MASK >= slot if delta > 0 else record & SLOT_MASK == slot
    ):
        value = (record >> SLOT_BITS) + delta
        return min(max(0, value), TOP) << SLOT_BITS | (record & SLOT_MASK)
    changed = adjusted(windowed_slots(record), slot, delta)
    return packed(changed) if changed else None


def redrained(record: Record | None, correction: Drain, now: int) -> Record:
    """Return the record of a draining counter after a correction."""
    value, refunded = drained_pair(record)
    if correction.delta >= 0:
        # A record forgotten since the charge has drained: what was charged then is all there was.
        before = value or correction.charged
        furthest = max(before, horizon(now, correction.ttl))
        return draining(min(before + correction.delta, furthest), refunded)
    undrained = correction.charged - now - (refunded - correction.refunded)
    refund = max(0, min(-correction.delta, undrained))
    return draining(value - refund, refunded + refund)


def read_window(record: Record, slot: int, span: int) -> tuple[int, int]:
    """Return what a windowed counter used, and the slot it would be charged in."""
    if record.__class__ is int:
        recorded = record & SLOT_MASK
        if recorded >= slot:
            return record >> SLOT_BITS, recorded
        return (record >> SLOT_BITS if recorded > slot - span else 0), slot
    slots = windowed_slots(record)
    newest = max(slot, *slots)
    oldest = newest - span
    return sum(value for k, value in slots.items() if k > oldest), newest


def charged_window(record: Record, slot: int, span: int, amount: int) -> Record:
    """Return the record of a windowed counter after `amount` went to its newest slot."""
    if record is None or span == 1:
        # One slot at most is left: this one.
        value = 0
        if record.__class__ is not int:
            value = windowed_slots(record).get(slot, 0)
        elif record & SLOT_MASK == slot:
            value = record >> SLOT_BITS
        return min(value + amount, TOP) << SLOT_BITS | slot
    slots = {k: v for k, v in windowed_slots(record).items() if slot - span < k}
    slots[slot] = min(slots.get(slot, 0) + amount, TOP)
    return packed(slots)


def read_members(record: Record | None, member: str | bytes, now: int) -> tuple[int, bool]:
    """Return how many members of a set are live, and whether `member` is one of them."""
    if record is None:
        return 0, False
    return sum(expiry > now for expiry in record.values()), record.get(member, 0) > now


def entered(record: Record | None, member: str | bytes, expires: int, now: int) -> Record:
    """Return a set's record after `member` entered or was renewed."""
    furthest = horizon(now, expires - now)
    live = {m: expiry for m, expiry in (record or {}).items() if now < expiry <= furthest}
    live[member] = max(live.get(member, 0), expires)
    return live

"""What a cell says to a record, the record after it, and both as numbers: the arithmetic of stores.

A store finds records and writes them down; between the two it asks here. None stands for no record
and, as an answer, for nothing to write. Records are as few objects as their content allows: a
windowed counter with one slot is a single int, value above slot, else a dict of slots, which rise;
a draining counter is an int, or a pair once something was refunded; a set is a dict of expiries.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

from guardrail.errors import StoreError
from guardrail.model.amounts import DAY, SECOND
from guardrail.model.cells import (
    COUNTER,
    LEFT_OUT,
    LINE,
    REPLY,
    SET,
    TOP,
    WINDOW,
    Adjust,
    Cell,
    Charge,
    Correction,
    Counter,
    CounterReply,
    Drain,
    Form,
    Member,
    MemberReply,
    Outcome,
    Renew,
    Reply,
    milliseconds,
)

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
    if record is None or newest_in(record) <= furthest:
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
    """Return a windowed counter's slots and values, the oldest first."""
    if record is None:
        return {}
    if isinstance(record, int):
        return {record & SLOT_MASK: record >> SLOT_BITS}
    return cast(dict[int, int], record)


def newest_in(record: Record) -> int:
    """Return the newest slot of a windowed counter's record."""
    newest: int = record & SLOT_MASK if record.__class__ is int else next(reversed(record))
    return newest


def packed(slots: dict[int, int]) -> Record:
    """Return the record of at least one slot, the oldest first."""
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
        slot = max(slot, newest_in(slots)) if slots else slot
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
    newest = max(slot, newest_in(record))
    oldest = newest - span
    if next(iter(record)) > oldest:
        return sum(record.values()), newest
    return sum(value for k, value in record.items() if k > oldest), newest


def newest_slot(record: Record) -> Record:
    """Return the packed newest slot of a record of several, to read a window of one slot.

    Such a record comes of what was settled in a slot in which nothing had been charged.
    """
    slot = newest_in(record)
    return record[slot] << SLOT_BITS | slot


def charged_window(record: Record, slot: int, span: int, amount: int) -> Record:
    """Return the record of a windowed counter after `amount` went to its newest slot.

    A record of several slots is changed in place.
    """
    if record is None or span == 1:
        # One slot at most is left: this one.
        value = 0
        if record.__class__ is not int:
            value = windowed_slots(record).get(slot, 0)
        elif record & SLOT_MASK == slot:
            value = record >> SLOT_BITS
        return min(value + amount, TOP) << SLOT_BITS | slot
    slots = windowed_slots(record)
    if next(iter(slots)) <= slot - span:
        slots = {k: v for k, v in slots.items() if slot - span < k}
    slots[slot] = min(slots.get(slot, 0) + amount, TOP)
    return packed(slots)


def read_members(record: Record | None, member: str | bytes, now: int) -> tuple[int, bool]:
    """Return how many members of a set are live, and whether `member` is one of them."""
    if record is None:
        return 0, False
    present = record.get(member, 0) > now
    if min(record.values(), default=0) > now:
        return len(record), present
    return sum(expiry > now for expiry in record.values()), present


def entered(record: Record | None, member: str | bytes, expires: int, now: int) -> Record:
    """Return a set's record after `member` entered or was renewed.

    A record whose members all stay is changed in place.
    """
    if not record:
        return {member: expires}
    live, furthest = record, horizon(now, expires - now)
    if len(record) == 1 and now < record.get(member, 0) <= furthest:
        record[member] = max(record[member], expires)
        return record
    expiries = record.values()
    if min(expiries) <= now or max(expiries) > furthest:
        live = {m: expiry for m, expiry in record.items() if now < expiry <= furthest}
    live[member] = max(live.get(member, 0), expires)
    return live


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
    if isinstance(correction, Adjust):
        return readjusted(record, correction.slot, correction.delta)
    if isinstance(correction, Drain):
        return redrained(record, correction, now)
    if record is None or record.get(member, 0) <= now:
        return None
    return {**record, member: max(record[member], correction.expires)}


def united(kind: int, one: Record | None, other: Record | None) -> Record | None:
    """Return the record that counts for two: amounts add up, a line is the later, sets unite."""
    if one is None or other is None:
        return copied(one if other is None else other)
    if kind == WINDOW:
        slots = dict(windowed_slots(one))
        for slot, value in windowed_slots(other).items():
            slots[slot] = min(slots.get(slot, 0) + value, TOP)
        return packed(dict(sorted(slots.items())))
    if kind == LINE:
        (value, refunded), (later, returned) = drained_pair(one), drained_pair(other)
        return draining(max(value, later), max(refunded, returned))
    members = dict(one)
    for member, expiry in other.items():
        members[member] = max(members.get(member, 0), expiry)
    return members


def copied(record: Record | None) -> Record | None:
    """Return a record that changes apart from the one it is like."""
    return dict(record) if isinstance(record, dict) else record


def member_of(cell: Cell | Correction) -> str:
    """Return the member that a cell or a correction names, empty if it is none of a set."""
    return getattr(cell, "member", "")


def acquired(
    charges: Sequence[Charge],
    cells: Sequence[Cell],
    read: Callable[[Cell], Reply],
    apply: Callable[[Cell, Reply], None],
) -> Outcome:
    """Return the outcome of cells that `read` answers, after charging by `apply` what is admitted.

    Each is called with one cell at a time, in their order; all are read before one is charged.
    """
    refused = [False] * len(charges)
    left_out: set[int] = set()
    replies: list[Reply] = []
    for cell in cells:
        reply = read(cell)
        if refuses(cell, reply):
            refused[cell.charge] = True
        replies.append(reply)
        if reply.spilled and cell.spill == LEFT_OUT:
            left_out.add(cell.charge)
    admitted, applied = admission(charges, refused, left_out)
    for cell, reply in zip(cells, replies, strict=True):
        if applied[cell.charge]:
            apply(cell, reply)
    return Outcome(admitted, refused, replies)


def admission(
    charges: Sequence[Charge], refused: list[bool], left_out: Collection[int]
) -> tuple[bool, list[bool]]:
    """Return whether the request is admitted, and which charges to apply.

    `refused` tells of each charge whether one of its cells refuses; what was never tried is taken
    back in it. `left_out` are charges that neither refuse nor count.
    """
    admitted = not any(
        refused[i]
        for i, charge in enumerate(charges)
        if charge.binding and charge.after is None and i not in left_out
    )
    # What was never tried was not refused either: nothing may follow from it.
    for i, charge in enumerate(charges):
        if i in left_out or (charge.after is not None and not refused[charge.after]):
            refused[i] = False
    applied = [
        (admitted if charge.after is None else refused[charge.after])
        and not (refused[i] or i in left_out)
        for i, charge in enumerate(charges)
    ]
    return admitted, applied


def form_of(charges: Sequence[Charge], cells: Sequence[Cell]) -> Form:
    """Return charges and cells as numbers.

    Raises:
        StoreError: a number is not whole, negative, or past 2⁵³ − 1.
    """
    numbers: list[Any] = []
    members: list[int] = []
    places: dict[str, int] = {}
    for cell in cells:
        place = places.setdefault(cell.key, len(places) + 1)
        spill = 0
        if cell.spill is not None:
            spill = -1 if cell.spill == LEFT_OUT else places.setdefault(cell.spill, len(places) + 1)
        ceiling = -1 if cell.ceiling is None else cell.ceiling
        ttl = milliseconds(cell.ttl)
        if isinstance(cell, Counter):
            charge, _, slot, span, floor, amount, _, _, _ = cell
            check_whole(amount, ceiling, slot, floor)
            row = (COUNTER, charge + 1, place, ttl, spill, slot, span, floor, amount, ceiling)
            numbers += row
        else:
            check_whole(cell.expires, ceiling)
            members.append(len(numbers) + 5)
            numbers += (SET, cell.charge + 1, place, ttl, spill, cell.member)
            numbers += (cell.expires, 0, 0, ceiling)
    flags = [n for c in charges for n in (int(c.binding), 0 if c.after is None else c.after + 1)]
    return Form(list(places), flags, numbers, members)


def check_whole(*numbers: int) -> None:
    """Check numbers that a store is to count with.

    Raises:
        StoreError: one is not whole, below −1, or past 2⁵³ − 1.
    """
    for number in numbers:
        if number.__class__ is not int or not -1 <= number <= TOP:
            raise StoreError(f"`{number!r}` cannot be counted: it must be a whole number below 2⁵³")


class GarbledError(StoreError):
    """What came back is no reply: what the call charged is not known, and cannot be taken back."""

    def __init__(self, message: str) -> None:
        super().__init__(message, unsure=True)


class NestedCallError(StoreError):
    """The call came from within another of the same thread: nothing was asked.

    The collector of garbage, which ends abandoned streams, makes such calls wherever it runs. It
    tells nothing of the store.
    """


def are_numbers(reply: object) -> bool:
    """Tell whether a reply is a list of whole numbers, as one to a question must be."""
    return isinstance(reply, list) and set(map(type, reply)) == {int}


def outcome_of(reply: Sequence[int], charges: int, cells: Sequence[Cell]) -> Outcome:
    """Return the outcome that a reply in numbers stands for.

    It holds whether the request was admitted, whether each charge was refused, and five numbers a
    cell: used, slot, what frees (−1 for nothing), refunded; or live, present, what frees, 0; then
    whether the cell was counted elsewhere or left out.

    Raises:
        GarbledError: it has not that many numbers.
    """
    if len(reply) != 1 + charges + REPLY * len(cells):
        raise GarbledError("the store's reply is none of ours: its length is wrong")
    replies: list[Reply] = []
    at = 1 + charges
    for cell in cells:
        used, second, frees, refunded, spilled = reply[at : at + REPLY]
        at += REPLY
        left = None if frees < 0 else frees
        if isinstance(cell, Counter):
            replies.append(CounterReply(used, second, left, refunded, spilled == 1))
        else:
            replies.append(MemberReply(used, second == 1, left, spilled == 1))
    return Outcome(reply[0] == 1, [flag == 1 for flag in reply[1 : 1 + charges]], replies)


def reply_to(form: Form, outcome: object) -> list[int]:
    """Return a store's answer to a form as numbers; see `outcome_of`.

    Raises:
        GarbledError: it is no outcome, or not one of this form.
    """
    try:
        reply = reply_of(cast(Outcome, outcome))
    except Exception as problem:  # a store of the host's own may answer whatever it likes
        raise GarbledError(f"the store answered `{outcome!r:.100}`, which is none") from problem
    if not form.fits(reply):
        raise GarbledError("the store's answer does not fit what was asked")
    return reply


def reply_of(outcome: Outcome) -> list[int]:
    """Return an outcome as numbers; see `outcome_of`."""
    numbers = [int(outcome.admitted), *map(int, outcome.refused)]
    for reply in outcome.replies:
        frees = -1 if reply.frees is None else reply.frees
        if isinstance(reply, CounterReply):
            numbers += (reply.used, reply.slot, frees, reply.refunded, int(reply.spilled))
        else:
            numbers += (reply.live, int(reply.present), frees, 0, int(reply.spilled))
    return numbers

"""From charges and cells to the numbers of a form, and from replies in numbers to outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from guardrail.errors import StoreError
from guardrail.model.cells import (
    LEFT_OUT,
    TOP,
    Cell,
    Charge,
    Counter,
    CounterReply,
    MemberReply,
    Outcome,
    Reply,
)
from guardrail.model.forms import COUNTER, MILLISECOND, REPLY, SET, Form


class Planned(NamedTuple):
    """A call whose cells are there already."""

    charges: Sequence[Charge]
    cells: Sequence[Cell]

    @property
    def form(self) -> Form:
        """The call as numbers.

        Raises:
            StoreError: a number is not whole, negative, or past 2⁵³ − 1.
        """
        return form_of(self.charges, self.cells)


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
        ttl = -(-cell.ttl // MILLISECOND) or 1
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

"""A cluster: which server has a slot, how a request is split over slots, and what is taken back.

The cells of a request are split by slot, in the order of the slots: each call is atomic, and if
one of them refuses, what the calls before it charged is taken back, and those after it only look.
No limit is ever exceeded by that; for a moment others may find a place taken that is given back.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence

from guardrail.errors import StoreError
from guardrail.model.cells import (
    LEFT_OUT,
    Cell,
    Charge,
    Counter,
    CounterReply,
    Form,
    Outcome,
    Reply,
)
from guardrail.stores.cells import form_of, outcome_of
from guardrail.stores.redis.address import Place
from guardrail.stores.redis.protocol import CallContext, Compensation, compensating
from guardrail.stores.steps import Steps


class SlotTable:
    """The primaries of a cluster by the slots they have."""

    def __init__(self, rows: Sequence[tuple[int, int, Place]]) -> None:
        self._rows = sorted(rows, key=lambda row: row[0])
        self._starts = [first for first, _, _ in self._rows]
        self._moved: dict[int, Place] = {}

    @classmethod
    def read(cls, reply: object, asked: Place) -> SlotTable:
        """Return the table that `CLUSTER SLOTS` answered with; `asked` stands for a nameless host.

        Raises:
            StoreError: the reply is no such table, or leaves slots out.
        """
        rows = []
        try:
            for first, last, primary, *_ in reply:  # type: ignore[attr-defined]
                host = primary[0].decode() if primary[0] else ""
                if host in NAMELESS:
                    host = _address_beside(primary) or asked.host
                rows.append((int(first), int(last), Place(host, int(primary[1]))))
        except (TypeError, ValueError, AttributeError) as problem:
            raise StoreError(f"`{asked}` does not tell its slots: is it a cluster?") from problem
        if not rows:
            raise StoreError(f"the cluster of `{asked}` has no slots yet")
        return cls(rows)

    def place(self, slot: int) -> Place | None:
        """Return who has a slot, None if nobody does."""
        if slot in self._moved:
            return self._moved[slot]
        at = bisect_right(self._starts, slot) - 1
        if at < 0 or slot > self._rows[at][1]:
            return None
        return self._rows[at][2]

    def move(self, slot: int, place: Place) -> None:
        """Note that a slot has another server now."""
        self._moved[slot] = place

    def places(self) -> set[Place]:
        """Return every primary."""
        return {place for _, _, place in self._rows} | set(self._moved.values())


NAMELESS = ("", "?")
"""What stands for the host of a server that its cluster knows no name of."""


def _address_beside(primary: Sequence[object]) -> str | None:
    """Return the address that servers from version 7 on tell of another beside its name."""
    beside = primary[3] if len(primary) > 3 else ()
    told = list(beside) if isinstance(beside, list) else []
    for name, value in zip(told[::2], told[1::2], strict=False):
        if name == b"ip" and isinstance(value, bytes) and value:
            return value.decode()
    return None


AskSlot = Callable[[Form, int, bool], Steps[list[int]]]
"""Asks a slot for charges, or, where that is true, has them refused whatever the cells say."""


def by_slot(
    context: CallContext, corrections: Sequence[Compensation]
) -> list[tuple[int, list[Compensation]]]:
    """Return corrections in parts that one call each can take, in the order of their slots."""
    parts: dict[int, list[Compensation]] = {}
    for correction in corrections:
        parts.setdefault(context.slot(correction.key), []).append(correction)
    return sorted(parts.items())


class Scatter:
    """One request's cells, asked for slot by slot.

    However asking ends, `owed` is what has to be taken back then.
    """

    def __init__(
        self, context: CallContext, charges: Sequence[Charge], cells: Sequence[Cell], ask: AskSlot
    ) -> None:
        self.context = context
        self.charges = charges
        self.cells = cells
        self.ask = ask
        self.replies: list[Reply | None] = [None] * len(cells)
        self.refused = [False] * len(charges)
        self.admitted = True
        self.owed: list[Compensation] = []
        self.charged: list[tuple[int, Compensation]] = []

    def acquired(self) -> Steps[Outcome]:
        """Ask for every group in order, then for the overflow counters that are needed.

        Raises:
            StoreError: what follows a charge has other key facts; nothing was sent.
        """
        for slot, places in sorted(self._groups().items()):
            yield from self._acquired(slot, places, spilling=False)
        for slot, places in sorted(self._overflow().items()):
            yield from self._acquired(slot, places, spilling=True)
        if self.admitted:
            # What stands is not taken back, but for charges that a later slot refused.
            self.owed[:] = [each for number, each in self.charged if self.refused[number]]
        replies = [reply for reply in self.replies if reply is not None]
        return Outcome(self.admitted, self.refused, replies)

    def _groups(self) -> dict[int, list[int]]:
        groups: dict[int, list[int]] = {}
        slots: dict[int, set[int]] = {}
        for place, cell in enumerate(self.cells):
            slot = self.context.slot(cell.key)
            groups.setdefault(slot, []).append(place)
            slots.setdefault(cell.charge, set()).add(slot)
        for number, charge in enumerate(self.charges):
            if charge.after is not None and slots.get(number) != slots.get(charge.after):
                raise StoreError("on a cluster, what follows a charge must have its key facts")
        return groups

    def _overflow(self) -> dict[int, list[int]]:
        """Group the cells of charges that were left out, since a full server did not know one.

        The unknown ones are counted where they spill; the others could not be charged yet.
        """
        left_out = {
            cell.charge
            for cell, reply in zip(self.cells, self.replies, strict=True)
            if reply is not None and reply.spilled and cell.spill and not self.refused[cell.charge]
        }
        groups: dict[int, list[int]] = {}
        for place, cell in enumerate(self.cells):
            if cell.charge in left_out and not (isinstance(cell, Counter) and cell.amount == 0):
                groups.setdefault(self.context.slot(self._spilled(place).key), []).append(place)
        return groups

    def _spilled(self, place: int) -> Cell:
        """Return a cell under the key that it is counted under after its server was full."""
        cell, reply = self.cells[place], self.replies[place]
        if cell.spill and reply is not None and reply.spilled:
            return cell._replace(key=cell.spill, spill=None)
        return cell._replace(spill=None)

    def _acquired(self, slot: int, places: Sequence[int], *, spilling: bool) -> Steps[None]:
        numbers = sorted({self.cells[place].charge for place in places})
        index = {number: i for i, number in enumerate(numbers)}
        charges = [
            Charge(c.binding, None if c.after is None else index.get(c.after))
            for c in (self.charges[number] for number in numbers)
        ]
        cells = [self._cell(place, index, spilling) for place in places]
        reply = yield from self.ask(form_of(charges, cells), slot, not self.admitted)
        outcome = outcome_of(reply, len(charges), cells)
        self._note(numbers, places, cells, outcome, spilling)
        for number, each in compensating(charges, cells, outcome, strikes=False):
            self.charged.append((numbers[number], each))
            self.owed.append(each)

    def _cell(self, place: int, index: Mapping[int, int], spilling: bool) -> Cell:
        cell = self._spilled(place) if spilling else self.cells[place]
        # The overflow counter is on another server: here its charge is only looked at.
        spill = None if cell.spill is None else LEFT_OUT
        return cell._replace(charge=index[cell.charge], spill=spill)

    def _note(
        self,
        numbers: Sequence[int],
        places: Sequence[int],
        cells: Sequence[Cell],
        outcome: Outcome,
        spilling: bool,
    ) -> None:
        for number, refused in zip(numbers, outcome.refused, strict=True):
            self.refused[number] |= refused
        for place, cell, reply in zip(places, cells, outcome.replies, strict=True):
            before = self.replies[place]
            spilled = reply.spilled if before is None else before.spilled
            self.replies[place] = reply._replace(spilled=spilled)
            # A ban stands also where the limit's own record is unknown.
            number = numbers[cell.charge]
            if self.charges[number].after is None and _over(cell, reply):
                self.refused[number] = True
        binding = (
            self.refused[n] and self.charges[n].binding and self.charges[n].after is None
            for n in numbers
        )
        self.admitted = self.admitted and outcome.admitted and not any(binding)


def _over(cell: Cell, reply: Reply) -> bool:
    if not isinstance(cell, Counter) or not isinstance(reply, CounterReply) or reply.spilled:
        return False
    return cell.ceiling is not None and reply.used + cell.amount > cell.ceiling

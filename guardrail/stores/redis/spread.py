"""How a request is split in a cluster, and what is taken back of it.

The cells of a request are split by slot, in the order of the slots: each call is atomic, and if
one of them refuses, what the calls before it charged is taken back, and those after it only look.
No limit is ever exceeded by that; for a moment others may find a place taken that is given back.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

from guardrail.errors import StoreError
from guardrail.model.cells import (
    LEFT_OUT,
    Cell,
    Charge,
    Counter,
    CounterReply,
    Outcome,
    Reply,
)
from guardrail.stores.forms import Planned, outcome_of
from guardrail.stores.redis.dialogue import Call, Dialogue, Speech, acquired
from guardrail.stores.redis.wire import Undo, undoing


def acquiring(
    speech: Speech, charges: Sequence[Charge], cells: Sequence[Cell], now: int, undo: list[Undo]
) -> Dialogue:
    """Ask for a request's charges; return the outcome.

    In a cluster a charge and what comes after it must have the same key facts. However the
    dialogue ends, its caller has to take back `undo`.
    """
    if not speech.spread:
        asked = Planned(charges, cells)
        reply = yield from acquired(speech, asked, now, 0, refuse=False)
        return outcome_of(reply, len(charges), cells)
    return (yield from _Spread(speech, charges, cells, now, undo).asked())


class _Spread:
    """One request's cells, asked for slot by slot."""

    def __init__(
        self,
        speech: Speech,
        charges: Sequence[Charge],
        cells: Sequence[Cell],
        now: int,
        undo: list[Undo],
    ) -> None:
        self.speech = speech
        self.charges = charges
        self.cells = cells
        self.now = now
        self.replies: list[Reply | None] = [None] * len(cells)
        self.refused = [False] * len(charges)
        self.admitted = True
        self.undo = undo
        self.charged: list[tuple[int, Undo]] = []

    def asked(self) -> Dialogue:
        """Ask for every group in order, then for the overflow counters that are needed."""
        for slot, places in sorted(self._groups().items()):
            yield from self._ask(slot, places, spilling=False)
        for slot, places in sorted(self._overflow().items()):
            yield from self._ask(slot, places, spilling=True)
        if self.admitted:
            # What stands is not taken back, but for charges that a later slot refused.
            self.undo[:] = [each for number, each in self.charged if self.refused[number]]
        replies = [reply for reply in self.replies if reply is not None]
        return Outcome(self.admitted, self.refused, replies)

    def _groups(self) -> dict[int, list[int]]:
        groups: dict[int, list[int]] = {}
        slots: dict[int, set[int]] = {}
        for place, cell in enumerate(self.cells):
            slot = self.speech.slot(cell.key)
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
                groups.setdefault(self.speech.slot(self._spilled(place).key), []).append(place)
        return groups

    def _spilled(self, place: int) -> Cell:
        """Return a cell under the key that it is counted under after its server was full."""
        cell, reply = self.cells[place], self.replies[place]
        if cell.spill and reply is not None and reply.spilled:
            return cell._replace(key=cell.spill, spill=None)
        return cell._replace(spill=None)

    def _ask(
        self, slot: int, places: Sequence[int], *, spilling: bool
    ) -> Generator[Call, object, None]:
        numbers = sorted({self.cells[place].charge for place in places})
        index = {number: i for i, number in enumerate(numbers)}
        charges = [
            Charge(c.binding, None if c.after is None else index.get(c.after))
            for c in (self.charges[number] for number in numbers)
        ]
        cells = [self._cell(place, index, spilling) for place in places]
        asked = Planned(charges, cells)
        reply = yield from acquired(self.speech, asked, self.now, slot, refuse=not self.admitted)
        outcome = outcome_of(reply, len(charges), cells)
        self._note(numbers, places, cells, outcome, spilling)
        for number, each in undoing(charges, cells, outcome, strikes=False):
            self.charged.append((numbers[number], each))
            self.undo.append(each)

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

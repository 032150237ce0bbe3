"""What is said to the servers for one decision or one settlement, without any input or output.

A dialogue is a generator: it yields calls, is sent replies, and returns what came of them. One
server takes one call. In a cluster the cells of a request are split by slot, in the order of the
slots: each call is atomic, and if one of them refuses, what the calls before it charged is taken
back, and those after it only look. No limit is ever exceeded by that; for a moment others may
find a place taken that is given back.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Generator, Mapping, Sequence
from typing import NamedTuple

from guardrail.errors import StoreError
from guardrail.model.cells import (
    LEFT_OUT,
    Cell,
    Charge,
    Correction,
    Counter,
    CounterReply,
    Outcome,
    Reply,
)
from guardrail.stores.redis.wire import (
    Names,
    Packed,
    Retract,
    Terms,
    acquire_call,
    read_outcome,
    settle_call,
    undoing,
)

SLOTS = 16384
ACQUIRE, SETTLE, LOOK, PLAIN = "acquire", "settle", "look", "plain"

Undo = list[Correction | Retract]


class Call(NamedTuple):
    """One command to the server of a slot.

    `kind` is the script to run, `LOOK` for a plain reading of the keys, or `PLAIN` where `keys`
    are a command as it is. `charges` and `cells` tell what a reply to `ACQUIRE` that comes too
    late has to be undone of.
    """

    kind: str
    slot: int
    keys: Sequence[bytes | str | int]
    arguments: tuple[bytes, ...] = ()
    charges: Sequence[Charge] = ()
    cells: Sequence[Cell] = ()


Dialogue = Generator[Call, object, Outcome]
Settlement = Generator[Call, object, None]


class Speech(NamedTuple):
    """How calls are made: under which names, on what terms, and whether to a cluster.

    `former` are the names of an epoch whose records are taken over when they are first needed.
    """

    names: Names
    former: Names | None
    terms: Terms
    spread: bool

    def slot(self, key: str) -> int:
        """Return the slot of a key's records: one for all limits of the same key facts."""
        return slot_of(self.names.tag(key)) if self.spread else 0


def slot_of(tag: bytes) -> int:
    """Return the cluster slot of a name with a hash tag.

    Source: the Redis Cluster specification, CRC16 (XMODEM) of what stands in braces.
    """
    return crc_hqx(tag[tag.index(b"{") + 1 : tag.index(b"}")], 0) % SLOTS


def acquiring(
    speech: Speech, charges: Sequence[Charge], cells: Sequence[Cell], now: int, undo: Undo
) -> Dialogue:
    """Ask for a request's charges; return the outcome.

    Whatever ends the dialogue, `undo` is then what has to be taken back.
    """
    if not speech.spread:
        return (yield from _acquired(speech, charges, cells, now, 0, refuse=False))
    return (yield from _Spread(speech, charges, cells, now, undo).asked())


def settling(speech: Speech, corrections: Sequence[Correction | Retract], now: int) -> Settlement:
    """Have corrections applied, slot by slot."""
    by_slot: dict[int, list[Correction | Retract]] = {}
    for correction in corrections:
        by_slot.setdefault(speech.slot(correction.key), []).append(correction)
    applied = False
    for slot, part in sorted(by_slot.items()):
        try:
            packed = settle_call(part, now, speech.names, speech.terms)
            taken = yield from _taken_over(speech, [c.key for c in part], packed, slot)
            yield Call(SETTLE, slot, packed.keys, packed.encoded(taken))
        except StoreError as problem:
            if not applied:
                raise
            # Some slots have theirs: to repeat all of it would refund twice.
            raise StoreError(str(problem), unsure=True) from problem
        applied = True


def spoken(
    commands: Generator[tuple[bytes | str | int, ...], object, None], slot: int
) -> Settlement:
    """Have plain commands answered by the server of a slot."""
    try:
        command = next(commands)
        while True:
            reply = yield Call(PLAIN, slot, command)
            command = commands.send(reply)
    except StopIteration:
        return


def _acquired(
    speech: Speech,
    charges: Sequence[Charge],
    cells: Sequence[Cell],
    now: int,
    slot: int,
    *,
    refuse: bool,
) -> Generator[Call, object, Outcome]:
    terms = speech.terms._replace(refuse=True) if refuse else speech.terms
    packed = acquire_call(charges, cells, now, speech.names, terms)
    keys = [key for cell in cells for key in (cell.key, cell.spill) if key]
    taken = yield from _taken_over(speech, keys, packed, slot)
    reply = yield Call(ACQUIRE, slot, packed.keys, packed.encoded(taken), charges, cells)
    return read_outcome(_bytes(reply), len(charges), cells)


def _taken_over(
    speech: Speech, keys: Sequence[str], packed: Packed, slot: int
) -> Generator[Call, object, Mapping[int, bytes]]:
    """Look up the records of keys under their former names, by their places in the call.

    Nobody writes those any more, so that they may be read ahead of the call.
    """
    former = speech.former
    if former is None:
        return {}
    every = list(dict.fromkeys(keys))
    by_slot: dict[int, list[str]] = {}
    for key in every:
        by_slot.setdefault(slot_of(former.tag(key)) if speech.spread else 0, []).append(key)
    found: dict[int, bytes] = {}
    for at, group in sorted(by_slot.items()):
        reply = yield Call(LOOK, at, [former.record(key) for key in group])
        values = reply if isinstance(reply, list) else []
        for key, value in zip(group, values, strict=True):
            if value is not None:
                found[packed.keys.index(speech.names.record(key)) + 1] = value
    return found


def _bytes(reply: object) -> bytes:
    if isinstance(reply, bytes):
        return reply
    raise StoreError(f"the server answered `{reply!r}`, which is none of ours", unsure=True)


class _Spread:
    """One request's cells, asked for slot by slot."""

    def __init__(
        self,
        speech: Speech,
        charges: Sequence[Charge],
        cells: Sequence[Cell],
        now: int,
        undo: Undo,
    ) -> None:
        self.speech = speech
        self.charges = charges
        self.cells = cells
        self.now = now
        self.replies: list[Reply | None] = [None] * len(cells)
        self.refused = [False] * len(charges)
        self.admitted = True
        self.undo = undo
        self.charged: list[tuple[int, Correction | Retract]] = []

    def asked(self) -> Dialogue:
        """Ask for every group in order, then for the overflow counters that are needed."""
        for slot, places in sorted(self._groups().items()):
            yield from self._ask(slot, places, spilling=False)
        for slot, places in sorted(self._overflow().items()):
            yield from self._ask(slot, places, spilling=True)
        if self.admitted:
            # A rule that refuses nothing is still charged in all its slots or in none.
            self.undo[:] = [undo for number, undo in self.charged if self.refused[number]]
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
        """Group the cells whose server was full and did not know them, by where they spill."""
        groups: dict[int, list[int]] = {}
        for place, cell in enumerate(self.cells):
            reply = self.replies[place]
            if reply is None or not reply.spilled or not cell.spill:
                continue
            if not self.refused[cell.charge]:
                groups.setdefault(self.speech.slot(cell.spill), []).append(place)
        return groups

    def _ask(
        self, slot: int, places: Sequence[int], *, spilling: bool
    ) -> Generator[Call, object, None]:
        numbers = sorted({self.cells[place].charge for place in places})
        index = {number: i for i, number in enumerate(numbers)}
        charges = [
            Charge(c.binding, None if c.after is None else index[c.after])
            for c in (self.charges[number] for number in numbers)
        ]
        cells = [self._cell(self.cells[place], index, spilling) for place in places]
        outcome = yield from _acquired(
            self.speech, charges, cells, self.now, slot, refuse=not self.admitted
        )
        self._note(numbers, places, cells, outcome, spilling)
        if outcome.admitted:
            for number, correction in undoing(charges, cells, outcome, strikes=False):
                self.charged.append((numbers[number], correction))
                self.undo.append(correction)

    @staticmethod
    def _cell(cell: Cell, index: Mapping[int, int], spilling: bool) -> Cell:
        moved = cell._replace(charge=index[cell.charge])
        if spilling and cell.spill:
            return moved._replace(key=cell.spill, spill=None)
        # The overflow counter is on another server: here its charge is only looked at.
        return moved if cell.spill is None else moved._replace(spill=LEFT_OUT)

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
            self.replies[place] = reply._replace(spilled=spilling or reply.spilled)
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

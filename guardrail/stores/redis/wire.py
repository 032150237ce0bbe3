"""How calls and replies are written: keys by their hashed names, numbers in one packed list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import msgspec

from guardrail.errors import StoreError
from guardrail.model.cells import (
    IDENT_LENGTH,
    LEFT_OUT,
    TOP,
    Adjust,
    Cell,
    Charge,
    Correction,
    Counter,
    CounterReply,
    Drain,
    MemberReply,
    Outcome,
    Renew,
    Reply,
)
from guardrail.stores.naming import Naming

REMEMBERED = 8192
"""How many names of keys are remembered before all are forgotten: hashing costs most of a call."""

_CELL, _REPLY = 10, 5
_COUNTER, _SET = 0, 1
_ADJUST, _DRAIN, _LEAVE, _RENEW, _UNDRAIN = 1, 2, 3, 4, 5
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[int]).decode


class Retract(NamedTuple):
    """Ends a stay that ends at `expires`, the one that nobody has renewed since."""

    key: str
    member: str
    expires: int


class Undrain(NamedTuple):
    """Takes back what a draining counter was charged at `since`, but for what has drained.

    `reach` is the counter's value after the charge and all that was refunded to it before: what
    others take back meanwhile tells nothing of this charge, which is why it is not a `Drain`.
    """

    key: str
    amount: int
    reach: int
    since: int
    ttl: int


Undo = Correction | Retract | Undrain
"""What takes a charge back."""


class Terms(NamedTuple):
    """What a call states besides its cells.

    `ahead` is how many microseconds the call's time may be ahead of the server's, −1 for any;
    `before` when, by the server's clock, the names in the call are no longer good, −1 for never;
    `bound` how many keys the server may hold before unknown ones spill, −1 for any. `refuse`
    has the call refused whatever its cells say: they are answered, and nothing is charged.
    """

    ahead: int = -1
    before: int = -1
    bound: int = -1
    refuse: bool = False


class Names:
    """The names of keys under one hash key; the latest are remembered."""

    __slots__ = ("_known", "_prefix", "naming")

    def __init__(self, naming: Naming, prefix: str) -> None:
        self.naming = naming
        self._prefix = prefix.encode() + b":{"
        self._known: dict[str, bytes] = {}

    def tag(self, key: str) -> bytes:
        """Return what the names of all counters with the same key facts start with."""
        whose = key[IDENT_LENGTH:]
        known = self._known.get(whose)
        if known is None:
            if len(self._known) >= REMEMBERED:
                self._known = {}
            known = self._known[whose] = self._prefix + self.naming.whose(key) + b"}"
        return known

    def record(self, key: str) -> bytes:
        """Return the name of a record: the keyed hash of whose it is, then which counter."""
        return self.tag(key) + key[:IDENT_LENGTH].encode()


class Packed(NamedTuple):
    """One script call: its keys, and its argument but for records taken over."""

    keys: list[bytes]
    argument: list[object]

    def encoded(self, taken_over: Mapping[int, bytes] | None = None) -> tuple[bytes, ...]:
        """Return the argument in one piece, then records of former names, by place of key."""
        if not taken_over:
            return (_encode(self.argument),)
        return (_encode([*self.argument, *taken_over]), *taken_over.values())


def acquire_call(
    charges: Sequence[Charge], cells: Sequence[Cell], now: int, names: Names, terms: Terms
) -> Packed:
    """Return the call that acquires.

    Raises:
        StoreError: a number is not whole, negative, or past 2⁵³ − 1; nothing was sent.
    """
    argument: list[object] = [
        now,
        terms.ahead,
        terms.before,
        terms.bound,
        int(terms.refuse),
        len(charges),
    ]
    for binding, after in charges:
        argument += (int(binding), 0 if after is None else after + 1)
    argument.append(len(cells))
    places: dict[str, int] = {}
    for cell in cells:
        place = places.setdefault(cell.key, len(places) + 1)
        spill = 0
        if cell.spill is not None:
            spill = -1 if cell.spill == LEFT_OUT else places.setdefault(cell.spill, len(places) + 1)
        ceiling = -1 if cell.ceiling is None else cell.ceiling
        ttl = -(-cell.ttl // 1000) or 1
        if isinstance(cell, Counter):
            charge, _, slot, span, floor, amount, _, _, _ = cell
            _check(amount, ceiling, slot, floor)
            row = (_COUNTER, charge + 1, place, ttl, spill, slot, span, floor, amount, ceiling)
            argument += row
        else:
            _check(cell.expires, ceiling)
            member = _member(names, cell.member)
            head = (_SET, cell.charge + 1, place, ttl, spill)
            argument += (*head, member, cell.expires, 0, 0, ceiling)
    return Packed([names.record(key) for key in places], argument)


def _member(names: Names, member: str) -> str:
    # The packed list of Redis knows text, not bytes.
    return names.naming.member(member).decode()


def _check(*numbers: int) -> None:
    for number in numbers:
        if number.__class__ is not int or not -1 <= number <= TOP:
            raise StoreError(f"`{number!r}` cannot be counted: it must be a whole number below 2⁵³")


def read_outcome(reply: bytes, charges: int, cells: Sequence[Cell]) -> Outcome:
    """Return what the script answered.

    Raises:
        StoreError: the reply is not one of the script's.
    """
    try:
        numbers = _decode(reply)
        if len(numbers) != 1 + charges + _REPLY * len(cells):
            raise ValueError("its length is wrong")
    except (ValueError, TypeError) as problem:
        raise StoreError(f"the server's reply is none of ours: {problem}", unsure=True) from problem
    replies: list[Reply] = []
    at = 1 + charges
    for cell in cells:
        used, second, frees, refunded, spilled = numbers[at : at + _REPLY]
        at += _REPLY
        left = None if frees < 0 else frees
        if isinstance(cell, Counter):
            replies.append(CounterReply(used, second, left, refunded, spilled == 1))
        else:
            replies.append(MemberReply(used, second == 1, left, spilled == 1))
    return Outcome(numbers[0] == 1, [flag == 1 for flag in numbers[1 : 1 + charges]], replies)


def settle_call(corrections: Sequence[Undo], now: int, names: Names, terms: Terms) -> Packed:
    """Return the call that corrects.

    Raises:
        StoreError: a number is not whole or past 2⁵³ − 1; nothing was sent.
    """
    argument: list[object] = [now, terms.before, len(corrections)]
    places: dict[str, int] = {}
    for each in corrections:
        place = places.setdefault(each.key, len(places) + 1)
        if isinstance(each, Adjust):
            _check(abs(each.delta), each.slot)
            row: tuple[object, ...] = (_ADJUST, place, _millis(each.ttl), each.slot, each.delta, 0)
        elif isinstance(each, Drain):
            _check(abs(each.delta), each.charged, each.refunded)
            head = (_DRAIN, place, _millis(each.ttl))
            row = (*head, each.delta, each.charged, each.refunded)
        elif isinstance(each, Undrain):
            _check(each.amount, each.reach, each.since)
            head = (_UNDRAIN, place, _millis(each.ttl))
            row = (*head, -each.amount, each.reach, each.since)
        elif isinstance(each, Renew):
            _check(each.expires)
            member = _member(names, each.member)
            row = (_RENEW, place, _millis(each.ttl), member, each.expires, 0)
        else:
            expires = each.expires if isinstance(each, Retract) else 0
            row = (_LEAVE, place, 0, _member(names, each.member), expires, 0)
        argument += row
    return Packed([names.record(key) for key in places], argument)


def _millis(ttl: int) -> int:
    return -(-ttl // 1000) or 1


def undoing(
    charges: Sequence[Charge], cells: Sequence[Cell], outcome: Outcome, *, strikes: bool = True
) -> list[tuple[int, Undo]]:
    """Return the corrections that take back what an outcome says was charged, by its charge.

    With `strikes` also what followed a refusal.
    """
    found: list[tuple[int, Undo]] = []
    left_out = {
        cell.charge
        for cell, reply in zip(cells, outcome.replies, strict=True)
        if reply.spilled and cell.spill == LEFT_OUT
    }
    for cell, reply in zip(cells, outcome.replies, strict=True):
        charge = charges[cell.charge]
        tried = outcome.admitted if charge.after is None else outcome.refused[charge.after]
        if not tried or outcome.refused[cell.charge] or cell.charge in left_out:
            continue
        if charge.after is None or strikes:
            correction = _undone(cell, reply)
            if correction is not None:
                found.append((cell.charge, correction))
    return found


def _undone(cell: Cell, reply: Reply) -> Undo | None:
    key = cast(str, cell.spill) if reply.spilled else cell.key
    if not isinstance(cell, Counter):
        new = not cast(MemberReply, reply).present
        return Retract(key, cell.member, cell.expires) if new else None
    counted = cast(CounterReply, reply)
    if cell.amount and cell.floor:
        reach = min(counted.used + cell.amount + counted.refunded, TOP)
        return Undrain(key, cell.amount, reach, cell.floor, cell.ttl)
    return Adjust(key, counted.slot, -cell.amount, cell.ttl) if cell.amount else None

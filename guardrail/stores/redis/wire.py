"""How calls and replies are written: keys by their hashed names, numbers in one packed list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import msgspec

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
from guardrail.model.forms import CELL, Form
from guardrail.stores.forms import GarbledError, are_numbers, check_whole
from guardrail.stores.naming import Naming

REMEMBERED = 8192
"""How many names of keys are remembered before all are forgotten: hashing costs most of a call."""

_ADJUST, _DRAIN, _LEAVE, _RENEW, _UNDRAIN = 1, 2, 3, 4, 5
_encode = msgspec.msgpack.Encoder().encode


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

    __slots__ = ("_known", "_prefix", "_tags", "naming")

    def __init__(self, naming: Naming, prefix: str) -> None:
        self.naming = naming
        self._prefix = prefix.encode() + b":{"
        self._tags: dict[str, bytes] = {}
        self._known: dict[str, bytes] = {}

    def tag(self, key: str) -> bytes:
        """Return what the names of all counters with the same key facts start with."""
        whose = key[IDENT_LENGTH:]
        tag = self._tags.get(whose)
        if tag is None:
            if len(self._tags) >= REMEMBERED:
                self._tags = {}
            tag = self._tags[whose] = self._prefix + self.naming.whose(key) + b"}"
        return tag

    def record(self, key: str) -> bytes:
        """Return the name of a record: the keyed hash of whose it is, then which counter."""
        name = self._known.get(key)
        if name is None:
            if len(self._known) >= REMEMBERED:
                self._known = {}
            name = self._known[key] = self.tag(key) + key[:IDENT_LENGTH].encode()
        return name


class Packed(NamedTuple):
    """One script call: its keys, and its argument but for records taken over."""

    keys: list[bytes]
    argument: list[object]

    def encoded(self, taken_over: Mapping[int, bytes] | None = None) -> tuple[bytes, ...]:
        """Return the argument in one piece, then records of former names, by place of key."""
        if not taken_over:
            return (_encode(self.argument),)
        return (_encode([*self.argument, *taken_over]), *taken_over.values())


def acquire_call(form: Form, now: int, names: Names, terms: Terms) -> Packed:
    """Return the call that acquires what a form asks for."""
    keys, charges, cells, members = form
    ahead, before, bound, refuse = terms
    head = (now, ahead, before, bound, int(refuse), len(charges) // 2)
    argument: list[object] = [*head, *charges, len(cells) // CELL, *cells]
    for place in members:
        # The number of cells stands between.
        at = len(head) + len(charges) + 1 + place
        argument[at] = _member(names, cast(str, argument[at]))
    return Packed([names.record(key) for key in keys], argument)


def _member(names: Names, member: str) -> str:
    # The packed list of Redis knows text, not bytes.
    return names.naming.member(member).decode()


def read_reply(reply: object) -> list[int]:
    """Return what the script answered; see `outcome_of`.

    Raises:
        GarbledError: the reply is not one of the script's.
    """
    if are_numbers(reply):
        return cast(list[int], reply)
    raise GarbledError(f"the server answered `{reply!r}`, which is none of ours")


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
            check_whole(abs(each.delta), each.slot)
            row: tuple[object, ...] = (_ADJUST, place, _millis(each.ttl), each.slot, each.delta, 0)
        elif isinstance(each, Drain):
            check_whole(abs(each.delta), each.charged, each.refunded)
            head = (_DRAIN, place, _millis(each.ttl))
            row = (*head, each.delta, each.charged, each.refunded)
        elif isinstance(each, Undrain):
            check_whole(each.amount, each.reach, each.since)
            head = (_UNDRAIN, place, _millis(each.ttl))
            row = (*head, -each.amount, each.reach, each.since)
        elif isinstance(each, Renew):
            check_whole(each.expires)
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

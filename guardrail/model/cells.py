"""The two cells a store keeps, the one call over them, and what corrects them afterwards.

Times and expiries are whole microseconds since the epoch; values are whole units of the limit's
own kind (requests, tokens, micro-USD, microseconds of a rate's time line).

A *form* is the same call as flat numbers, which is what the engine writes and stores are asked.
Charges and cells are how tests, tools and hosts' own stores read and write it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

TOP = 2**53 - 1
"""The largest value a cell holds and the largest amount it takes (exact in a double)."""


LEFT_OUT = ""
"""The `spill` of cells that must not be shared by strangers: strikes."""


class Charge(NamedTuple):
    """One rule's cells, applied all or none.

    A `binding` charge that is refused refuses the request. A charge `after` another (its index)
    is tried only if that one was refused.
    """

    binding: bool
    after: int | None


class Counter(NamedTuple):
    """A cell that adds amounts up in slots; see `Store.acquire` for its arithmetic.

    `charge` is the index of its charge. Values in slots older than `span` no longer count.
    `floor` above 0 makes it a draining counter: one slot, whose value is a time that the clock
    catches up with. `ceiling` None never refuses. `ttl` is how long after its last write the
    record must be kept. A full store may count a key it does not know under `spill` instead, or,
    where that is `LEFT_OUT`, must leave the cell's charge out: neither refused nor applied.
    """

    charge: int
    key: str
    slot: int
    span: int
    floor: int
    amount: int
    ceiling: int | None
    ttl: int
    spill: str | None = None


class Member(NamedTuple):
    """A cell that is a set of members, each with an expiry; at most `ceiling` live at once.

    `ttl` and `spill` are as a counter's.
    """

    charge: int
    key: str
    member: str
    expires: int
    ceiling: int | None
    ttl: int
    spill: str | None = None


Cell = Counter | Member


class CounterReply(NamedTuple):
    """What a counter held: `used` before the charge, in the newest slot's window.

    `slot` is the slot charged, or that would have been. `frees` is, for a refusal by a counter of
    several slots, the slot whose leaving makes room. `refunded` is, for a draining counter, all
    that was ever refunded to it. `spilled` tells that the cell's `spill` was used for its key, or
    that its charge was left out.
    """

    used: int
    slot: int
    frees: int | None
    refunded: int
    spilled: bool = False


class MemberReply(NamedTuple):
    """What a set held: how many live members, whether this one was among them.

    `frees` is, for a refusal, the expiry that makes room (None if no expiry does).
    """

    live: int
    present: bool
    frees: int | None
    spilled: bool = False


Reply = CounterReply | MemberReply


class Outcome(NamedTuple):
    """A store's answer: admitted or not, which charges were refused, one reply per cell."""

    admitted: bool
    refused: list[bool]
    replies: list[Reply]


class Adjust(NamedTuple):
    """Corrects a windowed counter by `delta`.

    A refund lowers the slot it was charged to, if still recorded; an extra amount goes to the
    newest slot, whatever the ceiling.
    """

    key: str
    slot: int
    delta: int
    ttl: int


class Drain(NamedTuple):
    """Corrects a draining counter by `delta`.

    `charged` is its value after the charge being corrected and `refunded` its reply's figure: a
    refund is at most what has neither drained nor been refunded since.
    """

    key: str
    delta: int
    charged: int
    refunded: int
    ttl: int


class Leave(NamedTuple):
    """Ends a member's stay in a set."""

    key: str
    member: str


class Renew(NamedTuple):
    """Extends a member's stay in a set, if it is still there, to at least `expires`."""

    key: str
    member: str
    expires: int
    ttl: int


WINDOW, LINE, MEMBERS = range(3)
"""The kinds of counters: amounts added up in slots, a time line that drains, members that expire.
"""


class Pool(NamedTuple):
    """A counter that accounts share by `actor.id`: the ident of its keys, and its kind."""

    ident: str
    kind: int


IDENT_LENGTH = 8
"""How many leading characters of a key name its counter; the rest says whose it is."""

Correction = Adjust | Drain | Leave | Renew


CELL, REPLY = 10, 5
"""How many numbers tell of a cell, and how many of its reply."""
COUNTER, SET = 0, 1
MILLISECOND = 1000


def milliseconds(ttl: int) -> int:
    """Return a `ttl` in microseconds as forms have it: in whole milliseconds, one at least."""
    return -(-ttl // MILLISECOND) or 1


class Form(NamedTuple):
    """One decision's call: the keys it names, each once, and the numbers about them.

    `charges` holds two numbers a charge: whether it is binding, and which it comes after. `cells`
    holds ten a cell: its kind, charge, key and `ttl` (milliseconds), and where it is counted in a
    full store, as the number of a key, 0 for nowhere else and −1 for being left out; then slot,
    span, floor, amount and ceiling, or member, expiry, 0, 0 and ceiling (−1 for none). Charges and
    keys are numbered from 1. `members` are the places in `cells` where a member's text stands.
    """

    keys: list[str]
    charges: list[int]
    cells: list[Any]
    members: list[int]

    def fits(self, reply: Sequence[int]) -> bool:
        """Tell whether a reply has as many numbers as one to this form must have."""
        return len(reply) == 1 + len(self.charges) // 2 + len(self.cells) // CELL * REPLY

    @property
    def as_charges(self) -> list[Charge]:
        """The charges, made from the numbers."""
        after = self.charges[1::2]
        return [
            Charge(binding == 1, follows - 1 if follows else None)
            for binding, follows in zip(self.charges[::2], after, strict=True)
        ]

    @property
    def as_cells(self) -> list[Cell]:
        """The cells, made from the numbers: for a store that takes no numbers, and a cluster."""
        found: list[Cell] = []
        for at in range(0, len(self.cells), CELL):
            kind, charge, key, kept, spilled, place, span, floor, amount, most = self.cells[
                at : at + CELL
            ]
            name, number = self.keys[key - 1], charge - 1
            spill = LEFT_OUT if spilled < 0 else self.keys[spilled - 1] if spilled else None
            ceiling, ttl = None if most < 0 else most, kept * MILLISECOND
            if kind == SET:
                found.append(Member(number, name, place, span, ceiling, ttl, spill))
            else:
                found.append(Counter(number, name, place, span, floor, amount, ceiling, ttl, spill))
        return found

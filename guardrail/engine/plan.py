"""A plan: what a store is asked on behalf of one request, as numbers, and what its reply says.

The interpreter (`program`) and generated source (`emit_rows`) write the same plans: a form (see
`guardrail.model.cells`), beside each limit's cell a row with what its receipt needs besides the
reply, and beside each ban's where it stands. Whatever a reply says is read from these alone; no
cell is made for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from guardrail.engine.conclude import ALLOWED, Ruling
from guardrail.engine.core import Case, Decision, Engine
from guardrail.engine.facts import Reading
from guardrail.engine.verbs import CellValues, Finding, Limit, Receipt, refuses
from guardrail.model.cells import (
    COUNTER,
    LINE,
    MEMBERS,
    REPLY,
    SET,
    WINDOW,
    Cell,
    Form,
    Member,
    milliseconds,
)


class Row(NamedTuple):
    """What the receipt of one limit's cell needs besides the reply.

    `at` is where its reply starts, counted from the first cell's; `number`, `key` and `kind` name
    the counter; `capacity` is a time line's; `alert` is the share of a window, times a hundred,
    past which one of its steps has a say. Generated source writes plain tuples of these.
    """

    at: int
    number: int
    key: str
    kind: int
    capacity: int
    increment: int
    amount: int
    allowance: int
    alert: int


class Ban(NamedTuple):
    """The first cell of a rule that escalates: where its reply starts, and the rule's counter."""

    at: int
    number: int


class Verdicts(NamedTuple):
    """What a reply says: what rules ask for, each row with whether it was charged, and bans.

    A ban is the place of its cell in the form and until when it lasts.
    """

    found: list[Finding]
    looked: list[tuple[Receipt, bool]]
    bans: list[tuple[int, int]]


def receipt_of(row: Sequence[Any], key: str, reply: Sequence[int]) -> tuple[Any, ...]:
    """Return the receipt, as a plain tuple, of what a row counted under `key`."""
    _, number, _, kind, capacity, increment, amount, allowance, _ = row
    used, second, _, refunded, _ = reply
    if kind == LINE:
        return number, key, capacity, used, increment, amount, allowance, refunded
    if kind == WINDOW:
        return number, key, second, used, increment, amount, allowance, 0
    return number, key, 0, used, 1 - second, amount, allowance, 0


class Plan:
    """One request on its way to a store: a form, its rows and bans, and what was found before it.

    `counters` are the limits that judge replies, by number. `reading` is kept where the request
    was planned by the interpreter.
    """

    __slots__ = (
        "bans",
        "counters",
        "engine",
        "estimate",
        "facts",
        "form",
        "found",
        "now",
        "reading",
        "rows",
        "serial",
    )

    def __init__(
        self,
        engine: Engine,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None,
        now: int,
        serial: int,
        reading: Reading | None = None,
    ) -> None:
        self.engine = engine
        self.facts = facts
        self.estimate = estimate
        self.now = now
        self.serial = serial
        self.reading = reading
        self.counters: Sequence[tuple[Limit, int]] = engine.counters
        self.form = Form([], [], [], [])
        self.rows: list[Row] = []
        self.bans: list[Ban] = []
        self.found: list[Finding] = []

    @property
    def read(self) -> Reading:
        """What the facts and the estimate say; they are read anew where they were not kept."""
        if self.reading is None:
            self.reading = self.engine.reading(self.case)
        return self.reading

    @property
    def amounts(self) -> dict[str, int]:
        """The request's amounts by unit."""
        return self.read.amounts

    @property
    def lease(self) -> str:
        """What the decision's places in flight are known by."""
        return self.engine.lease(self.serial)

    @property
    def case(self) -> Case:
        """The evidence of the decision to come."""
        return Case(self.engine, self.facts, self.estimate, self.now, self.serial)

    @property
    def needs_store(self) -> bool:
        """Whether a store has to be asked: there are counters, and no rule refuses already."""
        return bool(self.form.cells) and not (self.found and refuses(self.found))

    def look(
        self, limit: Limit, cells: Sequence[CellValues], key: str, stranger: str | None
    ) -> None:
        """Add a rule's charge: its ban, if it escalates, then its own cells.

        `stranger` says under what a full store counts who has no account, None for an account.
        """
        keys, charges, numbers, members = self.form
        charge = len(charges) // 2 + 1
        charges += (int(limit.binding), 0)
        if limit.rule.escalate is not None:
            charges += (0, charge, 0, charge + 1)
            self.bans.append(Ban(len(numbers) // 2, limit.first))
            self._escalate(limit.escalation(charge - 1, key, stranger, self.now))
        for cell in cells:
            ident, at, capacity, alert = limit.idents[cell.number], len(numbers), 0, 0
            rest: tuple[int | str, ...]
            if cell.kind == LINE:
                capacity = int(cell.place)
                rest = (0, 1, self.now, cell.amount)
            elif cell.kind == WINDOW:
                rest = (cell.place, cell.span, 0, cell.amount)
                alert = cell.allowance * cell.alerts_at
            else:
                members.append(at + 5)
                rest = (cell.place, cell.until, 0, 0)
            self.rows.append(
                Row(
                    at // 2, limit.first + cell.number, ident + key, cell.kind,
                    capacity, cell.amount, cell.units, cell.allowance, alert,
                )
            )  # fmt: skip
            keys.append(ident + key)
            place, spill = len(keys), 0
            # A key that is the same for everyone cannot multiply.
            if stranger is not None and key != "=":
                keys.append(ident + stranger)
                spill = place + 1
            kind = SET if cell.kind == MEMBERS else COUNTER
            numbers += (kind, charge, place, milliseconds(cell.ttl), spill)
            numbers += (*rest, -1 if cell.ceiling is None else cell.ceiling)

    def _escalate(self, cells: Sequence[Cell]) -> None:
        """Add the cells of an escalation, of which three name the ban."""
        keys, _, numbers, members = self.form
        ban = len(keys) + 1
        keys += (cells[0].key, cells[1].key)
        for cell in cells:
            kept = milliseconds(cell.ttl)
            if isinstance(cell, Member):
                members.append(len(numbers) + 5)
                spill = 0 if cell.spill is None else -1
                numbers += (SET, cell.charge + 1, ban + 1, kept, spill)
                numbers += (cell.member, cell.expires, 0, 0, cell.ceiling)
            else:
                numbers += (COUNTER, cell.charge + 1, ban, kept, 0)
                numbers += (cell.slot, cell.span, cell.floor, cell.amount, cell.ceiling)

    def unasked(self) -> Decision:
        """Return the decision where no store has to be asked."""
        return self.concluded((), ())

    def receipts(self, reply: Sequence[int]) -> tuple[Any, ...] | None:
        """Return the receipts if a reply simply allows the request, None if it says more.

        That is a refusal, also one by a rule in shadow, a step of a budget, a counter kept
        elsewhere.
        """
        first = 1 + len(self.form.charges) // 2
        if self.found or not reply[0] or 1 in reply[1:first]:
            return None
        found: list[Any] = []
        for row in self.rows:
            at, _, key, _, _, _, amount, _, alert = row
            answer = reply[first + at : first + at + REPLY]
            if answer[4] or (alert and (answer[0] + amount) * 100 > alert):
                return None
            found.append(receipt_of(row, key, answer))
        return tuple(found)

    def verdicts(self, reply: Sequence[int]) -> Verdicts:
        """Return what a reply says."""
        keys, charges, cells, _ = self.form
        first, now, counters = 1 + len(charges) // 2, self.now, self.counters
        refused = reply[1:first]
        read = Verdicts([], [], [])
        for at, number in self.bans:
            limit, until, charge = counters[number][0], reply[first + at], cells[2 * at + 1]
            if until > now:
                read.found.append(limit.banned(until - now))
                read.bans.append((2 * at, until))
            # The two charges after it are the strike and, where that was one too many, the ban.
            if charges[2 * charge + 1 : 2 * charge + 2] == [charge] and (
                refused[charge] and not refused[charge + 1]
            ):
                read.found.append(limit.sentenced())
                assert limit.rule.escalate is not None
                read.bans.append((2 * at, now + limit.rule.escalate.block_for))
        for row in self.rows:
            at, number, key = row[:3]
            answer, cell = reply[first + at : first + at + REPLY], 2 * at
            frees, spilled = answer[2], answer[4]
            if spilled:
                key = keys[cells[cell + 4] - 1]
            receipt = Receipt._make(receipt_of(row, key, answer))
            finding = counters[number][0].judge(receipt, None if frees < 0 else frees, now)
            if finding is not None:
                read.found.append(finding)
            read.looked.append((receipt, bool(reply[0]) and not refused[cells[cell + 1] - 1]))
        return read

    def concluded(
        self, found: Sequence[Finding], looked: Sequence[tuple[Receipt, bool]]
    ) -> Decision:
        """Return the decision, given what the store's reply says."""
        every = (*self.found, *found)
        if not every and all(charged for _, charged in looked):
            return self.allowed(tuple(receipt for receipt, _ in looked))
        return self.engine.concluded(
            self.facts, self.estimate, self.now, self.serial, every, looked, self.reading
        )

    def allowed(self, receipts: tuple[Any, ...]) -> Decision:
        """Return the decision that simply allows the request."""
        reading, ruling = self.reading, ALLOWED
        if reading is not None and reading.notes:
            ruling = Ruling(notes=reading.notes)
        return Decision.of(
            ruling,
            Case(
                self.engine, self.facts, self.estimate, self.now, self.serial, receipts,
                reading=reading,
            ),
        )  # fmt: skip

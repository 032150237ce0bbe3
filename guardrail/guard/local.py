"""This process's own counters: kept warm by every decision, asked while the store is away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

from guardrail.engine import Engine, Limit, Plan, Question, Receipt, receipt_of
from guardrail.guard.answers import Answer, Answers, fixed_answer
from guardrail.guard.shares import Share
from guardrail.model.amounts import MINUTE
from guardrail.model.cells import (
    IDENT_LENGTH,
    Charge,
    Correction,
    Counter,
    CounterReply,
    Drain,
    Member,
    Outcome,
)
from guardrail.model.forms import CELL, MILLISECOND, SET
from guardrail.stores.memory import MemoryStore
from guardrail.stores.records import (
    SLOT_MASK,
    Record,
    charged_window,
    drained_pair,
    draining,
    entered,
    readjusted,
)
from guardrail.stores.tables import MASK

MOST_KEYS = 1_000_000
"""How many records are kept; strangers share them beyond that, as in any memory store."""

_FOLLOWED = (None, Answer.LOCAL)
"""What a rule says of a store that is away, None where it depends, if its counters are kept."""

_NEVER = Counter(0, "\0" * IDENT_LENGTH, 0, 1, 0, 1, 0, MINUTE)
"""Refuses whatever comes with it."""


class LocalCounters:
    """The counters of the rules that may have to be decided without the store, at a share of 1/k.

    What the store admitted is counted here as it is, whatever the ceiling; what is decided here
    is charged against the share. Nothing of it is ever sent to the store.
    """

    def __init__(self, engines: Sequence[Engine], parts: int, most: int = MOST_KEYS) -> None:
        self.store = MemoryStore(max_keys=most)
        self.parts = parts
        self.leases: dict[str, int] = {}
        self._idents: set[str] = set()
        # Which counters of an engine are kept; an engine may decide long after its successor.
        self._kept: WeakKeyDictionary[Engine, list[bool]] = WeakKeyDictionary()
        self.serve(engines)

    def serve(self, engines: Sequence[Engine]) -> None:
        """Count for the rules of these engines too."""
        for engine in engines:
            for limit in engine.limits:
                if limit is not None and limit.lease:
                    self.leases[limit.idents[0]] = limit.lease
                if limit is not None and _is_followed(limit):
                    self._idents.update(limit.idents)

    def follow(self, plan: Plan, outcome: Outcome) -> None:
        """Count what the store admitted, and note the bans it told of."""
        store, now, refused = self.store, plan.now, outcome.refused
        admitted = outcome.admitted
        with store.lock:
            for cell, part, reply in zip(plan.cells, plan.parts, outcome.replies, strict=True):
                if part.role == "limit":
                    if admitted and not refused[cell.charge] and _is_followed(part.limit):
                        self._count(cell, reply, now)
                elif part.role == "ban":
                    until = cast(CounterReply, reply).used
                    if until > now:
                        self._ban(cell.key, cell.ttl, until, now)
                elif part.role == "sentence" and _applied(plan, outcome, cell.charge):
                    self._ban(cell.key, cell.ttl, now + cast(Counter, cell).amount, now)

    def follow_rows(
        self,
        question: Question,
        receipts: Sequence[Receipt | None],
        bans: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Count what the store admitted of a question, and note the bans it told of.

        A receipt is None where the counter was not charged. A ban is the place of its cell in the
        form, and until when it lasts.
        """
        store, now, engine = self.store, question.now, question.engine
        kept = self._kept.get(engine)
        if kept is None:
            kept = self._kept[engine] = [_is_followed(limit) for limit, _ in engine.counters]
        keys, _, cells, _ = question.form
        home = store.home
        with store.lock:
            for at, until in bans:
                _, _, place, ttl = cells[at : at + 4]
                self._ban(keys[place - 1], ttl * MILLISECOND, until, now)
            for receipt, row in zip(receipts, question.rows, strict=True):
                if receipt is None:
                    continue
                number, key, slot, used, increment, amount, _, _ = receipt
                if not kept[number]:
                    continue
                start = 2 * row[0]
                kind, _, _, ttl, spill, member, until, floor, _, _ = cells[start : start + CELL]
                table = home(key[:IDENT_LENGTH], ttl * MILLISECOND)
                # Written in place where it can be: this runs once a counter of every decision.
                shard = table.current[hash(key) & MASK]
                record = shard.get(key)
                known = record is not None
                if not known:
                    record = table.find(key)
                    if record is None and spill and store.is_full():
                        key = keys[spill - 1]
                        record = table.find(key)
                if kind == SET:
                    record = entered(record, member, until, now)
                elif floor:
                    record = _line(record, used + increment)
                else:
                    record = _window(record, slot, until, amount)
                if known:
                    shard[key] = record
                else:
                    table.put(key, record, now)

    def plan(self, plan: Plan, answers: Answers) -> tuple[Plan, list[int]]:
        """Return what of a plan is asked here, and the place in the plan of each of its cells.

        That is bans, and the limits of the rules that answer `local`; no strikes.
        """
        asked = Plan(plan.facts, plan.amounts, plan.now, plan.id, plan.notes)
        asked.findings = [*plan.findings, *answers.refusals()]
        places: list[int] = []
        numbers: dict[int, int] = {}
        for place, (cell, part) in enumerate(zip(plan.cells, plan.parts, strict=True)):
            limit, answer = answers.by_charge.get(cell.charge, (None, None))
            if limit is None or (part.role != "ban" and answer is not Answer.LOCAL):
                continue
            if cell.charge not in numbers:
                numbers[cell.charge] = len(asked.charges)
                asked.charges.append(plan.charges[cell.charge])
            charge, share = numbers[cell.charge], Share(limit, self.parts)
            own, stands_for = cell._replace(charge=charge), part._replace(limit=cast(Limit, share))
            if part.role != "ban":
                own, stands_for = share.charged(cell, part, charge)
            asked.cells.append(own)
            asked.parts.append(stands_for)
            places.append(place)
        return asked, places

    def acquire(self, plan: Plan, *, refuse: bool) -> Outcome:
        """Return the answer of these counters; where the request is refused, charge nothing."""
        if not refuse:
            return self.store.acquire(plan.charges, plan.cells, plan.now)
        never = _NEVER._replace(charge=len(plan.charges))
        charges = [*plan.charges, Charge(True, None)]
        found = self.store.acquire(charges, [*plan.cells, never], plan.now)
        return Outcome(False, found.refused[:-1], found.replies[:-1])

    def debits(
        self, plan: Plan, asked: Plan, places: list[int], outcome: Outcome
    ) -> Iterator[Receipt]:
        """Yield the receipts of what was charged here, in whole units, not k times as many."""
        applied = asked.applied(outcome)
        for place, own, reply in zip(places, asked.cells, outcome.replies, strict=True):
            cell, part = plan.cells[place], plan.parts[place]
            if part.role == "limit" and applied[own.charge]:
                yield receipt_of(part.limit.first + part.number, part, cell, reply)

    def settle(self, corrections: Sequence[Correction], now: int, *, own: bool) -> None:
        """Correct what was charged here; `own` tells that it was decided here, at the share.

        A rate charged at the share gets nothing back, which errs on the safe side.
        """
        idents = self._idents
        known = [found for found in corrections if found.key[:IDENT_LENGTH] in idents]
        if own:
            known = [
                found._replace(delta=found.delta * self.parts)
                if isinstance(found, Drain)
                else found
                for found in known
                if not isinstance(found, Drain) or found.delta > 0
            ]
        if known:
            self.store.settle(known, now)

    def _count(self, cell: Any, reply: Any, now: int) -> None:
        # Untyped, as this runs once a cell of every decision, and a cast is a call.
        key = cell.spill if reply.spilled else cell.key
        table = self.store.home(key[:IDENT_LENGTH], cell.ttl)
        record = table.find(key)
        if record is None and cell.spill is not None and self.store.is_full():
            key = cell.spill
            record = table.find(key)
        if cell.__class__ is Member:
            record = entered(record, cell.member, cell.expires, now)
        elif cell.floor:
            record = _line(record, reply.used + cell.amount)
        else:
            record = _window(record, reply.slot, cell.span, cell.amount)
        table.put(key, record, now)

    def _ban(self, key: str, ttl: int, until: int, now: int) -> None:
        table = self.store.home(key[:IDENT_LENGTH], ttl)
        table.put(key, _line(table.find(key), until), now)


def _is_followed(limit: Limit) -> bool:
    return fixed_answer(limit) in _FOLLOWED


def _line(record: Record | None, until: int) -> Record:
    # The shared time line itself: what is left on it is what this process has a share of.
    if record.__class__ is not tuple:
        return record if record is not None and record > until else until
    value, refunded = drained_pair(record)
    return draining(max(value, until), refunded)


def _window(record: Record | None, slot: int, span: int, amount: int) -> Record:
    if record.__class__ is int and record & SLOT_MASK == slot:
        return readjusted(record, slot, amount)
    return charged_window(record, slot, span, amount)


def _applied(plan: Plan, outcome: Outcome, charge: int) -> bool:
    after = plan.charges[charge].after
    return after is not None and outcome.refused[after] and not outcome.refused[charge]

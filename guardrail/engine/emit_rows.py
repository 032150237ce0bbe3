"""Generated decisions over a store elsewhere: what it is asked as numbers, and its reply read.

A generated function fills in a form (see `guardrail.model.cells`): ten numbers a cell, in the order
in which the interpreter's plan would have them, so that a reply is an answer to that plan too.
Beside each limit's cell a row says what its receipt needs besides the reply. Whatever the reply
says is read from the rows and the reply alone; no cell is made for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from guardrail.engine.conclude import ALLOWED
from guardrail.engine.core import Case, Decision, Engine
from guardrail.engine.emit import AT_ONCE, Emitter, conditional, indented
from guardrail.engine.expressions import STAND_INS, define, spill_text
from guardrail.engine.program import Plan
from guardrail.engine.verbs import CellSpec, Finding, Limit, Receipt, refuses
from guardrail.model import cells as forms
from guardrail.model.amounts import SECOND
from guardrail.model.cells import (
    CELL,
    COUNTER,
    LINE,
    MEMBERS,
    MILLISECOND,
    REPLY,
    TOP,
    WINDOW,
    Cell,
    Charge,
    Form,
)
from guardrail.model.facts import FactType

ESCALATION = 4
"""How many cells stand before those of a limit that escalates."""


class Row(NamedTuple):
    """What the receipt of one limit's cell needs besides the reply.

    `at` is where its reply starts, counted from the first cell's; `number`, `key` and `kind` name
    the counter; `capacity` is a time line's; `alert` is the share of a window, times a hundred,
    past which its steps have a say, 0 where only its ceiling does.
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


class Verdicts(NamedTuple):
    """What a reply says: what rules ask for, each counter with whether it was charged, and bans.

    A ban is the place of its cell in the form and until when it lasts.
    """

    found: list[Finding]
    looked: list[tuple[Receipt, bool]]
    bans: list[tuple[int, int]]


class Question:
    """One request on its way to a store: a form and its rows, and what was found before it."""

    __slots__ = ("_plan", "engine", "estimate", "facts", "form", "found", "now", "rows", "serial")

    def __init__(
        self,
        engine: Engine,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None,
        now: int,
        serial: int,
    ) -> None:
        self.engine = engine
        self.facts = facts
        self.estimate = estimate
        self.now = now
        self.serial = serial
        self.form = Form([], [], [], [])
        self.rows: list[tuple[Any, ...]] = []
        self.found: tuple[Finding, ...] = ()
        self._plan: Plan | None = None

    @property
    def plan(self) -> Plan:
        """The request's plan, made by the interpreter: for a store that fails, or a cluster."""
        if self._plan is None:
            name = self.engine.ids.name(self.serial)
            self._plan = self.engine.plan(self.facts, self.estimate, self.now, name)
        return self._plan

    @property
    def case(self) -> Case:
        """The evidence of the decision to come."""
        return Case(self.engine, self.facts, self.estimate, self.now, self.serial)

    @property
    def charges(self) -> Sequence[Charge]:
        """The charges that the form stands for."""
        return self.plan.charges

    @property
    def cells(self) -> Sequence[Cell]:
        """The cells that the form stands for."""
        return self.plan.cells

    def fits(self, reply: Sequence[int]) -> bool:
        """Tell whether a reply has as many numbers as one to this question must have."""
        form = self.form
        return len(reply) == 1 + len(form.charges) // 2 + len(form.cells) // CELL * REPLY

    @property
    def needs_store(self) -> bool:
        """Whether a store has to be asked: there are counters, and no rule refuses already."""
        return bool(self.rows) and not (self.found and refuses(self.found))

    def unasked(self) -> Decision:
        """Return the decision where no store has to be asked."""
        return self.concluded((), ()) if self.found else self.allowed(())

    def receipts(self, reply: Sequence[int]) -> tuple[Receipt, ...] | None:
        """Return the receipts if a reply simply allows the request, None if it says more.

        That is a refusal, also one by a rule in shadow, a step of a budget, a counter kept
        elsewhere.
        """
        first = 1 + len(self.form.charges) // 2
        if self.found or not reply[0] or 1 in reply[1:first]:
            return None
        found: list[Any] = []
        for at, number, key, kind, capacity, increment, amount, allowance, alert in self.rows:
            start = first + at
            used, second, _, refunded, spilled = reply[start : start + REPLY]
            if spilled:
                return None
            if kind == LINE:
                found.append((number, key, capacity, used, increment, amount, allowance, refunded))
            elif kind == WINDOW:
                if alert and (used + amount) * 100 > alert:
                    return None
                found.append((number, key, second, used, increment, amount, allowance, 0))
            else:
                found.append((number, key, 0, used, 1 - second, 1, allowance, 0))
        return tuple(found)

    def verdicts(self, reply: Sequence[int]) -> Verdicts:
        """Return what a reply says."""
        keys, charges, cells, _ = self.form
        first, now, counters = 1 + len(charges) // 2, self.now, self.engine.counters
        refused, last = reply[1:first], -1
        read = Verdicts([], [], [])
        for at, number, key, kind, capacity, increment, amount, allowance, _ in self.rows:
            limit, start, cell = counters[number][0], first + at, 2 * at
            charge = cells[cell + 1]
            used, second, frees, refunded, spilled = reply[start : start + REPLY]
            if limit.rule.escalate is not None and charge != last:
                until = reply[start - ESCALATION * REPLY]
                if until > now:
                    read.found.append(limit.banned(until - now))
                    read.bans.append((cell - ESCALATION * CELL, until))
                if refused[charge] and not refused[charge + 1]:
                    read.found.append(limit.sentenced())
                    length = limit.rule.escalate.block_for
                    read.bans.append((cell - CELL, now + length))
            last = charge
            if spilled:
                key = keys[cells[cell + 4] - 1]
            if kind == LINE:
                rest = (capacity, used, increment, amount, allowance, refunded)
            elif kind == WINDOW:
                rest = (second, used, increment, amount, allowance, 0)
            else:
                rest = (0, used, 1 - second, 1, allowance, 0)
            receipt = Receipt(number, key, *rest)
            finding = limit.judge(receipt, None if frees < 0 else frees, now)
            if finding is not None:
                read.found.append(finding)
            read.looked.append((receipt, bool(reply[0]) and not refused[charge - 1]))
        return read

    def concluded(
        self, found: Sequence[Finding], looked: Sequence[tuple[Receipt, bool]]
    ) -> Decision:
        """Return the decision, given what the store's reply says."""
        every = (*self.found, *found)
        if not every and all(charged for _, charged in looked):
            return self.allowed(tuple(receipt for receipt, _ in looked))
        return self.engine.concluded(
            self.facts, self.estimate, self.now, self.serial, every, looked
        )

    def allowed(self, receipts: tuple[Receipt, ...]) -> Decision:
        """Return the decision that simply allows the request."""
        return Decision.of(ALLOWED, self.case._replace(debits=receipts))


Ask = Callable[[Mapping[str, object], Mapping[str, object] | None, float], Question | None]
Write = Callable[..., bool]


class RowEmitter(Emitter):
    """Writes lines that fill in a form: `keys`, `charges`, `cells`, `members`; and its `rows`."""

    longest_line = TOP - 7_258_118_400 * SECOND
    spills = False

    def look(self, limit: Limit, specs: Sequence[CellSpec], key: str) -> list[str]:
        """Return the lines that tell a store of the counters of a rule."""
        lines: list[str] = []
        opened = self._opened(limit, key)
        several = len(specs) > 1 and any(spec.gate for spec in specs)
        if several:
            lines.append("c = 0")
        for place, spec in enumerate(specs):
            opening = opened if place == 0 else []
            if several:
                opening = conditional("not c", opened)
            counter = [*opening, *self._placed(limit, spec, key), *self._row(limit, spec)]
            lines += conditional(spec.gate, counter)
        return lines

    def _row(self, limit: Limit, spec: CellSpec) -> list[str]:
        j, n, most = limit.first + spec.number, spec.amount, spec.allowance
        ceiling, members = spec.ceiling or "-1", []
        if spec.kind == LINE:
            numbers = f"0, 1, t, {n}, {ceiling}"
            rest = f"{spec.place}, {n}, {spec.units}, {most}, 0"
        elif spec.kind == WINDOW:
            only = spec.ceiling == spec.allowance and spec.alerts_at == 100
            alert = "0" if only else f"{most} * {spec.alerts_at}"
            numbers = f"{spec.place}, {spec.span}, 0, {n}, {ceiling}"
            rest = f"0, {n}, {n}, {most}, {alert}"
        else:
            members = ["members.append(len(cells) + 5)"]
            numbers = f"{spec.place}, {spec.until}, 0, 0, {ceiling}"
            rest = f"0, 0, 1, {most}, 0"
        kind = forms.SET if spec.kind == MEMBERS else COUNTER
        ttl = f"-(-({spec.ttl}) // {MILLISECOND})"
        if spec.ttl.isdigit():
            ttl = str(_milliseconds(int(spec.ttl)))
        return [
            f"rows.append((len(cells) // 2, {j}, k{j}, {spec.kind}, {rest}))",
            *members,
            f"cells += ({kind}, c, p, {ttl}, z, {numbers})",
        ]

    def _spill(self) -> str:
        """Return the variable that tells where a full store counts a request without an account."""
        if not self.spills:
            account, network = map(self.variable, STAND_INS)
            self.constants["spill_text"] = spill_text
            text = f"spill_text({{{STAND_INS[1]!r}: {network}}})"
            self.opening.append(f"spill = None if {account} is not None else {text}")
            self.spills = True
        return "spill"

    def _placed(self, limit: Limit, spec: CellSpec, key: str) -> list[str]:
        """Return lines that name a counter's key `k…`, at place `p`, and its spill, at `z`."""
        ident, j = limit.idents[spec.number], limit.first + spec.number
        lines = [f'k{j} = "{ident}" + {key}', f"keys.append(k{j})", "p = len(keys)"]
        if not limit.key_facts:
            return [*lines, "z = 0"]
        common = ""
        if len(limit.key_facts) == 1 and self.facts[limit.key_facts[0]].type is FactType.STRING:
            # A text may be empty, and a key that is the same for everyone cannot multiply.
            common = f' or {key} == "="'
        return [
            *lines,
            f"if {self._spill()} is None{common}: z = 0",
            f'else: keys.append("{ident}" + spill); z = p + 1',
        ]

    def _opened(self, limit: Limit, key: str) -> list[str]:
        """Return lines that start a rule's charge, `c`, with its ban and what follows a refusal."""
        binding, escalate = int(limit.binding), limit.rule.escalate
        lines = ["c = len(charges) // 2 + 1"]
        if escalate is None:
            return [*lines, f"charges += ({binding}, 0)"]
        strikes, ban = (f'"{ident}" + {key}' for ident in limit.ban_idents)
        within, kept = _milliseconds(escalate.within), _milliseconds(escalate.block_for)
        check = f"p, {kept}, 0, 0, 1, t, 0, t"
        left_out = f"0 if {self._spill()} is None else -1"
        # The numbers are those of `Limit.escalation`, in its order.
        return [
            *lines,
            f"charges += ({binding}, 0, 0, c, 0, c + 1)",
            f"keys += ({ban}, {strikes})",
            "p = len(keys) - 1",
            f"members.append(len(cells) + {CELL + 5})",
            f"cells += ({COUNTER}, c, {check}, "
            f"{forms.SET}, c + 1, p + 1, {within}, {left_out}, "
            f"str(t // {SECOND}), t + {escalate.within}, 0, 0, {escalate.after - 1}, "
            f"{COUNTER}, c + 1, {check}, "
            f"{COUNTER}, c + 2, p, {kept}, 0, 0, 1, t, {escalate.block_for}, "
            f"t + {escalate.block_for})",
        ]


def ask_in_rows(engine: Engine, latest: float) -> Ask:
    """Return a function that writes what a store is asked, or None where a request is odd.

    Times from `latest` (seconds since the epoch) on are odd too.
    """
    return _Asking(engine, latest).ask


class _Asking:
    def __init__(self, engine: Engine, latest: float) -> None:
        self.engine = engine
        self.latest = latest
        self.buckets = {name: dict(b) for name, b in engine.index.buckets.items()}
        self.main: RowEmitter | None = None
        self.write = self._function(engine.index.always, "rows", self.buckets)
        if sum(map(len, self.buckets.values())) <= AT_ONCE:
            for name, bucket in self.buckets.items():
                for value in bucket:
                    self._bucket(name, value)

    def ask(
        self, facts: Mapping[str, object], estimate: Mapping[str, object] | None, moment: float
    ) -> Question | None:
        if not 0 <= moment < self.latest:
            return None
        now = int(moment * 1_000_000 + 0.5)
        question = Question(self.engine, facts, estimate, now, self.engine.ids.next())
        return question if self.write(facts, estimate, now, question) else None

    def _function(self, places: Sequence[int], title: str, buckets: Iterable[str] = ()) -> Write:
        emitter = RowEmitter(self.engine, "return False", self.main)
        emitter.add(places)
        for name in buckets:
            emitter.variable(name)
        prelude = emitter.prelude()
        self.main = self.main or emitter
        calls = self._bucket_calls(emitter, buckets)
        emitter.constants.update(name_of=self.engine.ids.name, refuses=refuses)
        lines = [
            *prelude,
            *(["name = name_of(question.serial)"] if emitter.named else []),
            "keys, charges, cells, members = question.form",
            "rows = question.rows",
            "if found:",
            "    question.found += found",
            *(["    if refuses(found): return True"] if emitter.ends_early else []),
            *emitter.opening,
            *emitter.then,
            *calls,
            "return True",
        ]
        head = f"def write(facts, estimate, t, question{emitter.taken}):"
        write: Write = define([head, *indented(lines)], emitter.constants, "write", title)
        return write

    def _bucket_calls(self, emitter: Emitter, names: Iterable[str]) -> list[str]:
        lines = []
        emitter.constants["bucket_of"] = self._bucket
        for name in names:
            held = emitter.constant("I", self.buckets[name])
            value = emitter.variable(name)
            lines += [
                f"b = {held}.get({value})",
                f"if b.__class__ is tuple: b = bucket_of({name!r}, {value})",
                f"if b is not None and not b(facts, estimate, t, question{emitter.handed_on}):",
                "    return False",
            ]
        return lines

    def _bucket(self, name: str, value: object) -> Any:
        bucket: dict[object, Any] = self.buckets[name]
        bucket[value] = self._function(bucket[value], f"rows of {name}")
        return bucket[value]


def _milliseconds(ttl: int) -> int:
    return -(-ttl // MILLISECOND) or 1

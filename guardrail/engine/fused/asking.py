"""What a store elsewhere is asked, written by one generated function; and its reply, read back.

The function handles what may turn out to be simply allowed, and leaves everything else (a refusal
by a static rule, an ill-typed fact, an estimate that lacks a unit) to the steps. Its form is, to
the number, the one that the request's plan would give: so that a reply that does not simply allow
is an answer to that plan, made then. A property test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from guardrail.engine.conclude import ALLOWED
from guardrail.engine.core import Engine
from guardrail.engine.decision import Case, Decision
from guardrail.engine.fused.body import Body
from guardrail.engine.fused.parts import indented
from guardrail.engine.fused.rows import BUDGET, RATE, RowWriter
from guardrail.engine.plan import Plan
from guardrail.engine.source import Source, define
from guardrail.model.cells import Cell, Charge
from guardrail.model.forms import REPLY, Form

Receipt = tuple[int, str, int, int, int, int, int, int]
"""A debit without its names; see `guardrail.engine.limits.base.Debit`."""

Write = Callable[..., bool]


class Question:
    """One request on its way to a store: a form, and the plan it stands for, made if needed."""

    __slots__ = ("_plan", "engine", "estimate", "facts", "form", "now", "rows", "serial")

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
        self._plan: Plan | None = None

    @property
    def plan(self) -> Plan:
        """The request's plan."""
        if self._plan is None:
            name = self.engine.ids.name(self.serial)
            self._plan = self.engine.plan(self.facts, self.estimate, self.now, name)
        return self._plan

    @property
    def case(self) -> Case:
        """The evidence of the decision to come."""
        return Case(self.engine, self.facts, self.estimate, self.now, (), self.serial)

    @property
    def charges(self) -> Sequence[Charge]:
        """The charges that the form stands for."""
        return self.plan.charges

    @property
    def cells(self) -> Sequence[Cell]:
        """The cells that the form stands for."""
        return self.plan.cells

    def receipts(self, reply: Sequence[int]) -> tuple[Receipt, ...] | None:
        """Return the receipts if a reply simply allows the request, None if it does anything else.

        That is a refusal, also one by a rule in shadow, a step of a budget, a counter kept
        elsewhere.
        """
        first = 1 + len(self.form.charges) // 2
        if len(reply) != first + len(self.form.cells) // 2 or not reply[0] or 1 in reply[1:first]:
            return None
        found = []
        for at, number, key, kind, slot, increment, amount, allowance, alert in self.rows:
            start = first + at
            used, second, _, refunded, spilled = reply[start : start + REPLY]
            if spilled:
                return None
            if kind == RATE:
                found.append((number, key, slot, used, increment, amount, allowance, refunded))
            elif kind == BUDGET:
                if alert and (used + amount) * 100 > alert:
                    return None
                found.append((number, key, second, used, increment, amount, allowance, 0))
            else:
                found.append((number, key, 0, used, 1 - second, 1, allowance, 0))
        return tuple(found)

    def allowed(self, receipts: tuple[Receipt, ...]) -> Decision:
        """Return the decision that simply allows the request."""
        decision: Decision = object.__new__(Decision)
        decision._ruling = ALLOWED
        case = (self.engine, self.facts, self.estimate, self.now, receipts, self.serial, None, None)
        decision._case = case
        return decision


Ask = Callable[[Mapping[str, object], Mapping[str, object] | None, float], Question | None]


def fuse_question(engine: Engine, latest: float) -> Ask:
    """Return a function that writes what a store is asked, or None where that needs the steps.

    Times from `latest` (seconds since the epoch) on are left to the steps.
    """
    return _Asking(engine, latest).ask


class _Asking:
    def __init__(self, engine: Engine, latest: float) -> None:
        self.engine = engine
        self.latest = latest
        self.buckets = {name: dict(b) for name, b in engine.index.buckets.items()}
        self.write = self._function(engine.index.always, "question", self.buckets)

    def ask(
        self, facts: Mapping[str, object], estimate: Mapping[str, object] | None, moment: float
    ) -> Question | None:
        if not 0 <= moment < self.latest:
            return None
        now = int(moment * 1_000_000 + 0.5)
        question = Question(self.engine, facts, estimate, now, self.engine.ids.next())
        return question if self.write(facts, estimate, now, question) and question.rows else None

    def _function(self, places: Sequence[int], title: str, buckets: Iterable[str] = ()) -> Write:
        source = Source(self.engine.policies.facts)
        writer = RowWriter(source, self.engine.numbers)
        body = Body(self.engine, writer, "return False", checked=title != "question")
        body.add(places, "return False")
        calls = self._bucket_calls(source, buckets)
        source.constants["name_of"] = self.engine.ids.name
        lines = ["def write(facts, estimate, t, question):", *indented(body.prelude(), 1)]
        if any(" name," in line for line in body.checks):
            lines.append("    name = name_of(question.serial)")
        lines.append("    keys, charges, cells, members = question.form")
        lines.append("    rows = question.rows")
        lines += indented([*writer.opening, *body.checks, *calls, "return True"], 1)
        write: Write = define(lines, source.constants, "write", title)
        return write

    def _bucket_calls(self, source: Source, names: Iterable[str]) -> list[str]:
        lines = []
        source.constants["bucket_of"] = self._bucket
        for name in names:
            held = source.constant("I", self.buckets[name])
            value = source.variable(name)
            lines += [
                f"b = {held}.get({value})",
                f"if b.__class__ is tuple: b = bucket_of({name!r}, {value})",
                "if b is not None and not b(facts, estimate, t, question): return False",
            ]
        return lines

    def _bucket(self, name: str, value: object) -> Any:
        bucket: dict[object, Any] = self.buckets[name]
        bucket[value] = self._function(bucket[value], f"question of {name}")
        return bucket[value]

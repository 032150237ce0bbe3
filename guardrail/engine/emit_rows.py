"""Generated plans, for stores elsewhere: the same numbers that the interpreter would write.

A generated function fills in a plan's form (see `guardrail.model.cells`): ten numbers a cell, and
beside them the plan's rows and bans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from guardrail.engine.core import Engine
from guardrail.engine.emit import Emitter, by_value
from guardrail.engine.emit_facts import conditional, indented
from guardrail.engine.expressions import STAND_INS, spill_text
from guardrail.engine.index import AT_ONCE
from guardrail.engine.plan import Plan
from guardrail.engine.verbs import CellSpec, Limit
from guardrail.model.amounts import SECOND
from guardrail.model.cells import (
    CELL,
    COUNTER,
    LINE,
    MEMBERS,
    MILLISECOND,
    SET,
    TOP,
    WINDOW,
    milliseconds,
)
from guardrail.model.facts import LATEST, FactType

Write = Callable[..., bool]
PlanRows = Callable[[Mapping[str, object], Mapping[str, object] | None, float], Plan | None]


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
        j, n, most = self.local(limit, spec.number), spec.amount, spec.allowance
        number = self.constant("N", limit.first + spec.number)
        ceiling, members = spec.ceiling or "-1", []
        if spec.kind == LINE:
            numbers = f"0, 1, t, {n}, {ceiling}"
            rest = f"{spec.place}, {n}, {spec.units}, {most}, 0"
        elif spec.kind == WINDOW:
            numbers = f"{spec.place}, {spec.span}, 0, {n}, {ceiling}"
            rest = f"0, {n}, {n}, {most}, {most} * {spec.alerts_at}"
        else:
            members = ["members.append(len(cells) + 5)"]
            numbers = f"{spec.place}, {spec.until}, 0, 0, {ceiling}"
            rest = f"0, 0, 1, {most}, 0"
        kind = SET if spec.kind == MEMBERS else COUNTER
        ttl = f"-(-({spec.ttl}) // {MILLISECOND})"
        if spec.ttl.isdigit():
            ttl = str(milliseconds(int(spec.ttl)))
        return [
            f"rows.append((len(cells) // 2, {number}, k{j}, {spec.kind}, {rest}))",
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
        ident = self.constant("U", limit.idents[spec.number])
        j = self.local(limit, spec.number)
        lines = [f"k{j} = {ident} + {key}", f"keys.append(k{j})", "p = len(keys)"]
        if not limit.key_facts:
            return [*lines, "z = 0"]
        common = ""
        if len(limit.key_facts) == 1 and self.facts[limit.key_facts[0]].type is FactType.STRING:
            # A text may be empty, and a key that is the same for everyone cannot multiply.
            common = f' or {key} == "="'
        return [
            *lines,
            f"if {self._spill()} is None{common}: z = 0",
            f"else: keys.append({ident} + spill); z = p + 1",
        ]

    def _opened(self, limit: Limit, key: str) -> list[str]:
        """Return lines that start a rule's charge, `c`, with its ban and what follows a refusal."""
        binding, escalate = int(limit.binding), limit.rule.escalate
        lines = ["c = len(charges) // 2 + 1"]
        if escalate is None:
            return [*lines, f"charges += ({binding}, 0)"]
        strikes, ban = (f"{self.constant('U', ident)} + {key}" for ident in limit.ban_idents)
        within, kept = milliseconds(escalate.within), milliseconds(escalate.block_for)
        check = f"p, {kept}, 0, 0, 1, t, 0, t"
        left_out = f"0 if {self._spill()} is None else -1"
        # The numbers are those of `Limit.escalation`, in its order.
        return [
            *lines,
            f"bans.append((len(cells) // 2, {self.constant('N', limit.first)}))",
            f"charges += ({binding}, 0, 0, c, 0, c + 1)",
            f"keys += ({ban}, {strikes})",
            "p = len(keys) - 1",
            f"members.append(len(cells) + {CELL + 5})",
            f"cells += ({COUNTER}, c, {check}, "
            f"{SET}, c + 1, p + 1, {within}, {left_out}, "
            f"str(t // {SECOND}), t + {escalate.within}, 0, 0, {escalate.after - 1}, "
            f"{COUNTER}, c + 1, {check}, "
            f"{COUNTER}, c + 2, p, {kept}, 0, 0, 1, t, {escalate.block_for}, "
            f"t + {escalate.block_for})",
        ]


def plan_in_rows(engine: Engine) -> PlanRows:
    """Return a function that plans a request, or returns None where it, or its time, is odd."""
    return _Planning(engine).plan


class _Planning:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.buckets: dict[str, dict[object, Any]] = {
            name: dict(bucket)
            for name, bucket in engine.index.buckets.items()
            if name != engine.index.main
        }
        self.write: Write = by_value(engine, self._function, "facts, estimate, t, plan")
        if sum(map(len, self.buckets.values())) <= AT_ONCE:
            for name, bucket in self.buckets.items():
                for value in bucket:
                    self._bucket(name, value)

    def plan(
        self, facts: Mapping[str, object], estimate: Mapping[str, object] | None, moment: float
    ) -> Plan | None:
        if not 0 <= moment < LATEST:
            return None
        now = int(moment * 1_000_000 + 0.5)
        plan = Plan(self.engine, facts, estimate, now, self.engine.ids.next())
        return plan if self.write(facts, estimate, now, plan) else None

    def _function(
        self, places: Iterable[int], fixed: Mapping[str, object], *, called: bool = False
    ) -> Write:
        """Return the function for the rules at some places; it calls those of further buckets."""
        emitter = RowEmitter(self.engine, "return False", fixed, called=called)
        emitter.add(places)
        prelude = emitter.prelude()
        calls = [] if called else self._bucket_calls(emitter)
        lines = [
            *prelude,
            "keys, charges, cells, members = plan.form",
            "rows = plan.rows; bans = plan.bans; serial = plan.serial",
            *emitter.naming,
            "if found:",
            "    plan.found += found",
            # No store is asked then, but buckets may have more to say.
            "    if ended:",
            *indented([*calls, "return True"], 2),
            *emitter.opening,
            *emitter.then,
            *calls,
            "return True",
        ]
        head = "def write(facts, estimate, t, plan):"
        write: Write = emitter.defined([head, *indented(lines)], "write", "rows")
        return write

    def _bucket_calls(self, emitter: Emitter) -> list[str]:
        lines = []
        emitter.constants["bucket_of"] = self._bucket
        for name in self.buckets:
            held = emitter.constant("I", self.buckets[name])
            value = emitter.variable(name)
            lines += [
                f"b = {held}.get({value})",
                f"if b.__class__ is tuple: b = bucket_of({name!r}, {value})",
                "if b is not None and not b(facts, estimate, t, plan): return False",
            ]
        return lines

    def _bucket(self, name: str, value: object) -> Any:
        bucket = self.buckets[name]
        bucket[value] = self._function(bucket[value], {}, called=True)
        return bucket[value]

"""The fused decision: plan, store and conclusion as one generated function, for the clean case.

It decides alone where a request is simply allowed. Everything else (a refusal, a degrade, a
notice, an ill-typed fact, an estimate that lacks a unit) it hands, untouched, to the three steps,
which decide the same request anew; nothing has been written by then. What it allows, the three
steps would have allowed with the same charges: a property test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from guardrail.engine.conclude import ALLOWED
from guardrail.engine.core import Engine
from guardrail.engine.decision import Decision
from guardrail.engine.facts import Derivation
from guardrail.engine.fused.lines import FusableStore, LineWriter, RuleLines, indented
from guardrail.engine.source import Source, define
from guardrail.model.cells import TOP
from guardrail.model.facts import COUNTRIES, Fact, FactType
from guardrail.model.rules import Block, Degrade
from guardrail.model.typed import typed_value

Decide = Callable[[Mapping[str, object], Mapping[str, object] | None, float], Decision]
NUMBERS = frozenset((int, float))
TOKENS = ("tokens", "input_tokens", "output_tokens")


def fuse(engine: Engine, store: FusableStore, steps: Decide, latest: float) -> Decide:
    """Return a function that decides like `steps`, quicker where the request is simply allowed.

    Times from `latest` (seconds since the epoch) on are left to `steps`.
    """
    return _Fusion(engine, store, steps, latest).decide()


class _Fusion:
    def __init__(self, engine: Engine, store: FusableStore, steps: Decide, latest: float) -> None:
        self.engine = engine
        self.store = store
        self.steps = steps
        self.latest = latest
        self.buckets = {name: dict(b) for name, b in engine.index.buckets.items()}

    def decide(self) -> Decide:
        """Return the function for the rules that always apply; it calls those of the buckets."""
        body = _Body(self.engine, self.store, "return steps(facts, estimate, moment)")
        body.add(self.engine.index.always, "break")
        for name in self.buckets:
            body.source.variable(name)
        source = body.source
        named = body.writer.named or bool(self.buckets)
        lines = ["def decide(facts, estimate, moment):"]
        lines += indented([f"if not 0 <= moment < {self.latest!r}: {body.bail}"], 1)
        lines += indented(["t = int(moment * 1000000 + 0.5)"], 1)
        lines += indented(body.prelude(), 1)
        if named:
            lines += indented(["serial = next_serial()", "name = name_of(serial)"], 1)
        lines += indented(["with lock:", "    while True:"], 1)
        lines += indented([*body.writer.opening, *body.checks], 3)
        lines += indented(self._bucket_calls(source), 3)
        lines += indented(body.writes, 3)
        debits = "".join(f"{debit}, " for debit in body.debits)
        more = "*more, " if self.buckets else ""
        serial = "serial" if named else "next_serial()"
        lines += indented(
            [
                "decision = new(Decision)",
                "decision._ruling = ALLOWED",
                f"decision._case = (engine, facts, estimate, t, ({debits}{more}), {serial}, None, None)",
                "return decision",
            ],
            3,
        )
        lines += indented([body.bail], 1)
        return define(lines, self._constants(source), "decide", "fused")  # type: ignore[no-any-return]

    def _constants(self, source: Source) -> dict[str, Any]:
        return {
            **source.constants,
            "steps": self.steps,
            "lock": self.store.lock,
            "engine": self.engine,
            "next_serial": self.engine.ids.next,
            "name_of": self.engine.ids.name,
            "new": object.__new__,
            "Decision": Decision,
            "ALLOWED": ALLOWED,
        }

    def _bucket_calls(self, source: Source) -> list[str]:
        if not self.buckets:
            return []
        lines = ["pending = []; more = []"]
        source.constants["bucket_of"] = self._bucket
        for number, (name, bucket) in enumerate(self.buckets.items()):
            held = source.constant("I", bucket)
            value = source.variable(name)
            lines += [
                f"b{number} = {held}.get({value})",
                f"if b{number} is not None:",
                f"    if b{number}.__class__ is tuple: b{number} = bucket_of({name!r}, {value})",
                f"    if not b{number}(facts, estimate, t, name, pending, more): break",
            ]
        return [*lines, "for put, key, record in pending: put(key, record, t)"]

    def _bucket(self, name: str, value: object) -> Any:
        bucket: dict[object, Any] = self.buckets[name]
        body = _Body(self.engine, self.store, "return False", pending=True)
        body.add(bucket[value], "return False")
        lines = ["def decide(facts, estimate, t, name, pending, more):"]
        lines += indented([*body.prelude(), *body.writer.opening, *body.checks, *body.writes], 1)
        debits = "".join(f"{debit}, " for debit in body.debits)
        lines += indented([f"more += ({debits})", "return True"], 1)
        bucket[value] = define(lines, body.source.constants, "decide", f"fused {name}")
        return bucket[value]


class _Body:
    """The lines of one generated function: facts, amounts, checks, writes, receipts."""

    def __init__(
        self, engine: Engine, store: FusableStore, bail: str, *, pending: bool = False
    ) -> None:
        self.engine = engine
        self.bail = bail
        self.pending = pending
        self.source = Source(engine.policies.facts)
        self.source.constants["NUMBERS"] = NUMBERS
        self.writer = LineWriter(self.source, store, engine.numbers)
        self.statics: list[str] = []
        self.checks: list[str] = []
        self.writes: list[str] = []
        self.debits: list[str] = []
        for name in engine.required:
            self.statics.append(f"if {self.source.variable(name)} is None: {bail}")

    def add(self, places: Sequence[int], leave: str) -> None:
        """Add rules; under the lock their lines leave by `leave`."""
        for place in places:
            rule, limit = self.engine.rules[place], self.engine.limits[place]
            applies = self.source.applies(rule, self.engine.policies.exemptions)
            if isinstance(rule.verb, (Block, Degrade)) or limit is None:
                self.statics.append(f"if {applies or 'True'}: {self.bail}")
                continue
            lines = self.writer.rule(rule, limit, leave)
            if lines is None:
                self.statics.append(f"if {applies or 'True'}: {self.bail}")
            else:
                self._add_lines(applies, lines)

    def _add_lines(self, applies: str, lines: RuleLines) -> None:
        body = list(lines.head)
        for counter in lines.counters:
            gated = counter.gate
            body += [f"if {gated}:", *indented(counter.checks, 1)] if gated else counter.checks
            writes = [self._deferred(line) for line in counter.writes]
            if not applies and not gated:
                self.writes += writes
                self.debits.append(counter.debit)
                continue
            self.checks.append(f"{counter.flag} = None")
            self.writes += [f"if {counter.flag} is not None:", *indented(writes, 1)]
            self.debits.append(f"None if {counter.flag} is None else {counter.debit}")
        self.checks += [f"if {applies}:", *indented(body, 1)] if applies and body else body

    def _deferred(self, line: str) -> str:
        """Turn a bucket's write into one that its caller makes once nothing refused."""
        if not self.pending:
            return line
        stripped = line.lstrip()
        indent = line[: len(line) - len(stripped)]
        if ".put(" in stripped:
            table, rest = stripped.split(": ", 1)[1].split(".put(", 1)
            return f"{indent}if True: pending.append(({table}.put, {rest.rsplit(', t)', 1)[0]}))"
        return f"{indent}pass" if stripped.startswith("else:") else line

    def prelude(self) -> list[str]:
        """Return the lines that read facts and amounts, and test what needs no counter."""
        sized = self._amount_lines()
        reads = ["get = facts.get", *self._fact_lines(), *sized]
        lines = ["now = t / 1000000"] if any("now" in line for line in self._timed()) else []
        # A value that cannot be looked up in a set is not of its fact's type.
        lines += ["try:", *indented(reads, 1), "except TypeError:", f"    {self.bail}"]
        return [*lines, *self.statics]

    def _timed(self) -> list[str]:
        derived = ["now"] if self.engine.reader.derivations else []
        return [*derived, *self.statics, *self.checks]

    def _amount_lines(self) -> list[str]:
        units, bail = self.writer.units, self.bail
        if not units:
            return []
        lines = ["if estimate is None: estimate = {}"]
        if units - {"requests", *TOKENS}:
            model = self.source.variable("request.model")
            self.source.constants["reserve"] = self.engine.sizer.reserve
            lines += [f"amounts, notes = reserve(estimate, {model})", f"if notes: {bail}"]
            lines += [f"n_{unit} = amounts[{unit!r}]" for unit in sorted(units)]
            return [*lines, *(f"if not n_{unit}: {bail}" for unit in sorted(units))]
        if "requests" in units:
            lines.append('n_requests = estimate.get("requests", 1)')
            wrong = f"n_requests.__class__ is not int or not 0 < n_requests <= {TOP}"
            lines.append(f"if {wrong}: {bail}")
        if units & set(TOKENS):
            lines += [
                'n_input_tokens = estimate.get("input_tokens")',
                'n_output_tokens = estimate.get("output_tokens")',
                "if n_input_tokens.__class__ is not int or n_output_tokens.__class__ is not int"
                f" or n_input_tokens < 0 or n_output_tokens < 0: {bail}",
                "n_tokens = n_input_tokens + n_output_tokens",
                f"if not 0 < n_tokens <= {TOP}: {bail}",
            ]
        return lines

    def _fact_lines(self) -> list[str]:
        reader = self.engine.reader
        derived = [name for name in reader.derivations if name in self.source.variables]
        if "account.age" in derived:
            self.source.variable("account.created")
        if any(name.startswith("actor.") for name in derived):
            self.source.variable("account.id")
        lines: list[str] = []
        for name, variable in self.source.variables.items():
            lines += self._read(reader.facts[name], variable)
        for name in derived:
            lines += self._derive(name, reader.derivations[name])
        return lines

    def _read(self, fact: Fact, variable: str) -> list[str]:
        lines = [f"{variable} = get({fact.name!r})"]
        if fact.default is not None:
            lines.append(f"if {variable} is None: {variable} = {fact.default!r}")
        return [*lines, *self._typed(fact, variable)]

    def _typed(self, fact: Fact, variable: str) -> list[str]:
        """Return lines that leave it to the steps where a fact has a value not of its type."""
        kind, bail = fact.type, self.bail
        if kind in (FactType.COUNTRY, FactType.ENUM, FactType.LEVEL):
            values = COUNTRIES if kind is FactType.COUNTRY else frozenset(fact.values)
            return [f"if {variable} not in {self.source.constant('N', values | {None})}: {bail}"]
        number = f"-{TOP} <= {variable} <= {TOP}"
        wrong = {
            FactType.STRING: f"{variable}.__class__ is not str",
            FactType.BOOL: f"{variable}.__class__ is not bool",
            FactType.INTEGER: f"({variable}.__class__ is not int or not {number})",
            FactType.NUMBER: f"({variable}.__class__ not in NUMBERS or not {number})",
        }.get(kind)
        if wrong is not None:
            return [f"if {wrong} and {variable} is not None: {bail}"]
        self.source.constants["typed_value"] = typed_value
        typed = f"typed_value({self.source.constant('Y', fact)}, {variable})"
        return [
            f"if {variable} is not None:",
            f"    {variable} = {typed}",
            f"    if {variable} is None: {bail}",
        ]

    def _derive(self, name: str, derivation: Derivation) -> list[str]:
        variable = self.source.variable(name)
        made = self.source.constant("E", derivation)
        known = "{}"
        if name == "account.age":
            known = f'{{"account.created": {self.source.variable("account.created")}}}'
        elif name.startswith("actor."):
            account = self.source.variable("account.id")
            known = f'({{}} if {account} is None else {{"account.id": {account}}})'
        return [f"if {variable} is None: {variable} = {made}({known}, now)"]

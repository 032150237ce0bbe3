"""The lines of one generated function: facts, amounts, checks, writes, receipts."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.engine.core import Engine
from guardrail.engine.facts import Derivation
from guardrail.engine.fused.parts import RuleLines, indented
from guardrail.engine.fused.writer import RuleWriter
from guardrail.engine.sizes import unusable
from guardrail.model.amounts import MICRO
from guardrail.model.cells import TOP
from guardrail.model.facts import COUNTRIES, Fact, FactType
from guardrail.model.rules import Block, Degrade
from guardrail.model.typed import typed_value

NUMBERS = frozenset((int, float))
TOKENS = ("tokens", "input_tokens", "output_tokens")


class Body:
    """The lines of one generated function: facts, amounts, checks, writes, receipts."""

    def __init__(
        self,
        engine: Engine,
        writer: RuleWriter,
        bail: str,
        *,
        pending: bool = False,
        checked: bool = False,
    ) -> None:
        """Start a function; one whose caller `checked` the estimate's amounts need not again."""
        self.engine = engine
        self.checked = checked
        self.bail = bail
        self.pending = pending
        self.writer = writer
        self.source = writer.source
        self.source.constants["NUMBERS"] = NUMBERS
        self.statics: list[str] = []
        self.checks: list[str] = []
        self.writes: list[str] = []
        self.debits: list[str] = []
        for name in engine.required:
            self.statics.append(f"if {self.source.variable(name)} is None: {bail}")
        if not pending:
            # A wrong value for an identity is refused also where no rule asks for it this time.
            for name in sorted(engine.reader.identities):
                self.source.variable(name)

    def add(self, places: Sequence[int], leave: str) -> None:
        """Add rules; under the lock their lines leave by `leave`."""
        for place in places:
            rule, limit = self.engine.rules[place], self.engine.limits[place]
            applies = self.source.applies(rule, self.engine.policies.exemptions)
            if isinstance(rule.verb, (Block, Degrade)) or limit is None:
                self.statics.append(f"if {applies or 'True'}: {self.bail}")
                continue
            self.writer.unconditional = not applies
            lines = self.writer.lines(rule, limit, leave)
            if lines is None:
                self.statics.append(f"if {applies or 'True'}: {self.bail}")
            else:
                self._add_lines(applies, lines)

    def _add_lines(self, applies: str, lines: RuleLines) -> None:
        body = list(lines.head)
        for counter in lines.counters:
            gated = counter.gate
            body += [f"if {gated}:", *indented(counter.checks, 1)] if gated else counter.checks
            if not counter.flag:
                continue
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
        lines = ["if estimate is None: estimate = {}"]
        if not self.checked:
            # An amount of up to this many is one in any unit, money too.
            self.source.constants["unusable"] = unusable
            lines += [
                "for stated in estimate.values():",
                f"    if stated.__class__ is not int or not 0 <= stated <= {TOP // MICRO}:",
                f"        if unusable(estimate): {bail}",
                "        break",
            ]
        if not units:
            return lines if not self.checked else []
        if units - {"requests", *TOKENS}:
            known = "request.model" in self.engine.reader.facts
            model = self.source.variable("request.model") if known else "None"
            self.source.constants["reserve"] = self.engine.sizer.reserve
            lines += [f"amounts, notes = reserve(estimate, {model})", f"if notes: {bail}"]
            named = {unit: self.writer.unit(unit) for unit in sorted(units)}
            lines += [f"{name} = amounts[{unit!r}]" for unit, name in named.items()]
            return [*lines, *(f"if not {name}: {bail}" for name in named.values())]
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
            # An amount of 0 is counted, but writes nothing.
            parts = sorted(units & {"input_tokens", "output_tokens"})
            lines += [f"if not n_{unit}: {bail}" for unit in parts]
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
        if fact.name in self.engine.reader.identities and kind is FactType.STRING:
            wrong = f"({wrong} or not {variable})"
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

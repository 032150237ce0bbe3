"""Generated reading of facts: each into a variable, typed as the interpreter would type it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from guardrail.engine.expressions import Expressions
from guardrail.engine.facts import FOLLOWING, FOLLOWS_FROM, Derivation, FactReader
from guardrail.model.cells import TOP
from guardrail.model.facts import COUNTRIES, LATEST, Fact, FactType, typed_value

NUMBERS = frozenset((int, float))


class FactEmitter(Expressions):
    """Writes the lines that read the facts which one generated function uses.

    It leaves by `bail` where a request states one with a value not of its type.
    """

    def __init__(
        self,
        reader: FactReader,
        facts: Mapping[str, Fact],
        bail: str,
        fixed: Mapping[str, object] | None = None,
    ) -> None:
        """Start without variables; of `fixed` facts the value is known (None: it is missing)."""
        super().__init__(facts, fixed)
        self.reader = reader
        self.bail = bail
        self.constants["NUMBERS"] = NUMBERS

    def fact_lines(self) -> list[str]:
        """Return the lines that read every fact of which there is a variable by now.

        They may raise a TypeError: a value that cannot be looked up in a set is of no fact's type.
        """
        derived = [name for name in self.reader.derivations if name in self.variables]
        for name in derived:
            if name in FOLLOWS_FROM:
                self.variable(FOLLOWS_FROM[name])
        lines = ["get = facts.get"]
        for name, variable in self.variables.items():
            lines += self._read(self.reader.facts[name], variable)
        for name in derived:
            lines += self._derive(name, self.reader.derivations[name])
        return lines

    def _read(self, fact: Fact, variable: str) -> list[str]:
        lines = [f"{variable} = get({fact.name!r})"]
        if fact.default is not None:
            lines.append(f"if {variable} is None: {variable} = {fact.default!r}")
        return [*lines, *self._typed(fact, variable)]

    def _typed(self, fact: Fact, variable: str) -> list[str]:
        """Return lines that bail out where a fact has a value not of its type."""
        kind, bail = fact.type, self.bail
        if kind in (FactType.COUNTRY, FactType.ENUM, FactType.LEVEL):
            values = COUNTRIES if kind is FactType.COUNTRY else frozenset(fact.values)
            return [f"if {variable} not in {self.constant('N', values | {None})}: {bail}"]
        number = f"-{TOP} <= {variable} <= {TOP}"
        wrong = {
            FactType.STRING: f"{variable}.__class__ is not str",
            FactType.BOOL: f"{variable}.__class__ is not bool",
            FactType.INTEGER: f"({variable}.__class__ is not int or not {number})",
            FactType.NUMBER: f"({variable}.__class__ not in NUMBERS or not {number})",
        }.get(kind)
        if fact.name in self.reader.identities and kind is FactType.STRING:
            wrong = f"({wrong} or not {variable})"
        if wrong is not None:
            return [f"if {wrong} and {variable} is not None: {bail}"]
        plain = {
            FactType.TIMESTAMP: f" and ({variable}.__class__ is not float"
            f" or not 0 <= {variable} < {LATEST})",
            FactType.DURATION: f" and ({variable}.__class__ not in NUMBERS"
            f" or not 0 <= {variable} <= {TOP})",
        }
        self.constants["typed_value"] = typed_value
        typed = f"typed_value({self.constant('Y', fact)}, {variable})"
        return [
            f"if {variable} is not None{plain.get(kind, '')}:",
            f"    {variable} = {typed}",
            f"    if {variable} is None: {bail}",
        ]

    def _derive(self, name: str, derivation: Derivation) -> list[str]:
        variable = self.variable(name)
        if name not in FOLLOWING:
            self.timed = True
            return [
                f"if {variable} is None: {variable} = {self.constant('E', derivation)}({{}}, now)"
            ]
        source, value = FOLLOWING[name]
        self.timed = self.timed or "now" in value
        known = self.variable(source)
        return [
            f"if {variable} is None and {known} is not None:",
            f"    {variable} = {value.format(value=known)}",
        ]


def conditional(where: str, lines: Sequence[str]) -> list[str]:
    """Return lines that run where a condition holds; empty: always."""
    if not where or not lines:
        return list(lines)
    return [f"if {where}:", *indented(lines)]


def either(where: str, lines: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return lines that run where a condition holds, and others that run where it does not."""
    return [f"if {where}:", *indented(lines or ["pass"]), "else:", *indented(others or ["pass"])]


def indented(lines: Sequence[str], depth: int = 1) -> list[str]:
    """Return lines moved in by so many levels."""
    return ["    " * depth + line for line in lines]

"""Generated reading of facts: each into a variable, typed as the interpreter would type it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from guardrail.engine.expressions import Expressions
from guardrail.engine.facts import FOLLOWING, FOLLOWS_FROM, Derivation, FactReader
from guardrail.model.cells import TOP
from guardrail.model.facts import COUNTRIES, LATEST, Fact, FactType, typed_value

NUMBERS = frozenset((int, float))
LISTED = frozenset((FactType.COUNTRY, FactType.ENUM, FactType.LEVEL))
"""Types of which every value is listed."""
READ_ANEW = frozenset((FactType.IP, FactType.TIMESTAMP, FactType.DURATION, FactType.LIST))
"""Types whose values are written in more than one way."""


class FactEmitter(Expressions):
    """Writes the lines that read the facts which one generated function uses.

    It leaves by `bail` where a request states one with a value not of its type. Facts that are
    found `beside` those it states are in these variables: None where there is none.
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
        self.beside: Mapping[str, str] = {}
        self.constants["NUMBERS"] = NUMBERS

    def is_present(self, fact: str) -> bool:
        """Tell whether a fact's variable always holds a value: it has a default."""
        return self.facts[fact].default is not None

    def fact_lines(self) -> list[str]:
        """Return the lines that read every fact of which there is a variable by now.

        They may raise a TypeError: a value that cannot be looked up in a set is of no fact's type.
        """
        derived = [name for name in self.reader.derivations if name in self.variables]
        for name in derived:
            if name in FOLLOWS_FROM:
                self.variable(FOLLOWS_FROM[name])
        lines = ["get = facts.get"]
        stated = [name for name in self.variables if name not in self.beside]
        for name in stated:
            lines += self._read(self.reader.facts[name], self.variables[name])
        lines += self.beside_lines()
        for name in self.beside.keys() & self.variables:
            lines += self._read(self.reader.facts[name], self.variables[name])
        for name in derived:
            lines += self._derive(name, self.reader.derivations[name])
        return lines

    def beside_lines(self) -> list[str]:
        """Return the lines that find what stands beside the facts, once these are read."""
        return []

    def _read(self, fact: Fact, variable: str) -> list[str]:
        """Return lines that read a fact, and bail out where it has a value not of its type."""
        lines = [f"{variable} = get({fact.name!r})"]
        others = [self.beside[fact.name]] if fact.name in self.beside else []
        if fact.default is not None:
            others.append(repr(fact.default))
        lines += [f"if {variable} is None: {variable} = {other}" for other in others]
        wrong, instead = self._wrong(fact, variable)
        if others:  # they are of its type
            return [*lines, f"elif {wrong}:", *indented(instead)]
        if fact.type not in LISTED:
            wrong += f" and {variable} is not None"
        return [*lines, f"if {wrong}:", *indented(instead)]

    def _wrong(self, fact: Fact, variable: str) -> tuple[str, list[str]]:
        """Return the condition for a value not to be of a fact's type as it is, and what then."""
        kind = fact.type
        if kind in LISTED:
            values = COUNTRIES if kind is FactType.COUNTRY else frozenset(fact.values)
            return f"{variable} not in {self.constant('N', values | {None})}", [self.bail]
        number = f"-{TOP} <= {variable} <= {TOP}"
        wrong = {
            FactType.STRING: f"{variable}.__class__ is not str",
            FactType.BOOL: f"{variable}.__class__ is not bool",
            FactType.INTEGER: f"({variable}.__class__ is not int or not {number})",
            FactType.NUMBER: f"({variable}.__class__ not in NUMBERS or not {number})",
            FactType.TIMESTAMP: f"({variable}.__class__ is not float"
            f" or not 0 <= {variable} < {LATEST})",
            FactType.DURATION: f"({variable}.__class__ not in NUMBERS"
            f" or not 0 <= {variable} <= {TOP})",
        }.get(kind, "True")
        if fact.name in self.reader.identities and kind is FactType.STRING:
            wrong = f"({wrong} or not {variable})"
        if kind not in READ_ANEW:
            return wrong, [self.bail]
        self.constants["typed_value"] = typed_value
        typed = f"{variable} = typed_value({self.constant('Y', fact)}, {variable})"
        return wrong, [typed, f"if {variable} is None: {self.bail}"]

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

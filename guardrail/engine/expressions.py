"""Rules as Python source: the expressions that generated decisions are built from.

An expression reads local variables, one a fact (None where it is missing), `now` in seconds and
`t` in microseconds. Kleene's logic needs no third value in it: a condition is written either as
"known to be true" or as "not known to be false", and a negation swaps the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from guardrail.conditions import in_networks
from guardrail.engine.closures import from_fact
from guardrail.engine.keys import LONGEST, SEPARATOR
from guardrail.model.amounts import Amount, Fixed, Lookup, amount_facts
from guardrail.model.facts import Fact, FactType
from guardrail.model.predicates import Comparison, Condition, Every, Negation, facts_of
from guardrail.model.rules import Exemption, Rule

INLINE_VALUES = 32
"""Sets of up to so many values stand in the source, where they are constants to the compiler."""

TEXTUAL = frozenset((FactType.STRING, FactType.COUNTRY, FactType.IP, FactType.ENUM, FactType.LEVEL))
STAND_INS = ("account.id", "client.network")
"""The facts that stand in for a missing key fact."""


class Expressions:
    """The names that one generated function uses, and rules as expressions over them.

    `timed` tells that one of them reads `now`.
    """

    def __init__(self, facts: Mapping[str, Fact]) -> None:
        self.facts = facts
        self.constants: dict[str, Any] = {}
        self.timed = False
        self._variables: dict[str, str] = {}

    def constant(self, prefix: str, value: object) -> str:
        """Return a name for a value that cannot stand in the source itself."""
        name = f"{prefix}{len(self.constants)}"
        self.constants[name] = value
        return name

    def variable(self, fact: str) -> str:
        """Return the local variable that holds a fact."""
        return self._variables.setdefault(fact, f"f{len(self._variables)}")

    @property
    def variables(self) -> Mapping[str, str]:
        """The facts read so far, and their variables."""
        return self._variables

    def applies(self, rule: Rule, exemptions: Sequence[Exemption]) -> str:
        """Return the expression for whether a rule applies; empty if it always does."""
        terms: list[str] = []
        if rule.start is not None:
            terms.append(f"t >= {rule.start}")
        if rule.end is not None:
            terms.append(f"t < {rule.end}")
        condition = self.condition(rule.when, unknown=rule.unknown != "skip")
        if condition != "True":
            terms.append(condition)
        for exemption in exemptions:
            if rule.id in exemption.rules:
                holds = self.condition(exemption.when, unknown=exemption.unknown_holds)
                terms.append(f"not (t < {exemption.expires} and {holds})")
        return " and ".join(terms)

    def condition(self, condition: Condition, *, unknown: bool) -> str:
        """Return a condition as an expression; `unknown` is its value where it is unknown."""
        if isinstance(condition, Comparison):
            return self._test(condition, unknown)
        if isinstance(condition, Negation):
            return f"(not {self.condition(condition.part, unknown=not unknown)})"
        parts = [self.condition(part, unknown=unknown) for part in condition.parts]
        if isinstance(condition, Every):
            return f"({' and '.join(parts)})" if parts else "True"
        return f"({' or '.join(parts)})" if parts else "False"

    def _test(self, test: Comparison, unknown: bool) -> str:
        value = self.variable(test.fact)
        if test.operator == "exists":
            return f"({value} is {'not ' if test.operand else ''}None)"
        missing = f"{value} is None"
        if test.operator == "same_as":
            other = self.variable(str(test.operand))
            missing = f"({missing} or {other} is None)"
            compared = f"{value} == {other}"
        else:
            compared = self._compared(test, value)
        if test.operator == "in" and not unknown and self.facts[test.fact].type != FactType.LIST:
            return f"({compared})"  # None is in no set and equals no value
        return f"({missing} or {compared})" if unknown else f"(not {missing} and {compared})"

    def _compared(self, test: Comparison, value: str) -> str:
        operand, operator = test.operand, test.operator
        if operator in ("in", "not_in"):
            assert isinstance(operand, frozenset)
            inverted = operator == "not_in"
            if self.facts[test.fact].type is FactType.LIST:
                disjoint = f"{self.constant('C', operand)}.isdisjoint({value})"
                return disjoint if inverted else f"not {disjoint}"
            if len(operand) == 1:
                (only,) = operand
                return f"{value} {'!=' if inverted else '=='} {only!r}"
            if not operand or len(operand) > INLINE_VALUES:
                named = self.constant("C", operand)
            else:
                named = "{" + ", ".join(sorted(map(repr, operand))) + "}"
            return f"{value} {'not in' if inverted else 'in'} {named}"
        if operator in ("before", "after"):
            sign = "<" if operator == "before" else ">"
            self.timed = self.timed or operand is None
            return f"{value} {sign} {'now' if operand is None else repr(operand)}"
        if operator == "prefix":
            return f"{value}.startswith({operand!r})"
        if operator == "cidr":
            self.constants["in_networks"] = in_networks
            return f"in_networks({value}, {self.constant('C', operand)})"
        signs = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
        return f"{value} {signs[operator]} {operand!r}"

    def allowance(self, amount: Amount) -> str:
        """Return the expression for an amount; it gives None for unlimited."""
        if isinstance(amount, Fixed):
            return repr(amount.value)
        value = self.variable(amount.fact)
        if isinstance(amount, Lookup):
            table = self.constant("T", {**amount.table, None: amount.missing})
            if self.exhaustive(amount):
                return f"{table}[{value}]"
            return f"{table}.get({value}, {amount.otherwise!r})"
        self.constants["from_fact"] = from_fact
        source = self.constant("A", amount)
        return f"({amount.missing!r} if {value} is None else from_fact({source}, {value}))"

    def exhaustive(self, amount: Lookup) -> bool:
        """Tell whether a table lists every value that its fact can have."""
        values = self.facts[amount.fact].values
        return bool(values) and all(value in amount.table for value in values)

    def unplain(self, name: str, joined: bool) -> str:
        """Return the expression for a textual fact that cannot stand in a key as it is.

        Missing ones cannot, nor long ones, nor, `joined` with others, one that holds a separator.
        """
        value = self.variable(name)
        tests = [f"{value} is None"]
        if self.facts[name].type is FactType.STRING:
            tests.append(f"len({value}) > {LONGEST}")
            if joined:
                tests.append(f"{SEPARATOR!r} in {value}")
        return " or ".join(tests)


def rule_facts(
    rule: Rule, exemptions: Sequence[Exemption], *, stand_ins: bool = True
) -> frozenset[str]:
    """Return the names of all facts that one rule may read, with the stand-ins of its key."""
    names = set(facts_of(rule.when))
    for exemption in exemptions:
        if rule.id in exemption.rules:
            names |= facts_of(exemption.when)
    verb = rule.verb
    for amount in verb.allowances:
        names |= amount_facts(amount)
    if stand_ins and verb.allowances:
        names.update(STAND_INS)
    return frozenset((*names, *verb.facts))


def define(lines: Sequence[str], constants: Mapping[str, Any], name: str, title: str) -> Any:
    """Return the function `name` that source lines define over some constants."""
    namespace = dict(constants)
    exec(compile("\n".join(lines), f"<guardrail {title}>", "exec"), namespace)
    return namespace[name]

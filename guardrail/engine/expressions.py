"""Keys, amounts and conditions of rules, for one request: as functions, and as Python source.

An expression reads local variables, one a fact (None where it is missing), `now` in seconds and
`t` in microseconds. Kleene's logic needs no third value in it: a condition is written either as
"known to be true" or as "not known to be false", and a negation swaps the two.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from types import CodeType
from typing import Any

from guardrail.model.amounts import (
    Amount,
    Banded,
    Fixed,
    FromFact,
    Lookup,
    Raised,
    amount_facts,
    larger,
)
from guardrail.model.cells import IDENT_LENGTH, TOP
from guardrail.model.conditions import (
    Comparison,
    Condition,
    Every,
    Negation,
    compile_condition,
    facts_of,
    in_networks,
    in_rollout,
)
from guardrail.model.effects import Mode
from guardrail.model.facts import Fact, FactType
from guardrail.model.rules import Exemption, Limiting, Rule

INLINE_VALUES = 32
"""Sets of up to so many values stand in the source, where they are constants to the compiler."""

TEXTUAL = frozenset((FactType.STRING, FactType.COUNTRY, FactType.IP, FactType.ENUM, FactType.LEVEL))
STAND_INS = ("account.id", "client.network")
"""The facts that stand in for a missing key fact."""


Facts = Mapping[str, Any]


def allowance(amount: Amount, facts: Facts, now: int) -> int | None:
    """Return an amount for one request at `now` (microseconds); None is unlimited."""
    if isinstance(amount, Fixed):
        return amount.value
    if isinstance(amount, Raised):
        own = allowance(amount.own, facts, now)
        return larger(own, amount.least) if amount.is_raised(facts, now) else own
    value = facts.get(amount.fact)
    if value is None:
        return amount.missing
    if isinstance(amount, Lookup):
        return amount.table.get(value, amount.otherwise)
    if isinstance(amount, Banded):
        return amount.rows[amount.row(value)]
    return from_fact(amount, value)


def from_fact(amount: FromFact, value: float) -> int:
    """Return a fact's own value as an amount, rounded down to a whole unit.

    What a float lacks to the decimal it stands for (0.57 × 10⁶ is 569,999.99…) is made up first.
    """
    return min(max(0, int(round(value * amount.scale, 3))), TOP)


class Expressions:
    """The names that one generated function uses, and rules as expressions over them.

    `timed` tells that one of them reads `now`.
    """

    def __init__(self, facts: Mapping[str, Fact], fixed: Facts | None = None) -> None:
        """Start without variables; of `fixed` facts the value is known (None: it is missing)."""
        self.facts = facts
        self.fixed = fixed or {}
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

    def is_present(self, fact: str) -> bool:
        """Tell whether a fact's variable always holds a value."""
        return False

    @property
    def variables(self) -> Mapping[str, str]:
        """The facts read here so far, and their variables."""
        return self._variables

    def applies(self, rule: Rule, exemptions: Sequence[Exemption]) -> str:
        """Return the expression for whether a rule applies; empty if it always does.

        It is `False` where the fixed facts say that it never does.
        """
        terms: list[str] = []
        if rule.start is not None:
            terms.append(f"t >= {rule.start}")
        if rule.end is not None:
            terms.append(f"t < {rule.end}")
        condition = self.condition(rule.when, unknown=rule.unknown != "skip")
        if condition == "False":
            return condition
        if condition != "True":
            terms.append(condition)
        for exemption in exemptions:
            if rule.id in exemption.rules:
                holds = self.condition(exemption.when, unknown=exemption.unknown_holds)
                if holds != "False":
                    terms.append(f"not (t < {exemption.expires} and {holds})")
        return " and ".join(terms)

    def condition(self, condition: Condition, *, unknown: bool) -> str:
        """Return a condition as an expression; `unknown` is its value where it is unknown."""
        if isinstance(condition, Comparison):
            return self._test(condition, unknown)
        if isinstance(condition, Negation):
            part = self.condition(condition.part, unknown=not unknown)
            return {"True": "False", "False": "True"}.get(part, f"(not {part})")
        word, settles, otherwise = ("or", "True", "False")
        if isinstance(condition, Every):
            word, settles, otherwise = ("and", "False", "True")
        parts = []
        for each in condition.parts:
            part = self.condition(each, unknown=unknown)
            if part == settles:
                return part
            if part != otherwise:
                parts.append(part)
        return f"({f' {word} '.join(parts)})" if parts else otherwise

    def _test(self, test: Comparison, unknown: bool) -> str:
        if test.fact in self.fixed and test.operator != "same_as":
            known = self.fixed[test.fact]
            answer = compile_condition(test)({} if known is None else {test.fact: known}, 0.0)
            return str(unknown if answer is None else answer)
        value, names = self.variable(test.fact), [test.fact]
        if test.operator == "exists":
            if self.is_present(test.fact):
                return str(bool(test.operand))
            return f"({value} is {'not ' if test.operand else ''}None)"
        if test.operator == "rollout":
            self.constants["in_rollout"] = in_rollout
            unknown = False  # what is missing is in none
            compared = f"in_rollout({value}, {self.constant('C', test.operand)})"
        elif test.operator == "same_as":
            names.append(str(test.operand))
            compared = f"{value} == {self.variable(names[1])}"
        else:
            compared = self._compared(test, value)
        if test.operator == "in" and not unknown and self.facts[test.fact].type != FactType.LIST:
            return f"({compared})"  # None is in no set and equals no value
        word, known = ("or", "is None") if unknown else ("and", "is not None")
        tests = [f"{self.variable(name)} {known}" for name in names if not self.is_present(name)]
        return f"({f' {word} '.join([*tests, compared])})"

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

    def settled(self, amount: Amount) -> Amount:
        """Return an amount as the fixed facts leave it."""
        if isinstance(amount, Raised):
            return replace(amount, own=self.settled(amount.own))
        if isinstance(amount, Fixed) or amount.fact not in self.fixed:
            return amount
        value = self.fixed[amount.fact]
        return Fixed(allowance(amount, {} if value is None else {amount.fact: value}, 0))

    def allowance(self, amount: Amount) -> str:
        """Return the expression for an amount; it gives None for unlimited."""
        if isinstance(amount, Fixed):
            return repr(amount.value)
        if isinstance(amount, Raised):
            self.constants["larger"] = larger
            own = self.allowance(amount.own)
            raised = self.condition(amount.when, unknown=amount.unknown_holds)
            least = f"larger({own}, {amount.least!r})"
            return f"({least} if t < {amount.expires} and {raised} else {own})"
        value = self.variable(amount.fact)
        if isinstance(amount, Lookup):
            table = self.constant("T", {**amount.table, None: amount.missing})
            if self.exhaustive(amount):
                return f"{table}[{value}]"
            return f"{table}.get({value}, {amount.otherwise!r})"
        if isinstance(amount, Banded):
            return f"{self.constant('T', (*amount.rows, amount.missing))}[{self.row(amount)}]"
        self.constants["from_fact"] = from_fact
        source = self.constant("A", amount)
        return f"({amount.missing!r} if {value} is None else from_fact({source}, {value}))"

    def row(self, amount: Banded) -> str:
        """Return the expression for the row of a banded amount; -1 where its fact is missing."""
        self.constants["row"] = bisect_right
        value = self.variable(amount.fact)
        return f"-1 if {value} is None else row({self.constant('B', amount.starts)}, {value})"

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
    if stand_ins and isinstance(verb, Limiting):
        names.update(STAND_INS)
    return frozenset((*names, *verb.facts))


def define(
    lines: Sequence[str],
    constants: Mapping[str, Any],
    name: str,
    title: str,
    *,
    shared: bool = False,
) -> Any:
    """Return the function `name` that source lines define over some constants.

    Functions that differ in constants alone have their code in common where they are `shared`: of
    many of them it stays in the processor's cache. Each constant then costs a little in every call.
    """
    if not shared:
        namespace = dict(constants)
        exec(_compiled("\n".join(lines), f"<guardrail {title}>"), namespace)
        return namespace[name]
    head = f"def make({', '.join(constants)}):"
    text = "\n".join([head, *("    " + line for line in lines), f"    return {name}"])
    namespace = {}
    exec(_compiled(text, f"<guardrail {title}>"), namespace)
    return namespace["make"](*constants.values())


@lru_cache(256)
def _compiled(text: str, title: str) -> CodeType:
    """Compile a text; guards of the same policies have the same, and compiling it costs most."""
    return compile(text, title, "exec")


LONGEST = 128
SPILL_SHARDS = 64
SEPARATOR = "\x1f"
"""Stands between the parts of a key; a part that holds it is written with its length instead."""

KeyText = Callable[[Mapping[str, Any]], str | None]
"""Typed facts to the part of a key that says whose it is; None where the rule does not apply."""


def counter_ident(namespace: str, rule: Rule, *parts: str) -> str:
    """Return the name of one counter: 8 characters, the same for the same identity.

    `parts` are verb, unit, window and whatever else, changed, starts a counter afresh; amounts,
    steps and conditions are not among them.
    """
    shadow = "shadow" if rule.mode is Mode.SHADOW else ""
    text = "\0".join((namespace, rule.counter_id, shadow, *parts))
    digest = hashlib.blake2b(text.encode(), digest_size=6).digest()
    return base64.urlsafe_b64encode(digest).decode()[:IDENT_LENGTH]


def value_text(value: object) -> str:
    """Return a typed value as text that stands in a key; long ones by their digest."""
    if value is True or value is False:
        text = "true" if value else "false"
    elif isinstance(value, tuple):
        text = "".join(f"{len(part)}:{part}" for part in value)
    else:
        text = value if isinstance(value, str) else repr(value)
    if len(text) > LONGEST:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16)
        return f"#{digest.hexdigest()}"
    return text


def whose_key(value: object) -> str:
    """Return what the key of a counter says that is kept by one fact, after the counter's ident."""
    return "=" + value_text(value)


def stand_in(facts: Mapping[str, Any], unknown: str | None) -> str | None:
    """Return what stands in for a missing key fact.

    Unless the rule says otherwise that is the account, or the network of a request without one,
    or else the one value "unknown". The leading character keeps them apart from real values.
    """
    if unknown == "skip":
        return None
    if unknown is None:
        account = facts.get("account.id")
        if account is not None:
            return "a" + value_text(account)
        network = facts.get("client.network")
        if network is not None:
            return "n" + value_text(network)
    return "u"


def key_text(names: tuple[str, ...], unknown: str | None) -> KeyText:
    """Return the function that writes the key of a rule."""
    if not names:
        return lambda facts: "="
    if len(names) == 1:
        return _single(names[0], unknown)

    def text(facts: Mapping[str, Any]) -> str | None:
        parts = []
        for name in names:
            value = facts.get(name)
            part = stand_in(facts, unknown) if value is None else "=" + value_text(value)
            if part is None:
                return None
            parts.append(part)
        return joined(*parts)

    return text


def joined(*parts: str) -> str:
    """Return several parts as one, no two different lists of parts alike."""
    if any(SEPARATOR in part for part in parts):
        return SEPARATOR + "".join(f"{len(part)}:{part}" for part in parts)
    return SEPARATOR.join(parts)


def _single(name: str, unknown: str | None) -> KeyText:
    def text(facts: Mapping[str, Any]) -> str | None:
        value = facts.get(name)
        return stand_in(facts, unknown) if value is None else whose_key(value)

    return text


def spill_text(facts: Mapping[str, Any]) -> str | None:
    """Return where a full store counts a request without an account, None for one with."""
    if facts.get("account.id") is not None:
        return None
    network = facts.get("client.network")
    if network is None:
        return "~u"
    return f"~{zlib.crc32(str(network).encode('utf-8', 'surrogatepass')) % SPILL_SHARDS}"

"""Compiles what stands under one fact of a condition: a value, or operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from guardrail.loading.findings import Scope
from guardrail.loading.lists import Lists, list_name
from guardrail.loading.nodes import Entry, ListNode, MapNode, Node, Scalar, kind_of
from guardrail.loading.notation import NotationError, is_date, read_instant
from guardrail.loading.suggest import nearest
from guardrail.loading.text import listed, quoted
from guardrail.loading.values import report_notation, typed
from guardrail.model.amounts import SECOND
from guardrail.model.facts import Fact, FactType
from guardrail.model.predicates import Comparison, Condition, Every, Negation, Operator

_EVERY = ("exists",)
_SAME = ("not", "same_as", *_EVERY)
_MEMBER = ("in", "not_in", *_SAME)
_ORDER = ("gt", "gte", "lt", "lte", *_MEMBER)

APPLICABLE: dict[FactType, tuple[str, ...]] = {
    FactType.STRING: ("prefix", *_MEMBER),
    FactType.BOOL: _SAME,
    FactType.INTEGER: _ORDER,
    FactType.NUMBER: _ORDER,
    FactType.DURATION: _ORDER,
    FactType.COUNTRY: _MEMBER,
    FactType.ENUM: _MEMBER,
    FactType.LEVEL: ("below", "at_least", *_MEMBER),
    FactType.IP: ("cidr", *_MEMBER),
    FactType.TIMESTAMP: ("before", "after", "same_as", "exists"),
    FactType.LIST: ("in", "not_in", "not", "exists"),
}
"""The operators that apply to a fact of each type."""

OPERATORS = tuple(sorted({name for names in APPLICABLE.values() for name in names}))
_NETWORK_FACTS = ("client.network",)
_EQUALS = ("eq", "equals", "equal", "is", "=", "==", "ne", "neq", "!=", "<", "<=", ">", ">=")
_INSTEAD = {"!=": "not", "ne": "not", "neq": "not", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


@dataclass(frozen=True, slots=True)
class Operators:
    """Compiles the tests of one fact."""

    scope: Scope
    lists: Lists

    def tests(self, fact: Fact, node: Node, seen: list[tuple[str, Node]]) -> list[Condition | None]:
        """Compile a value or a map of operators; None stands for each that is in error."""
        if isinstance(node, Scalar):
            return [self._equality(fact, node)]
        if isinstance(node, ListNode):
            help = f"write `{fact.name}: {{in: […]}}`"
            self._report("GR102", node, f"{quoted(fact.name)} cannot equal a list", help)
            return [None]
        if not node.entries:
            help = "write a value, or an operator such as `{exists: true}`"
            self._report("GR102", node, f"{quoted(fact.name)} is tested for nothing", help)
            return [None]
        return [self._operator(fact, entry, seen) for entry in node.entries]

    def _operator(self, fact: Fact, entry: Entry, seen: list[tuple[str, Node]]) -> Condition | None:
        name, node = entry.key.text, entry.value
        if name not in operators_of(fact):
            self._inapplicable(fact, entry.key)
            return None
        if name == "not":
            return self._not(fact, node, seen)
        if name == "same_as":
            return self._same_as(fact, node, seen)
        compile: Callable[[Fact, str, Node], Condition | None] = {
            "in": self._member,
            "not_in": self._member,
            "below": self._level,
            "at_least": self._level,
            "before": self._instant,
            "after": self._instant,
            "prefix": self._prefix,
            "cidr": self._cidr,
            "exists": self._exists,
        }.get(name, self._order)
        return compile(fact, name, node)

    def _inapplicable(self, fact: Fact, key: Scalar) -> None:
        name = key.text
        known = operators_of(fact)
        if name in OPERATORS:
            message = f"`{name}` does not apply to {quoted(fact.name)}"
            label = f"a fact of type {fact.type.value}"
            help = f"what applies: a value, {listed(known, 'or', 12)}"
            if fact.type is FactType.TIMESTAMP:
                help = f"what applies: {listed(known, 'or', 12)}"
            self.scope.findings.report("GR114", key.span, message, label=label, help=help)
            return
        near = nearest(name, known)
        help = (
            f"did you mean {quoted(near)}?"
            if near
            else f"known operators: {listed(known, most=12)}"
        )
        if name in _EQUALS:
            help = f"write `{fact.name}: VALUE`"
            if name in _INSTEAD:
                help = f"write `{fact.name}: {{{_INSTEAD[name]}: VALUE}}`"
        self._report("GR101", key, f"unknown operator {quoted(name)}", help)

    def _equality(self, fact: Fact, node: Scalar) -> Condition | None:
        if fact.type is FactType.TIMESTAMP:
            message = f"{quoted(fact.name)} cannot equal a value"
            help = "write `{before: …}` or `{after: …}`"
            self.scope.findings.report(
                "GR114", node.span, message, label="a fact of type timestamp", help=help
            )
            return None
        if node.value is None:
            help = f"write `{{exists: false}}` to test that {quoted(fact.name)} is missing"
            self._report("GR102", node, f"{quoted(fact.name)} has no value to equal", help)
            return None
        values = self.lists.values(fact, node, (node,)) if list_name(node) is None else None
        if values is None:
            if list_name(node) is not None:
                help = f"write `{fact.name}: {{in: {node.text}}}`"
                self._report("GR102", node, f"{quoted(node.text)} is a list, not a value", help)
            return None
        return Comparison(fact.name, "in", values, f"{fact.name} = {written(node)}")

    def _not(self, fact: Fact, node: Node, seen: list[tuple[str, Node]]) -> Condition | None:
        if isinstance(node, ListNode):
            help = "write `{not_in: […]}`"
            self._report("GR102", node, "`not` takes a value or operators, not a list", help)
            return None
        if isinstance(node, MapNode) and node.get("not") is not None:
            self._report("GR102", node, "`not` of `not` cancels out", "leave both out")
            return None
        tests = self.tests(fact, node, seen)
        whole = tuple(test for test in tests if test is not None)
        if len(whole) != len(tests):
            return None
        return Negation(whole[0] if len(whole) == 1 else Every(whole))

    def _entries(self, name: str, node: Node) -> tuple[Node, ...] | None:
        if list_name(node) is not None:
            return ()
        if not isinstance(node, ListNode):
            help = f"write `{name}: [{written(node)}]`" if isinstance(node, Scalar) else None
            if isinstance(node, Scalar) and node.text.startswith("$"):
                help = f"write `{name}: {written(node)}`, without quotes"
            message = f"`{name}` takes a list or `$NAME`, not {kind_of(node)}"
            self._report("GR102", node, message, help)
            return None
        if not node.parts:
            self._report("GR108", node, f"`{name}` is given an empty list", "list the values")
            return None
        return node.parts

    def _member(self, fact: Fact, name: str, node: Node) -> Condition | None:
        entries = self._entries(name, node)
        values = None if entries is None else self.lists.values(fact, node, entries)
        return None if values is None else self._test(fact, name, values, node)

    def _cidr(self, fact: Fact, name: str, node: Node) -> Condition | None:
        entries = self._one_or_more(name, node)
        networks = None if entries is None else self.lists.networks(fact, node, entries)
        return None if networks is None else self._test(fact, name, networks, node)

    def _prefix(self, fact: Fact, name: str, node: Node) -> Condition | None:
        entries = self._one_or_more(name, node)
        prefixes = None if entries is None else self.lists.prefixes(fact, node, entries)
        return None if prefixes is None else self._test(fact, name, prefixes, node)

    def _one_or_more(self, name: str, node: Node) -> tuple[Node, ...] | None:
        if isinstance(node, Scalar) and list_name(node) is None:
            return (node,)
        return self._entries(name, node)

    def _order(self, fact: Fact, name: str, node: Node) -> Condition | None:
        value = typed(fact, node, self.scope)
        return None if value is None else self._test(fact, name, value, node)

    def _level(self, fact: Fact, name: str, node: Node) -> Condition | None:
        level = typed(fact, node, self.scope)
        if level is None:
            return None
        rank = fact.values.index(cast(str, level))
        values = fact.values[:rank] if name == "below" else fact.values[rank:]
        text = f"{fact.name} {name} {written(node)}"
        return Comparison(fact.name, "in", frozenset(values), text)

    def _instant(self, fact: Fact, name: str, node: Node) -> Condition | None:
        written_as = node.value if isinstance(node, Scalar) else None
        if written_as == "now":
            return self._test(fact, name, None, node)
        try:
            last = name == "after"
            instant = read_instant(written_as, self.scope.zone, last=last)
        except NotationError as error:
            report_notation(self.scope, node, error)
            return None
        if last and is_date(written_as):
            instant -= 1
        return self._test(fact, name, instant / SECOND, node)

    def _exists(self, fact: Fact, name: str, node: Node) -> Condition | None:
        value = node.value if isinstance(node, Scalar) else None
        if not isinstance(value, bool):
            message = f"`exists` must be `true` or `false`, not {kind_of(node)}"
            self._report("GR102", node, message, None)
            return None
        return self._test(fact, name, value, node)

    def _same_as(self, fact: Fact, node: Node, seen: list[tuple[str, Node]]) -> Condition | None:
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            self._report("GR102", node, f"`same_as` takes a fact, not {kind_of(node)}", None)
            return None
        other = self.scope.fact(node.text, node.span)
        if other is None:
            return None
        seen.append((other.name, node))
        if comparable(fact) != comparable(other):
            message = f"{quoted(fact.name)} cannot be the same as {quoted(other.name)}"
            label = (
                f"{quoted(fact.name)} is of type {fact.type.value}, this of type {other.type.value}"
            )
            self.scope.findings.report("GR114", node.span, message, label=label)
            return None
        return self._test(fact, "same_as", other.name, node)

    def _test(self, fact: Fact, name: str, operand: object, node: Node) -> Comparison:
        text = f"{fact.name} {name} {written(node)}"
        return Comparison(fact.name, cast(Operator, name), operand, text)

    def _report(self, code: str, node: Node, message: str, help: str | None) -> None:
        self.scope.findings.report(code, node.span, message, help=help)


def operators_of(fact: Fact) -> tuple[str, ...]:
    """Return the operators that apply to a fact."""
    names = APPLICABLE[fact.type]
    return ("cidr", *names) if fact.name in _NETWORK_FACTS else names


def comparable(fact: Fact) -> object:
    """Return what two facts must share for `same_as` to compare them."""
    return "number" if fact.type in (FactType.INTEGER, FactType.NUMBER) else fact.type


def written(node: Node) -> str:
    """Return a value as its author wrote it, on one line, long ones cut short."""
    if isinstance(node, Scalar):
        text = node.text if node.text.isprintable() else repr(node.text)[1:-1]
        return text if len(text) <= 60 else text[:59] + "…"
    if isinstance(node, MapNode):
        return "{…}"
    shown = [written(part) for part in node.parts[:8]]
    return "[" + ", ".join([*shown, "…"] if len(node.parts) > 8 else shown) + "]"

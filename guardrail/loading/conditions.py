"""Compiles conditions: every name resolved, every operator checked against its fact's type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from guardrail.loading.findings import Scope
from guardrail.loading.foreign import COMBINATOR_WORDS, always, expression, fact_name, higher
from guardrail.loading.foreign import operator as operator_advice
from guardrail.loading.foreign_values import NO_ENVIRONMENT, boolean, environment
from guardrail.loading.lists import Lists, list_name
from guardrail.loading.nodes import (
    Entry,
    ListNode,
    MapNode,
    Node,
    Scalar,
    all_or_none,
    kind_of,
    text_in,
)
from guardrail.loading.notation import NotationError, is_date, read_instant, report_notation, typed
from guardrail.loading.shapes import ExemptionShape, RuleShape
from guardrail.loading.shaping import keys_of
from guardrail.loading.suggest import did_you_mean, nearest, suggestion
from guardrail.loading.text import listed, quoted
from guardrail.model.amounts import SECOND
from guardrail.model.conditions import (
    ALWAYS,
    Comparison,
    Condition,
    Every,
    Negation,
    Operator,
    Some,
    facts_of,
)
from guardrail.model.facts import Fact, FactType

_BESIDE = frozenset({*keys_of(RuleShape), *keys_of(ExemptionShape)})
"""The keys that stand beside a condition, not in it."""

COMBINATORS = ("any", "all", "not", "use")
"""The keys of a condition that are not facts."""

_DEEPEST = 32
_LARGEST = 10_000
_FLAT = 16

Sightings = list[tuple[str, Node]]
"""The facts a condition tests, each with the node to point at."""


class _Resolved(NamedTuple):
    """A named condition, None if it is in error; its tests and levels count where it is used."""

    condition: Condition | None
    size: int
    levels: int
    facts: frozenset[str]


@dataclass(slots=True)
class Conditions:
    """Compiles conditions over one scope; named ones once, when they are first used."""

    scope: Scope
    lists: Lists
    named: dict[str, Node] = field(default_factory=dict)
    _operators: Operators = field(init=False)
    _resolved: dict[str, _Resolved] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)
    _size: int = 0
    _level: int = 0
    _reached: int = 0

    def __post_init__(self) -> None:
        self._operators = Operators(self.scope, self.lists)

    def compile(self, node: Node, seen: Sightings | None = None) -> Condition | None:
        """Compile one condition; what is wrong is reported, and None returned.

        `seen` gathers the facts it tests, those of named conditions too.
        """
        self._size = self._reached = 0
        return self._condition(node, seen if seen is not None else [])

    def compile_named(self) -> None:
        """Compile the named conditions, those no rule uses too."""
        for name, node in self.named.items():
            self._resolve(name, node)

    def _condition(self, node: Node, seen: Sightings) -> Condition | None:
        if not self._reach(self._level + 1, node):
            return None
        self._level += 1
        condition = self._written(node, seen)
        self._level -= 1
        return condition

    def _written(self, node: Node, seen: Sightings) -> Condition | None:
        if isinstance(node, MapNode) and node.entries:
            return self._all_of([self._entry(entry, seen) for entry in node.entries])
        if isinstance(node, Scalar) and node.value == "always":
            return ALWAYS
        self._not_a_condition(node)
        return None

    def _not_a_condition(self, node: Node) -> None:
        if self.scope.findings.within(node.span, "GR109"):
            return  # what it held is told of already
        message, help = f"a condition is a map, not {kind_of(node)}", None
        if isinstance(node, MapNode) or (isinstance(node, Scalar) and node.value is None):
            message, help = "the condition is empty", "write `always` if it is meant to hold always"
        elif isinstance(node, ListNode):
            help = "write `{all: […]}` or `{any: […]}`"
        elif always(node.text):
            help = "write `always` if it is meant to hold always"
        elif node.text in self.named:
            help = f"`{node.text}` is a named condition: write `{{use: {node.text}}}`"
        elif node.text in self.scope.facts:
            help = f"write `{{{node.text}: VALUE}}`"
        else:
            near = nearest(node.text, ("always",))
            signs = expression(node.text, self.scope.facts)
            help = (
                "did you mean `always`?" if near else signs or "write `{FACT: VALUE}`, or `always`"
            )
        self.scope.report("GR102", node, message, help=help)

    def _entry(self, entry: Entry, seen: Sightings) -> Condition | None:
        name = entry.key.text
        if name not in COMBINATORS:
            return self._fact(entry, seen)
        if name == "not" and isinstance(entry.value, ListNode):
            help = "write `not: {any: […]}` if none of them may hold, `not: {all: […]}` otherwise"
            self.scope.report(
                "GR102", entry.value, "`not` takes one condition, not a list", help=help
            )
            return None
        if name == "not":
            part = self._condition(entry.value, seen)
            return None if part is None else Negation(part)
        parts = self._parts(name, entry.value, seen)
        if parts is None or name != "any":
            return None if parts is None else self._all_of(parts)
        return parts[0] if len(parts) == 1 else Some(parts)

    def _fact(self, entry: Entry, seen: Sightings) -> Condition | None:
        name = entry.key.text
        help = None
        if name in self.named:
            help = f"`{name}` is a named condition: write `use: {name}`"
        elif name not in self.scope.facts:
            help = COMBINATOR_WORDS.get(name) or higher(name, _BESIDE, "when")
            help = help or fact_name(name, self.scope.facts, entry.value)
        fact = self.scope.fact(name, entry.key.span, help=help)
        if fact is None:
            return None
        seen.append((name, entry.key))
        tests = self._operators.tests(fact, entry.value, seen)
        self._grow(max(1, len(tests)), entry.key)
        return self._all_of(tests)

    def _parts(self, name: str, node: Node, seen: Sightings) -> tuple[Condition, ...] | None:
        """Compile what `any`, `all` or `use` combines; `use` takes a single name as well."""
        if name == "use" and not isinstance(node, ListNode):
            return all_or_none([self._used(node, seen)])
        if not isinstance(node, ListNode):
            message = f"`{name}` must be a list of conditions, not {kind_of(node)}"
            help = f"write `{name}: [{{…}}, {{…}}]`"
            if isinstance(node, MapNode) and node.entries:
                each = ", ".join(f"{{{entry.key.text}: …}}" for entry in node.entries[:4])
                help = f"write `{name}: [{each}]`"
            self.scope.report("GR102", node, message, help=help)
            return None
        if not node.parts:
            self.scope.report("GR108", node, f"`{name}` is empty", help=f"leave `{name}` out")
            return None
        read = self._used if name == "use" else self._condition
        return all_or_none([read(part, seen) for part in node.parts])

    def _used(self, node: Node, seen: Sightings) -> Condition | None:
        name = text_in(node)
        if name is None:
            message = f"`use` takes the name of a condition, not {kind_of(node)}"
            self.scope.report("GR102", node, message)
            return None
        target = self.named.get(name)
        if target is None and self.scope.partial:
            return None
        if target is None:
            help = did_you_mean(name, self.named, "conditions")
            self.scope.report("GR107", node, f"unknown condition {quoted(name)}", help=help)
            return None
        if name in self._open:
            circle = [*self._open[self._open.index(name) :], name]
            path = " → ".join(quoted(step) for step in circle[:8])
            help = "leave out the `use` that closes the circle"
            message = f"condition {quoted(name)} uses itself"
            self.scope.report("GR107", node, message, label=path, help=help)
            return None
        resolved = self._resolve(name, target)
        if resolved.condition is None:
            return None
        seen.extend((fact, node) for fact in resolved.facts)
        fits = self._reach(self._level + resolved.levels, node)
        return resolved.condition if self._grow(resolved.size, node) and fits else None

    def _resolve(self, name: str, node: Node) -> _Resolved:
        if name in self._resolved:
            return self._resolved[name]
        size, reached = self._size, self._reached
        self._size, self._reached = 0, self._level
        self._open.append(name)
        condition = self._condition(node, [])
        self._open.pop()
        facts = frozenset[str]() if condition is None else facts_of(condition)
        levels = self._reached - self._level
        self._resolved[name] = _Resolved(condition, self._size, levels, facts)
        self._size, self._reached = size, max(reached, self._reached)
        return self._resolved[name]

    def _reach(self, level: int, node: Node) -> bool:
        before, self._reached = self._reached, max(level, self._reached)
        if before <= _DEEPEST < level:
            message = f"conditions stand more than {_DEEPEST} deep in each other"
            self.scope.report("GR102", node, message, help="write it flatter")
        return level <= _DEEPEST

    def _grow(self, size: int, node: Node) -> bool:
        before, self._size = self._size, self._size + size
        if before <= _LARGEST < self._size:
            message = f"the condition comes to more than {_LARGEST:,} tests"
            help = "put the values in a list and test `in`"
            self.scope.report("GR102", node, message, help=help)
        return self._size <= _LARGEST

    @staticmethod
    def _all_of(parts: Sequence[Condition | None]) -> Condition | None:
        flat: list[Condition] = []
        for part in parts:
            if part is None:
                return None
            if isinstance(part, Every) and len(part.parts) <= _FLAT:
                flat.extend(part.parts)
            else:
                flat.append(part)
        if not parts:
            return None
        return flat[0] if len(flat) == 1 else Every(tuple(flat))


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
            self._inapplicable(fact, entry.key, node)
            return None
        if name == "not":
            return self._not(fact, node, seen)
        if name == "same_as":
            return self._same_as(fact, node, seen)
        compile: Callable[[Fact, str, Node], Condition | None] = {
            "in": self._list,
            "not_in": self._list,
            "below": self._level,
            "at_least": self._level,
            "before": self._instant,
            "after": self._instant,
            "prefix": self._list,
            "cidr": self._list,
            "exists": self._exists,
        }.get(name, self._order)
        return compile(fact, name, node)

    def _inapplicable(self, fact: Fact, key: Scalar, value: Node) -> None:
        name = key.text
        advice = operator_advice(fact, name, value)
        known = operators_of(fact)
        if name in OPERATORS:
            message = f"`{name}` does not apply to {quoted(fact.name)}"
            label = f"a fact of type {fact.type.value}"
            help = f"what applies: a value, {listed(known, 'or', 12)}"
            if fact.type is FactType.TIMESTAMP:
                help = f"what applies: {listed(known, 'or', 12)}"
            self.scope.report("GR114", key, message, label=label, help=advice or help)
            return
        help = suggestion(name, known, f"known operators: {listed(known, most=12)}")
        self._report("GR101", key, f"unknown operator {quoted(name)}", advice or help)

    def _equality(self, fact: Fact, node: Scalar) -> Condition | None:
        if fact.type is FactType.TIMESTAMP:
            message = f"{quoted(fact.name)} cannot equal a value"
            help = "write `{before: …}` or `{after: …}`"
            self.scope.report("GR114", node, message, label="a fact of type timestamp", help=help)
            return None
        if node.value is None:
            help = f"write `{{exists: false}}` to test that {quoted(fact.name)} is missing"
            self._report("GR102", node, f"{quoted(fact.name)} has no value to equal", help)
            return None
        values = self.lists.values("in", fact, node, (node,)) if list_name(node) is None else None
        if values is None:
            if list_name(node) is not None:
                help = f"write `{fact.name}: {{in: {node.text}}}`"
                self._report("GR102", node, f"{quoted(node.text)} is a list, not a value", help)
            return None
        return Comparison(fact.name, "in", values, f"{fact.name} = {written(node)}", node.span)

    def _not(self, fact: Fact, node: Node, seen: list[tuple[str, Node]]) -> Condition | None:
        if isinstance(node, ListNode):
            help = "write `{not_in: […]}`"
            self._report("GR102", node, "`not` takes a value or operators, not a list", help)
            return None
        if isinstance(node, MapNode) and node.get("not") is not None:
            self._report("GR102", node, "`not` of `not` cancels out", "leave both out")
            return None
        tests = self.tests(fact, node, seen)
        whole: tuple[Condition, ...] | None = all_or_none(tests)
        if whole is None:
            return None
        return Negation(whole[0] if len(whole) == 1 else Every(whole))

    def _entries(self, name: str, node: Node) -> tuple[Node, ...] | None:
        if list_name(node) is not None:
            return ()
        if isinstance(node, Scalar) and name in ("cidr", "prefix"):
            return (node,)
        if not isinstance(node, ListNode):
            help = f"write `{name}: [{written(node)}]`" if isinstance(node, Scalar) else None
            if isinstance(node, Scalar) and node.text.startswith("$"):
                help = f"write `{name}: {written(node)}`, without quotes"
            if isinstance(node, Scalar) and environment(node.text):
                help = NO_ENVIRONMENT
            elif isinstance(node, Scalar) and node.text in self.lists.named:
                help = f"write `{name}: ${node.text}` for the list of that name"
            elif isinstance(node, Scalar) and "," in node.text:
                help = f"write `{name}: [{written(node)}]`, each value on its own"
            message = f"`{name}` takes a list or `$NAME`, not {kind_of(node)}"
            self._report("GR102", node, message, help)
            return None
        if not node.parts:
            self._report("GR108", node, f"`{name}` is given an empty list", "list the values")
            return None
        return node.parts

    def _list(self, fact: Fact, name: str, node: Node) -> Condition | None:
        entries = self._entries(name, node)
        values = None if entries is None else self.lists.values(name, fact, node, entries)
        return None if values is None else self._test(fact, name, values, node)

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
        return Comparison(fact.name, "in", frozenset(values), text, node.span)

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
            self._report("GR102", node, message, boolean(text_in(node) or ""))
            return None
        return self._test(fact, name, value, node)

    def _same_as(self, fact: Fact, node: Node, seen: list[tuple[str, Node]]) -> Condition | None:
        name = text_in(node)
        if name is None:
            self._report("GR102", node, f"`same_as` takes a fact, not {kind_of(node)}", None)
            return None
        other = self.scope.fact(name, node.span)
        if other is None:
            return None
        seen.append((other.name, node))
        if comparable(fact) != comparable(other):
            message = f"{quoted(fact.name)} cannot be the same as {quoted(other.name)}"
            label = (
                f"{quoted(fact.name)} is of type {fact.type.value}, this of type {other.type.value}"
            )
            self.scope.report("GR114", node, message, label=label)
            return None
        return self._test(fact, "same_as", other.name, node)

    def _test(self, fact: Fact, name: str, operand: object, node: Node) -> Comparison:
        text = f"{fact.name} {name} {written(node)}"
        return Comparison(fact.name, cast(Operator, name), operand, text, node.span)

    def _report(self, code: str, node: Node, message: str, help: str | None) -> None:
        self.scope.report(code, node, message, help=help)


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

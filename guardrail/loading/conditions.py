"""Compiles conditions: every name resolved, every operator checked against its fact's type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from guardrail.loading.findings import Scope
from guardrail.loading.lists import Lists
from guardrail.loading.nodes import Entry, ListNode, MapNode, Node, Scalar, kind_of
from guardrail.loading.operators import Operators
from guardrail.loading.suggest import did_you_mean, nearest
from guardrail.loading.text import quoted
from guardrail.model.predicates import ALWAYS, Condition, Every, Negation, Some, facts_of

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
    used: set[str] = field(default_factory=set)
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
        message, help = f"a condition is a map, not {kind_of(node)}", None
        if isinstance(node, MapNode) or (isinstance(node, Scalar) and node.value is None):
            message, help = "the condition is empty", "write `always` if it is meant to hold always"
        elif isinstance(node, ListNode):
            help = "write `{all: […]}` or `{any: […]}`"
        elif node.text in self.named:
            help = f"`{node.text}` is a named condition: write `{{use: {node.text}}}`"
        elif node.text in self.scope.facts:
            help = f"write `{{{node.text}: VALUE}}`"
        else:
            near = nearest(node.text, ("always",))
            help = "did you mean `always`?" if near else "write `{FACT: VALUE}`, or `always`"
        self.scope.findings.report("GR102", node.span, message, help=help)

    def _entry(self, entry: Entry, seen: Sightings) -> Condition | None:
        name = entry.key.text
        if name not in COMBINATORS:
            return self._fact(entry, seen)
        combine: Callable[[Node, Sightings], Condition | None] = {
            "any": self._any,
            "all": self._all,
            "not": self._not,
            "use": self._use,
        }[name]
        return combine(entry.value, seen)

    def _fact(self, entry: Entry, seen: Sightings) -> Condition | None:
        name = entry.key.text
        help = None
        if name in self.named:
            help = f"`{name}` is a named condition: write `use: {name}`"
        fact = self.scope.fact(name, entry.key.span, help=help)
        if fact is None:
            return None
        seen.append((name, entry.key))
        tests = self._operators.tests(fact, entry.value, seen)
        self._grow(max(1, len(tests)), entry.key)
        return self._all_of(tests)

    def _any(self, node: Node, seen: Sightings) -> Condition | None:
        parts = self._parts("any", node, seen)
        if parts is None:
            return None
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def _all(self, node: Node, seen: Sightings) -> Condition | None:
        parts = self._parts("all", node, seen)
        return None if parts is None else self._all_of(list(parts))

    def _parts(self, name: str, node: Node, seen: Sightings) -> list[Condition] | None:
        if not isinstance(node, ListNode):
            message = f"`{name}` must be a list of conditions, not {kind_of(node)}"
            help = f"write `{name}: [{{…}}, {{…}}]`"
            self.scope.findings.report("GR102", node.span, message, help=help)
            return None
        if not node.parts:
            self._empty(name, node)
            return None
        parts = [self._condition(part, seen) for part in node.parts]
        whole = [part for part in parts if part is not None]
        return whole if len(whole) == len(parts) else None

    def _not(self, node: Node, seen: Sightings) -> Condition | None:
        part = self._condition(node, seen)
        return None if part is None else Negation(part)

    def _use(self, node: Node, seen: Sightings) -> Condition | None:
        names = node.parts if isinstance(node, ListNode) else (node,)
        if not names:
            self._empty("use", node)
            return None
        return self._all_of([self._used(name, seen) for name in names])

    def _used(self, node: Node, seen: Sightings) -> Condition | None:
        findings = self.scope.findings
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            message = f"`use` takes the name of a condition, not {kind_of(node)}"
            findings.report("GR102", node.span, message)
            return None
        name = node.text
        target = self.named.get(name)
        if target is None and self.scope.partial:
            return None
        if target is None:
            known = tuple(self.named)
            help = did_you_mean(name, nearest(name, known), known, "conditions")
            findings.report("GR107", node.span, f"unknown condition {quoted(name)}", help=help)
            return None
        self.used.add(name)
        if name in self._open:
            self._circle(name, node)
            return None
        resolved = self._resolve(name, target)
        if resolved.condition is None:
            return None
        seen.extend((fact, node) for fact in resolved.facts)
        fits = self._reach(self._level + resolved.levels, node)
        return resolved.condition if self._grow(resolved.size, node) and fits else None

    def _circle(self, name: str, node: Node) -> None:
        round_trip = [*self._open[self._open.index(name) :], name]
        path = " → ".join(quoted(step) for step in round_trip[:8])
        message = f"condition {quoted(name)} uses itself"
        help = "leave out the `use` that closes the circle"
        self.scope.findings.report("GR107", node.span, message, label=path, help=help)

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
            self.scope.findings.report("GR102", node.span, message, help="write it flatter")
        return level <= _DEEPEST

    def _grow(self, size: int, node: Node) -> bool:
        before, self._size = self._size, self._size + size
        if before <= _LARGEST < self._size:
            message = f"the condition comes to more than {_LARGEST:,} tests"
            help = "put the values in a list and test `in`"
            self.scope.findings.report("GR102", node.span, message, help=help)
        return self._size <= _LARGEST

    def _empty(self, name: str, node: Node) -> None:
        message = f"`{name}` is empty"
        self.scope.findings.report("GR108", node.span, message, help=f"leave `{name}` out")

    @staticmethod
    def _all_of(parts: list[Condition | None] | list[Condition]) -> Condition | None:
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

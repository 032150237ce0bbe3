"""Conditions as data: a tree of tests on facts, joined by and, or and not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Operator = Literal[
    "in",
    "not_in",
    "gt",
    "gte",
    "lt",
    "lte",
    "before",
    "after",
    "prefix",
    "cidr",
    "exists",
    "same_as",
]
"""The comparisons a test can make; equality and the level operators are written as `in`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison of one fact.

    `operand` is, by operator: `in`, `not_in` a frozenset of typed values; `gt` … `lte` a number;
    `before`, `after` seconds since the epoch, or None for the decision's own time; `prefix` a
    tuple of strings; `cidr` a tuple of `ipaddress` networks; `exists` a bool; `same_as` the other
    fact's name. `text` is the test as its author wrote it.
    """

    fact: str
    operator: Operator
    operand: object
    text: str


@dataclass(frozen=True, slots=True)
class Every:
    """True when every part is; with no parts it is `always`."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """True when at least one part is."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Negation:
    """True when its part is false."""

    part: Condition


Condition = Comparison | Every | Some | Negation

ALWAYS = Every(())
"""The condition `always`."""


def facts_of(condition: Condition) -> frozenset[str]:
    """Return the names of the facts a condition reads."""
    if isinstance(condition, Comparison):
        names = {condition.fact}
        if condition.operator == "same_as":
            names.add(str(condition.operand))
        return frozenset(names)
    if isinstance(condition, Negation):
        return facts_of(condition.part)
    return frozenset().union(*(facts_of(part) for part in condition.parts))

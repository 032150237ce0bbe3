"""Conditions: a tree of tests on facts, joined by and, or and not, and what they answer.

The answers are Kleene's: True, False, and None for unknown (a fact is missing). False beats
unknown in an AND, True beats unknown in an OR, and the opposite of unknown is unknown.
Source: S. C. Kleene, Introduction to Metamathematics, 1952, §64 (strong tables).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

from guardrail.errors import Span

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
    "rollout",
]
"""The comparisons a test can make; equality and the level operators are written as `in`."""


class Rollout(NamedTuple):
    """A share of all values, `parts` of a million, chosen by a hash that `salt` keys.

    Which values are in it does not change, and a larger share has all of a smaller one.
    """

    salt: str
    parts: int


WHOLE = 1_000_000
"""The parts of a rollout to everyone."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison of one fact.

    `operand` is, by operator: `in`, `not_in` a frozenset of typed values; `gt` … `lte` a number;
    `before`, `after` seconds since the epoch, or None for the decision's own time; `prefix` a
    tuple of strings; `cidr` a tuple of `ipaddress` networks; `exists` a bool; `same_as` the other
    fact's name; `rollout` a `Rollout`. `text` is the test as its author wrote it, `span` where
    (None: nowhere).
    """

    fact: str
    operator: Operator
    operand: object
    text: str
    span: Span | None = field(default=None, compare=False, repr=False)


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


def comparisons(condition: Condition) -> Iterator[Comparison]:
    """Yield every test in a condition."""
    if isinstance(condition, Comparison):
        yield condition
    elif isinstance(condition, Negation):
        yield from comparisons(condition.part)
    else:
        for part in condition.parts:
            yield from comparisons(part)


def text_of(condition: Condition) -> str:
    """Return a condition in words, its tests as their author wrote them, long lists cut short."""
    if isinstance(condition, Comparison):
        return condition.text
    if isinstance(condition, Negation):
        part = text_of(condition.part)
        return f"not {part}" if isinstance(condition.part, Comparison) else f"not ({part})"
    word = " and " if isinstance(condition, Every) else " or "
    return word.join(map(_text_within, condition.parts)) or "always"


def _text_within(part: Condition) -> str:
    """Return a condition as part of one that joins others, so that both are read as they are."""
    several = isinstance(part, Every | Some) and len(part.parts) > 1
    return f"({text_of(part)})" if several else text_of(part)


Facts = Mapping[str, Any]
Answer = bool | None
Predicate = Callable[[Facts, float], Answer]
"""A condition compiled: typed facts and the time (seconds since the epoch) to an answer."""

_COMPARISONS: Mapping[Operator, Callable[[Any, Any, float], bool]] = {
    "gt": lambda value, operand, now: value > operand,
    "gte": lambda value, operand, now: value >= operand,
    "lt": lambda value, operand, now: value < operand,
    "lte": lambda value, operand, now: value <= operand,
    "before": lambda value, operand, now: value < (now if operand is None else operand),
    "after": lambda value, operand, now: value > (now if operand is None else operand),
    "prefix": lambda value, operand, now: value.startswith(operand),
    "in": lambda value, operand, now: within(value, operand),
    "not_in": lambda value, operand, now: not within(value, operand),
    "cidr": lambda value, operand, now: in_networks(value, operand),
    "rollout": lambda value, operand, now: in_rollout(value, operand),
}


def within(value: object, values: frozenset[object]) -> bool:
    """Tell whether a value is among `values`; a list is if any of its members is."""
    if isinstance(value, tuple):
        return not values.isdisjoint(value)
    return value in values


def place_in(value: str, salt: str) -> int:
    """Return where a value stands in the rollouts of a salt, from 0 to below `WHOLE`."""
    text, key = value.encode("utf-8", "surrogatepass"), salt.encode()[:64]
    return int.from_bytes(blake2b(text, digest_size=8, key=key).digest(), "big") % WHOLE


def in_rollout(value: str, rollout: Rollout) -> bool:
    """Tell whether a value is in a rollout."""
    return place_in(value, rollout.salt) < rollout.parts


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def address_in(text: str | None) -> Address | None:
    """Return the address that a text is, or the first one of a network; None for other text."""
    try:
        return None if text is None else ipaddress.ip_address(text.partition("/")[0])
    except ValueError:
        return None


def in_networks(
    address: str, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> bool:
    """Tell whether an address (or a network, by its first address) lies in one of `networks`."""
    parsed = address_in(address)
    if parsed is None:
        return False
    return any(parsed in network for network in networks if network.version == parsed.version)


def compile_condition(condition: Condition) -> Predicate:
    """Return a condition as a function of typed facts and the time."""
    if isinstance(condition, Comparison):
        return _compile_test(condition)
    if isinstance(condition, Negation):
        return _opposite(compile_condition(condition.part))
    parts = [compile_condition(part) for part in condition.parts]
    return _settled(parts, by=isinstance(condition, Some))


def evaluate(test: Comparison, facts: Facts, now: float) -> Answer:
    """Return the answer of a single test; unknown if a fact it reads is missing.

    What nobody is named by is in no rollout.
    """
    value = facts.get(test.fact)
    if test.operator == "exists":
        return (value is not None) is test.operand
    if test.operator == "rollout" and value is None:
        return False
    if value is None:
        return None
    if test.operator == "same_as":
        other = facts.get(str(test.operand))
        return None if other is None else bool(value == other)
    return _COMPARISONS[test.operator](value, test.operand, now)


def _compile_test(test: Comparison) -> Predicate:
    return lambda facts, now: evaluate(test, facts, now)


def _opposite(part: Predicate) -> Predicate:
    def answer(facts: Facts, now: float) -> Answer:
        found = part(facts, now)
        return None if found is None else not found

    return answer


def _settled(parts: list[Predicate], *, by: bool) -> Predicate:
    """Return the answer of several parts: that which settles it, else unknown, else the other."""

    def answer(facts: Facts, now: float) -> Answer:
        result: Answer = not by
        for part in parts:
            found = part(facts, now)
            if found is by:
                return by
            if found is None:
                result = None
        return result

    return answer

"""Random conditions, over facts of every type."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from random import Random
from typing import Any, cast

from guardrail.model.conditions import Comparison, Condition, Every, Negation, Operator, Some
from guardrail.model.facts import Fact, FactType

VALUES: Mapping[str, tuple[Any, ...]] = {
    "account.org": ("o1", "o2"),
    "account.tier": ("anonymous", "email", "verified"),
    "kyc.subject": ("k1", "a"),
    "client.ip": ("192.0.2.7", "2001:db8::1", "::ffff:192.0.2.7"),
    "client.network": ("192.0.2.0/24", "n2"),
    "geo.country": ("DE", "FR", "IR"),
    "request.model": ("large", "big", "medium", "small", "free", "unlisted"),
    "request.tools": (0, 1, 2),
    "request.capability": ("chat", "code", "agentic"),
    "account.created": ("2026-01-01T00:00:00Z", 1_767_614_390),
    "x.score": (0, 1, 1.0, 2.5, -3),
    "x.flag": (True, False),
    "x.tags": (["a"], ("a", "b"), []),
    "x.since": (1_767_614_420, "2025-12-31"),
    "x.quota": (0, 1, 3.7, 500),
}
"""Values of each fact, as a host may state them."""

TESTED = ("account.id", *VALUES, "account.age", "time.hour", "time.weekday", "actor.id")
NETWORKS = (ipaddress.ip_network("192.0.2.0/25"), ipaddress.ip_network("2001:db8::/32"))
_ORDERED = (FactType.INTEGER, FactType.NUMBER, FactType.DURATION)


def operand_values(fact: Fact) -> tuple[Any, ...]:
    """Return values that a fact may be compared with for equality."""
    if fact.name == "account.id":
        return ("a", "b", "c")
    if fact.type is FactType.LIST:
        return ("a", "b", "c")
    if fact.name in ("time.hour", "account.age"):
        return (12, 13, 20)
    if fact.name == "time.weekday":
        return ("mon", "tue")
    if fact.name == "client.ip":
        return ("192.0.2.7", "2001:db8::1")
    return VALUES.get(fact.name, ("a", "b"))


def comparison(rng: Random, facts: Mapping[str, Fact]) -> Comparison:
    """Return a comparison of some fact by an operator that suits its type."""
    fact = facts[rng.choice(TESTED)]
    operators: list[Operator] = ["exists"]
    if fact.type in _ORDERED:
        operators += ["gt", "gte", "lt", "lte", "in", "not_in"]
    elif fact.type is FactType.TIMESTAMP:
        operators += ["before", "after"]
    else:
        operators += ["in", "in", "not_in"]
    if fact.type is FactType.STRING:
        operators += ["prefix", "same_as"]
    if fact.name in ("client.ip", "client.network"):
        operators.append("cidr")
    operator = rng.choice(operators)
    return Comparison(fact.name, operator, operand(rng, fact, operator), f"{fact.name} {operator}")


def operand(rng: Random, fact: Fact, operator: Operator) -> object:
    """Return something to compare a fact with."""
    if operator == "exists":
        return rng.random() < 0.5
    if operator == "same_as":
        return rng.choice(("account.id", "kyc.subject", "account.org"))
    if operator == "prefix":
        return rng.choice((("a",), ("k", "o"), ("large", "b")))
    if operator == "cidr":
        return NETWORKS[: rng.randint(1, 2)]
    if operator in ("before", "after"):
        return rng.choice((None, 1_767_614_430.0, 1_767_139_200.0))
    if operator in ("in", "not_in"):
        values = operand_values(fact)
        chosen = frozenset(rng.sample(values, rng.randint(1, min(2, len(values)))))
        many = frozenset(f"v{i}" for i in range(40))
        wide = fact.type in (FactType.STRING, FactType.LIST) and rng.random() < 0.2
        return chosen | many if wide else chosen
    return rng.choice((0, 1, 2, 12.5))


def condition(rng: Random, facts: Mapping[str, Fact], depth: int) -> Condition:
    """Return a condition, nested at most so deep."""
    kind = rng.randrange(4) if depth else 0
    if kind == 0:
        return comparison(rng, facts)
    if kind == 1:
        return Negation(condition(rng, facts, depth - 1))
    parts = tuple(condition(rng, facts, depth - 1) for _ in range(rng.randint(0, 3)))
    return cast(Condition, (Every if kind == 2 else Some)(parts))

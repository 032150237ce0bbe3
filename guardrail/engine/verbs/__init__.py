"""Counting rules at work: the cells each verb charges, and what their replies mean."""

from __future__ import annotations

from guardrail.engine.verbs.base import (
    BY_BAN,
    BY_RULE,
    NEVER_FITS,
    REPEATED,
    CellSpec,
    CellValues,
    Finding,
    Limit,
    LimitStatus,
    Receipt,
    Stand,
    in_unit,
    refuses,
)
from guardrail.engine.verbs.budget import BudgetLimit
from guardrail.engine.verbs.rate import RateLimit, pace_increment, pace_room
from guardrail.engine.verbs.sets import ConcurrencyLimit, DistinctLimit
from guardrail.model.rules import Budget, Concurrency, Distinct, Rate, Rule

__all__ = [
    "BY_BAN",
    "BY_RULE",
    "NEVER_FITS",
    "REPEATED",
    "BudgetLimit",
    "CellSpec",
    "CellValues",
    "Finding",
    "Limit",
    "LimitStatus",
    "Receipt",
    "Stand",
    "bind",
    "in_unit",
    "pace_increment",
    "pace_room",
    "refuses",
]

LIMITS: dict[type, type[Limit]] = {
    Rate: RateLimit,
    Budget: BudgetLimit,
    Concurrency: ConcurrencyLimit,
    Distinct: DistinctLimit,
}
"""The limit that each counting verb becomes."""


def bind(rule: Rule, namespace: str, zone: str) -> Limit | None:
    """Return the limit that a rule becomes in a namespace and a time zone, None if it has none."""
    made = LIMITS.get(type(rule.verb))
    return None if made is None else made(rule, namespace, zone)  # type: ignore[arg-type]

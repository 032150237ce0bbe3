"""Counting rules at work: the cells each verb charges, and what their replies mean."""

from __future__ import annotations

from guardrail.engine.limits.base import Limit
from guardrail.engine.limits.budget import BudgetLimit
from guardrail.engine.limits.rate import RateLimit
from guardrail.engine.limits.sets import ConcurrencyLimit, DistinctLimit
from guardrail.model.rules import Budget, Concurrency, Rate, Rule


def bind(rule: Rule, namespace: str, zone: str) -> Limit:
    """Return the limit that a counting rule becomes in a namespace and a time zone."""
    if isinstance(rule.verb, Rate):
        return RateLimit(rule, namespace, zone)
    if isinstance(rule.verb, Budget):
        return BudgetLimit(rule, namespace, zone)
    if isinstance(rule.verb, Concurrency):
        return ConcurrencyLimit(rule, namespace, zone)
    return DistinctLimit(rule, namespace, zone)

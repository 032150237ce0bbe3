"""The writer for a store that the generated function looks into itself."""

from __future__ import annotations

from typing import cast

from guardrail.engine.fused.members import set_lines
from guardrail.engine.fused.parts import RuleLines
from guardrail.engine.fused.rates import rate_lines
from guardrail.engine.fused.windows import budget_lines
from guardrail.engine.fused.writer import LineWriter
from guardrail.engine.limits.base import Limit
from guardrail.engine.limits.budget import BudgetLimit
from guardrail.engine.limits.rate import RateLimit
from guardrail.engine.limits.sets import ConcurrencyLimit, DistinctLimit
from guardrail.model.rules import Rule


class InlineWriter(LineWriter):
    """Writes lines that read and write a store's records in place."""

    def lines(self, rule: Rule, limit: Limit, bail: str) -> RuleLines | None:
        """Return the lines of a counting rule, None if it cannot be fused."""
        if isinstance(limit, RateLimit):
            return rate_lines(self, rule, limit, bail)
        if isinstance(limit, BudgetLimit):
            return budget_lines(self, rule, limit, bail)
        return set_lines(self, rule, cast(ConcurrencyLimit | DistinctLimit, limit), bail)

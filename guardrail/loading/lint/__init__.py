"""Findings about a policy set that loads: what is most likely not meant, and what is accepted."""

from __future__ import annotations

from guardrail.errors import Diagnostic
from guardrail.loading.lint.comments import accepted, idle_comments, read_ignores
from guardrail.loading.lint.conditions import lint_conditions
from guardrail.loading.lint.ends import ended_by, ending_by, ending_soon
from guardrail.loading.lint.limits import forgetful, lint_limits
from guardrail.loading.lint.names import lint_names
from guardrail.loading.lint.prices import lint_prices
from guardrail.loading.lint.scores import lint_scores
from guardrail.loading.lint.texts import lint_texts
from guardrail.loading.lint.tiers import lint_tiers
from guardrail.loading.lint.written import Written
from guardrail.model.policy import PolicySet

__all__ = [
    "Written",
    "accepted",
    "ending_soon",
    "idle_comments",
    "lint",
    "lint_written",
    "read_ignores",
]


def lint(policies: PolicySet, now: int, store: str | None = None) -> list[Diagnostic]:
    """Return what was found at loading, and what ends, as of `now` (microseconds).

    `store` is the URI of the store that will keep the counters, None where that is not said.
    """
    found = [*policies.warnings, *ended_by(policies, now), *ending_by(policies, now)]
    return found if store is None else [*found, *forgetful(policies, store)]


def lint_written(written: Written) -> None:
    """Report what a set that loads most likely does not mean, each at its place."""
    lint_texts(written)
    lint_names(written)
    lint_conditions(written)
    lint_limits(written)
    lint_scores(written)
    lint_prices(written)
    lint_tiers(written)

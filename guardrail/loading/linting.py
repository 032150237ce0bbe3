"""Findings about a policy set that loads: what its author should know before it goes live."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from guardrail.errors import Diagnostic, Severity, Span
from guardrail.loading.text import quoted
from guardrail.model.amounts import DAY, SECOND
from guardrail.model.effects import Mode
from guardrail.model.policy import PolicySet

SOON = 14 * DAY
"""How long before its end, in microseconds, something that ends is told."""

ENDED = "GR206"


def lint(policies: PolicySet, now: int) -> list[Diagnostic]:
    """Return what was found at loading, and what has ended at `now` (microseconds)."""
    return [*policies.warnings, *(found for end, found in _ends(policies) if end <= now)]


def ending_soon(policies: PolicySet, now: int) -> list[str]:
    """Return a line for each exemption and rule that ends within two weeks of `now`."""
    return [
        f"{found.message.partition(':')[0].replace('ended', 'ends')} ({found.span})"
        for end, found in _ends(policies)
        if now < end <= now + SOON
    ]


def accepted(
    policies: PolicySet, found: Iterable[Diagnostic], now: int
) -> tuple[list[Diagnostic], list[Diagnostic]]:
    """Return what no comment accepts, by its place, and what one does."""
    left: list[Diagnostic] = []
    ignored: list[Diagnostic] = []
    for one in sorted(found, key=lambda one: one.sort_key):
        taken = any(ignore.accepts(one.code, one.span, now) for ignore in policies.ignores)
        (ignored if taken else left).append(one)
    return left, ignored


def warning(code: str, message: str, span: Span, help: str) -> Diagnostic:
    """Return a finding that keeps nothing from loading."""
    return Diagnostic(code, Severity.WARNING, message, span, None, None, help)


def _ends(policies: PolicySet) -> Iterator[tuple[int, Diagnostic]]:
    for exemption in policies.exemptions:
        message = f"exemption {quoted(exemption.id)} ended {_last(exemption.expires)}"
        message += ": the rules it lifted apply again"
        help = "leave it out, or renew it"
        yield exemption.expires, warning(ENDED, message, exemption.span, help)
    for rule in policies.rules:
        if rule.end is not None and rule.mode is not Mode.OFF:
            message = f"rule {quoted(rule.id)} ended {_last(rule.end)}: it applies no longer"
            yield rule.end, warning(ENDED, message, rule.span, "leave it out, or renew its `until`")


def _last(end: int) -> str:
    return f"{datetime.fromtimestamp(end // SECOND - 1, UTC):%Y-%m-%d}"

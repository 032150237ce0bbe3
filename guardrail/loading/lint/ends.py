"""What ends: exemptions and rules that have ended, or end within two weeks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from guardrail.errors import Diagnostic, Severity, finding
from guardrail.loading.text import quoted
from guardrail.model.amounts import DAY, SECOND
from guardrail.model.effects import Mode
from guardrail.model.policy import PolicySet

SOON = 14 * DAY
"""How long before its end, in microseconds, something that ends is told."""

ENDED = "GR206"


def ended_by(policies: PolicySet, now: int) -> list[Diagnostic]:
    """Return a warning for each exemption and rule that has ended at `now` (microseconds)."""
    return [found for end, found in _ends(policies) if end <= now]


def ending_by(policies: PolicySet, now: int) -> list[Diagnostic]:
    """Return a note for each exemption and rule that ends within two weeks of `now`."""
    return [
        replace(
            found,
            severity=Severity.NOTE,
            message=found.message.partition(":")[0].replace("ended", "ends"),
        )
        for end, found in _ends(policies)
        if now < end <= now + SOON
    ]


def ending_soon(policies: PolicySet, now: int) -> list[str]:
    """Return a line for each exemption and rule that ends within two weeks of `now`."""
    return [f"{found.message} ({found.span})" for found in ending_by(policies, now)]


def _ends(policies: PolicySet) -> Iterator[tuple[int, Diagnostic]]:
    for exemption in policies.exemptions:
        message = f"exemption {quoted(exemption.id)} ended {_last(exemption.expires)}"
        again = "the amounts it raised are the rules' own" if exemption.raises else ""
        message += f": {again or 'the rules it lifted apply'} again"
        help = "leave it out, or renew it"
        yield exemption.expires, finding(ENDED, message, exemption.span, help)
    for rule in policies.rules:
        if rule.end is not None and rule.mode is not Mode.OFF:
            message = f"rule {quoted(rule.id)} ended {_last(rule.end)}: it applies no longer"
            yield rule.end, finding(ENDED, message, rule.span, "leave it out, or renew its `until`")


def _last(end: int) -> str:
    return f"{datetime.fromtimestamp(end // SECOND - 1, UTC):%Y-%m-%d}"

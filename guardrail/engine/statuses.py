"""How a limit stands, in the units people read."""

from __future__ import annotations

from dataclasses import dataclass

from guardrail.model.amounts import MICRO


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStatus:
    """How one counter that a decision consulted stands after it.

    `limit`, `used` and `remaining` are in `unit` (money in USD); for a rate, `limit` is its
    burst. `reset_after` is in seconds, None where time alone does not restore it.
    """

    rule: str
    unit: str
    limit: float
    used: float
    remaining: float
    reset_after: float | None


def in_unit(value: int, unit: str) -> float:
    """Return a counter's value as people read it: micro-USD as USD, anything else as it is."""
    return value / MICRO if unit == "cost_usd" else value

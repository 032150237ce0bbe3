"""The shape of a map file: its keys, and what kind stands under each."""

from __future__ import annotations

from typing import Any, Literal

from guardrail.loading import Shape


class TimeShape(Shape):
    """When a request came."""

    column: str
    unit: Literal["s", "ms", "us", "ns", "rfc3339"] = "s"
    offset: Any = None
    timezone: str | None = None


class FactSourceShape(Shape):
    """Where a fact comes from."""

    column: str | None = None
    values: dict[str, Any] | None = None
    default: Any = None
    constant: Any = None


class AmountShape(Shape):
    """Where an amount comes from."""

    column: str | None = None
    default: Any = None
    constant: Any = None


class DurationShape(Shape):
    """How long a request took."""

    column: str
    unit: Literal["s", "ms", "us", "ns"] = "s"


class MapShape(Shape):
    """A map file."""

    guardrail_map: Any
    format: Literal["jsonl", "csv"] = "jsonl"
    delimiter: str | None = None
    ts: TimeShape
    facts: dict[str, FactSourceShape]
    estimate: dict[str, AmountShape] | None = None
    usage: dict[str, AmountShape] | None = None
    duration: DurationShape | None = None

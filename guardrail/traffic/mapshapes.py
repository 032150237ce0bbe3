"""The shape of a map file: its keys, and what kind stands under each."""

from __future__ import annotations

from typing import Any, Literal

from guardrail.loading import Shape, Texts


class TimeShape(Shape):
    """When a request came."""

    column: Texts
    match: str | None = None
    unit: Literal["s", "ms", "us", "ns", "rfc3339"] | None = None
    format: str | None = None
    numbers: Literal["s", "ms", "us", "ns", "any"] | None = None
    offset: Any = None
    timezone: str | None = None
    doubled: Literal["first", "second"] = "first"


class FactSourceShape(Shape):
    """Where a fact comes from."""

    column: Texts | None = None
    match: str | None = None
    case: Literal["upper", "lower"] | None = None
    values: dict[str, Any] | None = None
    default: Any = None
    constant: Any = None
    optional: bool = False


class AmountShape(Shape):
    """Where an amount comes from."""

    column: str | None = None
    sum: list[str] | None = None
    default: Any = None
    constant: Any = None


class DurationShape(Shape):
    """How long a request took."""

    column: str | None = None
    unit: Literal["s", "ms", "us", "ns"] = "s"
    until: str | None = None


class MapShape(Shape):
    """A map file."""

    guardrail_map: Any
    format: Literal["jsonl", "csv", "line", "json"] = "jsonl"
    rows: Texts | None = None
    pairs: list[str] | None = None
    rows_with: str | None = None
    pattern: Texts | None = None
    delimiter: str | None = None
    columns: list[str] | None = None
    encoding: str = "utf-8"
    decimal: Literal[".", ","] = "."
    empty: list[str] | None = None
    totals: bool = False
    unpack: list[str] | None = None
    lift: list[str] | None = None
    ts: TimeShape
    facts: dict[str, FactSourceShape]
    estimate: dict[str, AmountShape] | None = None
    usage: dict[str, AmountShape] | None = None
    duration: DurationShape | None = None

"""What a benchmark found: figures with their targets, as a table of plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One figure.

    `target` is the number of what it belongs to (`T1`), `unit` follows the figure. `bound` is
    what it may be at most, or with `at_least` what it must be; None where nothing is promised.
    `note` says what it was measured against, in absolute figures.
    """

    target: str
    what: str
    value: float
    unit: str = "×"
    bound: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met, None where there is none."""
        if self.bound is None:
            return None
        return self.value >= self.bound if self.at_least else self.value <= self.bound


HEADER = ("", "what", "measured", "target", "", "")


def table(results: Sequence[Result]) -> str:
    """Return results as aligned text."""
    rows = [HEADER, *map(_cells, results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in (2, 3) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _cells(result: Result) -> tuple[str, ...]:
    sign = "≥" if result.at_least else "≤"
    bound = "" if result.bound is None else f"{sign} {_figure(result.bound, result.unit)}"
    met = {True: "met", False: "NOT MET", None: ""}[result.met]
    figure = _figure(result.value, result.unit)
    return (result.target, result.what, figure, bound, met, result.note)


def _figure(value: float, unit: str) -> str:
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f} {unit}"

"""Pages for people: one file each, complete in itself, with plots, tables and nothing to run."""

from __future__ import annotations

from guardrail.pages.document import document, shown, table
from guardrail.pages.drawing import check_drawing
from guardrail.pages.inert import inert, shortened
from guardrail.pages.plots import Bar, Line, bars_plot, label, lines_plot, times_axis

__all__ = [
    "Bar",
    "Line",
    "bars_plot",
    "check_drawing",
    "document",
    "inert",
    "label",
    "lines_plot",
    "shortened",
    "shown",
    "table",
    "times_axis",
]

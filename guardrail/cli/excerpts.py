"""Diagnostics as text: the source line with a caret under what is meant, or one line each."""

from __future__ import annotations

from collections import Counter

from guardrail.cli.figures import plural
from guardrail.cli.inert import inert, width, wrapped
from guardrail.cli.output import Format, Output
from guardrail.errors import Diagnostic, Severity

_TAB = 4
_LINE_CELLS = 100
_BEFORE = 40
_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "blue"}


def print_diagnostics(output: Output, diagnostics: tuple[Diagnostic, ...], form: Format) -> None:
    """Print findings in their order, full with excerpts or concise."""
    for diagnostic in sorted(diagnostics, key=lambda found: found.sort_key):
        if form is Format.CONCISE:
            _print_concise(output, diagnostic)
        else:
            _print_full(output, diagnostic)


def counted(diagnostics: tuple[Diagnostic, ...]) -> str:
    """Return how many errors and warnings there are, and notes if any: `1 error, 0 warnings`."""
    known = Counter(found.severity for found in diagnostics)
    told = [plural(known[one], str(one)) for one in (Severity.ERROR, Severity.WARNING)]
    if known[Severity.NOTE]:
        told.append(plural(known[Severity.NOTE], "note"))
    return ", ".join(told)


def _print_concise(output: Output, found: Diagnostic) -> None:
    advice = found.help or found.label  # where nothing is advised, what may stand there is
    told = "; ".join(filter(None, (advice, found.owner and f"owner: {found.owner}")))
    advice = f" ({told})" if told else ""
    output.line(
        (inert(str(found.span)), "bold"),
        f": {found.code} ",
        (f"[{found.severity}]", _STYLES[found.severity]),
        f" {inert(found.message)}{inert(advice)}",
    )


def _print_full(output: Output, found: Diagnostic) -> None:
    style = _STYLES[found.severity]
    place = inert(str(found.span))
    head = f"{place} {found.code} {inert(found.message)}"
    if width(head) <= output.width:
        output.line((place, "bold"), " ", (found.code, style), " ", inert(found.message))
    else:
        # On a narrow terminal the place stands alone, so that it can still be clicked.
        output.line((place, "bold"))
        first, *more = wrapped(inert(found.message), output.width - len(found.code) - 3)
        output.line("  ", (found.code, style), " ", first)
        output.lines(more, len(found.code) + 3)
    number = str(found.span.line)
    margin = " " * len(number)
    if found.excerpt is not None:
        source, start, length = _framed(found, output.width - len(number) - 3)
        output.line((f"{margin} |", "blue"))
        output.line((f"{number} |", "blue"), f" {source}".rstrip())
        label = inert(found.label or "")
        beneath = width(f"{margin} | {label}") + start + length + 1 > output.width
        caret = "^" * length if beneath or not label else f"{'^' * length} {label}"
        output.line((f"{margin} |", "blue"), " " * (start + 1), (caret, style))
        if beneath and label:
            _advice(output, margin, label)
    elif found.label:
        _advice(output, margin, inert(found.label))
    if found.help:
        _advice(output, margin, f"help: {inert(found.help)}")
    if found.owner:
        _advice(output, margin, f"owner: {inert(found.owner)}")
    output.line()


def _advice(output: Output, margin: str, text: str) -> None:
    first, *more = wrapped(text, output.width - len(margin) - 3)
    output.line((f"{margin} = ", "blue"), first)
    output.lines(more, len(margin) + 3)


def _framed(found: Diagnostic, most: int) -> tuple[str, int, int]:
    """Return the excerpt as it is shown, where the caret starts, and how long it is, in cells.

    It takes at most so many cells.
    """
    most = min(_LINE_CELLS, most)
    excerpt, span = found.excerpt or "", found.span
    start = min(span.column - 1, len(excerpt))
    end = min(span.end_column - 1, len(excerpt)) if span.end_line == span.line else len(excerpt)
    before = _displayed(excerpt[max(0, start - _LINE_CELLS) : start], 0)
    room = min(_BEFORE, most // 2)
    if width(before) > most - room or start > most:
        before = "…" + _last_cells(before, room)
    meant = _displayed(excerpt[start : max(start, end)][:_LINE_CELLS], width(before))
    column = width(before)
    after = _displayed(excerpt[max(start, end) :][:_LINE_CELLS], column + width(meant))
    shown = _first_cells(before + meant + after, most)
    room = max(1, width(shown) - column)
    return shown, column, min(max(1, width(meant.rstrip())), room)


def _displayed(text: str, column: int) -> str:
    """Return source text as shown from a column on: tabs filled up, the rest inert."""
    parts: list[str] = []
    for character in text:
        part = " " * (_TAB - column % _TAB) if character == "\t" else inert(character)
        parts.append(part)
        column += width(part)
    return "".join(parts)


def _last_cells(text: str, cells: int) -> str:
    while width(text) > cells:
        text = text[max(1, (width(text) - cells) // 2) :]
    return text


def _first_cells(text: str, cells: int) -> str:
    if width(text) <= cells:
        return text
    while width(text) >= cells:
        text = text[: -max(1, (width(text) - cells) // 2)]
    return text + "…"

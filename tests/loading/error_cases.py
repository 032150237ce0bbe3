"""The cases of the error tables: what a policy text says, and what is to be said about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from guardrail.errors import Diagnostic, PolicyError
from guardrail.loading import load_text

FOLDER = Path(__file__).parent / "errors"
START = "guardrail: 1\npolicy: demo\n"
RULE = "rules: [{id: r, when: always, block: {}}]\n"


class Case(NamedTuple):
    """One case: the text, and the findings as a terminal would show them."""

    title: str
    text: str
    expected: str


def cases() -> Iterator[Case]:
    """Yield the cases of all tables: a title after `##`, the text, and after `>>` the findings."""
    for path in sorted(FOLDER.glob("*.txt")):
        for part in path.read_text("utf-8").split("## ")[1:]:
            title, _, rest = part.partition("\n")
            text, _, expected = rest.partition(">>\n")
            yield Case(title, completed(text), expected.rstrip("\n") + "\n")


def completed(text: str) -> str:
    """Return a part of a policy file as a whole one; one that states its version is whole."""
    if not text.startswith(("guardrail", "#", "- ", "policy")):
        text = START + text + ("" if "rules:" in text else RULE)
    return text


def findings(text: str) -> str:
    """Return what loading a text finds wrong with it, as a terminal would show it."""
    try:
        load_text(text)
    except PolicyError as error:
        return "".join(shown(found) for found in error.diagnostics)
    return "nothing\n"


def shown(found: Diagnostic) -> str:
    """Return a finding with its line and a caret under what it is about."""
    lines = [f"{found.code} {found.message}"]
    if found.excerpt is not None:
        width = len(found.excerpt) + 1 - found.span.column
        if found.span.end_line == found.span.line:
            width = found.span.end_column - found.span.column
        margin = f"{found.span.line:>3} | "
        caret = " " * (found.span.column - 1) + "^" * max(1, width)
        lines += [margin + found.excerpt, "    | " + f"{caret} {found.label or ''}".rstrip()]
    if found.help is not None:
        lines.append(f"    = {found.help}")
    return "\n".join(lines) + "\n"

"""`guardrail rule`: what each finding means, what to avoid, what to write instead, and why."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Annotated

import typer

from guardrail.cli.failures import OK, ended
from guardrail.cli.figures import columns
from guardrail.cli.output import USUAL, Color, Format, Output
from guardrail.errors import SettingError
from guardrail.loading import CATALOGUE

_HEAD = """\
# What is found, by code

`guardrail rule CODE` prints one of these pages, `guardrail rule` lists them all. Errors keep a set
from loading (GR1…), or are tests and expectations that fail; warnings are most likely not what was
meant; both end `check` and `lint` in exit code 1. Notes are worth knowing: `lint` tells those about
policies, `check` those about traffic.

This document is made from the pages: `python -m scripts.rules --write`.
"""


def print_page(
    code: Annotated[
        str | None,
        typer.Argument(metavar="[CODE]", help="A finding's code, such as GR203; all if left out."),
    ] = None,
) -> None:
    """Print what a finding means and what to do about it; without a code, list all there are."""
    output = Output(Color.NEVER)

    def run() -> int:
        if code is None:
            rows = [(e.code, str(e.severity), e.title) for e in CATALOGUE.values()]
            output.lines(columns(rows, (False, False, False), cells=output.width), 0)
            return OK
        entry = CATALOGUE.get(code.upper())
        if entry is None:
            raise SettingError(f"there is no finding `{code}`: `guardrail rule` lists all")
        output.text(f"{entry.code}  {entry.title}\n")
        for title, example in (("avoid", entry.avoid), ("prefer", entry.prefer)):
            output.text(f"{title}\n\n{textwrap.indent(example.rstrip(), '  ')}\n")
        output.text(textwrap.fill(entry.why, min(output.width, USUAL)))
        return OK

    raise typer.Exit(ended(run, output, Format.FULL))


def document() -> str:
    """Return all pages as one Markdown document."""
    return "\n".join([_HEAD, *_sections()])


def _sections() -> Iterator[str]:
    for entry in CATALOGUE.values():
        yield f"## {entry.code}: {entry.title}\n"
        yield f"{str(entry.severity).capitalize()}. {entry.why}\n"
        for title, example in (("Avoid", entry.avoid), ("Prefer", entry.prefer)):
            yield f"{title}:\n\n```text\n{example.rstrip()}\n```\n"

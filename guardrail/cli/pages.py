"""`guardrail rule CODE`: what a finding means, what to avoid, what to write instead, and why."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer

from guardrail.cli.failures import OK, ended
from guardrail.cli.output import Color, Format, Output
from guardrail.errors import SettingError
from guardrail.loading import CATALOGUE


def print_page(
    code: Annotated[str, typer.Argument(metavar="CODE", help="A finding's code, such as GR203.")],
) -> None:
    """Print what a finding means and what to do about it."""
    output = Output(Color.NEVER)

    def run() -> int:
        entry = CATALOGUE.get(code.upper())
        if entry is None:
            raise SettingError(f"there is no finding `{code}`: codes go from GR100 on")
        output.text(f"{entry.code}  {entry.title}\n")
        for title, example in (("avoid", entry.avoid), ("prefer", entry.prefer)):
            output.text(f"{title}\n\n{textwrap.indent(example.rstrip(), '  ')}\n")
        output.text(textwrap.fill(entry.why, 80))
        return OK

    raise typer.Exit(ended(run, output, Format.FULL))

"""`guardrail schema`: the JSON Schema of policy files, for editors, and of the decision log."""

from __future__ import annotations

from typing import Annotated

import typer

from guardrail.cli.failures import OK, ended
from guardrail.cli.output import Color, Format, Output
from guardrail.decisionlog import SCHEMA
from guardrail.loading import policy_schema


def print_schema(
    decision_log: Annotated[
        bool, typer.Option("--decision-log", help="Of a line of the decision log instead.")
    ] = False,
) -> None:
    """Print the JSON Schema of policy files."""
    output = Output(Color.NEVER)

    def run() -> int:
        output.json(SCHEMA if decision_log else policy_schema())
        return OK

    raise typer.Exit(ended(run, output, Format.FULL))

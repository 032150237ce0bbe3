"""`guardrail schema`: the JSON Schema of policy files, for editors."""

from __future__ import annotations

import typer

from guardrail.cli.failures import OK, ended
from guardrail.cli.output import Color, Format, Output
from guardrail.loading import policy_schema


def print_schema() -> None:
    """Print the JSON Schema of policy files."""
    output = Output(Color.NEVER)

    def run() -> int:
        output.json(policy_schema())
        return OK

    raise typer.Exit(ended(run, output, Format.FULL))

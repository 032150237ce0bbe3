"""`guardrail schema`: JSON Schemas of policy files, traffic, maps and the decision log."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from guardrail.cli.failures import OK, ended
from guardrail.cli.loading import load
from guardrail.cli.output import Color, Format, Output
from guardrail.decisionlog import SCHEMA
from guardrail.errors import SettingError
from guardrail.loading import closed_schema, policy_schema
from guardrail.traffic.schemas import TRAFFIC_SCHEMA, map_schema


class Of(enum.StrEnum):
    """What a schema is of."""

    POLICY = "policy"
    TRAFFIC = "traffic"
    MAP = "map"
    DECISION_LOG = "decision-log"


_SCHEMAS: Mapping[Of, Callable[[], Mapping[str, Any]]] = {
    Of.POLICY: policy_schema,
    Of.TRAFFIC: lambda: TRAFFIC_SCHEMA,
    Of.MAP: map_schema,
    Of.DECISION_LOG: lambda: SCHEMA,
}


def print_schema(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH…]", help="A policy set: the schema then knows its names, and no others."
        ),
    ] = None,
    of: Annotated[Of, typer.Option("--of", help="What it is the schema of.")] = Of.POLICY,
    decision_log: Annotated[
        bool, typer.Option("--decision-log", help="The same as `--of decision-log`.")
    ] = False,
) -> None:
    """Print the JSON Schema of policy files, or of a line of traffic, a map, the decision log."""
    output = Output(Color.NEVER)

    def run() -> int:
        asked = Of.DECISION_LOG if decision_log else of
        if paths and asked is not Of.POLICY:
            raise SettingError("a set has a schema of its policy files alone: leave out `--of`")
        output.json(closed_schema(load(paths)) if paths else _SCHEMAS[asked]())
        return OK

    raise typer.Exit(ended(run, output, Format.FULL))

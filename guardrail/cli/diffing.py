"""`guardrail diff`: what changes from one version of the policies to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from guardrail.analysis import Changes, compared
from guardrail.cli import options
from guardrail.cli.diff_text import changes_fields, print_changes
from guardrail.cli.failures import FINDINGS, OK, ended
from guardrail.cli.findings import moment_of
from guardrail.cli.loading import policy_line
from guardrail.cli.output import Color, Format, Output
from guardrail.cli.revisions import load_version
from guardrail.model.policy import PolicySet


@dataclass(slots=True, kw_only=True)
class DiffRequest:
    """What was asked for on the command line; `as_of` is in seconds since the epoch."""

    old: str
    new: str
    as_of: float | None = None
    exit_code: bool = False


def diff(
    old: Annotated[
        str,
        typer.Argument(
            metavar="OLD", help="Policies as they were: a path, or a git REVISION:PATH."
        ),
    ],
    new: Annotated[
        str,
        typer.Argument(metavar="NEW", help="Policies as they are to be: a path, or REVISION:PATH."),
    ],
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with 1 if anything became looser or stricter.")
    ] = False,
    as_of: options.AsOf = None,
    form: options.FormatOption = Format.FULL,
    color: options.ColorOption = Color.AUTO,
) -> None:
    """Tell what became looser and what stricter between two versions of the policies."""
    asked = DiffRequest(old=old, new=new, as_of=as_of, exit_code=exit_code)
    output = Output(color)
    raise typer.Exit(ended(lambda: run_diff(asked, output, form), output, form))


def run_diff(asked: DiffRequest, output: Output, form: Format) -> int:
    """Compare two versions, print what changes, and return the exit code."""
    old, new = load_version(asked.old), load_version(asked.new)
    found = compared(old, new, moment_of(asked.as_of))
    # What is compared over traffic comes here: it has both sets, and its own part of the output.
    if form is Format.JSON:
        output.json({**_versions(old, new), **changes_fields(found)})
    else:
        if form is Format.FULL:
            output.line(("old      ", "bold"), policy_line(old))
            output.line(("new      ", "bold"), policy_line(new))
        print_changes(output, found, form, asked.new)
    return FINDINGS if asked.exit_code and _differs(found) else OK


def _differs(found: Changes) -> bool:
    return bool(found.looser or found.stricter or found.unjudged)


def _versions(old: PolicySet, new: PolicySet) -> dict[str, object]:
    return {
        "old": {"policy": old.name, "revision": old.revision},
        "new": {"policy": new.name, "revision": new.revision},
    }

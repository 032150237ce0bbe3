"""The command line: what each command does stands in its own module."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import metadata
from typing import Annotated

import typer

from guardrail.cli.actors import erase, show, unlink
from guardrail.cli.benching import bench
from guardrail.cli.bounding import bound
from guardrail.cli.checking import check
from guardrail.cli.diffing import diff
from guardrail.cli.explaining import explain
from guardrail.cli.failures import (
    INTERRUPTED,
    OK,
    PIPE_CLOSED,
    USAGE,
    no_room,
    silence_stdout,
    unwritten,
)
from guardrail.cli.linting import lint
from guardrail.cli.mapping import guess, names
from guardrail.cli.mapping import show as show_map
from guardrail.cli.merging import merge
from guardrail.cli.output import Color, Output
from guardrail.cli.pages import print_page
from guardrail.cli.schema import print_schema
from guardrail.cli.simulating import simulate
from guardrail.cli.starting import init
from guardrail.cli.testing import run_policy_tests
from guardrail.cli.usage import Misuse, complain
from guardrail.cli.watching import watch

app = typer.Typer(
    name="guardrail",
    help="Policies and rate limits for AI APIs: check, test and explain them before they go live.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"guardrail {metadata.version('guardrail-engine')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    del version


app.command()(init)
app.command()(check)
app.command()(lint)
app.command()(merge)
app.command()(watch)
app.command("test")(run_policy_tests)
app.command()(explain)
app.command()(diff)
actors = typer.Typer(
    help="Show which accounts act as one, part them, forget them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
actors.command()(show)
actors.command()(unlink)
actors.command()(erase)
app.add_typer(actors, name="actor")
maps = typer.Typer(
    help="Propose a map for a log, list those that come with guardrail, print one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
maps.command()(guess)
maps.command("list")(names)
maps.command("show")(show_map)
app.add_typer(maps, name="map")
app.command()(simulate)
app.command()(bound)
app.command()(bench)
app.command("schema")(print_schema)
app.command("rule")(print_page)


@cache
def _command() -> Callable[..., object]:
    """Return what runs a command line; making it takes longer than many a command."""
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # An encoding that lacks a character must not stop a report.
            stream.reconfigure(errors="backslashreplace")
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = _run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        silence_stdout()
        return PIPE_CLOSED
    except OSError as error:
        if not no_room(error):
            raise
        return unwritten(Output(Color.AUTO), error)
    return code


def _run(given: Sequence[str]) -> int:
    code: object = OK
    try:
        code = _command()(given, prog_name="guardrail", standalone_mode=False)
    except SystemExit as ended:
        code = ended.code
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Misuse as problem:
        complain(problem, given)
        return USAGE
    return code if isinstance(code, int) else OK


def _open_streams() -> None:
    """Let what is written to a stream that was closed beforehand go nowhere, and no file be it."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115

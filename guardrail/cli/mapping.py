"""`guardrail map`: propose a map for a log, list those that there are, print one."""

from __future__ import annotations

from typing import Annotated

import typer

from guardrail.cli import options
from guardrail.cli.failures import OK, ended
from guardrail.cli.figures import first_of, plural
from guardrail.cli.inert import inert, shortened
from guardrail.cli.loading import load
from guardrail.cli.output import Color, Format, Output
from guardrail.errors import SettingError
from guardrail.loading import load_text
from guardrail.traffic.guessing import Proposal, proposed
from guardrail.traffic.lines import LineSource
from guardrail.traffic.mapfile import built_in_names, load_map, read_map, text_of_map
from guardrail.traffic.reading import recorded_requests
from guardrail.traffic.requests import BadLines

_NO_RULES = (
    "guardrail: 1\npolicy: none\nrules:\n"
    "  - {id: all, when: always, rate: {requests: 1/second, key: account.id}}\n"
)
_SHOWN = 20

Log = Annotated[str, typer.Argument(metavar="FILE", help="The log, plain, .gz or .zst.")]
Policies = Annotated[
    list[str] | None,
    typer.Option("--policies", metavar="PATH", help="The policies whose facts a map may name."),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of a map.")]


def guess(log: Log, policies: Policies = None, color: options.ColorOption = Color.AUTO) -> None:
    """Propose a map for a log: the map on stdout, what was taken for what on stderr."""
    output = Output(color)
    raise typer.Exit(ended(lambda: run_guess(log, policies, output), output, Format.FULL))


def run_guess(log: str, policies: list[str] | None, output: Output) -> int:
    """Print a proposal, and try it on the log."""
    known = load_text(_NO_RULES) if not policies else load(policies)
    made = proposed(log, known.facts["account.tier"].values)
    text = made.text if made.name is None else text_of_map(made.name)
    for line in made.taken:
        output.note(line)
    if made.name is not None:
        output.note(f"read the log with `--map {made.name}`")
    _tell_unused(made, output)
    mapping = read_map(text.encode(), f"the map proposed for `{log}`", known)
    bad = BadLines()
    with LineSource(log) as source:
        count = sum(1 for _ in recorded_requests(source, bad, mapping))
    output.note(f"it reads {plural(count, 'request')}, {plural(bad.count, 'bad line')}")
    for _, number, reason in bad.first:
        output.note(f"bad line {number}: {shortened(reason, 120)}")
    for written in text.splitlines():
        output.text(inert(written))
    return OK


def _tell_unused(made: Proposal, output: Output) -> None:
    if not made.unused:
        return
    named = [f"`{shortened(name, 40)}`" for name in made.unused]
    output.note(f"columns taken for nothing: {first_of(named, _SHOWN)}")


def show(name: Name) -> None:
    """Print a map that comes with guardrail, to start one of your own from."""
    output = Output(Color.NEVER)

    def run() -> int:
        if name not in built_in_names():
            raise SettingError(f"there is no map `{name}`: it can be {', '.join(built_in_names())}")
        output.text(text_of_map(name).rstrip("\n"))
        return OK

    raise typer.Exit(ended(run, output, Format.FULL))


def names() -> None:
    """List the maps that `--map` knows by name."""
    output = Output(Color.NEVER)

    def run() -> int:
        known = load_text(_NO_RULES)
        for name in built_in_names():
            load_map(name, known)
            output.line(name)
        return OK

    raise typer.Exit(ended(run, output, Format.FULL))

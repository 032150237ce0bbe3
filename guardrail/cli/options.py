"""The arguments and options that commands share."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated

import typer

from guardrail.cli.output import Color, Format
from guardrail.http.doors import DOORS
from guardrail.loading import NotationError, read_duration
from guardrail.model.amounts import SECOND
from guardrail.model.facts import epoch_of


def portion(written: str) -> Fraction:
    """Return a share option such as `1%` or `0.5%`."""
    found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)%", written)
    share = Fraction(found[1]) / 100 if found else None
    if share is None or share > 1:
        raise typer.BadParameter(f"`{written}` is not a share: write `1%`, from 0% to 100%")
    return share


def instant(written: str) -> float:
    """Return a time option in seconds since the epoch."""
    moment = epoch_of(written)
    if moment is None:
        raise typer.BadParameter(
            f"`{written}` is not a time: write `2026-03-01T09:00:00Z`, or a date"
        )
    return moment


def seconds(written: str) -> float:
    """Return a duration option such as `1d` in seconds."""
    try:
        return read_duration(written, least=0) / SECOND
    except NotationError as error:
        raise typer.BadParameter(f"`{written}` {error.message}: {error.help}") from None


Paths = Annotated[
    list[str], typer.Argument(metavar="PATH…", help="Policy files, or folders of them.")
]
FormatOption = Annotated[Format, typer.Option("--format", help="How results are printed.")]
ColorOption = Annotated[Color, typer.Option("--color", help="When output is coloured.")]
Geo = Annotated[
    str | None,
    typer.Option("--geo", metavar="PATH", help="A country database instead of the embedded one."),
]
AllowEmpty = Annotated[
    bool, typer.Option("--allow-empty", help="Succeed also where there is nothing to check.")
]
Traffic = Annotated[
    list[str] | None,
    typer.Option(
        "--traffic",
        metavar="FILE",
        help="Recorded requests to replay (JSON lines, .gz, .zst; - is stdin); repeatable.",
    ),
]
Map = Annotated[
    str | None,
    typer.Option("--map", metavar="MAP", help="A YAML file that says how to read another log."),
]
Decisions = Annotated[
    str | None,
    typer.Option("--decisions", metavar="OUT", help="Write JSON for each request; - is stdout."),
]
Report = Annotated[
    str | None,
    typer.Option(
        "--report",
        metavar="OUT.html",
        help="Write a page about the replay: one file to read, print and hand on.",
    ),
]
ShowIdentifiers = Annotated[
    bool,
    typer.Option(
        "--show-identifiers", help="Name accounts in the report as the traffic names them."
    ),
]
StoreUri = Annotated[
    str, typer.Option("--store", metavar="URI", help="Where to keep the replay's own counters.")
]
StoreDown = Annotated[
    bool,
    typer.Option(
        "--store-down", help="Replay as if the store were down: what each rule does without it."
    ),
]
Warmup = Annotated[
    float,
    typer.Option(
        "--warmup",
        metavar="DURATION",
        parser=seconds,
        help="Decide the requests of the first 1d, 6h, … without counting them in the figures.",
    ),
]
BadShare = Annotated[
    Fraction,
    typer.Option(
        "--bad-lines",
        metavar="SHARE",
        parser=portion,
        help="How many lines may be unreadable before that is a finding.",
    ),
]
Doors = Annotated[
    list[str] | None,
    typer.Option(
        "--door",
        metavar="|".join(DOORS),
        help="Where the policies will be enforced: what it cannot know is a finding; repeatable.",
    ),
]
AsOf = Annotated[
    float | None,
    typer.Option(
        "--as-of",
        metavar="TIME",
        parser=instant,
        help="Judge what has ended as of this time; now if left out.",
    ),
]
Request = Annotated[
    str | None,
    typer.Option("--request", metavar="JSON", help="The request's facts, as a JSON object."),
]
Tokens = Annotated[
    int | None, typer.Option("--tokens", metavar="N", min=0, help="How many input tokens it has.")
]
At = Annotated[
    str | None,
    typer.Option("--at", metavar="TIME", help="When it comes, in RFC 3339; now if left out."),
]
Used = Annotated[
    list[str] | None,
    typer.Option(
        "--used",
        metavar="RULE=AMOUNT",
        help="What a rule's counter (of several, RULE:UNIT) holds beforehand; repeatable.",
    ),
]
OneTraffic = Annotated[
    str | None,
    typer.Option("--traffic", metavar="FILE", help="Explain a request of this recorded traffic."),
]
Line = Annotated[
    int | None, typer.Option("--line", metavar="N", min=1, help="The request's line in it.")
]
"""Each is the annotation of a command's parameter."""

"""The arguments and options that commands share."""

from __future__ import annotations

import enum
from fractions import Fraction
from typing import Annotated

import typer

from guardrail.cli.output import Color, Format
from guardrail.cli.reports import Wanted
from guardrail.errors import Severity
from guardrail.http.doors import DOORS
from guardrail.loading import NotationError, read_duration, share_of
from guardrail.model.amounts import SECOND
from guardrail.model.facts import epoch_of


def portion(written: str) -> Fraction:
    """Return a share option such as `1%` or `0.5%`."""
    share = share_of(written)
    if share is None:
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


def form(written: str) -> Format:
    """Return the format option of a command that prints one thing, for people or as JSON."""
    if written not in FORMS:
        raise typer.BadParameter(f"`{written}` is not one of {', '.join(FORMS)}")
    return Format(written)


def wanted(written: str) -> Wanted:
    """Return a format option such as `full` or `sarif=out.sarif`."""
    name, equals, file = written.partition("=")
    if name not in list(Format) or (equals and not file):
        known = ", ".join(Format)
        raise typer.BadParameter(f"`{written}` is not FORM or FORM=FILE, with FORM of {known}")
    return Wanted(Format(name), file or None)


class FailOn(enum.StrEnum):
    """From which findings on a command ends in exit code 1."""

    ERROR = "error"
    WARN = "warn"
    NOTE = "note"

    @property
    def severity(self) -> Severity:
        """The mildest finding that fails."""
        return Severity.WARNING if self is FailOn.WARN else Severity(self.value)


FORMS = (Format.FULL, Format.CONCISE, Format.JSON)
"""The formats of a command that does not find fault."""

Paths = Annotated[
    list[str], typer.Argument(metavar="PATH…", help="Policy files, or folders of them.")
]
FormatOption = Annotated[
    Format,
    typer.Option("--format", metavar="|".join(FORMS), parser=form, help="How results are printed."),
]
Formats = Annotated[
    list[Wanted] | None,
    typer.Option(
        "--format",
        metavar="FORM[=FILE]",
        parser=wanted,
        help=f"How results are printed: {', '.join(Format)}; repeatable, each other one to a file.",
    ),
]
FailOnOption = Annotated[
    FailOn,
    typer.Option("--fail-on", help="End in exit code 1 from findings of this severity on."),
]
ColorOption = Annotated[
    Color, typer.Option("--color", help="When output is coloured; NO_COLOR is honoured.")
]
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
    typer.Option(
        "--map",
        metavar="MAP",
        help="How to read another log: a name (see `guardrail map list`), or a YAML file.",
    ),
]
Decisions = Annotated[
    str | None,
    typer.Option(
        "--decisions",
        metavar="OUT",
        help="Write a line of JSON for each request, in their order (.gz, .zst; - is stdout).",
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        max=256,
        help="How many processes replay; accounts that can affect each other stay together.",
    ),
]
ShardOf = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="K/N",
        help="Replay one part of so many, and write what came of it to `--result`.",
    ),
]
ResultFile = Annotated[
    str | None,
    typer.Option("--result", metavar="OUT", help="Where `--shard` writes; `merge` reads it."),
]
SampleShare = Annotated[
    Fraction | None,
    typer.Option(
        "--sample",
        metavar="SHARE",
        parser=portion,
        help="Replay the requests of 5%, 1%, … of all accounts, drawn by a hash of the account.",
    ),
]
SampleKey = Annotated[
    str, typer.Option("--sample-key", metavar="TEXT", help="Another text draws other accounts.")
]
SeedCounters = Annotated[
    str | None,
    typer.Option("--seed-counters", metavar="FILE", help="Start from saved counters."),
]
SaveCounters = Annotated[
    str | None,
    typer.Option("--save-counters", metavar="FILE", help="Save the counters as they end."),
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
LintedStore = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="URI", help="Where counters will be kept: what it forgets is a finding."
    ),
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
Missing = Annotated[
    Fraction,
    typer.Option(
        "--missing",
        metavar="SHARE",
        parser=portion,
        help="How many requests may lack a fact that a rule tests before that is told.",
    ),
]
Expect = Annotated[
    list[str] | None,
    typer.Option(
        "--expect",
        metavar="FILE|TEXT",
        help="What the traffic must come to: `account.tier=verified refused <= 0.1%`, or a YAML "
        "file with `expect`; repeatable.",
    ),
]
By = Annotated[
    list[str] | None,
    typer.Option(
        "--by",
        metavar="FACT[,FACT…]",
        help="Tell whom refusals hit by these facts (account.tier, if left out); repeatable.",
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
Today = Annotated[
    float | None,
    typer.Option(
        "--today",
        metavar="TIME",
        parser=instant,
        help="Replay as if all were of this time: what begins and ends stands as it does then.",
    ),
]
Request = Annotated[
    str | None,
    typer.Option("--request", metavar="JSON", help="The request's facts, as a JSON object."),
]
Tokens = Annotated[
    str | None,
    typer.Option(
        "--tokens", metavar="N", help="How many input tokens it has, such as 1200 or 10k."
    ),
]
At = Annotated[
    float | None,
    typer.Option(
        "--at",
        metavar="TIME",
        parser=instant,
        help="When it comes, in RFC 3339; now if left out.",
    ),
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

"""`guardrail merge`: the parts of a replay, put together and reported as `check` does."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated

import typer

from guardrail.cli import options
from guardrail.cli.checking import CheckRequest, run_check
from guardrail.cli.failures import reported
from guardrail.cli.files import Files
from guardrail.cli.loading import load
from guardrail.cli.options import FailOn
from guardrail.cli.output import Color, Output
from guardrail.cli.reports import Reports
from guardrail.cli.traffic import divisions_of, warn
from guardrail.errors import SettingError
from guardrail.replay.results import ShardFile, TrafficRun, merged

Results = Annotated[
    list[str], typer.Argument(metavar="RESULT…", help="What `check --shard` wrote, all parts.")
]
Policies = Annotated[
    list[str] | None,
    typer.Option(
        "--policies",
        metavar="PATH",
        help="Where the policies are, if not where the parts were replayed; repeatable.",
    ),
]


def merge(
    results: Results,
    policies: Policies = None,
    bad_lines: options.BadShare = "1%",  # type: ignore[assignment]
    door: options.Doors = None,
    as_of: options.AsOf = None,
    geo: options.Geo = None,
    by: options.By = None,
    expect: options.Expect = None,
    missing: options.Missing = "5%",  # type: ignore[assignment]
    form: options.Formats = None,
    fail_on: options.FailOnOption = FailOn.WARN,
    color: options.ColorOption = Color.AUTO,
    allow_empty: options.AllowEmpty = False,
) -> None:
    """Put the parts of a replay together, and report on them as `check` does on the whole."""
    output = Output(color)

    def run(reports: Reports) -> int:
        shards = _whole(results)
        paths = policies or list(shards[0].policies)
        asked = CheckRequest(
            paths=paths, geo=geo, allow_empty=allow_empty, bad_lines=Fraction(bad_lines),
            doors=door or [], as_of=as_of, missing=Fraction(missing), fail_on=fail_on,
            expect=expect or list(shards[0].expected), by=by or [],
        )  # fmt: skip
        return run_check(asked, output, reports, _together(shards, asked, output))

    files = Files(
        reads={"a part": results, "the policies": policies or (), "the country database": [geo]}
    )
    raise typer.Exit(
        reported(run, output, form, name="merge", allow_empty=allow_empty, files=files)
    )


def _whole(paths: list[str]) -> list[ShardFile]:
    """Return all parts of one replay in order.

    Raises:
        DataError: a file is no part of a replay.
        SettingError: parts are missing, there twice, or of different replays.
    """
    shards = sorted((ShardFile.read(path) for path in paths), key=lambda found: found.shard)
    first = shards[0]
    for shard in shards:
        if _replay_of(shard) != _replay_of(first):
            raise SettingError(
                "these are parts of different replays: all have to be of the same policies, of as "
                "many parts, and with the same `--by`"
            )
    numbers = [shard.shard for shard in shards]
    missing = sorted(set(range(1, first.count + 1)) - set(numbers))
    if missing:
        named = ", ".join(f"{number}/{first.count}" for number in missing[:10])
        raise SettingError(
            f"parts are missing: {named}: name all results, or replay these with `--shard`"
        )
    if len(numbers) > first.count:
        raise SettingError("a part is given twice: name each once")
    return shards


def _replay_of(shard: ShardFile) -> tuple[object, ...]:
    return shard.count, shard.revision, shard.run.tally.harm.divisions


def _together(shards: list[ShardFile], asked: CheckRequest, output: Output) -> TrafficRun:
    policies = load(asked.paths, expected=asked.expect)
    if policies.revision != shards[0].revision:
        raise SettingError(
            "the policies have changed since the parts were replayed: give those with `--policies`"
        )
    run = merged([shard.run for shard in shards], policies)
    if asked.by:
        run.divisions = tuple(divisions_of(asked.by, policies))
        run.tally.harm.divide_by(run.divisions)
    warn(output, run)
    return run

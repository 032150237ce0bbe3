"""`guardrail diff`: what changes from one version of the policies to another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import typer

from guardrail.analysis import Changes, compared
from guardrail.cli import options
from guardrail.cli.diff_text import changes_fields, print_changes
from guardrail.cli.diff_traffic import print_over_traffic, traffic_changes_fields
from guardrail.cli.failures import FINDINGS, OK, reported
from guardrail.cli.figures import plural
from guardrail.cli.findings import moment_of
from guardrail.cli.loading import environment, policy_line
from guardrail.cli.machine import Unplaced
from guardrail.cli.output import Color, Format, Output
from guardrail.cli.replaying import tell_ties
from guardrail.cli.reporting import keep_apart, write_changes_report
from guardrail.cli.reports import Reports, Results
from guardrail.cli.revisions import load_version
from guardrail.cli.traffic import TrafficFiles, divisions_of
from guardrail.errors import DataError, SettingError, Severity
from guardrail.model.policy import PolicySet
from guardrail.pages import check_drawing
from guardrail.replay.compared_parts import CompareJob, compared_in_parts
from guardrail.replay.comparing import Compared, compared_over
from guardrail.traffic.mapfile import load_map


@dataclass(slots=True, kw_only=True)
class DiffRequest:
    """What was asked for on the command line; `as_of` is in seconds since the epoch."""

    old: str
    new: str
    as_of: float | None = None
    exit_code: bool = False
    traffic: list[str] = field(default_factory=list)
    map: str | None = None
    warmup: float = 0.0
    by: list[str] = field(default_factory=list)
    geo: str | None = None
    report: str | None = None
    show_identifiers: bool = False
    workers: int = 1


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
    traffic: options.Traffic = None,
    map: options.Map = None,
    warmup: options.Warmup = "0s",  # type: ignore[assignment]
    by: options.By = None,
    geo: options.Geo = None,
    report: options.Report = None,
    show_identifiers: options.ShowIdentifiers = False,
    workers: options.Workers = 1,
    as_of: options.AsOf = None,
    form: options.Formats = None,
    color: options.ColorOption = Color.AUTO,
) -> None:
    """Tell what became looser and what stricter between two versions of the policies."""
    asked = DiffRequest(
        old=old,
        new=new,
        as_of=as_of,
        exit_code=exit_code,
        traffic=traffic or [],
        map=map,
        warmup=warmup,
        by=by or [],
        geo=geo,
        report=report,
        show_identifiers=show_identifiers,
        workers=workers,
    )
    output = Output(color)
    code = reported(lambda reports: run_diff(asked, reports), output, form, name="diff")
    raise typer.Exit(code)


def run_diff(asked: DiffRequest, reports: Reports) -> int:
    """Compare two versions, print what changes, and return the exit code."""
    if asked.report is not None:
        if not asked.traffic:
            raise SettingError("`--report` replays traffic: give it with `--traffic`")
        check_drawing("`--report`")
        keep_apart("--report", asked.report, asked.traffic)
    if asked.workers > 1 and not asked.traffic:
        raise SettingError("`--workers` replays traffic: give it with `--traffic`")
    if asked.workers > 1 and "-" in asked.traffic:
        raise SettingError(
            "`--traffic -` does not go with `--workers`: each process reads all of the traffic"
        )
    old, new = load_version(asked.old), load_version(asked.new)
    found = compared(old, new, moment_of(asked.as_of))
    replayed = _over_traffic(asked, old, new, reports.main) if asked.traffic else None

    if asked.report is not None and replayed is not None:
        write_changes_report(
            asked.report, replayed, (old, new), found, asked.traffic, asked.show_identifiers
        )

    def text(output: Output, form: Format) -> None:
        if form is Format.FULL:
            output.told("old", policy_line(old))
            output.told("new", policy_line(new))
        print_changes(output, found, form, asked.new)
        if replayed is not None:
            print_over_traffic(output, replayed, tables=form is Format.FULL)
        if asked.report is not None:
            output.told("report", f"written to `{asked.report}`")

    over = None if replayed is None else traffic_changes_fields(replayed)
    reports.tell(
        Results(
            name="diff",
            text=text,
            fields={**_versions(old, new), **changes_fields(found), "traffic": over},
            findings=list(_looser(found, replayed, asked)),
        )
    )
    differs = _differs(found) or (replayed is not None and bool(replayed.figures.kinds))
    return FINDINGS if asked.exit_code and differs else OK


def _over_traffic(asked: DiffRequest, old: PolicySet, new: PolicySet, output: Output) -> Compared:
    """Replay traffic through both versions, in as many processes as were asked for.

    Raises:
        SettingError: a fact of `--by` is not known.
        DataError: traffic, map or country database cannot be read, or no line is a request.
    """
    divisions_of(asked.by, old)
    divisions = divisions_of(asked.by, new)
    with ExitStack() as closing:
        files = TrafficFiles(asked.traffic, closing)
        mapping = load_map(asked.map, new) if asked.map is not None else None
        job = CompareJob(
            versions=(partial(load_version, asked.old), partial(load_version, asked.new)),
            revisions=(old.revision, new.revision),
            traffic=tuple(asked.traffic),
            map=asked.map,
            warmup=asked.warmup,
            geo=asked.geo,
            environ=dict(environment()),
            divisions=tuple(divisions),
            reports=asked.report is not None,
        )
        if asked.workers > 1:
            found = compared_in_parts(
                job,
                (old, new),
                asked.workers,
                lambda ties: tell_ties(ties, [old, new], asked.workers, output),
            )
        else:
            guards = job.guards((old, new), closing)
            found = compared_over(
                guards,
                (old, new),
                files,
                mapping,
                asked.warmup,
                divisions,
                reports=job.reports,
            )
        if not found.figures.requests:
            raise DataError("the traffic has no readable line to compare decisions on")
        if files.faults:
            raise DataError(f"traffic could not be read to its end: {files.faults[0]}")
        return found


def _looser(found: Changes, replayed: Compared | None, asked: DiffRequest) -> Iterator[Unplaced]:
    """Yield what became looser as findings: faults where any change ends in exit code 1."""
    severity = Severity.WARNING if asked.exit_code else Severity.NOTE
    for change in found.looser:
        message = f"rule `{change.rule}` became looser: was {change.before}, is {change.after}"
        yield Unplaced("looser", severity, message)
    for kind, changed in replayed.figures.changed(looser=True) if replayed else ():
        message = (
            f"{plural(changed.requests, 'request')} of the traffic became looser: {kind.before} "
            f"by `{kind.rule}` before, {kind.after} now"
        )
        yield Unplaced("looser", severity, message)


def _differs(found: Changes) -> bool:
    return bool(found.looser or found.stricter or found.unjudged)


def _versions(old: PolicySet, new: PolicySet) -> dict[str, object]:
    return {
        "old": {"policy": old.name, "revision": old.revision},
        "new": {"policy": new.name, "revision": new.revision},
    }

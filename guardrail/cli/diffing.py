"""`guardrail diff`: what changes from one version of the policies to another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Annotated

import typer

from guardrail.analysis import Changes, compared
from guardrail.cli import options
from guardrail.cli.diff_text import changes_fields, print_changes
from guardrail.cli.diff_traffic import print_over_traffic, traffic_changes_fields
from guardrail.cli.expecting import FAILED, add_thresholds, expected_cases
from guardrail.cli.failures import FINDINGS, INTERRUPTED, OK, reported
from guardrail.cli.figures import plural
from guardrail.cli.findings import Found, findings_of_reading, moment_of, print_found
from guardrail.cli.loading import environment, policy_line
from guardrail.cli.machine import Unplaced
from guardrail.cli.output import Color, Format, Output
from guardrail.cli.policy_findings import with_owners
from guardrail.cli.replaying import ReplayRequest, tell_ties
from guardrail.cli.reporting import write_changes_report
from guardrail.cli.reports import Reports, Results
from guardrail.cli.revisions import load_version
from guardrail.cli.traffic import TrafficFiles, TrafficRun, divisions_of, progress, warn
from guardrail.errors import DataError, Severity
from guardrail.loading import accepted
from guardrail.model.policy import PolicySet
from guardrail.replay.compared_parts import CompareJob, compared_in_parts
from guardrail.replay.comparing import Compared
from guardrail.traffic.mapfile import load_map


@dataclass(slots=True, kw_only=True)
class DiffRequest(ReplayRequest):
    """What was asked for on the command line; `as_of` is in seconds since the epoch.

    `paths` are the old version and the new one.
    """

    as_of: float | None = None
    exit_code: bool = False
    bad_lines: Fraction = Fraction(1, 100)

    @property
    def old(self) -> str:
        """Where the old version is."""
        return self.paths[0]

    @property
    def new(self) -> str:
        """Where the new version is."""
        return self.paths[1]


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
    report: options.Report = None,
    show_identifiers: options.ShowIdentifiers = False,
    store_down: options.StoreDown = False,
    warmup: options.Warmup = "0s",  # type: ignore[assignment]
    bad_lines: options.BadShare = "1%",  # type: ignore[assignment]
    as_of: options.AsOf = None,
    today: options.Today = None,
    workers: options.Workers = 1,
    sample: options.SampleShare = None,
    sample_key: options.SampleKey = "",
    seed_counters: options.SeedCounters = None,
    geo: options.Geo = None,
    by: options.By = None,
    expect: options.Expect = None,
    form: options.Formats = None,
    color: options.ColorOption = Color.AUTO,
) -> None:
    """Tell what became looser and what stricter between two versions of the policies."""
    asked = DiffRequest(
        paths=[old, new],
        as_of=today if as_of is None else as_of,
        today=today,
        exit_code=exit_code,
        traffic=traffic or [],
        map=map,
        store_down=store_down,
        warmup=warmup,
        bad_lines=bad_lines,
        by=by or [],
        expect=expect or [],
        geo=geo,
        report=report,
        show_identifiers=show_identifiers,
        workers=workers,
        sample=sample,
        sample_key=sample_key,
        seed_counters=seed_counters,
    )
    output = Output(color)
    code = reported(
        lambda reports: run_diff(asked, reports), output, form, name="diff", files=asked.files
    )
    raise typer.Exit(code)


def run_diff(asked: DiffRequest, reports: Reports) -> int:
    """Compare two versions, print what changes, and return the exit code."""
    asked.checked()
    old, new = load_version(asked.old), load_version(asked.new, expected=asked.expect)
    found = compared(old, new, moment_of(asked.as_of))
    replayed = _over_traffic(asked, old, new, reports.main) if asked.traffic else None
    met = Found() if replayed is None else _met(replayed, new, asked)

    if asked.report is not None and replayed is not None:
        write_changes_report(
            asked.report, replayed, (old, new), found, met, asked.traffic, asked.show_identifiers
        )

    def text(output: Output, form: Format) -> None:
        if form is Format.FULL:
            output.told("old", policy_line(old))
            output.told("new", policy_line(new))
        print_changes(output, found, form, asked.new)
        if replayed is not None:
            print_over_traffic(output, replayed, new, tables=form is Format.FULL)
            if met.every:
                print_found(output, met, form)
        if asked.report is not None:
            output.told("report", f"written to `{asked.report}`")

    over = None if replayed is None else traffic_changes_fields(replayed, new, met)
    results = Results(
        name="diff",
        text=text,
        fields={**_versions(old, new), **changes_fields(found), "traffic": over},
        findings=[
            *_looser(found, replayed, asked),
            *(one for one in met.every if one.code != FAILED),
        ],
        cases=list(expected_cases(None if replayed is None else replayed.after)),
        failures=[one for one in met.every if one.code == FAILED],
    )
    reports.tell(results)
    if replayed is not None and replayed.after.interrupted is not None:
        return INTERRUPTED
    differs = _differs(found) or (replayed is not None and bool(replayed.figures.kinds))
    return FINDINGS if results.failed or (asked.exit_code and differs) else OK


def _met(replayed: Compared, new: PolicySet, asked: DiffRequest) -> Found:
    """Return what makes a comparison over traffic doubtful, and expectations that fail."""
    found = findings_of_reading(replayed.after, new, asked.bad_lines)
    add_thresholds(found, replayed.after)
    located, found.ignored = accepted(new, found.located, moment_of(asked.as_of))
    found.located = with_owners(located, new)
    return found


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
        if asked.map is not None:
            load_map(asked.map, new)
        job = CompareJob(
            versions=(
                partial(load_version, asked.old),
                partial(load_version, asked.new, expected=asked.expect),
            ),
            revisions=(old.revision, new.revision),
            traffic=tuple(asked.traffic),
            map=asked.map,
            warmup=asked.warmup,
            geo=asked.geo,
            environ=dict(environment()),
            divisions=tuple(divisions),
            reports=asked.report is not None,
            sample=asked.sampled,
            seed=asked.seed_counters,
            today=asked.today,
            store_down=asked.store_down,
        )
        if asked.workers > 1:
            found = compared_in_parts(
                job,
                (old, new),
                asked.workers,
                lambda ties: tell_ties(ties, [old, new], asked.workers, output),
            )
        else:
            with progress(output, files) as tick:
                found = job.compared(job.standing((old, new)), files, tick)
    for run in (found.before, found.after):
        warn(output, run)
    if found.after.faults:
        raise DataError(f"traffic could not be read to its end: {found.after.faults[0]}")
    if not found.figures.requests and found.after.interrupted is None:
        raise DataError(_nothing_compared(found.after))
    return found


def _nothing_compared(run: TrafficRun) -> str:
    if run.warmed:
        return "no request is left after the warm-up to compare decisions on"
    if run.passed_over:
        return "the sample drew no account: take a larger `--sample`"
    told = "the traffic has no readable line to compare decisions on"
    for file, line, reason in run.bad.first[:1]:
        told += f": {file}:{line}: {reason}"
    return told


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

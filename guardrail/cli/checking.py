"""`guardrail check`: load the policies, run their tests, replay traffic through them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction

import typer

from guardrail.cli import options
from guardrail.cli.bound_text import ACCOUNTS, worst_fields, worst_lines
from guardrail.cli.excerpts import diagnostic_fields
from guardrail.cli.failures import FINDINGS, OK, ended
from guardrail.cli.figures import columns, plural
from guardrail.cli.findings import (
    Found,
    findings_of_policies,
    findings_of_traffic,
    known_doors,
    moment_of,
    print_found,
)
from guardrail.cli.inert import shortened
from guardrail.cli.loading import environment, load, policy_line
from guardrail.cli.output import Color, Format, Output
from guardrail.cli.reporting import write_report
from guardrail.cli.tests_text import (
    coverage,
    coverage_fields,
    parts_lines,
    print_tests,
    print_tests_concise,
    result_fields,
)
from guardrail.cli.traffic import TrafficFiles, TrafficRun, run_traffic
from guardrail.cli.traffic_json import traffic_fields
from guardrail.cli.traffic_text import print_traffic
from guardrail.engine import Bound, Fleet, bounds
from guardrail.errors import SettingError
from guardrail.guard import Guard
from guardrail.guard.loading import MEMORY
from guardrail.loading import accepted
from guardrail.model.policy import PolicySet
from guardrail.replay.down import DownStore
from guardrail.replay.records import DecisionFile
from guardrail.replay.report import ReportFigures
from guardrail.scenarios import SuiteResult, run_suite
from guardrail.traffic.mapfile import load_map


@dataclass(slots=True, kw_only=True)
class CheckRequest:
    """What was asked for on the command line; `warmup` is in seconds."""

    paths: list[str]
    traffic: list[str] = field(default_factory=list)
    map: str | None = None
    decisions: str | None = None
    store: str = MEMORY
    store_down: bool = False
    warmup: float = 0.0
    geo: str | None = None
    allow_empty: bool = False
    bad_lines: Fraction = Fraction(1, 100)
    doors: list[str] = field(default_factory=list)
    as_of: float | None = None
    report: str | None = None
    show_identifiers: bool = False


def check(
    paths: options.Paths,
    traffic: options.Traffic = None,
    map: options.Map = None,
    decisions: options.Decisions = None,
    report: options.Report = None,
    show_identifiers: options.ShowIdentifiers = False,
    store: options.StoreUri = MEMORY,
    store_down: options.StoreDown = False,
    warmup: options.Warmup = "0s",  # type: ignore[assignment]
    bad_lines: options.BadShare = "1%",  # type: ignore[assignment]
    door: options.Doors = None,
    as_of: options.AsOf = None,
    geo: options.Geo = None,
    form: options.FormatOption = Format.FULL,
    color: options.ColorOption = Color.AUTO,
    allow_empty: options.AllowEmpty = False,
) -> None:
    """Load policies, run their tests, and replay recorded traffic through them."""
    asked = CheckRequest(
        paths=paths,
        traffic=traffic or [],
        map=map,
        decisions=decisions,
        store=store,
        store_down=store_down,
        warmup=warmup,
        geo=geo,
        allow_empty=allow_empty,
        bad_lines=bad_lines,
        doors=door or [],
        as_of=as_of,
        report=report,
        show_identifiers=show_identifiers,
    )
    output = Output(color, results_to_stderr=decisions == "-")
    not_run = "; tests were not run" if not traffic else "; tests and traffic were not run"
    run = lambda: run_check(asked, output, form)  # noqa: E731
    code = ended(run, output, form, not_run=not_run, allow_empty=allow_empty)
    raise typer.Exit(code)


def run_check(asked: CheckRequest, output: Output, form: Format) -> int:
    """Run every stage, print what they found, and return the exit code."""
    _store_is_one(asked)
    _report_is_of_traffic(asked)
    known_doors(asked.doors)
    policies = load(asked.paths)
    with ExitStack() as closing:
        # A traffic file, map or output that is not usable is said before anything takes long.
        files = TrafficFiles(asked.traffic, closing) if asked.traffic else None
        mapping = load_map(asked.map, policies) if asked.map is not None else None
        suite = run_suite(policies, asked.geo)
        if form is not Format.JSON:
            _print_tests(output, suite, policies, form)
        bounded = bounds(policies, Fleet(accounts=ACCOUNTS), moment_of(asked.as_of))
        if form is Format.FULL:
            _print_bounds(output, bounded)
        run = None
        if files is not None:
            writer = None
            if asked.decisions is not None:
                _keep_apart("--decisions", asked.decisions, asked.traffic)
                writer = closing.enter_context(DecisionFile(asked.decisions, policies))
            guard = closing.enter_context(_scratch_guard(policies, asked))
            figures = ReportFigures(policies) if asked.report is not None else None
            run = run_traffic(
                guard, policies, files, mapping, asked.warmup, writer, output, figures
            )
    found = _findings(policies, suite, run, asked)
    if asked.report is not None and run is not None:
        write_report(asked.report, run, policies, found, asked.traffic, asked.show_identifiers)
    if form is Format.JSON:
        output.json({**_fields(policies, suite, run, found), "bounds": worst_fields(bounded)})
    else:
        if run is not None:
            print_traffic(output, run, policies, tables=form is Format.FULL)
        print_found(output, found, form)
        if asked.report is not None:
            output.line(("report   ", "bold"), f"written to `{shortened(asked.report)}`")
    return FINDINGS if found.any else OK


def _store_is_one(asked: CheckRequest) -> None:
    if not asked.store_down:
        return
    if not asked.traffic:
        raise SettingError("`--store-down` replays traffic: give it with `--traffic`")
    if asked.store != MEMORY:
        raise SettingError("`--store-down` replays without a store: leave `--store` out")


def _report_is_of_traffic(asked: CheckRequest) -> None:
    if asked.report is not None:
        if not asked.traffic:
            raise SettingError("`--report` tells of traffic: give it with `--traffic`")
        _keep_apart("--report", asked.report, asked.traffic)


def _keep_apart(option: str, out: str, traffic: list[str]) -> None:
    for path in traffic:
        if "-" not in (out, path) and os.path.exists(out) and os.path.samefile(out, path):
            raise SettingError(f"`{option} {out}` would overwrite the traffic")


def _scratch_guard(policies: PolicySet, asked: CheckRequest) -> Guard:
    """Return a guard whose counters are nobody else's, whatever store they are in."""
    return Guard.from_policies(
        policies,
        store=DownStore() if asked.store_down else asked.store,
        geo=asked.geo,
        namespace=f"{policies.name}.check-{secrets.token_hex(8)}",
        environ=environment(),
    )


def _findings(
    policies: PolicySet, suite: SuiteResult, run: TrafficRun | None, asked: CheckRequest
) -> Found:
    now = moment_of(asked.as_of)
    result = findings_of_policies(policies, suite, asked.doors, now, asked.geo)
    found: list[str] = []
    empty: list[str] = []
    if suite.failed:
        found.append(f"{suite.failed:,} of {plural(len(suite.results), 'test')} failed")
    if run is None and not suite.results:
        empty.append("nothing to check: the policies have no tests, and no `--traffic` was given")
    if run is not None:
        if not run.readable:
            empty.append("the traffic has no readable line")
        elif not run.tally.requests:
            empty.append("no request is left after the warm-up")
        found += [f"traffic could not be read to its end: {fault}" for fault in run.faults]
        traffic = findings_of_traffic(run, policies, asked.bad_lines)
        located, ignored = accepted(policies, traffic.located, now)
        result.located += located
        result.ignored += ignored
        found += traffic.sentences
    result.sentences = found if asked.allow_empty else found + empty
    return result


def _print_tests(output: Output, suite: SuiteResult, policies: PolicySet, form: Format) -> None:
    output.line(("policy   ", "bold"), policy_line(policies))
    if not suite.results:
        output.line(("tests    ", "bold"), "none")
        return
    total, failed = len(suite.results), suite.failed
    counts = f"{total - failed:,} passed" + (f", {failed:,} failed" if failed else "")
    output.line(
        ("tests    ", "bold"), f"{counts}; rules that decided a test: {coverage(suite, policies)}"
    )
    for line in parts_lines(suite, policies):
        output.line(" " * 9, line)
    if failed and form is Format.CONCISE:
        print_tests_concise(output, suite)
    elif failed:
        output.line()
        print_tests(output, suite, policies, failed_only=True)
        output.line()


def _print_bounds(output: Output, bounded: Sequence[Bound]) -> None:
    told = f"the most that {ACCOUNTS:,} accounts can take (`guardrail bound` tells why)"
    output.line(("bound    ", "bold"), told)
    for line in columns(list(worst_lines(bounded)), (False, False)):
        output.line(" " * 9, line)


def _fields(
    policies: PolicySet, suite: SuiteResult, run: TrafficRun | None, found: Found
) -> dict[str, object]:
    return {
        "loaded": True,
        "policy": policies.name,
        "revision": policies.revision,
        "files": list(policies.files),
        "tests": [result_fields(entry) for entry in suite.results],
        "traffic": None if run is None else traffic_fields(run, policies),
        "coverage": coverage_fields(suite, policies),
        "warnings": [diagnostic_fields(one) for one in found.located],
        "ignored": [diagnostic_fields(one) for one in found.ignored],
        "findings": found.told(),
    }

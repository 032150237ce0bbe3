"""`guardrail check`: load the policies, run their tests, replay traffic through them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction

import typer

from guardrail.analysis import Bound, Fleet, Proof, bounds, proved
from guardrail.cli import options
from guardrail.cli.bound_text import ACCOUNTS, worst_fields, worst_lines
from guardrail.cli.claims_text import open_line, proof_fields, proof_findings, proofs_line
from guardrail.cli.expecting import (
    FAILED,
    add_thresholds,
    expected_cases,
    expected_fields,
    expected_line,
    print_expected,
)
from guardrail.cli.failures import FINDINGS, INTERRUPTED, OK, reported
from guardrail.cli.figures import columns, plural
from guardrail.cli.findings import (
    FAILED_TESTS,
    Found,
    findings_of_policies,
    findings_of_traffic,
    known_doors,
    moment_of,
    print_found,
    print_notes,
)
from guardrail.cli.harm_text import print_harm
from guardrail.cli.loading import load, policy_line
from guardrail.cli.machine import finding_fields
from guardrail.cli.options import FailOn
from guardrail.cli.output import Color, Format, Output
from guardrail.cli.policy_findings import (
    Setting,
    comments_without_use,
    failed_tests,
    with_excerpts,
    with_owners,
)
from guardrail.cli.replaying import ReplayRequest, replay, write_shard
from guardrail.cli.reporting import write_report
from guardrail.cli.reports import Reports, Results
from guardrail.cli.tests_text import (
    coverage_fields,
    print_tests,
    print_tests_concise,
    print_unreached,
    result_fields,
    test_cases,
    tests_line,
)
from guardrail.cli.traffic import TrafficFiles, TrafficRun, divisions_of
from guardrail.cli.traffic_json import traffic_fields
from guardrail.cli.traffic_text import (
    ceiling_lines,
    hinge_lines,
    print_head,
    print_remarks,
    print_tables,
    print_unreadable,
    remarks,
)
from guardrail.errors import Severity
from guardrail.guard.loading import MEMORY
from guardrail.loading import accepted
from guardrail.model.policy import PolicySet
from guardrail.replay.records import DecisionFile
from guardrail.scenarios import SuiteResult, run_suite
from guardrail.traffic.mapfile import load_map


@dataclass(slots=True, kw_only=True)
class CheckRequest(ReplayRequest):
    """What was asked for on the command line."""

    allow_empty: bool = False
    bad_lines: Fraction = Fraction(1, 100)
    missing: Fraction = Fraction(1, 20)
    doors: list[str] = field(default_factory=list)
    as_of: float | None = None
    fail_on: FailOn = FailOn.WARN


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a check: of each stage that was run."""

    policies: PolicySet
    suite: SuiteResult
    bounded: Sequence[Bound]
    run: TrafficRun | None
    found: Found
    proofs: Sequence[Proof]
    report: str | None = None
    """The file that a page about it was written to."""


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
    missing: options.Missing = "5%",  # type: ignore[assignment]
    door: options.Doors = None,
    as_of: options.AsOf = None,
    today: options.Today = None,
    workers: options.Workers = 1,
    shard: options.ShardOf = None,
    result: options.ResultFile = None,
    sample: options.SampleShare = None,
    sample_key: options.SampleKey = "",
    seed_counters: options.SeedCounters = None,
    save_counters: options.SaveCounters = None,
    geo: options.Geo = None,
    by: options.By = None,
    expect: options.Expect = None,
    form: options.Formats = None,
    fail_on: options.FailOnOption = FailOn.WARN,
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
        missing=missing,
        doors=door or [],
        as_of=today if as_of is None else as_of,
        today=today,
        by=by or [],
        expect=expect or [],
        fail_on=fail_on,
        workers=workers,
        shard=shard,
        result=result,
        sample=sample,
        sample_key=sample_key,
        seed_counters=seed_counters,
        save_counters=save_counters,
        report=report,
        show_identifiers=show_identifiers,
    )
    output = Output(color, results_to_stderr=decisions == "-")
    not_run = "; tests were not run" if not traffic else "; tests and traffic were not run"
    code = reported(
        lambda reports: run_check(asked, output, reports),
        output,
        form,
        not_run=not_run,
        allow_empty=allow_empty,
        files=asked.files,
    )
    raise typer.Exit(code)


def run_check(
    asked: CheckRequest, output: Output, reports: Reports, run: TrafficRun | None = None
) -> int:
    """Run every stage, tell what they found, and return the exit code.

    A `run` of traffic that there is already is reported instead of replaying any.
    """
    if run is None:
        asked.checked()
    if asked.shard is not None:
        policies = load(asked.paths, expected=asked.expect)
        asked.divisions = divisions_of(asked.by, policies)
        output.told("traffic", write_shard(asked, policies, output))
        return OK
    checked = run_stages(asked, output, run)
    results = check_results(checked, asked.fail_on.severity)
    reports.tell(results)
    if checked.run is not None and checked.run.interrupted is not None:
        return INTERRUPTED
    return FINDINGS if results.failed else OK


def run_stages(asked: CheckRequest, output: Output, run: TrafficRun | None = None) -> Checked:
    """Run every stage and return what they found; progress and warnings go to `output`."""
    known_doors(asked.doors)
    policies = load(asked.paths, linted=True, expected=asked.expect)
    asked.divisions = divisions_of(asked.by, policies)
    with ExitStack() as closing:
        # A traffic file, map or output that is not usable is said before anything takes long.
        files = TrafficFiles(asked.traffic, closing) if asked.traffic else None
        mapping = load_map(asked.map, policies) if asked.map is not None else None
        suite = run_suite(policies, asked.geo)
        proofs = proved(policies, moment_of(asked.as_of))
        bounded = bounds(policies, Fleet(accounts=ACCOUNTS), moment_of(asked.as_of))
        if files is not None:
            writer = None
            if asked.decisions is not None:
                writer = closing.enter_context(DecisionFile(asked.decisions, policies))
            run = replay(asked, policies, files, mapping, writer, output)
    found = _findings(policies, suite, run, asked, proofs)
    if asked.report is not None and run is not None:
        write_report(asked.report, run, policies, found, asked.traffic, asked.show_identifiers)
    return Checked(policies, suite, bounded, run, found, proofs, asked.report)


def check_results(checked: Checked, fail_on: Severity) -> Results:
    """Return what a check has to tell, in every format."""
    found = checked.found
    return Results(
        name="check",
        text=lambda output, form: _print(output, checked, form),
        fields={**_fields(checked), "bounds": worst_fields(checked.bounded)},
        findings=[one for one in found.every if one.code not in (FAILED_TESTS, FAILED)],
        cases=[*test_cases(checked.suite), *expected_cases(checked.run)],
        failures=[
            *failed_tests(checked.suite),
            *(one for one in found.every if one.code == FAILED),
        ],
        fail_on=fail_on,
    )


def _findings(
    policies: PolicySet,
    suite: SuiteResult,
    run: TrafficRun | None,
    asked: CheckRequest,
    proofs: Sequence[Proof],
) -> Found:
    now = moment_of(asked.as_of)
    found = findings_of_policies(policies, suite, asked.doors, now, asked.geo)
    failed, accepted_claims = accepted(policies, proof_findings(proofs, asked.paths), now)
    found.located += with_excerpts(failed)
    found.ignored += accepted_claims
    if asked.fail_on is FailOn.NOTE:
        found.mildest = Severity.NOTE
    if suite.failed:
        message = f"{suite.failed:,} of {plural(len(suite.results), 'test')} failed"
        found.add(FAILED_TESTS, message, severity=Severity.ERROR)
    empty: list[str] = []
    if run is None and not suite.results and not proofs:
        empty.append("nothing to check: no tests and no claims, and no `--traffic` was given")
    if run is not None:
        if not run.readable and run.passed_over:
            empty.append("the sample drew no account: take a larger `--sample`")
        elif not run.readable:
            empty.append("the traffic has no readable line")
        elif not run.tally.requests:
            empty.append("no request is left after the warm-up")
        for fault in run.faults:
            message = f"traffic could not be read to its end: {fault}"
            found.add("damaged-traffic", message, severity=Severity.ERROR)
        traffic = findings_of_traffic(run, policies, asked.bad_lines, asked.missing)
        add_thresholds(traffic, run)
        located, ignored = accepted(policies, traffic.located, now)
        found.located += located
        found.ignored += ignored
        found.unplaced += traffic.unplaced
    setting = Setting(now=now, doors=asked.doors)
    found.located += comments_without_use(policies, found.ignored, setting, traffic=run is not None)
    found.located = with_owners(found.located, policies)
    for message in () if asked.allow_empty else empty:
        found.add("nothing-to-check", message, severity=Severity.ERROR)
    return found


def _print(output: Output, checked: Checked, form: Format) -> None:
    policies, suite, run = checked.policies, checked.suite, checked.run
    output.told("policy", policy_line(policies))
    if run is not None:
        print_head(output, run, policies)
    output.told("tests", tests_line(suite, policies))
    expected = expected_line(policies, run)
    if expected is not None:
        output.told("expect", expected)
    if checked.proofs:
        output.told("proved", proofs_line(checked.proofs))
    left = open_line([*checked.found.located, *checked.found.ignored])
    if left is not None:
        output.told("open", left, "yellow")
    print_notes(output, checked.found)
    if suite.failed and form is Format.CONCISE:
        print_tests_concise(output, suite)
    elif suite.failed:
        output.line()
        print_tests(output, suite, policies, failed_only=True)
    if form is Format.FULL:
        if run is not None and run.tally.requests:
            print_expected(output, run)
            print_tables(output, run, policies)
            print_harm(output, run)
        if run is not None:
            told = (*remarks(run, policies), *hinge_lines(run), *ceiling_lines(run))
            print_remarks(output, run, told)
        _print_bounds(output, checked.bounded)
        print_unreached(output, suite, policies)
    elif run is not None:
        print_unreadable(output, run)
    print_found(output, checked.found, form)
    if checked.report is not None:
        output.told("report", f"written to `{checked.report}`")


def _print_bounds(output: Output, bounded: Sequence[Bound]) -> None:
    output.line()
    output.line((f"the most that {ACCOUNTS:,} accounts can take (`guardrail bound`)", "bold"))
    rows = list(worst_lines(bounded))
    output.lines(columns(rows, (False, False), cells=output.width - 2))


def _fields(checked: Checked) -> dict[str, object]:
    policies, suite, run, found = checked.policies, checked.suite, checked.run, checked.found
    return {
        "loaded": True,
        "policy": policies.name,
        "revision": policies.revision,
        "files": list(policies.files),
        "tests": [result_fields(entry) for entry in suite.results],
        "traffic": None if run is None else traffic_fields(run, policies),
        "expected": expected_fields(run),
        "claims": [proof_fields(proof) for proof in checked.proofs],
        "coverage": coverage_fields(suite, policies),
        "warnings": [finding_fields(one) for one in found.located],
        "unplaced": [finding_fields(one) for one in found.unplaced],
        "ignored": [finding_fields(one) for one in found.ignored],
        "findings": found.told(),
    }

"""`guardrail test`: run the tests that stand beside the rules."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from guardrail.analysis import Proof, proved
from guardrail.cli import options
from guardrail.cli.claims_text import proof_fields, proof_findings, proofs_line
from guardrail.cli.excerpts import print_diagnostics
from guardrail.cli.failures import FINDINGS, OK, reported
from guardrail.cli.figures import plural
from guardrail.cli.files import Files
from guardrail.cli.findings import moment_of
from guardrail.cli.inert import wrapped
from guardrail.cli.loading import load
from guardrail.cli.machine import Unplaced, finding_fields
from guardrail.cli.options import FailOn
from guardrail.cli.output import Color, Format, Output
from guardrail.cli.policy_findings import failed_tests
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
from guardrail.errors import Diagnostic, Severity
from guardrail.loading import accepted
from guardrail.model.policy import PolicySet
from guardrail.scenarios import SuiteResult, run_suite, suite_findings

_NONE = "there are no tests: write some under `tests:`, or in a `*_test.yaml`"


def run_policy_tests(
    paths: options.Paths,
    geo: options.Geo = None,
    as_of: options.AsOf = None,
    form: options.Formats = None,
    fail_on: options.FailOnOption = FailOn.WARN,
    color: options.ColorOption = Color.AUTO,
    allow_empty: options.AllowEmpty = False,
) -> None:
    """Run the tests in policy files, and tell which rules no test decided."""

    def run(reports: Reports) -> int:
        policies = load(paths)
        suite = run_suite(policies, geo)
        now = moment_of(as_of)
        proofs = proved(policies, now)
        every = [*suite_findings(policies, suite, now, geo), *proof_findings(proofs, paths)]
        found, _ = accepted(policies, every, now)
        results = _results(policies, suite, found, proofs, fail_on, allow_empty)
        reports.tell(results)
        return FINDINGS if results.failed else OK

    output = Output(color)
    not_run = "; tests were not run"
    files = Files(reads={"the policies": paths, "the country database": [geo]})
    raise typer.Exit(
        reported(
            run, output, form, name="test", not_run=not_run, allow_empty=allow_empty, files=files
        )
    )


def _results(
    policies: PolicySet,
    suite: SuiteResult,
    found: list[Diagnostic],
    proofs: Sequence[Proof],
    fail_on: FailOn,
    allow_empty: bool,
) -> Results:
    empty = []
    if not suite.results and not proofs and not allow_empty:
        empty.append(Unplaced("nothing-to-check", Severity.ERROR, _NONE))
    return Results(
        name="test",
        text=lambda output, form: _print(output, policies, suite, found, proofs, form),
        fields={
            "loaded": True,
            "tests": [result_fields(entry) for entry in suite.results],
            **coverage_fields(suite, policies),
            "claims": [proof_fields(proof) for proof in proofs],
            "warnings": [finding_fields(one) for one in found],
        },
        findings=[*found, *empty],
        cases=list(test_cases(suite)),
        failures=list(failed_tests(suite)),
        fail_on=fail_on.severity,
    )


def _print(
    output: Output,
    policies: PolicySet,
    suite: SuiteResult,
    found: list[Diagnostic],
    proofs: Sequence[Proof],
    form: Format,
) -> None:
    if not suite.results:
        output.lines(wrapped(_NONE, output.width), 0)
    elif form is Format.CONCISE:
        print_tests_concise(output, suite)
    else:
        print_tests(output, suite, policies)
        print_unreached(output, suite, policies)
        output.line()
    if suite.results:
        told = f"{plural(len(suite.results), 'test')}: {tests_line(suite, policies)}"
        output.lines(wrapped(told, output.width), 0)
    if proofs:
        output.line(proofs_line(proofs))
    if found:
        output.line()
        print_diagnostics(output, tuple(found), form)

"""`guardrail test`: run the tests that stand beside the rules."""

from __future__ import annotations

import typer

from guardrail.analysis import proved
from guardrail.cli import options
from guardrail.cli.claims_text import proof_fields, proof_findings, proofs_line
from guardrail.cli.excerpts import diagnostic_fields, print_diagnostics
from guardrail.cli.failures import FINDINGS, OK, ended
from guardrail.cli.findings import moment_of
from guardrail.cli.loading import load
from guardrail.cli.output import Color, Format, Output
from guardrail.cli.tests_text import (
    coverage_fields,
    parts_lines,
    print_tests,
    print_tests_concise,
    result_fields,
    summary,
)
from guardrail.loading import accepted
from guardrail.scenarios import run_suite, suite_findings


def run_policy_tests(
    paths: options.Paths,
    geo: options.Geo = None,
    as_of: options.AsOf = None,
    form: options.FormatOption = Format.FULL,
    color: options.ColorOption = Color.AUTO,
    allow_empty: options.AllowEmpty = False,
) -> None:
    """Run the tests in policy files, and tell which rules no test decided."""
    output = Output(color)
    run = lambda: print_results(paths, geo, as_of, output, form, allow_empty)  # noqa: E731
    raise typer.Exit(
        ended(run, output, form, not_run="; tests were not run", allow_empty=allow_empty)
    )


def print_results(
    paths: list[str],
    geo: str | None,
    as_of: float | None,
    output: Output,
    form: Format,
    allow_empty: bool,
) -> int:
    """Run every test, print how they went, and return the exit code."""
    policies = load(paths)
    suite = run_suite(policies, geo)
    now = moment_of(as_of)
    proofs = proved(policies, now)
    every = [*suite_findings(policies, suite, now, geo), *proof_findings(proofs, paths)]
    found, _ = accepted(policies, every, now)
    if form is Format.JSON:
        results = [result_fields(entry) for entry in suite.results]
        output.json(
            {
                "loaded": True,
                "tests": results,
                **coverage_fields(suite, policies),
                "claims": [proof_fields(proof) for proof in proofs],
                "warnings": [diagnostic_fields(one) for one in found],
            }
        )
    elif not suite.results:
        output.line("there are no tests: write some under `tests:`, or in a `*_test.yaml`")
    else:
        if form is Format.CONCISE:
            print_tests_concise(output, suite)
        else:
            print_tests(output, suite, policies)
        output.line(summary(suite, policies))
        if form is Format.FULL:
            for line in parts_lines(suite, policies):
                output.line(line[0].upper() + line[1:])
        if proofs:
            output.line(proofs_line(proofs))
        if found:
            output.line()
            print_diagnostics(output, tuple(found), form)
    if not suite.results:
        return OK if allow_empty else FINDINGS
    return FINDINGS if suite.failed or found else OK

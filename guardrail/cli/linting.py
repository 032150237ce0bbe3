"""`guardrail lint`: what policies that load most likely do not mean, and what their tests miss."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from guardrail.analysis import proved
from guardrail.cli import options
from guardrail.cli.claims_text import open_line, proof_findings
from guardrail.cli.excerpts import counted, print_diagnostics
from guardrail.cli.failures import FINDINGS, OK, reported
from guardrail.cli.files import Files
from guardrail.cli.findings import known_doors, moment_of, print_accepted
from guardrail.cli.loading import load, policy_line
from guardrail.cli.machine import finding_fields
from guardrail.cli.output import Color, Format, Output
from guardrail.cli.policy_findings import (
    PolicyFindings,
    Setting,
    comments_without_use,
    failed_tests,
    policy_findings,
    with_excerpts,
    with_owners,
)
from guardrail.cli.reports import Reports, Results
from guardrail.errors import Severity
from guardrail.loading import accepted
from guardrail.model.policy import PolicySet
from guardrail.scenarios import run_suite
from guardrail.stores.opening import known_store


@dataclass(frozen=True, slots=True, kw_only=True)
class LintRequest:
    """What was asked for on the command line; `fail_on` is the mildest finding that fails."""

    paths: list[str]
    setting: Setting
    fail_on: Severity


def lint(
    paths: options.Paths,
    fail_on: options.FailOnOption = options.FailOn.WARN,
    door: options.Doors = None,
    store: options.LintedStore = None,
    as_of: options.AsOf = None,
    geo: options.Geo = None,
    form: options.Formats = None,
    color: options.ColorOption = Color.AUTO,
) -> None:
    """Tell what policies that load most likely do not mean."""
    output = Output(color)
    setting = Setting(now=moment_of(as_of), doors=door or [], store=store, geo=geo)
    asked = LintRequest(paths=paths, setting=setting, fail_on=fail_on.severity)
    files = Files(reads={"the policies": paths, "the country database": [geo]})
    code = reported(
        lambda reports: run_lint(asked, reports), output, form, name="lint", files=files
    )
    raise typer.Exit(code)


def run_lint(asked: LintRequest, reports: Reports) -> int:
    """Look at the policies, print what is found, and return the exit code."""
    known_doors(asked.setting.doors)
    if asked.setting.store is not None:
        known_store(asked.setting.store)
    policies = load(asked.paths, linted=True)
    suite = run_suite(policies, asked.setting.geo)
    made = policy_findings(policies, suite, asked.setting)
    claims = proof_findings(proved(policies, asked.setting.now), asked.paths)
    failed, taken = accepted(policies, claims, asked.setting.now)
    made.found += [*failed_tests(suite), *failed]
    made.ignored += taken
    made.found += comments_without_use(policies, made.ignored, asked.setting, traffic=False)
    made.found = sorted(
        with_excerpts(with_owners(made.found, policies)), key=lambda one: one.sort_key
    )
    results = Results(
        name="lint",
        text=lambda output, form: _print(output, form, policies, made),
        fields=_fields(policies, made),
        findings=made.found,
        fail_on=asked.fail_on,
    )
    reports.tell(results)
    return FINDINGS if results.failed else OK


def _print(output: Output, form: Format, policies: PolicySet, made: PolicyFindings) -> None:
    if form is Format.FULL:
        output.told("policy", policy_line(policies))
        print_accepted(output, made.ignored)
        left = open_line([*made.found, *made.ignored])
        if left is not None:
            output.told("open", left, "yellow")
        output.line()
    print_diagnostics(output, tuple(made.found), form)
    if made.found:
        output.line(counted(tuple(made.found)))
    else:
        output.line(("no findings", "green"))


def _fields(policies: PolicySet, made: PolicyFindings) -> dict[str, object]:
    return {
        "loaded": True,
        "policy": policies.name,
        "revision": policies.revision,
        "files": list(policies.files),
        "findings": [finding_fields(one) for one in made.found],
        "ignored": [finding_fields(one) for one in made.ignored],
    }

"""The policy's own tests as text: what passed, and what came instead of what was expected."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from guardrail.cli.figures import columns, length, plural
from guardrail.cli.inert import shortened
from guardrail.cli.output import Output
from guardrail.cli.story_text import rule_lines
from guardrail.model.effects import Mode
from guardrail.model.policy import PolicySet
from guardrail.scenarios import Mismatch, ScenarioResult, SuiteResult, undecided_rules

_SHOWN_RULES = 20


def print_tests(
    output: Output, suite: SuiteResult, policies: PolicySet, *, failed_only: bool = False
) -> None:
    """Print tests file by file, each failed one with its difference."""
    results = [found for found in suite.results if found.mismatch or not failed_only]
    for file, group in groupby(results, key=lambda found: found.scenario.span.file):
        output.line((shortened(file), "bold"))
        entries = list(group)
        lines = columns([_cells(entry) for entry in entries], (False, False, False))
        for entry, line in zip(entries, lines, strict=True):
            output.line("  ", (line, "red" if entry.mismatch else ""))
            for detail in _details(entry, policies):
                output.line(" " * 8, detail)


def print_tests_concise(output: Output, suite: SuiteResult) -> None:
    """Print a line for each failed test."""
    for entry in suite.results:
        if entry.mismatch is not None:
            differences = "; ".join(
                f"expected {shortened(wanted)}, got {shortened(got)}"
                for wanted, got in entry.mismatch.differences
            )
            place = shortened(str(entry.mismatch.expectation.span), 200)
            output.line(
                (place, "bold"),
                ": test ",
                ("[error]", "red"),
                f" `{shortened(entry.scenario.name)}`: {differences}",
            )


def summary(suite: SuiteResult, policies: PolicySet) -> str:
    """Return the tests in one line: how many passed, which rules decided none."""
    total, failed = len(suite.results), suite.failed
    counts = f"{plural(total, 'test')}: {total - failed:,} passed, {failed:,} failed"
    return f"{counts}. Rules that decided a test: {coverage(suite, policies)}"


def coverage(suite: SuiteResult, policies: PolicySet) -> str:
    """Return how many rules decided a test: `1 of 3 (never: a, b)`."""
    never = undecided_rules(policies, suite.decided)
    rules = sum(rule.mode is not Mode.OFF for rule in policies.rules)
    text = f"{rules - len(never)} of {rules}"
    if not never:
        return text
    shown = ", ".join(shortened(name) for name in never[:_SHOWN_RULES])
    more = len(never) - _SHOWN_RULES
    return f"{text} (never: {shown}{f' and {more:,} more' if more > 0 else ''})"


def result_fields(entry: ScenarioResult) -> dict[str, object]:
    """Return a test's result as JSON takes it."""
    span, mismatch = entry.scenario.span, entry.mismatch
    fields: dict[str, object] = {
        "name": entry.scenario.name,
        "file": span.file,
        "line": span.line,
        "passed": mismatch is None,
        "requests": entry.requests,
        "simulated_seconds": entry.simulated,
    }
    if mismatch is not None:
        fields["mismatch"] = {
            "request": mismatch.number,
            "line": mismatch.expectation.span.line,
            "facts": {name: _plain(value) for name, value in mismatch.facts.items()},
            "differences": [
                {"expected": wanted, "got": got} for wanted, got in mismatch.differences
            ],
        }
    return fields


def _cells(entry: ScenarioResult) -> tuple[str, str, str]:
    name = shortened(entry.scenario.name)
    if entry.mismatch is not None:
        span = entry.mismatch.expectation.span
        return "FAIL", name, shortened(f"{span.file.rpartition('/')[2]}:{span.line}")
    spent = f", {length(entry.simulated)} simulated" if entry.simulated else ""
    return "ok", name, f"{plural(entry.requests, 'request')}{spent}"


def _details(entry: ScenarioResult, policies: PolicySet) -> Iterator[str]:
    mismatch = entry.mismatch
    if mismatch is None:
        return
    facts = " ".join(
        f"{shortened(name)}={shortened(value, 40)}" for name, value in mismatch.facts.items()
    )
    number = f"request {mismatch.number}" if entry.requests > 1 else "request"
    yield f"  {number:<9} {facts}"
    for wanted, got in mismatch.differences:
        yield f"- expected  {shortened(wanted, 120)}"
        yield f"+ got       {shortened(got, 120)}"
    yield from (f"  {line}" for line in _reasons(mismatch, policies))


def _reasons(mismatch: Mismatch, policies: PolicySet) -> list[str]:
    """Return how the rules stood that the test names or that decided."""
    if mismatch.decision is None:
        return []
    expect = mismatch.expectation
    named = [expect.by, mismatch.decision.rule, *(expect.shadow or ())]
    named += [report.rule for report in mismatch.decision.shadow] if expect.shadow else []
    only = [name for name in named if name is not None]
    return rule_lines(mismatch.decision.explain(), policies, only)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value

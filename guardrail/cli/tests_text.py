"""The policy's own tests as text: what passed, and what came instead of what was expected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from guardrail.cli.figures import columns, length, plural
from guardrail.cli.inert import shortened
from guardrail.cli.output import Output
from guardrail.cli.story_text import rule_lines
from guardrail.engine import KINDS, Point, points_of
from guardrail.model.effects import Effect, Mode
from guardrail.model.policy import PolicySet
from guardrail.scenarios import (
    Mismatch,
    ScenarioResult,
    SuiteResult,
    possible_effects,
    reasons_of,
    uncovered,
    undecided_rules,
)

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
    return f"{text} (never: {_some(never, ', ')})" if never else text


def parts_lines(suite: SuiteResult, policies: PolicySet) -> Iterator[str]:
    """Yield how many rows, steps and branches a test went through, and which none did.

    An amount in a row that no test reached can be anything, and every test still passes.
    """
    every, never = points_of(policies), uncovered(policies, suite)
    counts = []
    for kind in KINDS:
        total = sum(point.kind == kind for point in every)
        left = sum(point.kind == kind for point in never)
        if total:
            word = f"{kind}es" if kind == "branch" else f"{kind}s"
            counts.append(f"{total - left} of {total} {word}")
    if counts:
        yield f"decided by a test: {', '.join(counts)}"
    by_rule = [
        f"{shortened(rule, 48)} ({_some([shortened(p.text, 60) for p in points], '; ')})"
        for rule, points in ((name, list(group)) for name, group in groupby(never, _rule_of))
    ]
    if by_rule:
        yield f"never: {_some(by_rule, ', ')}"


def coverage_fields(suite: SuiteResult, policies: PolicySet) -> dict[str, object]:
    """Return what the tests went through as JSON takes it."""
    return {
        "rules_without_test": list(undecided_rules(policies, suite.decided)),
        **{
            name: [
                {"rule": point.rule, "text": point.text}
                for point in uncovered(policies, suite)
                if point.kind == kind
            ]
            for kind, name in (
                ("row", "rows_without_test"),
                ("step", "steps_without_test"),
                ("branch", "branches_without_test"),
            )
        },
    }


def _rule_of(point: Point) -> str:
    return point.rule


def _some(names: Sequence[str], separator: str) -> str:
    shown = separator.join(shortened(name, 200) for name in names[:_SHOWN_RULES])
    more = len(names) - _SHOWN_RULES
    return f"{shown} and {more:,} more" if more > 0 else shown


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
    """Return how the rules stood that decided, that the test names, or that could have decided."""
    decision, expect = mismatch.decision, mismatch.expectation
    if decision is None:
        return []
    named = [decision.rule, expect.by, *(expect.shadow or ())]
    named += [report.rule for report in decision.shadow] if expect.shadow is not None else []
    only = list(dict.fromkeys(name for name in named if name is not None))
    if expect.by is None and decision.effect is not expect.effect:
        only += [name for name in candidates(mismatch, policies) if name not in only]
    lines = rule_lines(decision.explain(), policies, only[:_SHOWN_RULES])
    if len(only) > _SHOWN_RULES:
        lines.append(f"and {plural(len(only) - _SHOWN_RULES, 'rule')} more")
    if decision.rule is None and decision.message is not None:
        lines.insert(0, f"{shortened(str(decision.reason))}: {shortened(decision.message, 160)}")
    return lines


def candidates(mismatch: Mismatch, policies: PolicySet) -> tuple[str, ...]:
    """Return the rules that could have had the effect that was expected, by their reason if any.

    Rules in shadow and rules that are off are among them: that may be why they did not.
    """
    expect = mismatch.expectation
    if expect.effect is Effect.ALLOW:
        return ()
    able = [rule for rule in policies.rules if expect.effect in possible_effects(rule)]
    meant = [rule for rule in able if expect.detail in reasons_of(rule)]
    return tuple(rule.id for rule in meant or able)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value

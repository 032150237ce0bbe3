"""The policy's own tests as text: what passed, and what came instead of what was expected."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from guardrail.analysis import KINDS, Point, points_of
from guardrail.cli.figures import columns, first_of, length, plural
from guardrail.cli.inert import padded, shortened, width, wrapped
from guardrail.cli.machine import Case
from guardrail.cli.output import Output
from guardrail.cli.story_text import rule_lines
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
_PARTS = 3


def print_tests(
    output: Output, suite: SuiteResult, policies: PolicySet, *, failed_only: bool = False
) -> None:
    """Print tests file by file, each failed one with its difference."""
    results = [found for found in suite.results if found.mismatch or not failed_only]
    for file, group in groupby(results, key=lambda found: found.scenario.span.file):
        output.line((shortened(file), "bold"))
        entries = list(group)
        cells = [_cells(entry) for entry in entries]
        marks = max(len(mark) for mark, _, _ in cells)
        room = output.width - 4 - marks
        for entry, (mark, name, rest) in zip(entries, cells, strict=True):
            style = "red" if entry.mismatch else ""
            wide = max(width(one) for _, one, _ in cells)
            beside = wide + 2 + max(width(one) for _, _, one in cells) <= room
            told = f"{padded(name, wide)}  {rest}" if beside else f"{name}  {rest}"
            first, *more = wrapped(told, room) if not beside else [told]
            output.line("  ", (f"{padded(mark, marks)}  {first}".rstrip(), style))
            output.lines(more, marks + 6)
            for detail in _details(entry, policies, output.width - 8):
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


def coverage(suite: SuiteResult, policies: PolicySet) -> str:
    """Return how many rules decided a test: `1 of 3`."""
    never = undecided_rules(policies, suite.decided)
    rules = sum(rule.mode is not Mode.OFF for rule in policies.rules)
    return f"{rules - len(never)} of {rules}"


def undecided_line(suite: SuiteResult, policies: PolicySet) -> str | None:
    """Return the rules that decided no test, None where all decided one."""
    never = undecided_rules(policies, suite.decided)
    names = [shortened(name, 200) for name in never]
    return first_of(names, _SHOWN_RULES) if names and suite.results else None


def tests_line(suite: SuiteResult, policies: PolicySet) -> str:
    """Return the tests in one line: how many passed, and what of the rules they went through."""
    if not suite.results:
        return "none"
    total, failed = len(suite.results), suite.failed
    counts = f"{total - failed:,} passed" + (f", {failed:,} failed" if failed else "")
    reached = [f"{coverage(suite, policies)} rules", *_parts(suite, policies)]
    return f"{counts}; they decided {', '.join(reached)}"


def print_unreached(output: Output, suite: SuiteResult, policies: PolicySet) -> None:
    """Print which rules decided no test, and which rows, steps and branches none went through."""
    lines = (
        ("rules that decided no test", undecided_line(suite, policies)),
        ("in rules, not reached by a test", unreached_line(suite, policies)),
    )
    for title, line in lines:
        if line is not None:
            output.line()
            output.line((title, "bold"))
            output.paragraph(line)


def unreached_line(suite: SuiteResult, policies: PolicySet) -> str | None:
    """Return the rows, steps and branches that no test went through, None if there are none.

    An amount in a row that no test reached can be anything, and every test still passes.
    """
    never = uncovered(policies, suite) if suite.results else ()
    by_rule = [
        f"{shortened(rule, 48)} ({first_of([shortened(p.text, 60) for p in points], _PARTS, '; ')})"
        for rule, points in ((name, list(group)) for name, group in groupby(never, _rule_of))
    ]
    return first_of(by_rule, _SHOWN_RULES) if by_rule else None


def _parts(suite: SuiteResult, policies: PolicySet) -> Iterator[str]:
    every, never = points_of(policies), uncovered(policies, suite)
    for kind in KINDS:
        total = sum(point.kind == kind for point in every)
        left = sum(point.kind == kind for point in never)
        if total:
            word = f"{kind}es" if kind == "branch" else f"{kind}s"
            yield f"{total - left} of {total} {word}"


def test_cases(suite: SuiteResult) -> Iterator[Case]:
    """Yield each test as a case of its file, failed ones with their differences."""
    for entry in suite.results:
        span = entry.scenario.span
        yield Case(span.file, entry.scenario.name, span, _difference(entry, "\n"))


def _difference(entry: ScenarioResult, separator: str) -> str | None:
    if entry.mismatch is None:
        return None
    pairs = entry.mismatch.differences
    return separator.join(f"expected {wanted}, got {got}" for wanted, got in pairs)


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


def _details(entry: ScenarioResult, policies: PolicySet, cells: int) -> Iterator[str]:
    mismatch = entry.mismatch
    if mismatch is None:
        return
    facts = " ".join(
        f"{shortened(name)}={shortened(value, 40)}" for name, value in mismatch.facts.items()
    )
    number = f"request {mismatch.number}" if entry.requests > 1 else "request"
    rows = [(f"  {number}", facts)]
    for wanted, got in mismatch.differences:
        rows.append(("- expected", shortened(wanted, 120)))
        rows.append(("+ got", shortened(got, 120)))
    yield from columns(rows, (False, False), cells=cells)
    yield from (f"  {line}" for line in _reasons(mismatch, policies, cells - 2))


def _reasons(mismatch: Mismatch, policies: PolicySet, cells: int) -> list[str]:
    """Return how the rules stood that decided, that the test names, or that could have decided."""
    decision, expect = mismatch.decision, mismatch.expectation
    if decision is None:
        return []
    named = [decision.rule, expect.by, *(expect.shadow or ())]
    named += [report.rule for report in decision.shadow] if expect.shadow is not None else []
    only = list(dict.fromkeys(name for name in named if name is not None))
    if expect.by is None and decision.effect is not expect.effect:
        only += [name for name in candidates(mismatch, policies) if name not in only]
    lines = rule_lines(decision.explain(), policies, only[:_SHOWN_RULES], cells=cells)
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

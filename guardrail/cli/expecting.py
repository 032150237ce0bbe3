"""What traffic was expected to come to, beside what it came to: as text, cases and findings."""

from __future__ import annotations

from collections.abc import Iterator

from guardrail.cli.figures import columns, plural, share
from guardrail.cli.findings import Found
from guardrail.cli.inert import inert, shortened
from guardrail.cli.machine import Case, Unplaced
from guardrail.cli.output import Output
from guardrail.cli.traffic import TrafficRun
from guardrail.errors import finding, severity_of
from guardrail.model.policy import PolicySet
from guardrail.replay.thresholds import Measured

FAILED = "GR502"
EMPTY = "GR503"
_WRITTEN_OUT = "--expect"
_WORDS = {True: "holds", False: "FAILS", None: "shows nothing"}


def measured(run: TrafficRun) -> list[Measured]:
    """Return every expectation with what the traffic came to."""
    return run.tally.expected.measured(run.bad.count, run.bad.count + run.readable)


def add_thresholds(found: Found, run: TrafficRun) -> None:
    """Add a finding for each expectation that fails, or whose segment met no request."""
    for one in measured(run):
        text = inert(one.threshold.text)
        if one.holds is True:
            continue
        if one.holds is None:
            code, message = EMPTY, f"`{text}` shows nothing: {_nothing(one)}"
            help = "mend its condition, or take traffic that holds such requests"
        else:
            code, message = FAILED, f"expected `{text}`, but it is {figures(one)}"
            help = "`guardrail check --by` tells whom it is, and their first refusal"
        span = one.threshold.span
        if span.file == _WRITTEN_OUT:
            found.unplaced.append(Unplaced(code, severity_of(code), message, help))
        else:
            found.located.append(finding(code, message, span, help))


def expected_line(policies: PolicySet, run: TrafficRun | None) -> str | None:
    """Return how many expectations hold, None where there are none."""
    if not policies.thresholds:
        return None
    count = plural(len(policies.thresholds), "expectation")
    if run is None:
        return f"{count} of traffic not looked at: give `--traffic`"
    known = [one.holds for one in measured(run)]
    verb = "holds" if len(known) == 1 else "hold"
    told = f"{known.count(True):,} of {count} of traffic {verb}"
    empty = known.count(None)
    shows = "shows" if empty == 1 else "show"
    return f"{told}; {empty:,} {shows} nothing" if empty else told


def print_expected(output: Output, run: TrafficRun) -> None:
    """Print every expectation with what the traffic came to."""
    known = measured(run)
    if not known:
        return
    rows: list[tuple[str, ...]] = [("expected", "came to", "")]
    for one in known:
        told = figures(one) if one.holds is not None else _nothing(one)
        rows.append((shortened(one.threshold.text, 200), told, _WORDS[one.holds]))
    output.line()
    output.line(("expectations", "bold"))
    output.lines(columns(rows, (False, False, False), cells=output.width - 2))


def expected_cases(run: TrafficRun | None) -> Iterator[Case]:
    """Yield each expectation as a case, those that fail with what came instead."""
    for one in measured(run) if run is not None else ():
        failure = None
        if one.holds is False:
            failure = f"it is {figures(one)}"
        elif one.holds is None:
            failure = _nothing(one)
        span = one.threshold.span
        yield Case(
            "expect", one.threshold.text, None if span.file == _WRITTEN_OUT else span, failure
        )


def expected_fields(run: TrafficRun | None) -> list[dict[str, object]]:
    """Return expectations with what was measured, as JSON takes them."""
    return [
        {
            "text": one.threshold.text,
            "file": one.threshold.span.file,
            "line": one.threshold.span.line,
            "met": one.met,
            "of": one.whole,
            "holds": one.holds,
        }
        for one in (measured(run) if run is not None else ())
    ]


def figures(one: Measured) -> str:
    """Return what was measured: `172 of 8,520 requests (2.02%)`."""
    return f"{one.met:,} of {one.whole:,} {_unit(one)} ({share(one.met, one.whole)})"


def _unit(one: Measured) -> str:
    if one.threshold.measure == "bad_lines":
        return "lines"
    return "accounts" if one.threshold.accounts else "requests"


def _nothing(one: Measured) -> str:
    if one.threshold.measure == "bad_lines":
        return "there are no lines"
    whose = "account" if one.threshold.accounts else "request"
    return f"no {whose} is in its segment"

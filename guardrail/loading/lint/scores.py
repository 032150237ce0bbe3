"""Scores and links that do not add up: points, bounds and times that do nothing together."""

from __future__ import annotations

from collections.abc import Iterator

from guardrail.loading.lint.written import Written, allowances, maps_in
from guardrail.loading.nodes import MapNode, Scalar
from guardrail.loading.text import quoted
from guardrail.model.amounts import without_raises
from guardrail.model.conditions import Comparison, comparisons
from guardrail.model.effects import Mode
from guardrail.model.links import Score

_SCORE = "actor.score"


def lint_scores(written: Written) -> None:
    """Report points that no rule asks for, scores that nobody has, and evidence kept too long."""
    score = written.policies.score
    if score is not None:
        _idle_points(written)
        _out_of_reach(written, score)
    _weak_for_longer(written)


def _tests(written: Written) -> Iterator[Comparison]:
    """Yield every test of a score by which a rule or an exemption acts."""
    for rule in written.policies.rules:
        if rule.mode is not Mode.OFF:
            yield from comparisons(rule.when)
    for exemption in written.policies.exemptions:
        yield from comparisons(exemption.when)


# GR236: points of a score beyond what any rule asks for.


def _idle_points(written: Written) -> None:
    tests = [test for test in _tests(written) if test.fact == _SCORE]
    amounts = (amount for rule in written.policies.rules for _, amount in allowances(rule))
    read = any(getattr(without_raises(amount), "fact", "") == _SCORE for amount in amounts)
    bounds = [test.operand for test in tests if isinstance(test.operand, int | float)]
    if read or not bounds or len(bounds) < len(tests):
        return
    most = max(bounds)
    for _, section in written.sections("score"):
        for node in maps_in(section):
            points = node.get("points")
            if not isinstance(points, Scalar) or not isinstance(points.value, int):
                continue
            # A test for more than a bound takes one point more.
            if points.value > most + 1:
                message = f"no rule asks for as many as {quoted(points.text)} points"
                label = f"the most that any asks for is {most:g}"
                help = f"write `{most:g}`, if one sign is to do as much as all others together"
                written.scope.findings.note("GR236", points, message, label=label, help=help)


# GR237: a score that all evidence together does not come to.


def _out_of_reach(written: Written, score: Score) -> None:
    most = _most(score)
    told: set[object] = set()
    for test in _tests(written):
        bound = test.operand
        if test.fact != _SCORE or test.span is None or test.span in told:
            continue
        if not isinstance(bound, int | float) or test.operator not in ("gt", "gte"):
            continue
        if bound > most or (bound == most and test.operator == "gt"):
            told.add(test.span)
            message = f"no score is ever {quoted(test.text)}"
            label = f"all evidence together comes to {most} points"
            help = "lower the bound, or give the evidence more points"
            written.scope.findings.report("GR237", test.span, message, label=label, help=help)


def _most(score: Score) -> int:
    """Return the highest score there is: the most points of each family, if there are two."""
    points: dict[str, int] = {}
    for sign in score.signs:
        points[sign.family] = max(points.get(sign.family, 0), sign.points)
    return sum(points.values()) if len(points) > 1 else 0


# GR239: what links weakly is kept for longer than what links by itself.


def _weak_for_longer(written: Written) -> None:
    links = written.policies.links
    if links is None or not links.weak or links.weak_days <= links.strong_days or not links.strong:
        return
    for _, section in written.sections("links"):
        window = section.get("window") if isinstance(section, MapNode) else None
        weak = window.get("weak") if isinstance(window, MapNode) else None
        if weak is not None:
            message = "weak evidence is kept for longer than strong"
            label = f"strong evidence is kept for {links.strong_days} days"
            help = "swap the two, or let `weak` be the shorter: networks and devices change hands"
            written.scope.findings.note("GR239", weak, message, label=label, help=help)

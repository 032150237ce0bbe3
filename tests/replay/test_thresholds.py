"""Expectations of traffic: measured as counted one by one; nothing in a segment shows nothing."""

from __future__ import annotations

import pickle
from fractions import Fraction

import pytest

from guardrail.guard import Guard
from guardrail.loading import load_text
from guardrail.model.effects import Effect
from guardrail.replay.running import Replay
from guardrail.replay.thresholds import Expected
from tests.replay.test_harm import POLICIES, traffic

MEASURES = {
    "refused": lambda effect: effect.refuses,
    "blocked": lambda effect: effect is Effect.BLOCK,
    "throttled": lambda effect: effect is Effect.THROTTLE,
    "degraded": lambda effect: effect is Effect.DEGRADE,
}
EXPECT = "expect:\n" + "".join(
    f"  - {{when: {{geo.country: {country}}}, {name}{suffix}: {{lte: 10%}}}}\n"
    for country in ("DE", "IR")
    for name in MEASURES
    for suffix in ("", "_accounts")
)


@pytest.mark.parametrize("seed", range(3))
def test_measures_are_those_counted_one_by_one_whole_and_merged(seed):
    policies = load_text(POLICIES + EXPECT)
    with Guard.from_policies(policies, environ={}) as guard:
        rows = [(ts, decision) for _, ts, _, decision in Replay(guard).run(traffic(seed))]
    whole, parts = Expected(policies), [Expected(policies), Expected(policies)]
    for ts, decision in rows:
        whole.add(ts, decision)
        parts[len(str(decision.facts.get("account.id"))) % 2].add(ts, decision)
    merged = Expected(policies)
    for part in parts:
        merged.merge(pickle.loads(pickle.dumps(part)))

    assert len(whole.measured(0, 1)) == 16
    for one, again in zip(whole.measured(0, 1), merged.measured(0, 1), strict=True):
        assert one == again
        country = one.threshold.text.split()[2]
        mine = [d for _, d in rows if d.facts.get("geo.country") == country]
        meets = MEASURES[one.threshold.measure]
        if one.threshold.accounts:
            named = [d for d in mine if isinstance(d.facts.get("account.id"), str)]
            whole_set = {d.facts["account.id"] for d in named}
            met = {d.facts["account.id"] for d in named if meets(d.effect)}
            assert (one.met, one.whole) == (len(met), len(whole_set))
        else:
            assert (one.met, one.whole) == (sum(meets(d.effect) for d in mine), len(mine))
        assert one.holds is (Fraction(one.met, one.whole) <= Fraction(1, 10))


def measured(expect: str, seed: int = 1) -> list[tuple[int, int, bool | None]]:
    policies = load_text(POLICIES + f"expect:\n  - {expect}\n")
    expected = Expected(policies)
    with Guard.from_policies(policies, environ={}) as guard:
        for _, ts, _, decision in Replay(guard).run(traffic(seed)):
            expected.add(ts, decision)
    return [(one.met, one.whole, one.holds) for one in expected.measured(3, 100)]


def test_a_rule_is_measured_by_what_it_decided_and_in_shadow_by_what_it_would_have():
    (embargo,) = measured("{by: embargo, blocked: {gte: 1}}")
    (throttled,) = measured("{by: embargo, throttled: {gte: 1}}")
    (young,) = measured("{by: young, blocked: {gte: 1}}")

    assert embargo[2] is True
    assert throttled == (0, 300, False)
    assert young[0] > 0
    assert young[2] is True


def test_segments_that_differ_late_in_a_list_are_measured_each():
    countries = "AD, AE, AF, AG, AI, AL, AM, AO"
    (with_iran,) = measured(
        f"{{when: {{geo.country: {{in: [{countries}, IR]}}}}, refused: {{lte: 1}}}}"
    )
    both = measured(
        f"{{when: {{geo.country: {{in: [{countries}, FR]}}}}, refused: {{lte: 1}}}}\n"
        f"  - {{when: {{geo.country: {{in: [{countries}, IR]}}}}, refused: {{lte: 1}}}}"
    )

    assert with_iran[0] > 1
    assert both == [(0, 0, None), with_iran]


def test_an_empty_segment_shows_nothing_however_it_is_bounded():
    for bound in ("{lte: 100%}", "{gte: 0%}", "{lte: 0}", "{lt: 5}"):
        (one,) = measured(f"{{when: {{geo.country: FR}}, refused: {bound}}}")
        assert one == (0, 0, None)


def test_a_condition_that_is_unknown_leaves_a_request_out():
    known = measured("{when: {geo.country: {not: FR}}, refused: {lte: 100%}}")
    missing = measured("{when: {geo.country: {exists: false}}, refused: {lte: 100%}}")

    assert known[0][1] + missing[0][1] == 300
    assert missing[0][1] > 0


@pytest.mark.parametrize(
    ("bound", "holds"),
    [("{lte: 3%}", True), ("{lt: 3%}", False), ("{gte: 3}", True), ("{gt: 3}", False)],
)
def test_bad_lines_are_measured_against_all_lines(bound, holds):
    assert measured(f"{{bad_lines: {bound}}}") == [(3, 100, holds)]


def test_what_steps_up_is_a_refusal_with_a_remedy():
    remedied = POLICIES.replace("unknown: skip, block: {}}", "unknown: skip, block: {remedy: pay}}")
    policies = load_text(remedied + "expect: [{stepped_up: {gte: 1}}, {refused: {gte: 1}}]\n")
    expected = Expected(policies)
    with Guard.from_policies(policies, environ={}) as guard:
        for _, ts, _, decision in Replay(guard).run(traffic(1)):
            expected.add(ts, decision)
    stepped, refused = expected.measured(0, 1)

    assert 0 < stepped.met < refused.met

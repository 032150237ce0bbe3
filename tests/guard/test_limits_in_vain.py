"""A limit that `lint` calls out of reach is out of reach: whatever the other admits, it admits."""

from __future__ import annotations

import random

import pytest

from guardrail.analysis import analyse
from guardrail.loading import load_text
from guardrail.testing import MovableClock, guard_of

WINDOWS = ("hour", "day", "week", "month", "1m", "30m", "1h", "2h", "1d", "3d", "30d", "lifetime")


def limit(draw: random.Random) -> str:
    """Return a small limit in requests."""
    if draw.random() < 0.3:
        burst = draw.choice(("", f"burst: {draw.randint(1, 9)}, "))
        per = draw.choice(("minute", "hour", "day", "10 minutes"))
        return f"rate: {{requests: {draw.randint(1, 6)} per {per}, {burst}key: account.id}}"
    amount = draw.choice((1, 2, 3, 5, 8, 20, 60, 100, 200))
    steps = draw.choice(("", "", ", steps: [{at: 50%, throttle: {}}]"))
    budget = f"budget: {{requests: {amount}, per: {draw.choice(WINDOWS)}, key: account.id}}"
    return budget + steps


def text(*limits: str) -> str:
    """Return a policy set of some limits, from `a` on."""
    rules = "".join(f"  - {{id: {'ab'[n]}, when: always, {one}}}\n" for n, one in enumerate(limits))
    return f"guardrail: 1\npolicy: p\nrules:\n{rules}"


def in_vain(written: str) -> set[str]:
    """Return the rules that are called out of reach."""
    told = [one for one in analyse(load_text(written), 0) if one.code in ("GR202", "GR207")]
    return {one.message.split("`")[1] for one in told}


@pytest.mark.parametrize("seed", range(8))
def test_what_another_limit_admits_never_fills_it(seed):
    draw = random.Random(seed)
    claims = 0
    while claims < 6:
        pair = [limit(draw), limit(draw)]
        for vain in in_vain(text(*pair)):
            claims += 1
            inner, outer = pair["ab".index(vain)], pair["ba".index(vain)]
            clock = MovableClock("2026-01-30T21:30:00Z")
            other, it = guard_of(text(outer), clock=clock), guard_of(text(inner), clock=clock)
            for _ in range(250):
                clock.advance(draw.choice((0, 0, 0, 1, 20, 60, 599, 1800, 3600, 7201, 40000)))
                if other.decide({"account.id": "a"}).allowed:
                    decision = it.decide({"account.id": "a"})
                    assert decision.allowed, (seed, inner, outer, clock.now)


CONDITIONS = (
    "always",
    "{geo.country: {in: [DE, FR]}}",
    "{geo.country: {exists: true, in: [DE]}}",
    "{not: {geo.country: {not_in: [DE, FR]}}}",
    "{any: [{geo.country: FR}, {request.stream: true}]}",
    "{request.stream: true, geo.country: DE}",
)
STATED = [
    {"account.id": "a", **country, **stream}
    for country in ({}, {"geo.country": "DE"}, {"geo.country": "FR"}, {"geo.country": "SE"})
    for stream in ({}, {"request.stream": True}, {"request.stream": False})
]


@pytest.mark.parametrize("seed", range(4))
def test_that_holds_whatever_the_conditions_of_both_are(seed):
    draw = random.Random(seed)
    claims = 0
    while claims < 4:
        rules = [
            f"when: {draw.choice(CONDITIONS)}, unknown: {draw.choice(('match', 'skip'))}, "
            + limit(draw)
            for _ in range(2)
        ]
        written = [text(one).replace("when: always, when:", "when:") for one in rules]
        both = text(*rules).replace("when: always, when:", "when:")
        vain = in_vain(both)
        if not vain or rules[0].startswith("when: always") is rules[1].startswith("when: always"):
            continue
        claims += 1
        inner = "ab".index(min(vain))
        clock = MovableClock("2026-01-30T21:30:00Z")
        it, other = (guard_of(written[n], clock=clock) for n in (inner, 1 - inner))
        for _ in range(250):
            clock.advance(draw.choice((0, 0, 0, 1, 20, 60, 599, 1800, 3600, 7201, 40000)))
            facts = draw.choice(STATED)
            if other.decide(facts).allowed:
                assert it.decide(facts).allowed, (seed, rules, facts, clock.now)


def test_it_is_told_where_it_is_so_and_not_where_it_is_reached():
    within = "budget: {requests: 3, per: day, key: account.id}"

    assert in_vain(text(within, "budget: {requests: 93, per: month, key: account.id}")) == {"b"}
    assert in_vain(text(within, "budget: {requests: 92, per: month, key: account.id}")) == set()
    assert in_vain(text("budget: {requests: 93, per: month, key: account.id}", within)) == {"a"}

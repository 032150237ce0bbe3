"""Amounts by bands: that of the last band at or below the value, whichever way it is decided."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.analysis import Point, points_of, reached
from guardrail.engine.expressions import allowance
from guardrail.loading import load_text
from guardrail.model.amounts import SECOND, Amount, Band, Banded
from guardrail.model.facts import AGES
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Budget, Concurrency, CountingVerb, Distinct, Rate, Rule
from guardrail.testing import guard_of
from tests.engine.policies import START, Request, policy_set
from tests.engine.tracing import Subject, run

SEEDS = st.integers(0, 2**32)
NUMBERS = st.integers(-50, 50) | st.floats(-50, 50) | st.sampled_from((0.1, 0.30000000000000004))
AMOUNTS = st.none() | st.integers(0, 9)


@given(
    st.dictionaries(NUMBERS, AMOUNTS, min_size=1, max_size=6),
    AMOUNTS,
    AMOUNTS,
    st.none() | NUMBERS,
    st.integers(0, 7),
)
def test_the_amount_is_that_of_the_last_band_at_or_below_the_value(
    written: dict[float, int | None],
    otherwise: int | None,
    missing: int | None,
    value: float | None,
    at: int,
) -> None:
    bands = tuple(Band(start, str(start), written[start]) for start in sorted(written))
    if at < len(bands):
        value = bands[at].start

    expected = otherwise
    for band in bands:
        if value is not None and Fraction(band.start) <= Fraction(value):
            expected = band.amount
    facts = {} if value is None else {"x.score": value}

    found = allowance(Banded("x.score", bands, otherwise, missing), facts, 0)
    assert found == (missing if value is None else expected)


def banded(rng: Random, least: int) -> Banded:
    """Return an amount by bands of a fact of any type that has bands, dense about its values."""
    fact, starts = rng.choice(
        (
            ("x.score", (-3, 0, 1, 2, 2.5)),
            ("x.quota", (1, 3.7, 499.5, 500)),
            ("request.tools", (0, 1, 2)),
            ("account.age", (0, 10, 3600)),
        )
    )
    chosen = sorted(rng.sample(starts, rng.randint(1, len(starts))))

    def amount() -> int | None:
        return rng.choice((None, 0, *(rng.randint(least, 20 * least) for _ in range(6))))

    return Banded(fact, tuple(Band(s, str(s), amount()) for s in chosen), amount(), amount())


def with_bands(policies: PolicySet, seed: int) -> PolicySet:
    """Return a policy set with about two thirds of its amounts by bands."""
    rng = Random(seed)

    def one(amount: Amount, least: int) -> Amount:
        return banded(rng, least) if rng.random() < 0.65 else amount

    def verb(found: Any) -> CountingVerb:
        if isinstance(found, Rate):
            least = {"requests": 2, "tokens": 60}.get(found.unit, 2_000)
            burst = rng.choice((None, one(found.burst or found.amount, least)))
            return replace(found, amount=one(found.amount, least), burst=burst)
        if isinstance(found, Budget):
            leasts = {"requests": 2, "cost_usd": 5_000, "images": 2}
            amounts = tuple((u, one(a, leasts.get(u, 100))) for u, a in found.amounts)
            return replace(found, amounts=amounts)
        if isinstance(found, Concurrency | Distinct):
            return replace(found, most=one(found.most, 2))
        return found  # type: ignore[no-any-return]

    rules = tuple(replace(rule, verb=verb(rule.verb)) for rule in policies.rules)
    return replace(policies, rules=rules)


BANDED_SETS = st.builds(
    lambda seed, count: with_bands(policy_set(seed, count), seed), SEEDS, st.integers(1, 6)
)


@settings(max_examples=80)
@given(BANDED_SETS, SEEDS)
def test_decisions_in_one_pass_by_bands_equal_the_three_steps(
    policies: PolicySet, seed: int
) -> None:
    left = Subject(policies, fused=True)
    run(seed, 20, left, Subject(policies, left))


@settings(max_examples=60)
@given(BANDED_SETS, SEEDS)
def test_decisions_on_questions_by_bands_equal_the_three_steps(
    policies: PolicySet, seed: int
) -> None:
    left = Subject(policies, asking=True, follows=True)
    run(seed, 20, left, Subject(policies, left, follows=True))


def test_most_decisions_by_bands_are_made_in_one_pass() -> None:
    shares = []
    for seed in range(30):
        policies = with_bands(policy_set(seed, 2), seed)
        left = Subject(policies, fused=True)
        run(seed, 20, left, Subject(policies, left))
        shares.append(left.fused_share)

    assert sum(shares) / len(shares) > 0.7


PAID = """\
guardrail: 1
policy: paid
rules:
  - id: lifetime
    when: always
    budget:
      requests: {by: account.paid_usd, bands: {0: 2, 20: 4, 500: unlimited}}
      per: lifetime
      key: account.id
  - id: pace
    when: always
    rate: {requests: {by: account.paid_age, bands: {0d: 1/hour, 30d: 3/hour}}, key: account.id}
    mode: shadow
"""


@pytest.mark.parametrize(
    ("paid", "served"),
    [
        (None, 2),
        (-1, 2),
        (0, 2),
        (19.999999, 2),
        (20, 4),
        (20.0, 4),
        (499.99, 4),
        (500, 9),
        (1e6, 9),
        (True, 2),
        ("500", 2),
    ],
)
def test_room_grows_with_what_was_paid(paid: object, served: int) -> None:
    guard = guard_of(PAID)
    facts = {"account.id": "a"} | ({} if paid is None else {"account.paid_usd": paid})

    assert sum(guard.decide(facts).allowed for _ in range(9)) == served


def test_a_customer_who_pays_has_the_difference_at_once() -> None:
    guard = guard_of(PAID)

    before = [guard.decide({"account.id": "a", "account.paid_usd": 0}).allowed for _ in range(3)]
    after = [guard.decide({"account.id": "a", "account.paid_usd": 20}).allowed for _ in range(3)]

    assert before == [True, True, False]
    assert after == [True, True, False]


def told_bands(facts: dict[str, object]) -> list[tuple[object, ...]]:
    """Return which bands a request is told to be in, on 2026-01-05."""
    told = guard_of(PAID).decide({"account.id": "a", **facts}, now=1_767_614_400).explain()
    return [
        (rule.rule, band.unit, band.fact, band.value, band.start, band.amount)
        for rule in told.rules
        for band in rule.bands
    ]


def test_an_explanation_tells_the_band_and_the_value() -> None:
    assert told_bands({"account.paid_usd": 35.5, "account.paid_since": "2025-12-01"}) == [
        ("lifetime", "requests", "account.paid_usd", 35.5, "20", 4),
        ("pace", "requests", "account.paid_age", 35.5 * 86_400, "30d", 3),
    ]
    assert told_bands({"account.paid_usd": 500})[0][3:] == (500, "500", None)
    assert told_bands({"account.paid_usd": -1})[0][3:] == (-1, None, 2)
    assert told_bands({})[1][3:] == (None, None, 1)


WAYS: tuple[dict[str, bool], ...] = ({}, {"fused": True}, {"asking": True, "follows": True})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("age", "time"), AGES.items())
def test_ages_of_bands_are_worked_out_whichever_way_it_is_decided(
    way: dict[str, bool], age: str, time: str
) -> None:
    subject = Subject(load_text(PAID.replace("account.paid_age", age)), **way)
    served = {}
    for since in (None, START // SECOND - 30 * 86_400 + 1, START // SECOND - 30 * 86_400):
        asked = Request({"account.id": repr(since), "account.paid_usd": 500, time: since}, None)
        decisions = [subject.decide(asked, START) for _ in range(4)]
        served[since] = sum(not decision.shadow for decision in decisions)

    assert list(served.values()) == [1, 1, 3]


def test_each_band_is_a_row_that_tests_can_decide() -> None:
    policies = load_text(PAID)
    guard = guard_of(PAID)
    decisions = [guard.decide({"account.id": "a", "account.paid_usd": 20}) for _ in range(5)]
    whole = reached(decisions[0], shadow=False, notices={})

    texts = [point.text for point in points_of(policies)]
    assert texts == ["0", "20", "500", "else", "0d", "30d", "else"]
    assert whole == set()
    assert reached(decisions[4], shadow=False, notices={}) == {Point("lifetime", "row", "20")}
    free = guard.decide({"account.id": "b", "account.paid_usd": 500})
    assert reached(free, shadow=False, notices={}) == {Point("lifetime", "row", "500")}


def test_the_rows_of_a_budget_tell_which_of_its_units_they_are_of() -> None:
    policies = load_text(
        """
guardrail: 1
policy: units
rules:
  - id: month
    when: always
    budget:
      requests: {by: account.paid_usd, bands: {0: 2, 20: 4}}
      tokens: {by: account.paid_usd, bands: {0: 20, 20: 40}}
      per: month
      key: account.id
"""
    )

    texts = [point.text for point in points_of(policies)]
    assert len(texts) == 6
    assert ["requests" in text for text in texts] == [True] * 3 + [False] * 3
    assert all("tokens" in text for text in texts[3:])


def test_a_rate_by_bands_needs_no_interpreter() -> None:
    rules: tuple[Rule, ...] = load_text(PAID).rules
    policies = replace(load_text(PAID), rules=(replace(rules[1], index=0),))
    for way in ({"fused": True}, {"asking": True, "follows": True}):
        subject = Subject(policies, **way)
        run(7, 30, subject, Subject(policies, follows="follows" in way))
        assert subject.fused_share > 0.9

"""What a request reserves and what it settles at, figure by figure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.engine import sizes
from guardrail.engine.sizes import Sizer, as_count, as_money
from guardrail.model.cells import TOP
from tests.engine.policies import models, policy_set

UNITS = ("requests", "tokens", "input_tokens", "output_tokens", "cost_usd", "images")
POLICIES = replace(policy_set(0, 1), models=models(), unlisted_model=None)
NAN, INF = float("nan"), float("inf")


def reserve(estimate: Mapping[str, object] | None, model: object = "large") -> sizes.Amounts:
    return Sizer(POLICIES, UNITS).reserve(estimate, model)[0]


@pytest.mark.parametrize("odd", [NAN, INF, -INF, -1, -0.5, True, False, 2**53, 2.0**53, 1.5, "5"])
def test_what_is_not_a_count_is_not_counted_and_is_named(odd: object) -> None:
    sizer = Sizer(POLICIES, ["images"])

    amounts, notes = sizer.reserve({"images": odd}, "large")

    assert as_count(odd) is None
    assert amounts == {"images": 1}
    assert any("`images`" in note and "not an amount" in note for note in notes)


@pytest.mark.parametrize(("good", "count"), [(0, 0), (7, 7), (7.0, 7), (TOP, TOP), (-0.0, 0)])
def test_a_whole_number_is_a_count(good: object, count: int) -> None:
    assert as_count(good) == count


@pytest.mark.parametrize("odd", [NAN, INF, -0.01, True, "1", 10**400, -(10**400), TOP, None])
def test_what_is_not_money_is_not_counted(odd: object) -> None:
    assert as_money(odd) is None


@pytest.mark.parametrize(
    ("usd", "micro"), [(0, 0), (0.1, 100_000), (1e-7, 1), (2.000_000_4, 2_000_001)]
)
def test_money_is_whole_micro_dollars_rounded_up(usd: float, micro: int) -> None:
    assert as_money(usd) == micro


def test_tokens_are_input_and_output_or_else_their_stated_sum() -> None:
    assert reserve({"input_tokens": 3, "output_tokens": 4, "tokens": 99})["tokens"] == 7
    assert reserve({"tokens": 99, "input_tokens": 3})["tokens"] == 99
    assert reserve({"input_tokens": TOP, "output_tokens": TOP})["tokens"] == TOP


@pytest.mark.parametrize(
    ("model", "cap"), [("large", 64), ("big", 64), ("medium", 32), ("none", 64)]
)
def test_a_missing_output_reserves_the_most_that_the_model_gives(model: str, cap: int) -> None:
    amounts = reserve({"input_tokens": 10}, model)

    assert (amounts["output_tokens"], amounts["tokens"]) == (cap, 10 + cap)


@pytest.mark.parametrize(("completions", "output"), [(0, 0), (1, 64), (5, 320), (TOP, TOP)])
def test_a_missing_output_is_reserved_for_each_completion(completions: int, output: int) -> None:
    amounts = reserve({"requests": completions, "input_tokens": 10})

    assert (amounts["output_tokens"], amounts["tokens"]) == (output, min(10 + output, TOP))


def test_an_empty_estimate_reserves_one_of_each_and_names_what_it_lacks() -> None:
    amounts, notes = Sizer(POLICIES, UNITS).reserve(None, "free")

    assert amounts["requests"] == amounts["images"] == amounts["input_tokens"] == 1
    assert amounts["output_tokens"] == 1
    assert {"images", "input_tokens", "output_tokens"} == {note.split("`")[1] for note in notes}
    assert reserve({"images": 0})["images"] == 0


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**7))
def test_money_is_priced_by_kind_of_token_and_rounded_up_once(i: int, o: int, c: int) -> None:
    stated = {"input_tokens": i, "output_tokens": o, "cached_input_tokens": c}
    cached = min(c, i)
    exact = (i - cached) * 1_234_567 + cached * 333 + o * 5_000_001

    cost = reserve(stated, "small")["cost_usd"]

    assert cost == exact // 1_000_000 + (exact % 1_000_000 > 0)


@pytest.mark.parametrize("model", ["large", "medium"])
def test_tokens_that_nothing_divides_cost_what_the_dearer_kind_does(model: str) -> None:
    stated = {"input_tokens": 0, "output_tokens": 1000}

    assert reserve({"tokens": 1000}, model)["cost_usd"] == reserve(stated, model)["cost_usd"]


def test_an_unlisted_or_unpriced_model_costs_as_the_dearest() -> None:
    stated = {"input_tokens": 1000, "output_tokens": 100}

    assert reserve(stated, "unlisted") == reserve(stated, "large")
    assert reserve(stated, None)["cost_usd"] == reserve(stated, "large")["cost_usd"] == 22_500
    assert reserve(stated, "free")["cost_usd"] == 22_500


def settle(usage: Mapping[str, object], served: str = "large") -> sizes.Amounts:
    estimate = {"input_tokens": 100, "output_tokens": 50}
    return Sizer(POLICIES, UNITS).settle(usage, estimate, "large", served)[0]


def test_a_unit_that_the_usage_lacks_stays_as_reserved() -> None:
    assert settle({}) == {}
    assert settle({"output_tokens": 5}) == {
        "output_tokens": 5,
        "tokens": 105,
        "cost_usd": 100 * 15 + 5 * 75,
    }


def test_usage_is_priced_at_the_model_served() -> None:
    usage = {"input_tokens": 100, "output_tokens": 5}

    assert settle(usage)["cost_usd"] == 1_875
    assert settle(usage, "small")["cost_usd"] == math.ceil(100 * 1.234567 + 5 * 5.000001)


def test_an_unusable_usage_is_named_and_settles_nothing() -> None:
    final, notes = Sizer(POLICIES, UNITS).settle({"images": NAN}, None, "large", "large")

    assert final == {}
    assert "usage of `images`" in notes[0]


def test_the_tables_find_a_sizer_that_rounds_money_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "PRICE_SCALE", -1_000_000)

    with pytest.raises(AssertionError):
        test_usage_is_priced_at_the_model_served()


def test_the_tables_find_a_sizer_that_counts_booleans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "as_count", lambda value: int(value) if value is True else None)

    with pytest.raises(AssertionError):
        test_what_is_not_a_count_is_not_counted_and_is_named(True)

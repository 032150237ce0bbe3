"""Engines that break what `test_orders` holds, and are found out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from guardrail.engine import conclude as combining
from guardrail.engine.plan import Plan
from guardrail.engine.verbs import CellValues
from guardrail.engine.verbs.budget import BudgetLimit
from guardrail.model.cells import Correction
from guardrail.model.policy import PolicySet
from tests.engine import test_orders as orders
from tests.engine.policies import policy_set

# The properties themselves, without the search for a counterexample around them.
ORDER: Callable[[PolicySet, int], None] = (
    orders.test_the_order_of_rules_decides_nothing_but_which_of_equals_is_told.hypothesis.inner_test  # type: ignore[attr-defined]
)
RELEASE: Callable[[int, int], None] = (
    orders.test_a_release_gives_everything_back.hypothesis.inner_test  # type: ignore[attr-defined]
)


def many_orders(seeds: int) -> None:
    for seed in range(seeds):
        ORDER(policy_set(seed, 6), seed)


def test_the_order_of_rules_finds_the_first_refusal_winning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(combining, "_precedence", lambda finding: (0, 0.0, finding.order))

    with pytest.raises(AssertionError):
        many_orders(60)


def test_a_higher_limit_finds_odd_limits_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = BudgetLimit.cells

    def halved(self: BudgetLimit, plan: Plan, allowances: Any, member: str) -> list[CellValues]:
        odd_ones = tuple(most // 2 if most % 2 else most for most in allowances)
        return cells(self, plan, odd_ones, member)

    monkeypatch.setattr(BudgetLimit, "cells", halved)

    assert any(
        orders.allowed_under(most, used, 1) and not orders.allowed_under(most + 1, used, 1)
        for most in range(2, 12)
        for used in range(10)
    )


def test_a_release_finds_one_that_keeps_a_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    correction = BudgetLimit.correction

    def keeping(self: BudgetLimit, debit: Any, amount: int | None, name: str) -> Correction | None:
        return correction(self, debit, 1 if amount == 0 else amount, name)

    monkeypatch.setattr(BudgetLimit, "correction", keeping)

    with pytest.raises(AssertionError):
        RELEASE(3, 4)

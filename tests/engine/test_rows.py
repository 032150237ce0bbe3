"""What a store is asked in numbers equals what the plan's cells would ask, and tells the same."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.engine import Interpreter, settling
from guardrail.engine.emit_rows import RowEmitter, plan_in_rows
from guardrail.engine.verbs import CellSpec, Limit, refuses
from guardrail.loading import load_text
from guardrail.model.amounts import SECOND
from guardrail.model.policy import PolicySet
from tests.engine.policies import START, policy_set, policy_sets, request
from tests.engine.tracing import MOVES, PACES, Subject, run, run_refunds

SEEDS = st.integers(0, 2**32)


def compare(policies: PolicySet, seed: int, *, length: int = 20, max_keys: int = 1000) -> Subject:
    """Run a trace through both and return the one that asks in numbers."""
    left = Subject(policies, asking=True, follows=True, max_keys=max_keys)
    run(seed, length, left, Subject(policies, left, follows=True, max_keys=max_keys))
    return left


def compare_forms(policies: PolicySet, seed: int) -> int:
    """Compare forms with those of plans, over random requests; return how many there were."""
    rng, now, found = Random(seed), START, 0
    engine = Subject(policies, fused=False).guard._context.engine
    in_rows, interpreter = plan_in_rows(engine), Interpreter(engine)
    for _ in range(20):
        now += rng.choice(MOVES)
        asked = request(rng)
        written = in_rows(asked.facts, asked.estimate, now / SECOND)
        if written is not None:
            found += 1
            read = interpreter.plan(asked.facts, asked.estimate, now, written.serial)
            assert written.found == read.found
            if not refuses(written.found):
                assert written.form == read.form
                assert (written.rows, written.bans) == (read.rows, read.bans)
    return found


@settings(max_examples=150)
@given(policy_sets(), SEEDS)
def test_a_question_is_the_one_that_the_plan_would_put(policies: PolicySet, seed: int) -> None:
    compare_forms(policies, seed)


@settings(max_examples=60)
@given(policy_sets(), SEEDS)
def test_decisions_on_questions_tell_and_leave_what_the_three_steps_do(
    policies: PolicySet, seed: int
) -> None:
    compare(policies, seed)


@settings(max_examples=25)
@given(st.sampled_from(("geo.country", "request.tools", "account.id")), SEEDS, SEEDS)
def test_questions_of_index_buckets_tell_and_leave_what_the_three_steps_do(
    fact: str, rules: int, seed: int
) -> None:
    compare_forms(policy_set(rules, 3, fact), seed)
    compare(policy_set(rules, 3, fact), seed, length=10)
    if seed % 4 == 0:
        compare(policy_set(rules, 1, fact, "x.flag"), seed, length=5)


@settings(max_examples=25)
@given(policy_sets(), SEEDS)
def test_questions_to_a_full_store_tell_and_leave_what_the_three_steps_do(
    policies: PolicySet, seed: int
) -> None:
    compare(policies, seed, max_keys=3)


@pytest.mark.parametrize("seed", range(20))
def test_settlements_of_questions_give_a_rate_back_what_the_steps_do(seed: int) -> None:
    policies = load_text(PACES % (3000, 300, 900))
    left = Subject(policies, asking=True, follows=True)
    run_refunds(seed, left, Subject(policies, follows=True))


def test_a_good_share_of_the_requests_compared_is_put_as_a_question() -> None:
    found = sum(compare_forms(policy_set(seed, 2), seed) for seed in range(40))
    bucketed = sum(compare_forms(policy_set(seed, 1, "account.id"), seed) for seed in range(10))
    shares = [compare(policy_set(seed, 2), seed).fused_share for seed in range(20)]

    assert found > 0.15 * 40 * 20
    assert bucketed > 5
    assert sum(shares) / len(shares) > 0.1


def compare_many() -> None:
    for seed in range(300):
        compare_forms(policy_set(seed, 2), seed)
    for seed in range(40):
        compare(policy_set(seed, 2), seed)


ROW, OPENED, SLOT = RowEmitter._row, RowEmitter._opened, RowEmitter.calendar_slot


def alerts_nobody(self: RowEmitter, limit: Limit, spec: CellSpec) -> list[str]:
    return ROW(self, limit, replace(spec, alerts_at=100))


def without_ban(self: RowEmitter, limit: Limit, key: str) -> list[str]:
    return [*OPENED(self, limit, key)[:1], f"charges += ({int(limit.binding)}, 0)"]


MUTANTS = {
    "forgets the spill": (RowEmitter, "_spill", lambda self: "None"),
    "counts from another slot": (
        RowEmitter,
        "calendar_slot",
        lambda *asked: "1 + " + SLOT(*asked),
    ),
    "asks for more than fits": (RowEmitter, "refuse_too_much", lambda *asked: None),
    "charges without the ban": (RowEmitter, "_opened", without_ban),
    "alerts nobody": (RowEmitter, "_row", alerts_nobody),
    "is settled by another unit": (settling, "plain_place", lambda limit, part: 0),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_comparison_finds_a_question_that(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*MUTANTS[mutant])
    with pytest.raises((AssertionError, NameError)):
        compare_many()

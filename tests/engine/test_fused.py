"""The fused decision equals the three steps: in what it tells, and in what it leaves behind."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.model.policy import PolicySet
from tests.engine.policies import policy_set, policy_sets
from tests.engine.tracing import Subject, run

SEEDS = st.integers(0, 2**32)


@settings(max_examples=150)
@given(policy_sets(), SEEDS)
def test_fused_decisions_tell_and_leave_what_the_three_steps_do(
    policies: PolicySet, seed: int
) -> None:
    run(seed, 25, Subject(policies, fused=True), Subject(policies, fused=False))


@settings(max_examples=40)
@given(st.sampled_from(("geo.country", "request.tools", "account.id")), SEEDS, SEEDS)
def test_fused_index_buckets_tell_and_leave_what_the_three_steps_do(
    fact: str, rules: int, seed: int
) -> None:
    policies = policy_set(rules, 3, fact)

    run(seed, 20, Subject(policies, fused=True), Subject(policies, fused=False))

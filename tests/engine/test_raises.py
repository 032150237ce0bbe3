"""Exemptions that raise amounts, and rules rolled out to a share of the accounts."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.errors import PolicyError
from guardrail.loading import load_text
from guardrail.model.amounts import SECOND, Amount, Raised, larger
from guardrail.model.conditions import Comparison, Every, Rollout, in_rollout
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Budget, Concurrency, CountingVerb, Distinct, Rate
from guardrail.testing import guard_of
from tests.engine.conditions import condition
from tests.engine.policies import START, Request, policy_set
from tests.engine.tracing import Subject, run

SEEDS = st.integers(0, 2**32)
WAYS: tuple[dict[str, bool], ...] = ({}, {"fused": True}, {"asking": True, "follows": True})


def with_raises(policies: PolicySet, seed: int) -> PolicySet:
    """Return a policy set with most amounts raised, some twice, and some rules rolled out."""
    rng = Random(seed)

    def one(amount: Amount, least: int) -> Amount:
        for name in ("first", "second"):
            if rng.random() < 0.5:
                to = rng.choice((None, *(rng.randint(least, 20 * least) for _ in range(5))))
                when = condition(rng, policies.facts, 2)
                ends = START + rng.choice((-1, 5, 3_600)) * SECOND
                amount = Raised(amount, to, name, when, rng.random() < 0.3, ends)
        return amount

    def verb(found: Any) -> CountingVerb:
        if isinstance(found, Rate):
            least = {"requests": 2, "tokens": 60}.get(found.unit, 2_000)
            amount = one(found.amount, least)
            burst = rng.choice((None, one(found.burst or amount, least)))
            return replace(found, amount=amount, burst=burst)
        if isinstance(found, Budget):
            leasts = {"requests": 2, "cost_usd": 5_000, "images": 2}
            return replace(
                found, amounts=tuple((u, one(a, leasts.get(u, 100))) for u, a in found.amounts)
            )
        if isinstance(found, Concurrency | Distinct):
            return replace(found, most=one(found.most, 2))
        return found  # type: ignore[no-any-return]

    rules = []
    for rule in policies.rules:
        when = rule.when
        if rng.random() < 0.4:
            share = Rollout(rule.id, rng.randint(1, 1_000_000))
            when = Every((when, Comparison("account.id", "rollout", share, "a share")))
        rules.append(replace(rule, verb=verb(rule.verb), when=when))
    return replace(policies, rules=tuple(rules))


RAISED_SETS = st.builds(
    lambda seed, count: with_raises(policy_set(seed, count), seed), SEEDS, st.integers(1, 6)
)


@settings(max_examples=80)
@given(RAISED_SETS, SEEDS)
def test_raised_amounts_decided_in_one_pass_equal_the_three_steps(
    policies: PolicySet, seed: int
) -> None:
    left = Subject(policies, fused=True)
    run(seed, 20, left, Subject(policies, left))


@settings(max_examples=60)
@given(RAISED_SETS, SEEDS)
def test_raised_amounts_decided_on_questions_equal_the_three_steps(
    policies: PolicySet, seed: int
) -> None:
    left = Subject(policies, asking=True, follows=True)
    run(seed, 20, left, Subject(policies, left, follows=True))


def test_most_decisions_on_raised_amounts_are_made_in_one_pass() -> None:
    shares = []
    for seed in range(30):
        policies = with_raises(policy_set(seed, 2), seed)
        left = Subject(policies, fused=True)
        run(seed, 20, left, Subject(policies, left))
        shares.append(left.fused_share)

    assert sum(shares) / len(shares) > 0.7


@given(st.none() | st.integers(0, 9), st.none() | st.integers(0, 9))
def test_a_raise_never_lowers(own: int | None, least: int | None) -> None:
    found = larger(own, least)
    assert found in (own, least)
    assert all(found is None or (n is not None and n <= found) for n in (own, least))


PILOT = """\
guardrail: 1
policy: pilot
rules:
  - id: day
    when: always
    budget: {requests: 2, tokens: 1000, per: day, key: account.id}
  - {id: pace, when: always, rate: {requests: 3/hour, key: account.id}}
  - {id: places, when: always, concurrency: {max: 4, key: account.id}}
  - {id: closed, when: {geo.country: IR}, unknown: skip, block: {}}
exemptions:
  - id: acme
    rules: [day]
    raise: {requests: 5}
    when: {account.org: acme}
    reason: a pilot
    expires: 2026-01-31
  - id: acme-pace
    rules: [pace]
    raise: {requests: 6/hour, burst: 9}
    when: {account.org: acme}
    reason: a pilot
    expires: 2026-01-31
  - id: acme-places
    rules: [places]
    raise: {max: unlimited}
    when: {account.org: acme}
    reason: a pilot
    expires: 2026-02-28
"""
JANUARY, FEBRUARY = 1_767_614_400.0, 1_770_292_800.0


def served(org: str | None, now: float, count: int = 12) -> int:
    """Return how many of so many requests at once are served."""
    guard = guard_of(PILOT)
    facts = {"account.id": "a"} | ({} if org is None else {"account.org": org})
    return sum(guard.decide(facts, now=now).allowed for _ in range(count))


@pytest.mark.parametrize(
    ("org", "now", "most"),
    [("acme", JANUARY, 5), ("acme", FEBRUARY, 2), ("other", JANUARY, 2), (None, JANUARY, 2)],
)
def test_an_amount_is_raised_for_whom_and_while_the_exemption_holds(
    org: str | None, now: float, most: int
) -> None:
    assert served(org, now) == most


def test_what_is_not_raised_stays_a_limit() -> None:
    guard = guard_of(PILOT)
    decision = guard.decide(
        {"account.id": "a", "account.org": "acme"},
        {"input_tokens": 900, "output_tokens": 101},
        now=JANUARY,
    )
    assert (decision.rule, decision.allowed) == ("day", False)


def test_a_pace_is_raised_with_its_burst() -> None:
    policies = load_text(PILOT.replace("requests: 2, tokens: 1000", "requests: 100"))
    for way in WAYS:
        subject = Subject(policies, **way)
        asked = Request({"account.id": "a", "account.org": "acme"}, None)
        limits = {limit.rule: limit.limit for limit in subject.decide(asked, START).limits}
        assert limits == {"day": 100, "pace": 9}


def test_an_explanation_tells_which_exemption_raises_an_amount() -> None:
    decision = guard_of(PILOT).decide({"account.id": "a", "account.org": "acme"}, now=JANUARY)
    stories = {story.rule: story for story in decision.explain().rules}
    (raised,) = stories["day"].exemptions
    assert (raised.exemption, raised.raises, raised.applies) == ("acme", True, True)
    assert stories["day"].standing == "match"
    assert stories["day"].exemption is None
    assert stories["day"].counters[0].limit == 5


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        (("rules: [day]", "rules: [closed]"), "GR118", "rule `closed` has no amount to raise"),
        (("raise: {requests: 5}", "raise: {seconds: 5}"), "GR101", "unknown key `seconds`"),
        (("raise: {requests: 5}", "raise: 5"), "GR102", "`raise` is a map of amounts"),
        (
            ("raise: {requests: 5}", "raise: {requests: 5/hour}"),
            "GR110",
            "`5/hour` is not an amount",
        ),
        (
            ("requests: 6/hour, burst: 9", "requests: 6/minute"),
            "GR110",
            "`requests` of `raise` has another period than the rule",
        ),
        (
            ("raise: {requests: 5}", "raise: {requests: {by: account.tier, else: 5}}"),
            "GR110",
            "`requests` of `raise` is not one amount",
        ),
        (("rules: [day]", "rules: [dya]"), "GR118", "unknown rule `dya`"),
    ],
)
def test_what_cannot_be_raised_is_told(change: tuple[str, str], code: str, told: str) -> None:
    assert change[0] in PILOT
    with pytest.raises(PolicyError) as failed:
        load_text(PILOT.replace(*change))
    found = [(one.code, one.message) for one in failed.value.diagnostics]
    assert any(c == code and told in message for c, message in found), found


ROLLOUT = """\
guardrail: 1
policy: rollout
rules:
  - {id: slow, when: {account.tier: free}, block: {}, rollout: SHARE}
facts: {account.tier: {type: level, values: [free, paid]}}
"""


def refused(share: str, names: range) -> set[int]:
    """Return which of some accounts a rule at this share refuses."""
    guard = guard_of(ROLLOUT.replace("SHARE", share))
    return {
        name
        for name in names
        if not guard.decide({"account.id": f"a{name}", "account.tier": "free"}).allowed
    }


def test_a_rollout_takes_its_share_of_accounts_and_keeps_them_as_it_grows() -> None:
    names = range(4_000)
    found = [refused(share, names) for share in ("1%", "5%", "50%", "100%")]
    assert [len(one) for one in found] == pytest.approx([40, 200, 2_000, 4_000], rel=0.3)
    assert all(small < large for small, large in pairwise(found))
    assert found[1] == refused("5%", names)


def test_another_rule_is_rolled_out_to_other_accounts() -> None:
    parts = 100_000
    one, other = (
        {n for n in range(4_000) if in_rollout(f"a{n}", Rollout(salt, parts))}
        for salt in ("one", "other")
    )
    assert len(one & other) < len(one) / 3


def test_a_rollout_does_not_change_when_its_rule_is_renamed() -> None:
    names = range(500)
    before = refused("10%", names)
    renamed = ROLLOUT.replace("id: slow", "id: slower, was: slow").replace("SHARE", "10%")
    guard = guard_of(renamed)
    assert before == {
        n
        for n in names
        if not guard.decide({"account.id": f"a{n}", "account.tier": "free"}).allowed
    }


def test_a_request_without_an_account_is_in_no_rollout_but_the_whole_one() -> None:
    facts = {"account.tier": "free"}
    assert guard_of(ROLLOUT.replace("SHARE", "99.9999%")).decide(facts).allowed
    assert not guard_of(ROLLOUT.replace("SHARE", "100%")).decide(facts).allowed


@pytest.mark.parametrize("share", ["0%", "101%", "5", "half", "-5%", "5.00001%", "[5%]"])
def test_a_share_that_is_none_is_told(share: str) -> None:
    with pytest.raises(PolicyError) as failed:
        load_text(ROLLOUT.replace("SHARE", share))
    assert [one.code for one in failed.value.diagnostics] == ["GR110"]

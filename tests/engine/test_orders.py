"""What must not matter does not, and what must never loosen never does."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.engine import Decision
from guardrail.engine import conclude as combining
from guardrail.engine import core as engine_core
from guardrail.model.amounts import HOUR, MINUTE, SECOND, Fixed
from guardrail.model.conditions import ALWAYS
from guardrail.model.effects import Effect, Mode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Block, Budget, Escalate, Key, Rate, Rule, Step, Verdict, Window
from guardrail.stores import asking
from tests.engine.policies import SPAN, START, Request, policy_set, policy_sets, request
from tests.engine.tracing import MOVES, Subject

SEEDS = st.integers(0, 2**32)
THROTTLE = Verdict(effect=Effect.THROTTLE, reason="r")


def with_rules(policies: PolicySet, rules: list[Rule]) -> PolicySet:
    placed = tuple(replace(rule, index=i) for i, rule in enumerate(rules))
    return replace(policies, rules=placed)


def outcome(decision: Decision) -> object:
    """Return what the order of rules has no say in."""
    plain = {k: v for k, v in decision.obligations.items() if not k.startswith("x-")}
    shadow = sorted((s.rule, s.effect, s.reason) for s in decision.shadow)
    return decision.effect, decision.retry_after, plain, shadow


@settings(max_examples=80)
@given(policy_sets(), SEEDS)
def test_the_order_of_rules_decides_nothing_but_which_of_equals_is_told(
    policies: PolicySet, seed: int
) -> None:
    rng, now = Random(seed), START
    shuffled = rng.sample(policies.rules, len(policies.rules))
    left = Subject(policies, fused=True)
    right = Subject(with_rules(policies, shuffled), fused=True)
    for _ in range(15):
        now += rng.choice(MOVES)
        asked = request(rng)

        assert outcome(left.decide(asked, now)) == outcome(right.decide(asked, now))
        assert left.contents() == right.contents()


def refused_then_and_with_a_block(policies: PolicySet, seed: int) -> tuple[bool, bool]:
    """Tell whether a request is refused by a set, and by it with one more block, counters equal."""
    verb = Block(Verdict(effect=Effect.BLOCK, reason="more"))
    when = policy_set(seed, 1, "geo.country").rules[-1].when
    more = Rule(id="more", index=0, when=when, verb=verb, span=SPAN)
    stricter = with_rules(policies, [*policies.rules, more])
    answers = []
    for probing in (policies, stricter):
        rng, now, subject = Random(seed), START, Subject(policies, fused=True)
        for _ in range(6):
            now += rng.choice(MOVES)
            subject.decide(request(rng), now)
        probe, asked = Subject(probing, fused=False), request(rng)
        probe.guard._store = subject.store
        answers.append(not probe.decide(asked, now).allowed)
    return answers[0], answers[1]


@settings(max_examples=80)
@given(policy_sets(), SEEDS)
def test_one_more_block_never_turns_a_refusal_into_an_allow(policies: PolicySet, seed: int) -> None:
    before, after = refused_then_and_with_a_block(policies, seed)

    assert after or not before


def test_one_more_block_finds_combining_by_the_weakest_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = combining.conclude

    def lenient(policies, found, *rest):
        blocked = any(policies.rules[f.order].id == "more" for f in found if f.order >= 0)
        return combining.ALLOWED if blocked else honest(policies, found, *rest)

    monkeypatch.setattr(engine_core, "conclude", lenient)
    answers = [refused_then_and_with_a_block(policy_set(s, 6), s) for s in range(60)]

    assert (True, False) in answers


def budget_set(most: int, **more: object) -> PolicySet:
    verb = Budget(
        amounts=(("requests", Fixed(most)),),
        window=Window("hour", "hour"),
        key=Key(("account.id",)),
        steps=(Step(percent=100, verdict=THROTTLE),),
    )
    rule = Rule(id="b", index=0, when=ALWAYS, verb=verb, span=SPAN)
    return with_rules(policy_set(0, 1), [replace(rule, **more)])  # type: ignore[arg-type]


def allowed_under(limit: int, used: int, amount: int) -> bool:
    """Tell whether a request is served under a limit, what was used before being equal."""
    subject = Subject(budget_set(limit), fused=True)
    facts = {"account.id": "a", "x.quota": 1}
    charged = Subject(budget_set(1000), fused=True)
    charged.decide(Request(facts, {"requests": used}), START)
    subject.guard._ask = asking(charged.store)
    subject.guard._decide = subject.guard._planned
    return subject.decide(Request(facts, {"requests": amount}), START).allowed


@given(st.integers(1, 20), st.integers(0, 10), st.integers(0, 20), st.integers(1, 5))
def test_a_higher_limit_never_refuses_what_a_lower_one_allows(
    most: int, raised: int, used: int, amount: int
) -> None:
    assert allowed_under(most + raised, used, amount) or not allowed_under(most, used, amount)


def settled_twice(policies: PolicySet, seed: int) -> None:
    rng, subject, now = Random(seed), Subject(policies, fused=True), START
    for _ in range(8):
        decision = subject.decide(request(rng), now)
        subject.guard.settle(decision, {"input_tokens": 9, "output_tokens": 70}, now=now / SECOND)
        once = repr(subject.contents())
        subject.guard.settle(decision, {"input_tokens": 500, "output_tokens": 0}, now=now / SECOND)
        subject.guard.release(decision, now=now / SECOND)

        assert repr(subject.contents()) == once


@settings(max_examples=60)
@given(policy_sets(), SEEDS)
def test_settling_twice_is_settling_once(policies: PolicySet, seed: int) -> None:
    settled_twice(policies, seed)


def settle_many(seeds: int) -> None:
    for seed in range(seeds):
        settled_twice(policy_set(seed, 4), seed)


def test_settling_finds_a_decision_that_forgets_it_was_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Decision, "settled", property(lambda self: False))

    with pytest.raises(AssertionError):
        settle_many(20)


@settings(max_examples=80)
@given(st.integers(1, 9), st.integers(1, 9))
def test_a_release_gives_everything_back(first: int, second: int) -> None:
    subject = Subject(budget_set(20), fused=True)
    facts = {"account.id": "a", "x.quota": 1}
    subject.decide(Request(facts, {"requests": first}), START)
    before = subject.contents()
    released = subject.decide(Request(facts, {"requests": second}), START + SECOND)
    assert subject.contents() != before

    subject.guard.release(released, now=START / SECOND + 2)

    assert subject.contents() == before


def test_a_request_that_is_served_after_a_strike_bans_no_one() -> None:
    escalate = Escalate(after=2, within=HOUR, block_for=HOUR)
    verb = Rate(
        unit="requests",
        amount=Fixed(1),
        period=MINUTE,
        burst=None,
        key=Key(("account.id",)),
        over=THROTTLE,
    )
    policies = budget_set(1, verb=verb, escalate=escalate, mode=Mode.ENFORCE)
    subject = Subject(policies, fused=False)
    asked = Request({"account.id": "a", "x.quota": 1}, None)
    times = (0, 1, 61, 122)

    effects = [subject.decide(asked, START + t * SECOND).effect for t in times]

    assert effects == [Effect.ALLOW, Effect.THROTTLE, Effect.ALLOW, Effect.ALLOW]

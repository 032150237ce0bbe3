"""Decisions made in one pass equal the three steps: in what they tell, and what they leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.engine import Engine, Plan
from guardrail.engine.emit_inline import InlineEmitter, Looked, _Inline
from guardrail.engine.index import AT_ONCE, build_index
from guardrail.engine.verbs import BY_BAN, CellSpec, Limit
from guardrail.guard import Guard
from guardrail.loading import load_text
from guardrail.model.amounts import MINUTE, SECOND
from guardrail.model.cells import TOP
from guardrail.model.policy import PolicySet
from guardrail.stores.cells import windowed_slots
from guardrail.testing import guard_of
from tests.engine.policies import START, Request, models, policy_set, policy_sets
from tests.engine.tracing import PACES, Subject, after, run, run_refunds, told

SEEDS = st.integers(0, 2**32)


def compare(policies: PolicySet, seed: int, *, length: int = 25, max_keys: int = 1000) -> Subject:
    """Run a trace through both and return the fused one."""
    left = Subject(policies, fused=True, max_keys=max_keys)
    run(seed, length, left, Subject(policies, left, max_keys=max_keys))
    return left


@settings(max_examples=150)
@given(policy_sets(), SEEDS)
def test_fused_decisions_tell_and_leave_what_the_three_steps_do(
    policies: PolicySet, seed: int
) -> None:
    compare(policies, seed)


@settings(max_examples=40)
@given(st.sampled_from(("geo.country", "request.tools", "account.id")), SEEDS, SEEDS)
def test_fused_index_buckets_tell_and_leave_what_the_three_steps_do(
    fact: str, rules: int, seed: int
) -> None:
    compare(policy_set(rules, 3, fact), seed, length=20)


@settings(max_examples=15)
@given(SEEDS, SEEDS)
def test_rules_found_by_two_facts_tell_and_leave_what_the_three_steps_do(
    rules: int, seed: int
) -> None:
    policies = policy_set(rules, 1, "geo.country", "request.tools")
    assert len(build_index(policies.rules, policies.facts).buckets) == 2
    compare(policies, seed, length=10)


@settings(max_examples=25)
@given(policy_sets(), SEEDS)
def test_fused_decisions_spill_in_a_full_store_as_the_three_steps_do(
    policies: PolicySet, seed: int
) -> None:
    compare(policies, seed, max_keys=3)


def paced(rng: Random) -> PolicySet:
    """Return a set of rates, some so quick that their intervals are scaled."""
    return load_text(PACES % (rng.choice((120, 3000, 90_000)), rng.choice((100, 300)), 900))


@pytest.mark.parametrize("seed", range(20))
def test_fused_settlements_give_a_rate_back_what_the_steps_do(seed: int) -> None:
    policies = paced(Random(seed))
    left = Subject(policies, fused=True)
    run_refunds(seed, left, Subject(policies, fused=False))


def test_refunds_that_a_rate_bounds_are_among_those_compared() -> None:
    policies = paced(Random(0))
    one, other = Subject(policies, fused=True), Subject(policies)

    assert sum(run_refunds(seed, one, other) for seed in range(3)) > 10
    assert one.fused_share > 0.1


def test_a_refund_made_before_a_charge_does_not_bound_the_refund_of_that_charge() -> None:
    policies = load_text(PACES % (120, 300, 36_000))
    for fused_too in (True, False):
        subject = Subject(policies, fused=fused_too)
        asked = Request({"account.id": "a"}, {"input_tokens": 200, "output_tokens": 0})
        for _ in range(2):
            decision = subject.decide(asked, START)
            subject.guard.settle(
                decision, {"input_tokens": 0, "output_tokens": 0}, now=START / SECOND
            )
        assert subject.decide(asked, START).limits[0].used == 200


AMPLE = (
    "concurrency: {max: 9, lease: 10m, key: account.id}",
    "mode: shadow, budget: {tokens: 60, per: day, key: account.id}",
    "budget: {tokens: 60, per: day, key: account.id}, over: {degrade: {x-over: a lot}}",
    "rate: {tokens: 100k/minute, key: account.id}",
)
ESCALATED = "escalate: {after: 2, within: 1h, block_for: 10m}"
TIGHT = (
    "budget: {requests: 6, per: 1h, key: account.id}",
    "mode: shadow, budget: {tokens: 200, per: 2d, key: account.id}",
    f"rate: {{requests: 2/minute, burst: 3, key: account.id}}, {ESCALATED}",
    f"mode: shadow, rate: {{requests: 1/minute, key: account.id}}, {ESCALATED}",
    "concurrency: {max: 2, lease: 10m, key: account.id}",
    "distinct: {count: account.id, max: 1, per: 1h, key: geo.country}, over: {degrade: {x-two: y}}",
)


def found_by_two_facts(
    verbs: Sequence[str] = AMPLE, of_country: str = "budget: {tokens: 1M, per: week, KEY}"
) -> PolicySet:
    """Return rules of which those found by `request.tools` are looked at by a function apart."""
    countries = "AE AF AG AI AL AM AO AR AT AU BA BB BD BE BF BG BH BI BJ".split()
    spare = [f"budget: {{output_tokens: {n}M, per: {n}d, key: account.id}}" for n in range(1, 14)]
    rules = [f"when: {{request.tools: 1}}, unknown: skip, {verb}" for verb in (*verbs, *spare)]
    for country in countries:
        budget = of_country.replace("KEY", "key: geo.country")
        rules.append(f"when: {{geo.country: {country}}}, unknown: skip, {budget}")
    lines = "".join(f"  - {{id: r{n}, {rule}}}\n" for n, rule in enumerate(rules))
    return load_text(f"guardrail: 1\npolicy: two\nrules:\n{lines}")


def test_settlements_of_rules_found_by_two_facts_leave_what_the_three_steps_do() -> None:
    policies = found_by_two_facts()
    index = build_index(policies.rules, policies.facts)
    assert (sorted(index.buckets), index.main) == (["geo.country", "request.tools"], "geo.country")
    fused, steps = Subject(policies, fused=True), Subject(policies)
    asked = Request(
        {"account.id": "a", "geo.country": "AE", "request.tools": 1},
        {"input_tokens": 20, "output_tokens": 30},
    )
    for at in range(3):
        usage = {"input_tokens": 5, "output_tokens": 40 + at}
        for subject in (fused, steps):
            decision = subject.decide(asked, START + at)
            assert decision.allowed
            subject.guard.settle(decision, usage, now=START / SECOND + 1)
        assert fused.contents() == steps.contents()
    assert fused.fused_share == 1


def run_apart(seed: int, length: int) -> Subject:
    """Run requests that meet tight rules apart, and those of their country, both ways."""
    policies = found_by_two_facts(TIGHT, "budget: {requests: 12, per: 2h, KEY}")
    fused, steps = Subject(policies, fused=True), Subject(policies)
    rng, now = Random(seed), START
    for _ in range(length):
        now += rng.choice((0, 0, SECOND, 9 * SECOND, MINUTE))
        facts = {"account.id": rng.choice("ab"), "geo.country": "AE"}
        asked = Request(
            {**facts, "request.tools": rng.choice((1, 1, 1, 0))},
            {"input_tokens": rng.randrange(60), "output_tokens": rng.randrange(60)},
        )
        assert told(fused.decide(asked, now)) == told(steps.decide(asked, now))
        after(rng, now, fused, steps)
        assert fused.contents() == steps.contents()
    return fused


@pytest.mark.parametrize("seed", range(8))
def test_what_refuses_apart_leaves_what_the_three_steps_do(seed: int) -> None:
    run_apart(seed, 40)


def test_rules_apart_refuse_strike_and_ban_in_the_decisions_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: Counter[str] = Counter()
    add = Looked.add

    def counted(self: Looked, *found: Any) -> None:
        judged, struck, left, refused, _ = found
        seen.update(refused=refused, struck=bool(struck), left=bool(left), judged=bool(judged))
        add(self, *found)

    monkeypatch.setattr(Looked, "add", counted)
    assert run_apart(0, 60).fused_share == 1
    assert min(seen.values()) >= 5


WARNED = """
guardrail: 1
policy: warned
rules:
  - id: week
    when: always
    budget: {tokens: 1k, per: week, key: account.id}
    over: {degrade: {x-over: a thousand}}
"""


@pytest.mark.parametrize(
    ("used", "left"),
    [
        # More was charged than the counter still knows of, and more was used than one can hold.
        ([0, 0], 0),
        ([TOP, TOP], TOP),
    ],
)
@pytest.mark.parametrize("fused_too", [True, False])
def test_a_settlement_leaves_a_counter_between_nothing_and_the_most_it_holds(
    used: list[int], left: int, fused_too: bool
) -> None:
    subject = Subject(load_text(WARNED), fused=fused_too)
    big = subject.decide(Request({"account.id": "a"}, {"input_tokens": 90}), START)
    if not left:
        subject.store.empty()
    small = subject.decide(Request({"account.id": "a"}, {"input_tokens": 5}), START)

    for decision, tokens in zip((big, small), used, strict=True):
        usage = {"input_tokens": tokens, "output_tokens": 0}
        subject.guard.settle(decision, usage, now=START / SECOND)

    shared: Any = subject.contents()["shared"]
    ((record, *others),) = [shared.values()]
    assert not others
    assert windowed_slots(record) == {min(windowed_slots(record)): left}


def test_most_of_the_decisions_compared_are_made_in_one_pass() -> None:
    shares = [compare(policy_set(seed, 2), seed).fused_share for seed in range(40)]
    bucketed = [
        compare(policy_set(seed, 1, "account.id"), seed, length=10).fused_share
        for seed in range(10)
    ]

    assert sum(shares) / len(shares) > 0.7
    assert sum(bucketed) / len(bucketed) > 0.5


def never_refuses(self: InlineEmitter, limit: Limit, key: str, *, struck: bool) -> list[str]:
    return []


def charges_all(self: InlineEmitter, limit: Limit, key: str, *, struck: bool) -> list[str]:
    return ["refused = True"] if limit.binding else []


def never_strikes(self: _Inline, facts: object, struck: object, now: int) -> tuple[()]:
    return ()


def forgets_bans(
    self: InlineEmitter, limit: Limit, specs: Sequence[CellSpec], key: str
) -> list[str]:
    return [f"b{limit.first} = 0"]


def spills_never(self: InlineEmitter, limit: Limit, spec: CellSpec, key: str) -> list[str]:
    return [*FIND(self, limit, spec, key)[:8]]


def writes_nothing(self: InlineEmitter, *asked: Any) -> list[str]:
    lines = LOOK(self, *asked)
    self.writes.clear()
    return lines


def keeps_no_receipt(self: InlineEmitter, *asked: Any) -> list[str]:
    lines = LOOK(self, *asked)
    self.receipts[:] = ["None"] * len(self.receipts)
    return lines


def bans_nobody(self: Plan, reply: list[int]) -> Any:
    read = VERDICTS(self, reply)
    return read._replace(found=[f for f in read.found if f.number != BY_BAN])


LOOK, FIND, VERDICTS = InlineEmitter.look, InlineEmitter._find, Plan.verdicts
MUTANTS = {
    "leaves the limit open": (InlineEmitter, "_refuse", never_refuses),
    "charges what a rule in shadow refused": (InlineEmitter, "_refuse", charges_all),
    "counts no strike": (_Inline, "_strike", never_strikes),
    "lets the banned in": (InlineEmitter, "_ban", forgets_bans),
    "forgets to write": (InlineEmitter, "look", writes_nothing),
    "keeps no receipt": (InlineEmitter, "look", keeps_no_receipt),
    "tells of a ban that a plan's reply does not": (Plan, "verdicts", bans_nobody),
}


def compare_many(seeds: int, max_keys: int = 1000) -> None:
    for seed in range(seeds):
        compare(policy_set(seed, 4), seed, max_keys=max_keys)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_comparison_finds_a_pass_that(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*MUTANTS[mutant])
    with pytest.raises(AssertionError):
        compare_many(150)


def test_the_comparison_finds_a_pass_that_spills_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InlineEmitter, "_find", spills_never)
    with pytest.raises(AssertionError):
        compare_many(150, max_keys=3)


def test_an_ill_typed_fact_that_no_line_reads_is_still_named() -> None:
    policies = replace(policy_set(0, 1), rules=(), models=models())
    asked = Request({"account.id": "a", "x.quota": 1, "request.model": 5}, None)
    left, right = Subject(policies, fused=True), Subject(policies, fused=False)

    assert told(left.decide(asked, START)) == told(right.decide(asked, START))
    assert left.fused_share == 1
    assert "request.model" in left.decisions[0].errors[0]


def test_the_comparison_finds_errors_that_drop_the_notes_of_a_decision_in_one_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Engine, "errors", lambda self, decision: decision.ruling.notes)

    with pytest.raises(AssertionError):
        test_an_ill_typed_fact_that_no_line_reads_is_still_named()


def test_a_moment_is_fused_to_the_same_microsecond_as_it_is_stepped() -> None:
    policies = policy_set(0, 2)
    asked = Request({"account.id": "a"}, {"input_tokens": 1, "output_tokens": 1})
    left, right = Subject(policies, fused=True), Subject(policies, fused=False)
    for part in (0, 1, 499_999, 999_999):
        now = START + SECOND + part

        assert left.decide(asked, now).case.now == right.decide(asked, now).case.now == now


STEPPED = """
guardrail: 1
policy: stepped
models: {large: {weaker: small}, small: {}}
rules:
  - id: day
    when: always
    budget: {requests: 100, per: day, key: account.id}
    steps: [{at: PERCENT%, degrade: {model: small}}]
"""


@pytest.mark.parametrize("percent", [98, 99, 100])
def test_a_step_is_reached_in_one_pass_at_just_its_percent(percent: int) -> None:
    guard = guard_of(STEPPED.replace("PERCENT", str(percent)))
    asked = {"account.id": "a", "request.model": "large"}

    effects = [str(guard.decide(asked).effect) for _ in range(101)]

    assert effects.index("degrade") == percent


@pytest.mark.parametrize("kind", ["memory", "lmdb"])
def test_rules_found_apart_refuse_the_first_request_that_they_are_made_for(
    tmp_path: Path, kind: str
) -> None:
    # So many values that their functions are made as requests come.
    values = range(AT_ONCE + 8)
    rules = [
        f"  - {{id: {name}-{value}, when: {{{fact}: {name}{value}}}, unknown: skip, block: {{}}}}"
        for name, fact in (("o", "account.org"), ("m", "request.model"))
        for value in values
    ]
    text = "\n".join(["guardrail: 1", "policy: apart", "rules:", *rules])
    store = "memory://" if kind == "memory" else f"lmdb://{tmp_path}"

    with Guard.from_policies(load_text(text), store=store, environ={}) as guard:
        for value in values:
            for name, fact in (("o", "account.org"), ("m", "request.model")):
                decision = guard.decide({"account.id": "a", fact: f"{name}{value}"})
                assert decision.rule == f"{name}-{value}"


NEW = "2026-01-04T12:00:00Z"
ODD = """
guardrail: 1
policy: odd
conditions: {known: {account.age: {gte: 60d}}}
links: {trusted: {use: known}, strong: [payment.fingerprint]}
rules:
  - {id: tools, when: {request.tools: {gt: 9}}, unknown: skip, block: {}}
  - {id: shared, when: always, budget: {requests: 3, per: day, key: actor.id}}
"""


def test_a_request_that_is_too_odd_for_one_pass_is_counted_for_whom_its_account_acts_as() -> None:
    guard = guard_of(ODD)

    def effect(account: str) -> str:
        odd = {"request.tools": "many", "payment.fingerprint": "card"}
        return str(guard.decide({"account.id": account, "account.created": NEW, **odd}).effect)

    assert [effect(account) for account in "abab"] == ["allow"] * 3 + ["throttle"]

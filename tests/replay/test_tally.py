"""Tallies: what is counted in kinds equals what is counted one by one."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from guardrail.guard import Guard
from guardrail.loading import load_text
from guardrail.model.effects import Effect
from guardrail.model.policy import PolicySet
from guardrail.replay import tally as tallies
from guardrail.replay.matching import Matching
from guardrail.replay.running import Replay
from guardrail.replay.tally import Tally
from guardrail.traffic.reading import Recorded
from guardrail.traffic.requests import Request

START = 1772366400.0
POLICIES = """
guardrail: 1
policy: p
facts:
  account.tier: {type: level, values: [anonymous, email, verified], default: anonymous}
  account.seats: {type: integer, source: server}
  account.tags: {type: list}
defaults: {timezone: Asia/Kolkata}
rules:
  - {id: embargo, when: {geo.country: {in: [IR, KP]}}, block: {}}
  - {id: big, when: {account.seats: {gt: 5}, not: {account.org: {in: [o1, o2]}}}, block: {}}
  - {id: night, when: {time.hour: {lt: 6}}, degrade: {max_output_tokens: 100}}
  - {id: young, when: {account.age: {lt: 2d}}, block: {}, unknown: skip}
  - {id: past, when: {account.created: {after: now}}, block: {}, mode: shadow}
  - {id: march, when: always, degrade: {max_output_tokens: 50}, from: 2026-03-02, until: 2026-03-03}
  - {id: tagged, when: {account.tags: {in: [x, y]}}, block: {}, unknown: skip, mode: shadow}
  - {id: same, when: {payment.country: {same_as: geo.country}}, block: {}, mode: shadow}
  - {id: modern, when: {request.model: {prefix: gpt}}, block: {}, mode: shadow}
  - {id: idle, when: always, block: {}, mode: "off"}
  - {id: day, when: {account.tier: {below: verified}},
     budget: {tokens: 3k, per: day, key: account.id}}
exemptions:
  - {id: e, rules: [day, night], when: {account.id: a3}, reason: why, expires: 2026-03-04}
"""


@pytest.fixture(scope="module")
def policies() -> PolicySet:
    return load_text(POLICIES)


def traffic(seed: int, count: int = 400) -> Iterator[Recorded]:
    """Yield random requests over five days, some with facts missing or of the wrong type."""
    chance = random.Random(seed)
    ts = START
    choices: dict[str, list[object]] = {
        "account.id": ["a1", "a2", "a3", 7, None],
        "account.org": ["o1", "o3", "o4", None, "", ["o1"]],
        "account.tier": ["email", "verified", "gold", None],
        "account.seats": [3, 9, "many", None],
        "account.tags": [["x"], ["z", "y"], [], None],
        "account.created": [START - 10, START - 40_000, "2026-03-03", START + 10**6, None],
        "geo.country": ["IR", "DE", "ir", None, None],
        "payment.country": ["DE", "IR", None],
        "geo.contry": ["DE", None, None, None],
        "request.model": ["gpt-4", "gpt-5", "large", None, 7],
    }
    for line in range(1, count + 1):
        ts += chance.expovariate(count / 432_000)
        facts = {name: chance.choice(values) for name, values in choices.items()}
        estimate = chance.choice([{"tokens": chance.randrange(500)}, {"images": 3}, {}, None])
        stated = {name: value for name, value in facts.items() if value is not None}
        yield line, ts, Request(ts=ts, facts=stated, estimate=estimate)  # type: ignore[arg-type]


def tallied(policies: PolicySet, seed: int) -> tuple[Tally, Counter[object]]:
    """Return a tally, and the same figures counted from the explanation of every decision."""
    tally, plain = Tally(policies), Counter[object]()
    with Guard.from_policies(policies, environ={}) as guard:
        for _, ts, request, decision in Replay(guard).run(traffic(seed)):
            tally.add(ts, request, decision)
            told = decision.explain()
            plain["requests"] += 1
            plain[decision.rule, decision.effect] += 1
            for story in told.rules:
                plain["matched", story.rule] += story.standing == "match"
                if story.rule == decision.rule and story.unknown:
                    plain["hinged", story.rule] += 1
            for note in set(told.errors):
                plain["note", note] += "of the wrong" not in note and "matched" not in note
            plain["strange"] += "geo.contry" in request.facts
    tally.finish()
    return tally, plain


@pytest.mark.parametrize("seed", range(4))
def test_figures_equal_those_of_explanations_one_by_one(policies, seed):
    tally, plain = tallied(policies, seed)

    assert tally.requests == plain["requests"] == 400
    for (rule, effect), count in tally.decided.items():
        assert plain[rule, effect] == count
    for rule in policies.rules:
        assert tally.matching.matched[rule.id] == plain["matched", rule.id], rule.id
    hinged = Counter[str]()
    for (rule_id, _), count in tally.matching.hinged.items():
        hinged[rule_id] += count
    for rule in policies.rules:
        assert hinged[rule.id] == plain["hinged", rule.id], rule.id
    assert tally.strange == {"geo.contry": plain["strange"]}


ACTORS = """
guardrail: 1
policy: p
rules:
  - {id: alone, when: {actor.accounts: {lte: 1}}, degrade: {max_output_tokens: 9}, unknown: skip}
  - {id: known, when: {account.id: {exists: true}}, block: {}, mode: shadow}
  - {id: organised, when: {account.org: {exists: true}}, block: {}, mode: shadow}
"""


@pytest.mark.parametrize("seed", range(3))
def test_whose_requests_they_are_is_not_told_apart_where_no_rule_does(seed):
    policies = load_text(ACTORS)
    tally, plain = tallied(policies, seed)

    for rule in policies.rules:
        assert 0 < tally.matching.matched[rule.id] == plain["matched", rule.id], rule.id
    named = [{"account.id": name} for name in ("a1", "a2")]
    kinds = [tally.matching.kind(START, facts) for facts in (*named, {"account.id": ""}, {})]
    assert kinds[0] == kinds[1]
    assert kinds[2] not in (kinds[0], kinds[3])
    assert kinds[3] != kinds[0]


@pytest.mark.parametrize("seed", range(4))
def test_notes_are_those_of_the_decisions(policies, seed):
    tally, plain = tallied(policies, seed)

    assert tally.notes
    for note, count in tally.notes.items():
        assert plain["note", note] == count, note


def test_forgetting_kinds_changes_no_figure(policies, monkeypatch):
    whole, _ = tallied(policies, 9)
    monkeypatch.setattr(tallies, "MOST_KINDS", 3)
    forgetful, _ = tallied(policies, 9)

    assert forgetful.decided == whole.decided
    assert forgetful.matching.matched == whole.matching.matched
    assert forgetful.notes == whole.notes


def test_accounts_are_counted_by_the_effects_they_met(policies):
    tally, _ = tallied(policies, 1)

    assert set(tally.accounts) == {"a1", "a2", "a3"}
    assert tally.effect_accounts(Effect.BLOCK) == 3
    assert sum(tally.effect_requests(effect) for effect in Effect) == 400


def test_what_shadow_rules_would_change_is_counted_where_they_are_stricter():
    guard = Guard.from_policies(
        load_text(
            """
guardrail: 1
policy: p
rules:
  - {id: hard, when: {account.id: a1}, block: {}}
  - {id: soft, when: {account.id: {in: [a1, a2, a3]}}, block: {}, mode: shadow}
  - {id: pace, when: always, rate: {requests: 1/day, burst: 1, key: account.id}, mode: shadow}
"""
        )
    )
    tally = Tally(guard.policies)
    rows = [
        (line, START, Request(ts=START, facts={"account.id": account}))
        for line, account in enumerate(["a1", "a2", "a2", "a4", "a4"], 1)
    ]
    for _, ts, request, decision in Replay(guard).run(rows):
        tally.add(ts, request, decision)
    tally.finish()

    assert tally.shadow.by_rule == {
        ("soft", Effect.BLOCK): 3,
        ("pace", Effect.THROTTLE): 2,
    }
    assert tally.shadow.stricter == {Effect.BLOCK: 2, Effect.THROTTLE: 1}
    assert tally.shadow.accounts == {"a2": 2, "a4": 1}


@pytest.mark.parametrize(("condition", "same"), [("geo.asn: 7", True), ("time.hour: 7", False)])
def test_requests_are_of_one_kind_at_any_time_unless_a_rule_looks_at_the_clock(condition, same):
    rule = f"{{id: r, when: {{{condition}}}, block: {{}}}}"
    kind = Matching(load_text(f"guardrail: 1\npolicy: p\nrules: [{rule}]\n")).kind

    assert (kind(START, {"geo.asn": 7}) == kind(START + 7200, {"geo.asn": 7})) is same

"""Whom refusals hit: figures equal those counted decision by decision, whole and merged."""

from __future__ import annotations

import pickle
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import pytest

from guardrail.engine import Decision, FactReader
from guardrail.guard import Guard
from guardrail.loading import load_text
from guardrail.model.effects import Effect
from guardrail.model.policy import PolicySet
from guardrail.replay.harm import DEGRADED, MISSING, REFUSED, SEEN, SHADOW_REFUSED, Harm, Place
from guardrail.replay.running import Replay
from guardrail.replay.signs import Signs
from guardrail.traffic.reading import Recorded
from guardrail.traffic.requests import Request

START = 1772366400.0
POLICIES = """
guardrail: 1
policy: p
facts:
  account.tier: {type: level, values: [anonymous, email, verified], default: email}
models: {large: {weaker: small}, small: {}}
rules:
  - {id: embargo, when: {geo.country: IR}, unknown: skip, block: {}}
  - id: day
    when: {account.tier: {below: verified}}
    budget: {requests: 6, per: day, key: account.id}
    steps: [{at: 50%, degrade: {model: small}}, {at: 100%, throttle: {}}]
  - {id: young, when: {account.age: {lt: 2d}}, block: {}, unknown: skip, mode: shadow}
  - {id: all, when: always, budget: {requests: 40, per: day, key: global}, mode: shadow}
"""
DIVISIONS = [("account.tier",), ("geo.country", "account.tier"), ("account.age",), ("time.hour",)]


@pytest.fixture(scope="module")
def policies() -> PolicySet:
    return load_text(POLICIES)


def traffic(seed: int, count: int = 300) -> Iterator[Recorded]:
    """Yield random requests over three days."""
    chance = random.Random(seed)
    ts = START
    for line in range(1, count + 1):
        ts += chance.expovariate(count / 259_200)
        account = chance.choice(["a1", "a2", "a3", "a4", "a5", "a6", None, 7])
        facts = {
            "account.id": account,
            "account.tier": chance.choice(["email", "verified", None, "gold"]),
            "geo.country": chance.choice(["DE", "IR", "US", None]),
            "account.created": chance.choice([START - 10**7, ts - 3600, None]),
            "account.paid_usd": chance.choice([0, 5, None]),
            "request.model": "large",
        }
        known = {name: value for name, value in facts.items() if value is not None}
        yield line, ts, Request(ts=ts, facts=known, estimate={"input_tokens": 1})  # type: ignore[arg-type]


def decided(policies: PolicySet, seed: int) -> list[tuple[Place, Decision]]:
    with Guard.from_policies(policies, environ={}) as guard:
        return [
            (Place(ts, "t", line), decision)
            for line, ts, _, decision in Replay(guard).run(traffic(seed))
        ]


def told(policies: PolicySet, rows: Sequence[tuple[Place, Decision]]) -> Harm:
    harm = Harm(policies, DIVISIONS)
    for place, decision in rows:
        harm.add(place, decision)
    harm.finished()
    return harm


def stricter(decision: Decision) -> Effect:
    return max([decision.effect, *(report.effect for report in decision.shadow)])


def plain(policies: PolicySet, rows: Sequence[tuple[Place, Decision]]) -> Counter[object]:
    """Count the same figures one by one."""
    reader = FactReader(policies.facts, {"account.tier", "geo.country"}, "UTC")
    found: Counter[object] = Counter()
    met = defaultdict(set)
    for place, decision in rows:
        facts, _ = reader.read(decision.facts, place.ts)
        values = [facts.get(name) or MISSING for name in ("geo.country", "account.tier")]
        account = decision.facts.get("account.id")
        for name in ((values[1],), tuple(values)):
            found[name, decision.effect] += 1
            would = stricter(decision)
            milder = would > decision.effect and not decision.effect.refuses
            found[name, "shadow", would] += milder
            if not isinstance(account, str):
                continue
            met[name, SEEN].add(account)
            if decision.effect is Effect.DEGRADE:
                met[name, DEGRADED].add(account)
            if decision.effect.refuses:
                met[name, REFUSED].add(account)
            elif would.refuses:
                met[name, SHADOW_REFUSED].add(account)
        if isinstance(account, str):
            found[account, "requests"] += 1
            found[account, "refused"] += decision.effect.refuses
    for key, accounts in met.items():
        found["met", *key] = len(accounts)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_segments_and_accounts_are_those_counted_one_by_one(policies, seed):
    rows = decided(policies, seed)
    harm, expected = told(policies, rows), plain(policies, rows)

    for segments in harm.segments[:2]:
        assert sum(segment.requests for segment in segments.values()) == len(rows)
        for values, segment in segments.items():
            for effect in Effect:
                assert segment.decided[effect] == expected[values, effect]
                assert segment.shadow[effect] == expected[values, "shadow", effect]
            for met in (SEEN, DEGRADED, REFUSED, SHADOW_REFUSED):
                assert segment.accounts_that(met) == expected["met", values, met]
    assert sum(s.refused for s in harm.segments[0].values()) == harm.whole.refused > 0
    for account, hit in harm.hits.items():
        assert hit.requests == expected[account, "requests"]
        assert hit.refused == expected[account, "refused"]
    assert set(harm.hits) == {name for name in harm.met if expected[name, "refused"]}


@pytest.mark.parametrize("seed", range(4))
def test_the_first_refusal_is_the_earliest_with_what_its_rule_read(policies, seed):
    rows = decided(policies, seed)
    harm = told(policies, rows)

    for account, hit in harm.hits.items():
        place, decision = next(
            (place, decision)
            for place, decision in sorted(rows, key=lambda row: row[0])
            if decision.facts.get("account.id") == account and decision.effect.refuses
        )
        assert (hit.place, hit.rule, hit.effect) == (place, decision.rule, decision.effect)
        if hit.rule == "day":
            assert hit.read.key == (("account.id", account),)
            assert hit.read.limit == 6
            assert (hit.read.used or 0) + (hit.read.asked or 0) > 6
        else:
            assert hit.read.facts == (("geo.country", "IR"),)
    refused = sorted(place for place, decision in rows if decision.effect.refuses)
    firsts = [segment.first for segment in harm.segments[0].values() if segment.first]
    assert min(first.place for first in firsts) == refused[0]


@pytest.mark.parametrize("seed", range(3))
def test_parts_merged_in_any_order_are_the_whole(policies, seed):
    rows = decided(policies, seed)
    whole = told(policies, rows)
    chance = random.Random(seed)
    parts: list[list[tuple[Place, Decision]]] = [[], [], []]
    for place, decision in rows:
        name = str(decision.facts.get("account.id"))
        parts[sum(name.encode()) % 3].append((place, decision))
    chance.shuffle(parts)
    merged = Harm(policies, DIVISIONS)
    for part in parts:
        merged.merge(pickle.loads(pickle.dumps(told(policies, part))))
    merged.finished()

    assert merged.segments == whole.segments
    assert merged.hits == whole.hits
    assert merged.shadow_hits == whole.shadow_hits
    assert merged.by_rule == whole.by_rule
    assert (merged.met, merged.soon) == (whole.met, whole.soon)


def test_numbers_and_ages_fall_into_bands(policies):
    harm = told(policies, decided(policies, 1))

    assert set(harm.segments[2]) <= {("under 1d",), ("90d–365d",), (MISSING,)}
    assert {int(hour) for (hour,) in harm.segments[3]} <= set(range(24))


SIGNS = {
    "nothing": ({}, set()),
    "paid nothing": ({"account.paid_usd": 0}, set()),
    "paid": ({"account.paid_usd": 0.5}, {"paid"}),
    "paid since": ({"account.paid_since": START - 5}, {"paid"}),
    "an identity": ({"kyc.subject": "k"}, {"verified"}),
    "verified at": ({"account.verified_at": START - 5}, {"verified"}),
    "thirty days": ({"account.created": START - 30 * 86400}, {"known"}),
    "a day less": ({"account.created": START - 29 * 86400}, set()),
    "upper half": ({"account.tier": "verified"}, {"trusted"}),
    "lower half": ({"account.tier": "email"}, set()),
}


@pytest.mark.parametrize(("facts", "signs"), SIGNS.values(), ids=list(SIGNS))
def test_signs_are_read_from_what_the_server_established(policies, facts, signs):
    standing = Signs(policies).of(facts, START)

    assert set(standing.signs) == signs
    assert standing.like_customer is (len(signs) >= 2)


def test_who_is_trusted_is_what_links_say():
    policies = load_text(
        POLICIES + "links: {trusted: {account.paid_usd: {gte: 100}}, strong: [kyc.subject]}\n"
    )
    signs = Signs(policies)

    assert set(signs.of({"account.tier": "verified"}, START).signs) == set()
    assert set(signs.of({"account.paid_usd": 100}, START).signs) == {"paid", "trusted"}


TRUSTED = {
    "once for ever": "{account.age: {gte: 1d}}",
    "not for ever": "{account.age: {lt: 1d}}",
    "by day": "{time.hour: {lt: 12}}",
    "not the young": "{not: {account.age: {lt: 1d}}}",
}


@pytest.mark.parametrize("trusted", TRUSTED.values(), ids=list(TRUSTED))
def test_what_speaks_for_an_account_is_the_most_that_did_at_any_refusal(trusted):
    policies = load_text(f"{POLICIES}links: {{trusted: {trusted}, strong: [kyc.subject]}}\n")
    assert Signs(policies).grows is (trusted == TRUSTED["once for ever"])
    rows = decided(policies, 3)
    harm, signs = told(policies, rows), Signs(policies)

    weights: dict[object, list[tuple[float, ...]]] = defaultdict(list)
    for place, decision in rows:
        if decision.effect.refuses:
            weight = signs.of(decision.facts, place.ts).weight
            weights[decision.facts.get("account.id")].append(weight)
    assert harm.hits
    for account, hit in harm.hits.items():
        assert hit.standing.weight == max(weights[account])

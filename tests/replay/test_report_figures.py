"""What a report adds up, held against replays under the limits it only estimates, and merged."""

from __future__ import annotations

import pickle
import random

import pytest

from guardrail.guard import Guard
from guardrail.loading import load_text
from guardrail.model.effects import Effect
from guardrail.replay.harm import Place
from guardrail.replay.report.figures import ReportFigures, limit_text, period_text
from guardrail.replay.report.fills import TIMES
from guardrail.replay.report.sampling import KeySample
from guardrail.replay.report.series import MOST_BINS, Series
from guardrail.replay.running import Replay
from guardrail.replay.tally import Tally
from guardrail.traffic.requests import Amounts, FactValue, Request
from tests.replay.histories import START, only_row, replayed, traffic

HEAD = "guardrail: 1\npolicy: p\nrules:\n  - {id: r, when: always, "
BUDGET = HEAD + "budget: {requests: N, per: day, key: account.id}}\n"
ROLLING = HEAD + "budget: {requests: N, per: 366d, key: account.id}}\n"
LIFETIME = HEAD + "budget: {requests: N, per: lifetime, key: account.id}}\n"
RATE = HEAD + "rate: {requests: N/day, burst: N, key: account.id}}\n"
DISTINCT = HEAD + "distinct: {count: account.id, max: N, per: 300d, key: device.fingerprint}}\n"
IN_FLIGHT = HEAD + "concurrency: {max: N, lease: 1h, key: account.id}}\n"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("policy", "most", "key"),
    [
        (BUDGET, 20, "account.id"),
        (ROLLING, 20, "account.id"),
        (LIFETIME, 40, "account.id"),
        (RATE, 20, "account.id"),
        (DISTINCT, 4, "device.fingerprint"),
    ],
    ids=["budget", "rolling", "lifetime", "rate", "distinct"],
)
def test_of_one_rule_and_requests_alone_the_estimate_is_what_another_limit_refuses(
    policy, most, key, seed
):
    lines = traffic(seed, 700)
    row = only_row(replayed(policy.replace("N", str(most)), lines, key)[0])
    assert row.refused > 0

    for times, requests, keys in row.past:
        _, refused = replayed(policy.replace("N", str(round(most * times))), lines, key)
        assert (requests, keys) == (sum(refused.values()), len(refused)), times


@pytest.mark.parametrize("seed", range(2))
def test_what_is_in_flight_is_estimated_between_its_bounds(seed):
    lines = traffic(seed, 400, duration=900.0)
    fills, refused = replayed(IN_FLIGHT.replace("N", "4"), lines, "account.id")
    row = only_row(fills)
    past = {times: requests for times, requests, _ in row.past}

    assert row.refused == sum(refused.values()) > 0
    assert past[1.0] >= row.refused
    assert past[0.5] >= past[0.8] >= past[1.0] >= past[1.25] >= past[2.0]


def test_what_was_turned_away_in_flight_is_in_flight_no_longer_when_it_would_have_ended():
    facts: dict[str, FactValue] = {"account.id": "a1"}
    starts = [0.0, 1.0, 2.0, 200.0]
    lines = [
        (n, START + at, Request(ts=START + at, facts=facts, duration=100.0))
        for n, at in enumerate(starts, 1)
    ]
    row = only_row(replayed(IN_FLIGHT.replace("N", "1"), lines, "account.id")[0])

    # The second and third are refused: two, then three at once. The last is alone.
    assert (row.requests, row.refused) == (4, 2)
    assert row.past == ((0.5, 4, 1), (0.8, 4, 1), (1.0, 2, 1), (1.25, 2, 1), (2.0, 1, 1))


def test_a_refused_request_counts_for_what_it_would_have_used():
    policy = HEAD + "budget: {tokens: 100, per: day, key: account.id}}\n"
    facts: dict[str, FactValue] = {"account.id": "a1"}
    estimate: Amounts = {"input_tokens": 60, "output_tokens": 0}
    usage: Amounts = {"input_tokens": 10, "output_tokens": 0}
    lines = [
        (n, START + n, Request(ts=START + n, facts=facts, estimate=estimate, usage=usage))
        for n in range(7)
    ]
    row = only_row(replayed(policy, lines, "account.id")[0])

    # Served as long as 60 fit: 0, 10, … 40 are used before each; the sixth and seventh do not.
    assert row.refused == 2
    assert row.past[2] == (1.0, 2, 1)
    # The seventh asks for 60 where 50 are used and 10 were turned away.
    assert row.past[3] == (1.25, 0, 0)
    assert row.bands == (0, 0, 0, 0, 1, 0, 0)


def test_a_rule_of_two_units_tells_which_of_them_refused():
    policy = HEAD + "budget: {requests: 3, tokens: 1k, per: day, key: account.id}}\n"
    facts: dict[str, FactValue] = {"account.id": "a1"}
    usage: Amounts = {"input_tokens": 1, "output_tokens": 0}
    lines = [
        (n, START + n, Request(ts=START + n, facts=facts, estimate=usage, usage=usage))
        for n in range(5)
    ]
    fills, refused = replayed(policy, lines, "account.id")

    assert [(row.unit, row.refused) for row in fills.rows()] == [("requests", 2), ("tokens", 0)]
    assert sum(refused.values()) == 2


def test_bands_count_each_key_once_by_the_most_it_asked_for():
    lines = [(n, ts, request) for n, ts, request in traffic(1, 300)]
    row = only_row(replayed(BUDGET.replace("N", "20"), lines, "account.id")[0])

    assert sum(row.bands) == row.keys == len({request.facts["account.id"] for *_, request in lines})
    # Past all of the limit is who is refused: the bands from 100 % on.
    assert sum(row.bands[4:]) == {times: keys for times, _, keys in row.past}[1.0]


def test_what_others_refuse_is_not_held_against_a_limit():
    policy = BUDGET.replace("N", "20") + "  - {id: closed, when: always, block: {}}\n"
    fills, refused = replayed(policy, traffic(0, 50), "account.id")

    assert sum(refused.values()) == 50
    assert fills.rows() == []


def test_steps_count_the_requests_that_reached_them():
    policy = HEAD + (
        "budget: {requests: 10, per: lifetime, key: account.id},\n     "
        "steps: [{at: 50%, notify: {x-a: b}}, {at: 100%, throttle: {}}]}\n"
    )
    lines = [(n, ts, r) for n, ts, r in traffic(3, 200) if r.facts["account.id"] == "a0"][:12]
    row = only_row(replayed(policy, lines, "account.id")[0])

    assert row.steps == ((50, 7), (100, 2))


@pytest.mark.parametrize("seed", range(5))
def test_series_in_parts_are_the_series_of_the_whole(seed):
    chance = random.Random(seed)
    span = chance.choice([10, 2000, 90_000, 40_000_000])
    events = [(START + chance.random() * span, chance.choice(list(Effect))) for _ in range(300)]
    whole, parts = Series(), [Series(), Series(), Series()]
    for number, (ts, effect) in enumerate(events):
        whole.add(ts, effect)
        parts[number % 3].add(ts, effect)
    merged = Series()
    for part in parts:
        merged.merge(part)

    assert merged.rows() == whole.rows()
    assert len(whole.rows()) <= MOST_BINS
    counts = [sum(row[effect] for _, row in whole.rows()) for effect in Effect]
    assert counts == [sum(met is effect for _, met in events) for effect in Effect]


class Names(list):
    """The names that were noted under a key."""

    def merge(self, other):
        self.extend(other)


def test_a_sample_of_keys_is_the_same_in_any_order_and_in_parts():
    names = [f"key {number}" for number in range(5000)]

    def sampled(parts):
        found: KeySample[Names] = KeySample(Names, most=256)
        for part in parts:
            one: KeySample[Names] = KeySample(Names, most=256)
            for name in part:
                state = one.state(name)
                if state is not None:
                    state.append(name)
            found.merge(one)
        return sorted(name for state in found for name in state), found.every

    whole = sampled([names])
    assert sampled([names[::-1]]) == whole == sampled([names[::2], names[1::2]])
    kept, every = whole
    assert 128 < len(kept) <= 256
    assert len(kept) * every == pytest.approx(5000, rel=0.3)


def test_the_accounts_hurt_most_are_those_with_most_refused_then_least_served():
    policies = load_text(HEAD + "budget: {requests: 2, per: day, key: account.id}}\n")
    asked = {"a": 5, "b": 9, "c": 2, "d": 5}
    tally = Tally(policies)
    with Guard.from_policies(policies, store="memory://") as guard:
        for line, account in enumerate("a" * 5 + "b" * 9 + "c" * 2 + "d" * 5):
            facts: dict[str, FactValue] = {"account.id": account}
            request = Request(ts=START, facts=facts)
            decision = guard.decide(facts, {}, now=START)
            tally.add(START, request, decision, Place(START, "f", line))
    tally.finish()
    worst = tally.harm.worst(3)

    assert [(account, hit.refused) for account, hit in worst] == [("b", 7), ("a", 3), ("d", 3)]
    assert all(hit.requests == asked[account] for account, hit in worst)
    assert tally.harm.rules_of("b") == ["r"]
    assert tally.harm.rules_of("c") == []


def test_figures_in_parts_are_those_of_the_whole():
    policies = load_text(BUDGET.replace("N", "20"))
    lines = traffic(5, 400)
    by_half = {f"a{n}": n % 2 for n in range(12)}
    whole, *halves = (ReportFigures() for _ in range(3))
    tally = Tally(policies)
    guard = Guard.from_policies(policies, store="memory://")
    for line, ts, request, decision in Replay(guard).run(iter(lines)):
        tally.add(ts, request, decision, Place(ts, "f", line))
        whole.add(ts, request, decision)
        halves[by_half[str(request.facts["account.id"])]].add(ts, request, decision)
    guard.close()
    tally.finish()
    # As they come from other processes.
    halves = [pickle.loads(pickle.dumps(half)) for half in halves]
    halves[0].merge(halves[1])

    def told(figures):
        return figures.fields(tally, policies, lambda account: account)

    assert told(halves[0]) == told(whole)
    assert told(whole)["limits"][0]["key"] == ["account.id"]
    refused = sum(row["refused"] for row in told(whole)["worst"])
    assert refused == tally.effect_requests(Effect.THROTTLE)
    by_effect = [sum(row[1 + effect] for row in told(whole)["series"]) for effect in Effect]
    assert by_effect == [tally.effect_requests(effect) for effect in Effect]


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("requests: 5k", "5,000"),
        ("cost_usd: 2.5", "2.50"),
        ("requests: {by: request.model, a: 5, b: 50, else: unlimited}",
         "5 to unlimited by request.model"),
        ("requests: {fact: account.seats, else: 5}", "by account.seats"),
    ],
)  # fmt: skip
def test_a_limit_is_told_as_a_person_reads_it(amount, text):
    policy = (
        "guardrail: 1\npolicy: p\nfacts: {account.seats: {type: integer, source: server}}\n"
        "models: {a: {price: {input: 1, output: 1}}, b: {price: {input: 1, output: 1}}}\n"
        f"rules:\n  - {{id: r, when: always, budget: {{{amount}, per: day, key: account.id}}}}\n"
    )
    rule = load_text(policy).rules[0]

    assert limit_text(rule, rule.verb.units[0]) == text


@pytest.mark.parametrize(
    ("verb", "text"),
    [
        ("budget: {requests: 1, per: day, key: global}", "per day"),
        ("budget: {requests: 1, per: 30d, key: global}", "per 30d"),
        ("budget: {requests: 1, per: lifetime, key: global}", "for ever"),
        ("rate: {requests: 1/minute, key: account.id}", "per minute"),
        ("rate: {requests: 100 per 15 minutes, key: account.id}", "per 15 minutes"),
        ("distinct: {count: account.id, max: 3, per: 90d, key: kyc.subject}", "per 90 days"),
        ("concurrency: {max: 3, key: account.id}", ""),
    ],
)
def test_the_time_of_a_limit_is_told_in_words(verb, text):
    rule = load_text(f"{HEAD}{verb}}}\n").rules[0]

    assert period_text(rule) == text


def test_the_limits_tried_are_below_and_above_the_present_one():
    assert sorted(TIMES) == list(TIMES)
    assert 1.0 in TIMES

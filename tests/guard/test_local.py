"""Counting alone: what a process lets through while the store is away, and what stays of it."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail import Guard
from guardrail.guard.fallback import LATE
from guardrail.loading import load_text
from guardrail.testing import MovableClock
from tests.guard.failing import DOWN, HEAD, KINDS, KNOWN, Driver, ScriptedStore

BUDGET = "  - {id: r, when: always, budget: {tokens: 100, per: %s, key: account.id}}\n"
RATE = "  - {id: r, when: always, rate: {requests: 60/minute, burst: 20, key: account.id}}\n"
FLIGHT = "  - {id: r, when: always, concurrency: {max: 10, key: account.id}}\n"
BANNING = (
    "  - {id: r, when: always, rate: {requests: 1/minute, burst: 1, key: account.id}, "
    "on_store_error: %s, escalate: {after: 3, within: 10m, block_for: 1h}}\n"
)


@cache
def loaded(rules):
    return load_text(HEAD + rules)


class Fleet:
    """Several processes over one store, each with a share of 1/k."""

    def __init__(self, rules, size):
        self.clock = MovableClock()
        self.store = ScriptedStore()
        self.guards = [
            Guard.from_policies(
                loaded(rules),
                store=self.store,
                clock=self.clock,
                environ={},
                local_share=Fraction(1, size),
            )
            for _ in range(size)
        ]

    def admitted(self, process, tokens=1, times=1):
        decisions = [self.guards[process].decide(KNOWN, {"tokens": tokens}) for _ in range(times)]
        return [decision for decision in decisions if decision.allowed]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.mark.parametrize("window", ["day", "2h", "lifetime"])
@settings(max_examples=20)
@given(
    size=st.integers(1, 6),
    before=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), max_size=25),
    after=st.lists(st.integers(1, 4), min_size=40, max_size=40),
)
def test_each_process_spends_its_share_less_what_it_spent_before(window, size, before, after):
    fleet = Fleet(BUDGET % window, size)
    spent = [0] * size
    for process, tokens in before:
        for decision in fleet.admitted(process % size, tokens):
            used = max(1, tokens // 2)
            fleet.guards[process % size].settle(decision, {"tokens": used})
            spent[process % size] += used
    fleet.store.fault = DOWN
    alone = [0] * size
    for process in range(size):
        for tokens in (*after, *(1,) * 100):
            alone[process] += sum(tokens for _ in fleet.admitted(process, tokens))

    assert alone == [max(0, 100 // size - own) for own in spent]
    assert sum(alone) <= 100


@settings(max_examples=40)
@given(
    size=st.integers(1, 6),
    before=st.lists(st.integers(0, 5), max_size=40),
    gaps=st.lists(st.sampled_from([0.0, 0.1, 1.0, 5.0]), min_size=60, max_size=60),
)
def test_a_rate_goes_on_from_where_it_stood_each_process_at_its_part(size, before, gaps):
    fleet = Fleet(RATE, size)
    for process in before:
        fleet.admitted(process % size)
    fleet.store.fault = DOWN
    start = fleet.clock.now
    admitted = [0] * size
    for gap in gaps:
        fleet.clock.advance(gap)
        for process in range(size):
            admitted[process] += len(fleet.admitted(process, times=3))
            seconds = fleet.clock.now - start
            assert admitted[process] <= max(1.0, 20 / size) + seconds / size + 1e-6


def test_a_busy_process_is_not_locked_out_of_a_rate_by_its_own_past(kind):
    with Driver(kind, RATE) as driver:
        for _ in range(600):
            driver.decide(KNOWN)
            driver.clock.advance(1)
        driver.store.fault = DOWN
        allowed = []
        for _ in range(60):
            allowed.append(driver.decide(KNOWN).allowed)
            driver.clock.advance(1)

        assert sum(allowed) == pytest.approx(15 + 19 / 4, abs=1)


def test_a_share_of_requests_in_flight_is_free_again_when_they_end(kind):
    with Driver(kind, FLIGHT) as driver:
        early = driver.decide(KNOWN)
        driver.store.fault = DOWN
        alone = [driver.decide(KNOWN) for _ in range(3)]
        assert [decision.allowed for decision in alone] == [True, False, False]

        driver.settle(early)
        assert driver.decide(KNOWN).allowed
        driver.settle(alone[0])
        assert driver.decide(KNOWN).allowed


@pytest.mark.parametrize(("most", "share"), [(1, 1), (3, 1), (8, 2), (11, 2)])
def test_a_set_holds_one_at_least_and_windows_round_down(kind, most, share):
    rules = f"  - {{id: r, when: always, concurrency: {{max: {most}, key: account.id}}}}\n"
    with Driver(kind, rules) as driver:
        driver.store.fault = DOWN
        assert sum(driver.decide(KNOWN).allowed for _ in range(20)) == share
    rules = f"  - {{id: r, when: always, budget: {{requests: {most}, per: day, key: global}}}}\n"
    with Driver(kind, rules) as driver:
        driver.store.fault = DOWN
        assert sum(driver.decide(KNOWN).allowed for _ in range(20)) == most // 4


def test_steps_of_a_budget_hold_at_the_share(kind):
    rules = (BUDGET % "day").rstrip("}\n") + (
        "}, steps: [{at: 50%, degrade: {model: small}}, {at: 80%, throttle: {}}]}\n"
    )
    with Driver(kind, rules) as driver:
        driver.store.fault = DOWN
        effects = [str(driver.decide(KNOWN, {"tokens": 1}).effect) for _ in range(25)]

        assert effects == ["allow"] * 12 + ["degrade"] * 8 + ["throttle"] * 5


def test_what_is_decided_alone_is_settled_alone_and_never_reaches_the_store(kind):
    with Driver(kind, BUDGET % "day") as driver:
        driver.store.fault = DOWN
        alone = [driver.decide(KNOWN, {"tokens": 10}) for _ in range(3)]
        assert [decision.allowed for decision in alone] == [True, True, False]
        driver.store.fault = None
        driver.settle(alone[0], {"tokens": 1})
        driver.release(alone[1])
        driver.renew(alone[1])
        driver.settle(alone[2], {"tokens": 1})
        assert driver.store.sent == []
        assert driver.decide(KNOWN, {"tokens": 1}).limits[0].used == 1

        driver.store.fault = DOWN
        assert driver.decide(KNOWN, {"tokens": 22}).allowed
        assert not driver.decide(KNOWN, {"tokens": 2}).allowed


def test_more_than_a_rates_estimate_is_charged_alone_and_less_is_not_given_back(kind):
    rules = "  - {id: r, when: always, rate: {tokens: 60/minute, burst: 40, key: account.id}}\n"
    for usage, room in ((1, 5), (5, 5), (9, 1)):
        with Driver(kind, rules) as driver:
            driver.store.fault = DOWN
            driver.settle(driver.decide(KNOWN, {"tokens": 5}), {"tokens": usage})

            assert driver.decide(KNOWN, {"tokens": room}).allowed
            assert not driver.decide(KNOWN, {"tokens": 1}).allowed


def test_an_outage_raises_no_strike(kind):
    with Driver(kind, BANNING % "local") as driver:
        driver.store.fault = DOWN
        for _ in range(50):
            driver.decide(KNOWN)
            driver.clock.advance(1.1)
        driver.store.fault = None
        driver.clock.advance(120)
        for _ in range(2):
            assert driver.decide(KNOWN).allowed
            assert driver.decide(KNOWN).reason == "r"
            driver.clock.advance(90)


@pytest.mark.parametrize("answer", ["allow", "deny", "local"])
def test_a_ban_the_store_told_of_stands_and_ends_on_time(kind, answer):
    with Driver(kind, BANNING % answer) as driver:
        for _ in range(6):
            last = driver.decide(KNOWN)
            driver.clock.advance(1)
        assert last.reason == "repeated-refusals"
        driver.store.fault = DOWN
        banned = driver.decide(KNOWN)
        assert (str(banned.effect), banned.reason) == ("block", "repeated-refusals")
        assert 3500 < banned.retry_after < 3600
        assert driver.decide({**KNOWN, "account.id": "b"}).reason != "repeated-refusals"

        driver.clock.advance(banned.retry_after + 1)
        assert driver.decide(KNOWN).reason == {"deny": "store-unavailable"}.get(answer)


def test_a_ban_is_known_from_the_refusal_that_brought_it(kind):
    with Driver(kind, BANNING % "allow") as driver:
        for _ in range(4):
            last = driver.decide(KNOWN)
            driver.clock.advance(1)
        assert last.retry_after == 3600.0
        driver.store.fault = DOWN

        assert driver.decide(KNOWN).reason == "repeated-refusals"


def test_a_ban_that_another_process_brought_is_known_from_its_refusal():
    fleet = Fleet(BANNING % "local", 2)
    for _ in range(4):
        fleet.guards[0].decide(KNOWN)
        fleet.clock.advance(1)
    assert fleet.guards[1].decide(KNOWN).reason == "repeated-refusals"
    fleet.store.fault = DOWN

    assert fleet.guards[1].decide(KNOWN).reason == "repeated-refusals"


def test_rules_that_deny_keep_no_counters_of_their_own(kind):
    rules = (BUDGET % "day").replace("}}", "}, on_store_error: deny}")
    with Driver(kind, rules) as driver:
        driver.settle(driver.decide(KNOWN, {"tokens": 5}), {"tokens": 9})

        assert len(driver.guard._supervisor._local.store) == 0


def test_what_the_store_refused_is_not_counted_beside_it(kind):
    with Driver(kind, BUDGET % "day", local_share=Fraction(1)) as driver:
        assert driver.decide(KNOWN, {"tokens": 90}).allowed
        assert not driver.decide(KNOWN, {"tokens": 90}).allowed
        driver.store.fault = DOWN

        assert driver.decide(KNOWN, {"tokens": 10}).allowed
    other = FLIGHT.replace("id: r", "id: s").replace("max: 10", "max: 1")
    with Driver(kind, BUDGET % "day" + other, local_share=Fraction(1)) as driver:
        held = driver.decide(KNOWN, {"tokens": 90})
        assert not driver.decide(KNOWN, {"tokens": 9}).allowed
        driver.settle(held)
        driver.store.fault = DOWN

        assert driver.decide(KNOWN, {"tokens": 10}).allowed


def test_of_what_the_store_admits_little_waits_to_be_counted_beside_it(kind):
    with Driver(kind, BUDGET % "day") as driver:
        late = driver.guard._supervisor._local._late
        for _ in range(3 * LATE):
            driver.settle(driver.decide(KNOWN, {"tokens": 2}), {"tokens": 1})
            assert len(late) < LATE


def test_local_counters_are_bounded_for_strangers():
    driver = Driver("sync", RATE.replace("account.id", "device.fingerprint"))
    with driver:
        local = driver.guard._supervisor._local
        local.store.max_keys = 50
        for number in range(500):
            facts = {"device.fingerprint": f"x{number}", "client.network": "192.0.2.0/24"}
            driver.decide(facts)

        assert len(local.store) < 60

"""Replaying: the recorded clock, what is settled when, and what is late."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import pytest

from guardrail.engine import Decision
from guardrail.guard import Guard
from guardrail.loading import load_text
from guardrail.replay.running import RENEWAL, Replay
from guardrail.traffic.reading import Recorded
from guardrail.traffic.requests import Request

START = 1772366400.0


def policy(rule: str) -> Guard:
    """Return a guard for one rule."""
    return Guard.from_policies(load_text(f"guardrail: 1\npolicy: p\nrules:\n  - {rule}\n"))


def traffic(*rows: Mapping[str, object]) -> Iterator[Recorded]:
    """Yield requests of one account; `at` is in seconds from the start."""
    for line, row in enumerate(rows, 1):
        members = {"facts": {"account.id": "a1"}, **row}
        ts = START + float(members.pop("at", 0))  # type: ignore[arg-type]
        yield line, ts, Request(ts=ts, **members)  # type: ignore[arg-type]


def effects(guard: Guard, rows: Iterable[Recorded]) -> list[str]:
    """Return the effects a replay comes to."""
    return [str(decision.effect) for _, _, _, decision in Replay(guard).run(rows)]


PER_DAY = "{id: r, when: always, budget: {tokens: 100, per: day, key: account.id}}"
IN_FLIGHT = "{id: r, when: always, concurrency: {max: 1, lease: 2m, key: account.id}}"


def test_usage_is_settled_before_the_next_request():
    asked = {"estimate": {"tokens": 60}, "usage": {"tokens": 10}}

    assert effects(policy(PER_DAY), traffic(asked, asked, asked)) == ["allow"] * 3


def test_usage_is_settled_only_when_the_request_ends():
    asked = {"estimate": {"tokens": 60}, "usage": {"tokens": 10}, "duration": 5.0}
    rows = traffic({"at": 0, **asked}, {"at": 4.9, **asked}, {"at": 5, **asked})

    assert effects(policy(PER_DAY), rows) == ["allow", "throttle", "allow"]


def test_a_request_without_an_estimate_reserves_its_usage():
    rows = traffic({"usage": {"tokens": 60}}, {"usage": {"tokens": 60}})

    assert effects(policy(PER_DAY), rows) == ["allow", "throttle"]


def test_a_request_without_a_usage_settles_at_its_estimate():
    rows = traffic({"estimate": {"tokens": 60}}, {"estimate": {"tokens": 60}})

    assert effects(policy(PER_DAY), rows) == ["allow", "throttle"]


def test_the_recorded_clock_restarts_budgets():
    rows = traffic({"usage": {"tokens": 90}}, {"at": 86400, "usage": {"tokens": 90}})

    assert effects(policy(PER_DAY), rows) == ["allow", "allow"]


def test_requests_in_flight_end_in_the_order_of_time():
    rows = traffic(
        {"at": 0, "duration": 10.0},
        {"at": 1, "duration": 1.0, "facts": {"account.id": "a2"}},
        {"at": 9.99},
        {"at": 10},
    )

    assert effects(policy(IN_FLIGHT), rows) == ["allow", "allow", "throttle", "allow"]


@pytest.mark.parametrize(("at", "effect"), [(500, "throttle"), (599, "throttle"), (600, "allow")])
def test_a_long_request_keeps_its_lease_until_it_ends(at, effect):
    rows = traffic({"duration": 600.0}, {"at": at})

    assert RENEWAL < 120
    assert effects(policy(IN_FLIGHT), rows) == ["allow", effect]


def test_a_decision_is_handed_on_before_it_settles():
    decisions: list[Decision] = []
    for _, _, _, decision in Replay(policy(PER_DAY)).run(traffic({}, {})):
        assert not decision.settled
        assert all(before.settled for before in decisions)
        decisions.append(decision)

    assert all(decision.settled for decision in decisions)


def test_what_is_in_flight_at_the_end_can_be_settled():
    replay = Replay(policy(PER_DAY))
    [(_, _, _, decision)] = replay.run(traffic({"duration": 1000.0}))
    assert not decision.settled

    replay.finish()

    assert decision.settled


def test_late_requests_are_decided_at_their_own_time_and_counted():
    hour = "{id: r, when: {time.hour: {gte: 13}}, block: {}}"
    replay = Replay(policy(hour))
    rows = traffic({"at": 3500}, {"at": 3700}, {"at": 3400}, {"at": 3550}, {"at": 3800})
    found = [str(decision.effect) for _, _, _, decision in replay.run(rows)]

    assert found == ["allow", "block", "allow", "allow", "block"]
    assert (replay.course.late, replay.course.furthest) == (2, 300.0)
    assert (replay.course.first, replay.course.newest) == (START + 3400, START + 3800)


def test_a_late_request_cannot_overrun_the_newest_window():
    asked = {"usage": {"tokens": 60}}
    rows = traffic({"at": 86400, **asked}, {"at": 0, **asked}, {"at": 86401, **asked})

    assert effects(policy(PER_DAY), rows) == ["allow", "throttle", "throttle"]


def test_refused_requests_are_not_settled():
    guard = policy("{id: r, when: always, block: {}}")
    [(_, _, _, decision)] = Replay(guard).run(traffic({}))

    assert not decision.settled

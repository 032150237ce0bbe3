"""A clock that was ahead once, by whatever much, binds no account for as long."""

from __future__ import annotations

import pytest

from guardrail.guard import Guard
from guardrail.testing import MovableClock
from tests.loaded import loaded

DAY = 86_400.0
RULES = {
    "rate": ("rate: {requests: 2/minute, key: account.id}", 2),
    "slow rate": ("rate: {requests: 2/day, key: account.id}", 2),
    "hour": ("budget: {requests: 2, per: hour, key: account.id}", 2),
    "day": ("budget: {requests: 2, per: day, key: account.id}", 2),
    "month": ("budget: {requests: 2, per: month, key: account.id}", 2),
    "rolling": ("budget: {requests: 2, per: 1h, key: account.id}", 2),
    "rolling days": ("budget: {requests: 2, per: 30d, key: account.id}", 2),
    "places": ("concurrency: {max: 2, key: account.id}", 2),
    "distinct": ("distinct: {count: client.ip, max: 2, per: 30d, key: account.id}", 2),
}
BAN = "escalate: {after: 1, within: 10m, block_for: 1h}"


def policy(verb: str, more: str = "") -> str:
    more = f", {more}" if more else ""
    return f"guardrail: 1\npolicy: p\nrules:\n  - {{id: r, when: always, {verb}{more}}}\n"


@pytest.fixture(params=["memory", "memory in steps", "lmdb"])
def opened(request, tmp_path, monkeypatch):
    """Return a function that opens a guard: over memory, its steps alone, or a file."""
    if request.param == "memory in steps":
        monkeypatch.setattr(
            "guardrail.guard.guard.decide_inline", lambda engine, store, steps, source: steps
        )
    store = f"lmdb://{tmp_path}" if request.param == "lmdb" else "memory://"
    guards = []

    def made(text: str) -> Guard:
        guards.append(
            Guard.from_policies(
                loaded(text), store=store, hash_key=b"k" * 32, clock=MovableClock(), environ={}
            )
        )
        return guards[-1]

    yield made
    for guard in guards:
        guard.close()


def admitted(guard: Guard, now: float, count: int, account: str = "a") -> int:
    return sum(
        guard.decide({"account.id": account, "client.ip": f"8.8.8.{n}"}, now=now + n / 8).allowed
        for n in range(count)
    )


LONG = ("rolling days", "distinct", "month")


@pytest.mark.parametrize("ahead", [70 * DAY, 365 * DAY, 40_000 * DAY])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("before", "during"), [(0, 1), (1, 5)])
def test_after_a_jump_an_account_has_its_limit_and_no_more(opened, rule, ahead, before, during):
    if ahead < 365 * DAY and rule in LONG:
        pytest.skip("a jump of less than four of its windows may count for as long")
    verb, most = RULES[rule]
    guard = opened(policy(verb))
    now = MovableClock().now
    admitted(guard, now, before)
    admitted(guard, now + ahead, during)
    late = now + (60 * DAY if rule in LONG else 2 * DAY)

    assert admitted(guard, late, 6) == most
    # Those who are seen already stay welcome.
    assert admitted(guard, late + 1, 6) == (most if rule == "distinct" else 0)


@pytest.mark.parametrize("rule", ["rate", "hour", "day", "rolling", "places"])
def test_at_once_after_a_jump_an_account_is_served(opened, rule):
    verb, most = RULES[rule]
    guard = opened(policy(verb))
    now = MovableClock().now
    admitted(guard, now + 365 * DAY, 5)

    assert 1 <= admitted(guard, now, 6) <= most


def test_a_ban_that_a_wrong_clock_gave_ends(opened):
    guard = opened(policy(RULES["rate"][0], BAN))
    now = MovableClock().now
    admitted(guard, now + 365 * DAY, 12)

    assert admitted(guard, now, 1) == 1


def test_a_ban_and_a_debt_of_a_right_clock_stand(opened):
    guard = opened(policy("rate: {tokens: 100/minute, key: account.id}", BAN))
    now = MovableClock().now
    spent = guard.decide({"account.id": "a"}, {"input_tokens": 50, "output_tokens": 1}, now=now)
    # Nobody gets away with using so much that it looks like a clock gone wrong.
    guard.settle(spent, {"input_tokens": 50, "output_tokens": 10**9}, now=now)
    asked = {"input_tokens": 1, "output_tokens": 1}
    refused = guard.decide({"account.id": "a"}, asked, now=now + 1)

    assert not refused.allowed
    assert refused.retry_after is not None
    assert refused.retry_after >= 2 * 60


def test_clocks_that_differ_by_seconds_share_one_window(opened):
    guard = opened(policy(RULES["day"][0]))
    midnight = (MovableClock().now // DAY + 1) * DAY
    assert guard.decide({"account.id": "a"}, now=midnight + 1).allowed
    assert guard.decide({"account.id": "a"}, now=midnight - 1).allowed

    assert not guard.decide({"account.id": "a"}, now=midnight - 1).allowed
    assert not guard.decide({"account.id": "a"}, now=midnight + 2).allowed

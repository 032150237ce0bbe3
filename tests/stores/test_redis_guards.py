"""Guards whose counters are on a server that fails: what they answer, how soon, what is left."""

from __future__ import annotations

import asyncio
import time
from fractions import Fraction
from typing import Any

import pytest

from guardrail import AsyncGuard, Guard
from guardrail.loading import load_text
from guardrail.testing import MovableClock
from tests.cells.redis_stores import HASH_KEY, SERVERS
from tests.stores.proxies import Proxy
from tests.stores.servers import Server, eventually

POLICY = """
guardrail: 1
policy: p
rules:
  - id: pace
    when: always
    rate: {requests: 60/minute, burst: 60, key: account.id}
    on_store_error: %s
  - id: day
    when: always
    budget: {tokens: 100k, per: day, key: account.id}
    on_store_error: %s
"""
DEADLINE = 0.05
BUSY = 0.5
"""What a loaded machine may take longer; `make bench` measures how long it really takes."""
FACTS = {"account.id": "a1"}
TOKENS = {"input_tokens": 10, "output_tokens": 10}


def policies(answer: str) -> Any:
    return load_text(POLICY % (answer, answer))


def guard_of(uri: str, answer: str, clock: Any = time.time, deadline: str = "50ms") -> Guard:
    return Guard.from_policies(
        policies(answer),
        store=f"{uri}?deadline={deadline}",
        hash_key=HASH_KEY,
        local_share=Fraction(1, 2),
        clock=clock,
        environ={},
    )


def normal(guard: Guard, clock: MovableClock | None = None) -> bool:
    """Tell whether decisions are counted on the server again; the breaker's pause may pass."""
    if clock is not None:
        clock.advance(1)
    decision = guard.decide(FACTS, TOKENS)
    guard.release(decision)
    return decision.mode.value == "normal"


@pytest.mark.parametrize(
    ("answer", "effect", "mode"),
    [("allow", "allow", "open"), ("deny", "throttle", "closed"), ("local", "allow", "local")],
)
def test_each_answer_to_a_silent_server_comes_within_the_deadline_and_ends_with_it(
    answer, effect, mode
):
    server = SERVERS.empty("valkey 9")
    with Proxy(server.port) as proxy, guard_of(proxy.uri, answer) as guard:
        eventually(lambda: normal(guard))
        proxy.silent = proxy.deaf = True
        took = []
        for _ in range(200):
            began = time.perf_counter()
            decision = guard.decide(FACTS, TOKENS)
            took.append(time.perf_counter() - began)
            assert (str(decision.effect), decision.mode.value) == (effect, mode) or (
                answer == "local" and decision.rule == "pace"
            )
            assert decision.errors
        # The breaker opens: but for a few, decisions do not wait for the server at all.
        assert sum(each >= DEADLINE for each in took) <= 20
        assert max(took) < DEADLINE + BUSY
        assert guard.health.failures >= 5
        assert guard.health.unasked > 100

        proxy.silent = proxy.deaf = False
        proxy.reset()
        eventually(lambda: normal(guard), 20)
        assert guard.health.breaker == "closed"


def test_a_silent_server_makes_no_task_wait_longer_than_the_deadline():
    server = SERVERS.empty("valkey 9")

    async def crowd(proxy: Proxy) -> list[float]:
        settings: dict[str, Any] = {"hash_key": HASH_KEY, "environ": {}}
        store = f"{proxy.uri}?deadline=50ms"
        async with AsyncGuard.from_policies(policies("deny"), store=store, **settings) as guard:
            for _ in range(100):
                if (await guard.decide(FACTS, TOKENS)).mode.value == "normal":
                    break
                await asyncio.sleep(0.02)
            proxy.silent = proxy.deaf = True

            async def one() -> float:
                began = time.perf_counter()
                decision = await guard.decide(FACTS, TOKENS)
                assert decision.status == 503
                return time.perf_counter() - began

            took = await asyncio.gather(*(one() for _ in range(100)))
            return [*took, *[await one() for _ in range(100)]]

    with Proxy(server.port) as proxy:
        took = asyncio.run(crowd(proxy))
    assert max(took) < DEADLINE + BUSY
    assert sum(each >= DEADLINE for each in took[100:]) <= 10


def test_replies_that_are_late_for_20_minutes_leave_the_budgets_at_what_was_served():
    server = SERVERS.empty("valkey 9")
    clock = MovableClock("2026-01-05T12:00:00Z")
    # As 60 ms are to the usual 50, so that a busy machine does not add delays of its own.
    with Proxy(server.port) as proxy, guard_of(proxy.uri, "deny", clock, "250ms") as guard:
        eventually(lambda: normal(guard, clock))
        served, answers = 0, []
        for second in range(1200):
            # From the second minute to the last but one, every reply takes longer than it may.
            proxy.delay = 0.26 if 60 <= second < 1140 else 0.0
            clock.advance(1)
            decision = guard.decide(FACTS, TOKENS)
            answers.append(decision.mode.value)
            if decision.allowed:
                usage = {"input_tokens": 10, "output_tokens": second % 20}
                guard.settle(decision, usage)
                served += sum(usage.values())
        assert "closed" in answers[60:1140]
        assert set(answers[1200 - 20 :]) == {"normal"}
        eventually(lambda: used(guard, clock) == served)
        assert guard.health.lost == 0


def used(guard: Guard, clock: MovableClock) -> float:
    """Return what the day's budget holds; looking charges nothing that stays."""
    clock.advance(1)
    decision = guard.decide(FACTS, {"input_tokens": 0, "output_tokens": 0})
    found = [status.used for status in decision.limits if status.rule == "day"]
    guard.release(decision)
    return found[0] if found else -1


def test_settlements_wait_while_the_server_is_away_and_arrive_when_it_is_back():
    clock = MovableClock("2026-01-05T12:00:00Z")
    with Server() as server, guard_of(server.uri, "deny", clock) as guard:
        eventually(lambda: normal(guard, clock))
        decisions = [guard.decide(FACTS, TOKENS) for _ in range(5)]
        assert all(decision.mode.value == "normal" for decision in decisions)
        server.pause()
        # The first is asked and not answered: a refund that may have been applied is not repeated.
        guard.settle(decisions[0], {"input_tokens": 10, "output_tokens": 500})
        server.resume()
        eventually(lambda: normal(guard, clock))
        for decision in decisions[1:]:
            guard.settle(decision, {"input_tokens": 10, "output_tokens": 500})
        eventually(lambda: used(guard, clock) >= 5 * 510)


def test_a_worker_a_day_ahead_harms_nobody():
    server = SERVERS.empty("valkey 9")
    ahead = guard_of(server.uri, "deny", lambda: time.time() + 86400)
    right = guard_of(server.uri, "deny")
    with ahead, right:
        # The store's own clock is the host's: here it is the guard's that is wrong.
        decisions = [ahead.decide(FACTS, TOKENS) for _ in range(3)]
        assert all("ahead of the clock" in " ".join(d.errors) for d in decisions)
        assert right.decide(FACTS, TOKENS).mode.value == "normal"
        assert (right.decide(FACTS, TOKENS).limits[0].reset_after or 0) < 60

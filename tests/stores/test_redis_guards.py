"""Guards whose counters are on a server that fails: what they answer, how soon, what is left."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import pytest

from guardrail import Guard
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
def test_each_answer_to_a_silent_server_is_given_and_ends_with_it(answer, effect, mode):
    server = SERVERS.empty("valkey 9")
    with Proxy(server.port) as proxy, guard_of(proxy.uri, answer) as guard:
        eventually(lambda: normal(guard))
        proxy.silent = proxy.deaf = True
        for _ in range(200):
            decision = guard.decide(FACTS, TOKENS)
            assert (str(decision.effect), decision.mode.value) == (effect, mode) or (
                answer == "local" and decision.rule == "pace"
            )
            assert decision.errors
        # The breaker opens: but for a few, decisions do not wait for the server at all.
        assert guard.health.failures >= 5
        assert guard.health.unasked > 100

        proxy.silent = proxy.deaf = False
        proxy.reset()
        eventually(lambda: normal(guard), 20)
        assert guard.health.breaker == "closed"


def used(guard: Guard, clock: MovableClock) -> float:
    """Return what the day's budget holds; looking charges nothing that stays."""
    clock.advance(1)
    decision = guard.decide(FACTS, {"input_tokens": 0, "output_tokens": 0})
    found = [status.used for status in decision.limits if status.rule == "day"]
    guard.release(decision)
    return found[0] if found else -1


def test_settlements_wait_while_the_server_is_away_and_arrive_when_it_is_back():
    clock = MovableClock("2026-01-05T12:00:00Z")
    with Server() as server, guard_of(server.uri, "deny", clock, "1s") as guard:
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
    ahead = guard_of(server.uri, "deny", lambda: time.time() + 86400, "20s")
    right = guard_of(server.uri, "deny", deadline="20s")
    with ahead, right:
        # The store's own clock is the host's: here it is the guard's that is wrong.
        decisions = [ahead.decide(FACTS, TOKENS) for _ in range(3)]
        assert all("ahead of the clock" in " ".join(d.errors) for d in decisions)
        assert right.decide(FACTS, TOKENS).mode.value == "normal"
        assert (right.decide(FACTS, TOKENS).limits[0].reset_after or 0) < 60

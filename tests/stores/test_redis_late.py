"""Replies that are late, lost or garbled: what stays charged for nothing is counted."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

import pytest
from redis import exceptions as said

from guardrail import AsyncGuard, Guard
from guardrail.errors import StoreError
from guardrail.loading import load_text
from guardrail.model.cells import Adjust
from guardrail.stores.redis.store import AT_ONCE
from guardrail.testing import MovableClock
from tests.cells.redis_stores import SERVERS, redis_store
from tests.stores.deciding import BINDING, NOW, TTL, budget
from tests.stores.timed import NEVER, Hand, HandLoop, hand
from tests.threads import by_threads

__all__ = ["hand"]

POLICY = load_text("""
guardrail: 1
policy: late
rules:
  - id: day
    when: always
    budget: {tokens: 100M, per: day, key: account.id}
    on_store_error: deny
  - id: places
    when: always
    concurrency: {max: 1000, lease: 10m, key: account.id}
    on_store_error: deny
""")
FACTS = {"account.id": "a"}
TOKENS = {"input_tokens": 10, "output_tokens": 10}
DEADLINE = 10.0
IN_TIME, LATE, LOST = 2.0, 12.0, 30.0
CUT = -1.0


@pytest.fixture(scope="module", autouse=True)
def known_script() -> None:
    """Have the server know the script: a request that it refuses for want of it charges nothing."""
    store = redis_store(SERVERS.empty("valkey 9").uri, host_clock=True)
    store.acquire(BINDING, [budget(0)], NOW)
    store.close()


class Asked:
    """A guard of either kind over a server whose replies are held back, called the same way."""

    def __init__(self, kind: str, hand: Hand) -> None:
        self.hand = hand
        self.clock = MovableClock("2026-01-05T12:00:00Z")
        self.runner: Any = None
        guard: Any = Guard
        if kind == "async":
            self.runner = asyncio.Runner(loop_factory=lambda: HandLoop(hand))
            guard = AsyncGuard
        store: Any = redis_store(SERVERS.empty("valkey 9").uri, deadline=DEADLINE, host_clock=True)
        self.guard = guard.from_policies(POLICY, store=store, clock=self.clock, environ={})

    def __enter__(self) -> Asked:
        return self

    def __exit__(self, *_: object) -> None:
        self.hand.delay, self.hand.cut = 0.0, False
        self.call(self.guard.close)
        if self.runner is not None:
            self.runner.close()

    def call(
        self, method: Callable[..., Any], *arguments: Any, delay: float = 0.0, hurried: bool = False
    ) -> Any:
        """Call a method of the guard, whose replies take so long."""
        self.hand.cut = delay == CUT
        self.hand.delay = max(delay, 0.0)
        found = method(*arguments)
        if inspect.iscoroutine(found):
            found = self.runner.get_loop().run_until_complete(found)
            self.hand.cut, self.hand.delay = False, 0.0
            # An event loop goes on between two requests, and hears what is late.
            self.runner.get_loop().run_until_complete(asyncio.sleep(0.0 if hurried else LATE))
        self.hand.cut, self.hand.delay = False, 0.0
        return found

    def rest(self) -> None:
        """Let requests pass until all that can be taken back has been."""
        for _ in range(40):
            self.hand.sleep(DEADLINE)
            self.clock.advance(3)
            decision = self.call(self.guard.decide, FACTS, {"input_tokens": 0, "output_tokens": 0})
            self.call(self.guard.release, decision)

    def held(self) -> tuple[int, int]:
        """Return what the server holds: the day's tokens, and places taken but for our own."""
        decision = self.call(self.guard.decide, FACTS, {"input_tokens": 0, "output_tokens": 0})
        used = {status.rule: status.used for status in decision.limits}
        self.call(self.guard.release, decision)
        return used["day"], used["places"] - 1


class Course(NamedTuple):
    """What came of many requests."""

    excess: int
    lost: int
    repeated: int
    failures: int
    served: int


def run(
    kind: str,
    hand: Hand,
    seed: int,
    deciding: Sequence[float],
    settling: Sequence[float],
    *,
    hurried: bool = False,
) -> Course:
    """Have requests decided and settled, with delays drawn for each; return what stayed."""
    draw, served, count = Random(seed), 0, 0
    with Asked(kind, hand) as asked:
        asked.rest()
        for _ in range(150):
            asked.clock.advance(1)
            delay = draw.choice(deciding)
            decision = asked.call(asked.guard.decide, FACTS, TOKENS, delay=delay, hurried=hurried)
            if decision.allowed:
                count += 1
                usage = {"input_tokens": 10, "output_tokens": draw.randrange(20)}
                served += sum(usage.values())
                delay = draw.choice(settling)
                asked.call(asked.guard.settle, decision, usage, delay=delay, hurried=hurried)
            else:
                assert decision.status == 503
        asked.rest()
        held, places = asked.held()
        health = asked.guard.health
    assert places == 0
    return Course(held - served, health.lost, health.repeated, health.failures, count)


@pytest.fixture(params=["sync", "async"])
def kind(request):
    return request.param


@pytest.mark.parametrize("seed", range(3))
def test_replies_that_come_late_leave_the_budget_at_what_was_served(kind, hand, seed):
    course = run(kind, hand, seed, [0.0, IN_TIME, LATE, LATE + IN_TIME], [0.0, IN_TIME])

    assert course.failures > 5
    assert course.served > 20
    assert (course.excess, course.lost, course.repeated) == (0, 0, 0)


@pytest.mark.parametrize("never", [NEVER, CUT])
def test_each_decision_whose_reply_is_lost_stays_charged_and_is_counted(kind, hand, never):
    course = run(kind, hand, 1, [0.0, 0.0, IN_TIME, never], [0.0])

    assert course.lost > 5
    assert course.excess == 20 * course.lost
    assert course.repeated == 0


@pytest.mark.parametrize("late", [LATE, CUT])
def test_a_settlement_whose_reply_is_late_is_counted_as_lost_or_as_repeated(kind, hand, late):
    course = run(kind, hand, 2, [0.0], [0.0, 0.0, late])

    # Its refund was made, and is not made again; more than was reserved is charged again.
    assert course.lost > 0
    assert course.repeated > 0
    assert 0 < course.excess <= 9 * course.repeated


@pytest.mark.parametrize("seed", range(3))
def test_whatever_stays_charged_for_nothing_is_counted(kind, hand, seed):
    delays = [0.0, 0.0, IN_TIME, LATE, LOST, NEVER, CUT]
    course = run(kind, hand, 3 + seed, delays, [0.0, 0.0, 0.0, LATE, CUT], hurried=True)

    assert course.excess > 0
    assert course.excess <= 20 * course.lost + 9 * course.repeated


def test_a_silent_server_makes_nobody_wait_longer_than_the_deadline_and_few_that_long(kind, hand):
    with Asked(kind, hand) as asked:
        asked.rest()
        took = []
        for _ in range(200):
            began = hand.now
            decision = asked.call(asked.guard.decide, FACTS, TOKENS, delay=NEVER, hurried=True)
            took.append(hand.now - began)
            assert decision.status == 503
        # The breaker opens: but for a few, decisions do not wait for the server at all.
        assert max(took) <= DEADLINE + 0.01
        assert 3 <= sum(each >= DEADLINE for each in took) <= 20
        assert asked.guard.health.unasked > 100


def test_no_task_of_many_waits_longer_than_the_deadline(hand):
    with Asked("async", hand) as asked:
        asked.rest()

        async def one() -> float:
            began: float = hand.now
            decision = await asked.guard.decide(FACTS, TOKENS)
            assert decision.status == 503
            return float(hand.now - began)

        async def crowd() -> list[float]:
            return await asyncio.gather(*(one() for _ in range(100)))

        took = asked.call(crowd, delay=NEVER, hurried=True)
        assert max(took) <= DEADLINE + 0.01


def test_a_loop_that_was_held_up_keeps_the_connection_whose_replies_are_there(hand):
    with Asked("async", hand) as asked:
        asked.rest()

        async def held_up() -> None:
            asking = asyncio.ensure_future(asked.guard.decide(FACTS, TOKENS))
            for _ in range(5):
                await asyncio.sleep(0)
            hand.sleep(5 * DEADLINE)
            await asking

        asked.call(held_up, delay=LATE)
        asked.rest()
        assert asked.held()[0] == 0
        assert asked.guard.health.lost == 0


MOVED = [said.ReadOnlyError("x"), said.MasterDownError("x"), said.ClusterDownError("x")]


@pytest.mark.parametrize("answer", MOVED)
def test_a_server_that_may_not_be_written_to_any_more_is_left_at_once(kind, hand, answer):
    with Asked(kind, hand) as asked:
        asked.rest()
        for turn in range(1, 4):
            before = hand.opened
            hand.answers = answer
            decision = asked.call(asked.guard.decide, FACTS, TOKENS)
            assert decision.status == 503
            hand.answers = None
            # The next one asks whoever is there now, on a connection of its own.
            asked.clock.advance(1)
            assert asked.call(asked.guard.decide, FACTS, TOKENS).allowed
            assert before < hand.opened <= before + 2
            assert asked.guard.health.failures == turn
        assert asked.guard.health.lost == 0


def test_threads_that_pay_what_is_owed_together_pay_each_once():
    store = redis_store(SERVERS.empty("valkey 9").uri)
    paid: list[int] = []

    def work() -> None:
        for _ in range(1000):
            store._owe([Adjust("budget__=a", 0, -1, TTL)])
            paid.append(len(store._batch()))

    by_threads(8, work)
    assert len(paid) == 8000
    assert sum(paid) + len(store._owed) == 8000
    store.close()


def test_what_is_owed_is_kept_while_no_names_are_known_to_pay_it_under(hand):
    store: Any = redis_store(SERVERS.empty("valkey 9").uri, deadline=DEADLINE, host_clock=True)
    store.open()
    hand.delay = LATE
    with pytest.raises(StoreError, match="did not answer"):
        store.acquire(BINDING, [budget(7)], NOW)
    hand.delay = 0.0
    hand.sleep(LATE)
    context = store.state.context

    def unknown():
        raise StoreError("the store has gone over to another hash key")

    store.state.context, store.state._context = unknown, None
    with pytest.raises(StoreError, match="another hash key"):
        store.acquire(BINDING, [budget(0)], NOW)
    store.state._context = context()
    for expected in (7, 7):  # decisions are made, and nothing can be taken back
        assert store.acquire(BINDING, [budget(0)], NOW).replies[0].used == expected
    store.state.context = context
    for expected in (7, 0):
        assert store.acquire(BINDING, [budget(0)], NOW).replies[0].used == expected
    assert store.lost == 0
    store.close()


@pytest.mark.parametrize("owed", [AT_ONCE - 1, 3 * AT_ONCE])
def test_a_store_pays_all_that_it_owes_when_it_is_closed(hand, owed):
    server = SERVERS.empty("valkey 9")
    store = redis_store(server.uri, deadline=DEADLINE, host_clock=True)
    store.open()
    store.acquire(BINDING, [budget(1000, None)], NOW)
    store._owe([Adjust("budget__=a", 0, -1, TTL)] * owed)
    store.close()
    again: Any = redis_store(server.uri, deadline=DEADLINE, host_clock=True)
    again.open()

    assert again.acquire(BINDING, [budget(0)], NOW).replies[0].used == 1000 - owed
    assert store.lost == 0
    again.close()


def test_what_a_store_owes_when_it_is_closed_without_its_server_is_counted(hand):
    store: Any = redis_store(SERVERS.empty("valkey 9").uri, deadline=DEADLINE, host_clock=True)
    store.open()
    store._owe([Adjust("budget__=a", 0, -1, TTL)] * 150)
    hand.cut = True
    store.close()

    assert store.lost == 150


@pytest.mark.parametrize("reply", [b"PONG", [1, b"x"], [1], None, 5])
@pytest.mark.parametrize("late", [False, True])
def test_a_reply_that_is_none_of_ours_counts_the_charge_as_lost(hand, reply, late, monkeypatch):
    store: Any = redis_store(SERVERS.empty("valkey 9").uri, deadline=DEADLINE, host_clock=True)
    store.open()
    (held,) = store._servers.at(0)._idle
    send = held.send

    def garbled(commands, until):
        send(commands, until)
        due, _ = held.held.pop()
        held.held.append((due, reply))

    held.send = garbled
    hand.delay = LATE if late else 0.0
    with pytest.raises(StoreError, match="did not answer" if late else "none of ours") as caught:
        store.acquire(BINDING, [budget(7)], NOW)
    assert caught.value.unsure
    held.send = send
    hand.delay = 0.0
    hand.sleep(LATE)

    assert store.acquire(BINDING, [budget(0)], NOW).replies[0].used == 7
    assert store.lost == 1
    store.close()


def test_a_store_that_owes_nothing_is_closed_at_once(hand):
    store: Any = redis_store(SERVERS.empty("valkey 9").uri, deadline=DEADLINE, host_clock=True)
    store.open()
    store.acquire(BINDING, [budget(7)], NOW)
    before = hand.now
    store.close()

    assert hand.now == before

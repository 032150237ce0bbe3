"""Calls from within calls of the same thread: streams that the collector of garbage settles."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from guardrail import Decision, Guard
from guardrail.stores.links import Changes, Found, Query
from guardrail.stores.lmdb import LmdbStore
from guardrail.stores.memory import MemoryStore
from guardrail.testing import MovableClock
from tests.guard.failing import HEAD
from tests.loaded import loaded

RULES = """
  - {id: hour, when: always, budget: {tokens: 1M, per: 1h, key: account.id}}
  - {id: day, when: always, budget: {output_tokens: 1M, per: day, key: account.id}}
  - {id: pace, when: always, rate: {tokens: 1M/minute, key: account.id}}
  - {id: flight, when: always, concurrency: {max: 1000, lease: 1m, key: account.id}}
"""
MORE = "budget: {tokens: 1M, per: 1d, key: account.id}"
BY_TIER = "".join(
    f"  - {{id: {tier}, when: {{account.tier: {tier}}}, {MORE}}}\n"
    for tier in ("anonymous", "email", "verified")
)
FACTS = {"account.id": "a", "account.tier": "email"}
ESTIMATE = {"input_tokens": 50, "output_tokens": 50}
PLAIN, ODD = {"input_tokens": 4, "output_tokens": 3}, {"input_tokens": 4.0, "output_tokens": 3}


def guarded(rules: str = RULES, store: LmdbStore | None = None) -> Guard:
    given = MemoryStore() if store is None else store
    return Guard.from_policies(loaded(HEAD + rules), store=given, clock=MovableClock(), environ={})


def stands(guard: Guard) -> dict[str, float]:
    """Return what a refusal-free request of nothing sees as used, by rule."""
    seen = guard.decide(FACTS, {"input_tokens": 0, "output_tokens": 0})
    guard.release(seen)
    return {f"{each.rule} {each.unit}": each.used for each in seen.limits}


def within_a_call(guard: Guard, work: Callable[[], object]) -> None:
    """Work where the collector of garbage may run: in a call of this thread to the store."""
    store = guard._store
    if isinstance(store, MemoryStore):
        with store.lock:
            work()
        return
    assert isinstance(store, LmdbStore)

    def decide(found: Found) -> Changes:
        work()
        return Changes({}, {}, {}, (), (), {})

    store.linked(Query(b"elsewhr."), decide, 1)


def end(guard: Guard, decision: Decision, how: str) -> None:
    if how == "release":
        guard.release(decision)
    elif how == "renew":
        guard.renew(decision)
    else:
        guard.settle(decision, PLAIN if how == "plain" else ODD)


def unhurt(work: Callable[[], object]) -> None:
    """Do some work in a thread, and fail where it never ends."""
    problems: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert problems == []


@pytest.mark.parametrize("where", ["memory", "lmdb"])
@pytest.mark.parametrize("rules", [RULES, RULES + BY_TIER], ids=["plain", "by value"])
@pytest.mark.parametrize("how", ["plain", "odd", "release", "renew"])
def test_what_ends_within_another_call_is_as_if_it_had_ended_after_it(
    where: str, rules: str, how: str, tmp_path: Path
) -> None:
    found = []
    for nested in (False, True):
        folder = tmp_path / str(nested)
        folder.mkdir()
        guard = guarded(rules, None if where == "memory" else LmdbStore(folder))
        decision, other = guard.decide(FACTS, ESTIMATE), guard.decide(FACTS, ESTIMATE)
        work = partial(end, guard, decision, how)
        unhurt(partial(within_a_call, guard, work) if nested else work)
        assert decision.errors == ()
        guard.settle(other, PLAIN)
        found.append(stands(guard))
        health = guard.health
        assert (health.failures, health.lost, health.queued) == (0, 0, 0)
        guard.close()
    assert found[0] == found[1]
    assert any(found[0].values())


@pytest.mark.parametrize("where", ["memory", "lmdb"])
def test_streams_that_the_collector_of_garbage_ends_are_settled(where: str, tmp_path: Path) -> None:
    guard = guarded(RULES, None if where == "memory" else LmdbStore(tmp_path))

    def abandon() -> None:
        decision = guard.decide(FACTS, ESTIMATE)
        held: list[object] = []

        def stream() -> Iterator[bytes]:
            try:
                held.append(held)
                yield b""
            finally:
                guard.settle(decision, PLAIN)

        pieces = stream()
        next(pieces)
        held.append(pieces)

    def many() -> None:
        before = gc.get_threshold()
        gc.set_threshold(3)
        try:
            for _ in range(300):
                abandon()
        finally:
            gc.set_threshold(*before)
            gc.collect()

    unhurt(many)
    guard.settle(guard.decide(FACTS, ESTIMATE), PLAIN)
    used = stands(guard)
    assert (used["hour tokens"], used["day output_tokens"]) == (301 * 7, 301 * 3)
    assert used["flight concurrent-requests"] == 1
    assert (guard.health.failures, guard.health.lost, guard.health.unasked) == (0, 0, 0)
    guard.close()


def test_any_number_of_settlements_may_come_late() -> None:
    guard = guarded()
    decisions = [guard.decide(FACTS, ESTIMATE) for _ in range(900)]

    def settled() -> None:
        for decision in decisions:
            guard.settle(decision, PLAIN)

    unhurt(partial(within_a_call, guard, settled))
    assert stands(guard)["hour tokens"] == 900 * 7


def test_a_decision_within_a_call_to_a_file_is_made_at_once_and_is_no_failure(
    tmp_path: Path,
) -> None:
    guard = guarded(RULES, LmdbStore(tmp_path, deadline=60_000_000))
    decided = []

    def nested() -> None:
        decided.append(guard.decide(FACTS, ESTIMATE))

    unhurt(partial(within_a_call, guard, nested))
    assert str(decided[0].mode) == "local"
    assert (guard.health.failures, guard.health.breaker) == (0, "closed")
    assert str(guard.decide(FACTS, ESTIMATE).mode) == "normal"
    guard.close()


@pytest.mark.parametrize("where", ["locked", "begun", "changed"])
def test_a_call_to_a_file_that_was_broken_off_keeps_the_next_from_nothing(
    where: str, tmp_path: Path
) -> None:
    store = LmdbStore(tmp_path, deadline=60_000_000)
    guard = guarded(RULES, store)
    guard.settle(guard.decide(FACTS, ESTIMATE), PLAIN)
    left: list[object] = []

    def broken_off() -> None:
        if where == "locked":
            store.connection.acquire()
            return
        transaction = store._begin()
        if where == "changed":
            transaction.lmdb.put(b"left", b"behind", db=transaction.tables.about)
        left.append(transaction)

    def again() -> None:
        broken_off()
        guard.settle(guard.decide(FACTS, ESTIMATE), PLAIN)

    unhurt(again)
    assert stands(guard)["hour tokens"] == 14
    assert (guard.health.failures, guard.health.lost, guard.health.queued) == (0, 0, 0)
    guard.close()

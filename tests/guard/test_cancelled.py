"""Cancelled at any await: nothing is swallowed, nothing settled is lost, no probe stays taken."""

from __future__ import annotations

import asyncio
import gc

import pytest

from guardrail import AsyncGuard
from guardrail.loading import load_text
from guardrail.testing import MovableClock
from tests.guard.failing import DOWN, HEAD, KNOWN, AwaitedNumberedStore, AwaitedStore

RULES = """
  - {id: d, when: always, budget: {tokens: 1M, per: day, key: account.id}}
  - {id: f, when: always, concurrency: {max: 1000, lease: 1m, key: account.id}}
"""


def guarded(kind=AwaitedStore):
    store, clock = kind(), MovableClock()
    policies = load_text(HEAD + RULES)
    return (
        AsyncGuard.from_policies(policies, store=store, clock=clock, environ={}),
        store,
        clock,
    )


def used(guard, store):
    (ident,) = guard._context.engine.limits[0].idents
    return sum(store.script.inner.slots(ident + "=a").values())


async def cancelled_after(steps, awaitable):
    """Run a task for so many turns of the loop, cancel it, and tell whether that ended it."""
    task = asyncio.ensure_future(awaitable)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


@pytest.mark.parametrize("steps", range(6))
def test_a_cancelled_decision_is_cancelled_and_the_store_told(steps):
    async def run():
        guard, store, _ = guarded()
        store.gate = asyncio.Event()
        assert await cancelled_after(steps, guard.decide(KNOWN, {"tokens": 5}))
        assert store.undone == (steps > 0)
        assert used(guard, store) == 0
        store.gate.set()
        assert str((await guard.decide(KNOWN)).mode) == "normal"
        assert guard.health.failures == 0
        await guard.close()

    asyncio.run(run())


class UnansweredStore(AwaitedStore):
    """The same, whose replies are lost: what was cancelled cannot be undone."""

    async def acquire(self, charges, cells, now):
        outcome = self.script.acquire(charges, cells, now)
        await self._pass()
        return outcome


def test_a_cancelled_decision_whose_reply_is_lost_keeps_no_place():
    async def run():
        guard, store, clock = guarded(UnansweredStore)
        (flight,) = guard._context.engine.limits[1].idents
        store.gate = asyncio.Event()
        assert await cancelled_after(2, guard.decide(KNOWN, {"tokens": 5}))
        store.gate.set()
        places = store.script.inner.members(flight + "=a")
        assert len(places) == 1

        await guard.settle(await guard.decide(KNOWN, {"tokens": 1}))
        now = clock.now * 1_000_000
        left = [end for end in store.script.inner.members(flight + "=a").values() if end > now]
        assert (left, guard.health.queued) == ([], 0)

    asyncio.run(run())


@pytest.mark.parametrize("steps", range(1, 8))
@pytest.mark.parametrize("how", ["settle", "release", "renew"])
def test_a_settlement_goes_on_when_its_caller_is_cancelled(steps, how):
    async def run():
        guard, store, clock = guarded()
        decision = await guard.decide(KNOWN, {"tokens": 100})
        store.gate = asyncio.Event()
        arguments = [{"tokens": 1}] if how == "settle" else []
        clock.advance(1)
        assert await cancelled_after(steps, getattr(guard, how)(decision, *arguments))
        store.gate.set()
        await guard.close()
        assert used(guard, store) == {"settle": 1, "release": 0, "renew": 100}[how]
        assert len(store.script.sent) == 1
        assert (guard.health.lost, guard.health.queued) == (0, 0)

    asyncio.run(run())


def test_a_settlement_survives_without_anyone_holding_it():
    async def run():
        guard, store, _ = guarded()
        decision = await guard.decide(KNOWN, {"tokens": 100})
        store.gate = asyncio.Event()
        assert await cancelled_after(2, guard.settle(decision, {"tokens": 1}))
        gc.collect()
        store.gate.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert used(guard, store) == 1
        await guard.close()

    asyncio.run(run())


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_loop_that_ends_keeps_what_can_be_repeated_and_counts_the_rest(steps):
    guard, store, _ = guarded()

    async def run():
        decision = await guard.decide(KNOWN, {"tokens": 100})
        store.gate = asyncio.Event()
        asyncio.ensure_future(guard.settle(decision, {"tokens": 1}))  # noqa: RUF006
        for _ in range(steps):
            await asyncio.sleep(0)

    asyncio.run(run())
    store.gate = None
    lost, queued = guard.health.lost, guard.health.queued

    assert (lost, queued) == (1, 1)
    assert guard._sending == set()

    async def later():
        assert str((await guard.decide(KNOWN)).mode) == "normal"
        await guard.close()

    asyncio.run(later())


def test_more_usage_is_delivered_however_often_a_loop_ends_while_it_is_sent():
    guard, store, _ = guarded()

    async def broken_off(tokens):
        store.gate = None
        decision = await guard.decide(KNOWN, {"tokens": 1})
        store.gate = asyncio.Event()
        asyncio.ensure_future(guard.settle(decision, {"tokens": tokens}))  # noqa: RUF006
        for _ in range(3):
            await asyncio.sleep(0)

    for _ in range(5):
        asyncio.run(broken_off(100))
    store.gate = None
    asyncio.run(guard.close())

    assert used(guard, store) == 500
    assert guard.health.lost == 0


@pytest.mark.parametrize("kind", [AwaitedStore, AwaitedNumberedStore])
@pytest.mark.parametrize("what", ["decide", "settle"])
@pytest.mark.parametrize("steps", range(4))
def test_a_cancelled_probe_leaves_its_place_to_the_next(what, steps, kind):
    async def run():
        guard, store, clock = guarded(kind)
        early = await guard.decide(KNOWN, {"tokens": 100})
        store.script.fault = DOWN
        for _ in range(5):
            await guard.decide(KNOWN)
        assert guard.health.breaker == "open"
        clock.advance(1)
        store.script.fault, store.gate = None, asyncio.Event()
        asked = {"input_tokens": 1, "output_tokens": 1}
        deciding = what == "decide"
        probe = guard.decide(KNOWN, asked) if deciding else guard.settle(early, {"tokens": 1})
        assert await cancelled_after(steps, probe)
        if what == "settle":
            for task in list(guard._sending):
                task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        store.gate = None
        assert str((await guard.decide(KNOWN)).mode) == "normal"
        assert guard.health.breaker == "closed"

    asyncio.run(run())


def test_while_one_task_probes_the_others_decide_alone():
    async def run():
        guard, store, clock = guarded()
        store.script.fault = DOWN
        for _ in range(5):
            await guard.decide(KNOWN)
        asked = len(store.script.asked)
        store.script.fault = None
        clock.advance(1)
        modes = [str(d.mode) for d in await asyncio.gather(*(guard.decide(KNOWN) for _ in "abcd"))]
        assert sorted(modes) == ["local", "local", "local", "normal"]
        assert len(store.script.asked) == asked + 1

    asyncio.run(run())


def test_a_host_may_give_up_on_a_store_that_hangs():
    async def run():
        guard, store, _ = guarded()
        store.gate = asyncio.Event()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(guard.decide(KNOWN), 0.01)
        assert store.undone == 1

    asyncio.run(run())

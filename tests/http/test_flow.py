"""The way of a request, step by step: wherever it is broken off, what it holds is given back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from guardrail import AsyncGuard, Guard
from guardrail.http.dialects import Dialect
from guardrail.http.enforcer import AsyncEnforcer, SyncEnforcer
from guardrail.http.flow import (
    RELEASED,
    Compute,
    Decide,
    LookUp,
    ReadBody,
    Refresh,
    Renew,
    Served,
    Settle,
    plus,
    reserved,
    settled,
)
from guardrail.http.request import Delay, Forward, Head, Request
from guardrail.http.settings.build import configure
from guardrail.stores.cells import windowed_slots
from guardrail.testing import MovableClock
from tests.engine.tracing import records
from tests.guard.failing import AwaitedStore, ScriptedStore
from tests.http.accounts import HASH_KEY, Accounts
from tests.http.driving import ASK, CHAT, completion
from tests.loaded import loaded

POLICY = """
guardrail: 1
policy: flows
models: {large: {max_output: 200, weaker: small}, small: {max_output: 200}}
rules:
  - {id: away, when: {account.id: bad}, unknown: skip, block: {reason: away}}
  - {id: calls, when: always, budget: {requests: 100, per: day, key: account.id}}
  - {id: places, when: always, concurrency: {max: 5, lease: 9s, key: account.id}}
"""
PACE = "  - {id: pace, when: always, rate: {requests: 60/minute, burst: 1, key: account.id}}\n"
LESS = "  - {id: less, when: always, degrade: {model: small, max_output_tokens: 50}}\n"
LARGE = json.dumps({**json.loads(ASK), "model": "large", "user": "u" * (1 << 17)}).encode()


class Broken(BaseException):
    """What breaks a flow off that is no error: a task is cancelled, a thread is ended."""


class Sync:
    """A request performed in a thread, broken off at a step when told to."""

    def __init__(self, policy: str = POLICY, **options: Any) -> None:
        self.clock = MovableClock()
        self.store = self.inner(ScriptedStore())
        self.guard: Any = self.kind.from_policies(
            loaded(policy), store=self.store, clock=self.clock, environ={}
        )
        configured = configure(
            {
                "guard": self.guard,
                "clock": self.clock,
                "directory": Accounts(),
                "environ": {},
                "hash_key": HASH_KEY,
                "threads": 8,
                **options,
            }
        )
        self.enforcer = self.made(configured)
        assert self.enforcer.guard is self.guard  # taken, as it is for all but the first request
        self.steps: list[Any] = []
        self.breaks: tuple[int, BaseException] | None = None
        perform = self.enforcer._perform
        self.enforcer._perform = {kind: self.noting(kind, do) for kind, do in perform.items()}

    kind: Any = Guard

    def inner(self, store: Any) -> Any:
        self.script = store
        return store

    def made(self, configured: Any) -> Any:
        return SyncEnforcer(configured, self.clock.advance)

    def noting(self, kind: Any, perform: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any) -> Any:
            if kind is not Settle:
                self.note(kind)
                return perform(*given)
            # Whoever waits for a settlement is gone, and the guard has it all the same.
            found = perform(*given)
            if not asyncio.iscoroutine(found):
                self.note(kind)
                return found
            return self.noted_after(found)

        return noted

    async def noted_after(self, found: Any) -> None:
        await found
        self.note(Settle)

    def note(self, kind: Any) -> None:
        number = len(self.steps)
        self.steps.append(kind)
        if self.breaks is not None and self.breaks[0] == number:
            raise self.breaks[1]

    def request(self, body: bytes = ASK, key: str = "key-a") -> Request:
        fields = (
            (b"content-type", b"application/json"),
            (b"authorization", b"Bearer " + key.encode()),
            (b"content-length", b"%d" % len(body)),
        )
        head = Head("POST", CHAT, CHAT, None, b"", fields, "8.8.8.8")
        request = Request(head, self.enforcer.settings)
        self.sent = body
        return request

    def run(self, flow: Any) -> Any:
        def read(most: int) -> bytes:
            self.note(ReadBody)
            return self.sent

        return self.enforcer.run(flow, read)

    def whole(self, body: bytes = ASK) -> Any:
        """Admit a request, serve it and finish; return what was decided on it."""
        request = self.request(body)
        outcome = self.run(self.enforcer.admit(request))
        if not isinstance(outcome, Forward):
            return outcome
        served = Served(self.enforcer, request, outcome)
        served.response.started(200, [(b"content-type", b"application/json")])
        self.clock.advance(4)
        renewal = served.reservation.renewal(self.clock())
        if renewal is not None:
            self.run(renewal)
        self.clock.advance(10)
        renewal = served.reservation.renewal(self.clock())
        if renewal is not None:
            self.run(renewal)
        served.response.sent(completion(), last=True)
        self.run(served.finish(failed=False))
        return outcome

    @property
    def held(self) -> dict[str, int]:
        """Return how many requests and places the store holds."""
        every: dict[str, Any] = dict(records(self.script.inner))
        found = {"calls": 0, "places": 0}
        for limit in self.guard._context.engine.limits:
            if limit is None or limit.rule.id not in found:
                continue
            mine = [record for key, record in every.items() if key[:8] == limit.idents[0]]
            if limit.rule.id == "places":
                live = [end for record in mine for end in record.values()]
                found["places"] = sum(end > self.clock() * 1e6 for end in live)
            else:
                used = [value for record in mine for value in windowed_slots(record).values()]
                found["calls"] = sum(used)
        return found

    def closed(self) -> None:
        """Deliver what is on its way."""


class Async(Sync):
    """The same in an event loop, over a store whose every answer is awaited."""

    kind = AsyncGuard

    def inner(self, store: Any) -> Any:
        awaited = AwaitedStore()
        self.script = awaited.script
        return awaited

    def made(self, configured: Any) -> Any:
        async def sleep(seconds: float) -> None:
            self.clock.advance(seconds)

        return AsyncEnforcer(configured, sleep)

    def run(self, flow: Any) -> Any:
        async def read(most: int) -> bytes:
            self.note(ReadBody)
            return self.sent

        async def whole() -> Any:
            try:
                return await self.enforcer.run(flow, read)
            finally:
                # Corrections that are on their way arrive, also those of a task that was cancelled.
                while self.guard._sending:
                    await asyncio.wait(self.guard._sending)

        return asyncio.run(whole())


@pytest.fixture(params=[Sync, Async])
def made(request):
    return request.param


NOTHING = {"calls": 0, "places": 0}
SERVED = {"calls": 1, "places": 0}


def test_the_steps_of_a_request_in_their_order(made):
    one = made()
    one.whole()

    assert one.steps == [LookUp, ReadBody, Decide, Renew, Decide, Settle, Settle]
    assert one.held == SERVED


def test_changed_policies_are_looked_for_before_all_else(made):
    one = made()
    one.enforcer.in_force.looks = True
    one.whole()

    assert one.steps[:3] == [Refresh, LookUp, ReadBody]
    assert one.held == SERVED


def test_a_delay_is_a_step_between_two_decisions(made):
    one = made(POLICY + PACE, max_delay=1)
    one.whole()
    one.steps.clear()
    one.clock.advance(-14)
    one.whole()

    assert one.steps[:5] == [LookUp, ReadBody, Decide, Delay, Decide]
    assert one.held == {"calls": 2, "places": 0}


def test_a_large_body_is_read_and_changed_by_itself(made):
    one = made(POLICY + LESS)
    one.whole(LARGE)

    assert one.steps[:5] == [LookUp, ReadBody, Compute, Decide, Compute]
    assert one.held == SERVED


def test_a_request_that_its_head_refuses_is_not_read(made):
    one = made(POLICY.replace("account.id: bad", "account.id: acct-a"))

    assert one.whole().status == 403
    assert one.steps == [LookUp]


@pytest.mark.parametrize("number", range(9))
@pytest.mark.parametrize("kind", [Broken, asyncio.CancelledError, GeneratorExit, RuntimeError])
@pytest.mark.parametrize("body", [ASK, LARGE], ids=["small", "large"])
def test_wherever_a_request_is_broken_off_nothing_of_it_stays_held(made, number, kind, body):
    one = made(POLICY + LESS + PACE, max_delay=1)
    one.whole(body)
    one.clock.advance(-14)
    assert one.held == SERVED
    one.steps.clear()
    one.breaks = (number, kind("broken off"))
    outcome = None
    request = one.request(body)
    with suppress(kind):
        outcome = one.run(one.enforcer.admit(request))
    one.breaks = None
    if isinstance(outcome, Forward):
        assert number >= len(one.steps)
        one.run(settled(request.guard, outcome.decision, RELEASED, one.enforcer.recorder))
    elif kind is RuntimeError and one.steps[number] is not ReadBody:
        assert outcome is not None
        assert outcome.status == 503

    assert one.held == SERVED
    assert one.enforcer._delayed.take("another") is True
    assert one.enforcer._delayed._held.total() == 1


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("kind", [Broken, asyncio.CancelledError, GeneratorExit])
def test_wherever_the_end_of_a_request_is_broken_off_it_is_settled(made, number, kind):
    one = made()
    request = one.request()
    outcome = one.run(one.enforcer.admit(request))
    served = Served(one.enforcer, request, outcome)
    one.clock.advance(10)
    one.run(served.reservation.renewal(one.clock()))
    served.response.started(200, [(b"content-type", b"application/json")])
    served.response.sent(completion(), last=True)
    assert one.held["places"] == 1
    one.steps.clear()
    perform = one.enforcer._perform[Settle]

    def breaking(*given: Any) -> Any:
        # The store has the settlement by then, and whoever waits for it is gone.
        found = perform(*given)
        if not asyncio.iscoroutine(found):
            one_more()
            return found

        async def awaited() -> None:
            await found
            one_more()

        return awaited()

    seen = iter(range(9))

    def one_more() -> None:
        if next(seen) == number:
            raise kind("broken off")

    one.enforcer._perform[Settle] = breaking
    try:
        one.run(served.finish(failed=False))
    except kind:
        assert number < 2
    else:
        assert number >= 2

    assert one.held == SERVED
    assert not served.reservation.held


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("kind", [Broken, asyncio.CancelledError, GeneratorExit, RuntimeError])
@pytest.mark.parametrize("served", [False, True])
def test_wherever_a_decision_anew_is_broken_off_what_was_served_is_charged(
    made, number, kind, served
):
    one = made()
    request = one.request()
    outcome = one.run(one.enforcer.admit(request))
    followed = Served(one.enforcer, request, outcome)
    if served:
        followed.response.started(200, [(b"content-type", b"application/json")])
    one.steps.clear()
    one.breaks = (number, kind("broken off"))
    with suppress(kind):
        # Its head's rule refuses this one; it is then decided on once more as it was.
        one.run(followed.decide_again({"account.id": "bad"}, {}))
    one.breaks = None
    assert one.steps == [Settle, Decide, Decide][: number + 1 if served else min(number + 1, 2)]
    if served:
        followed.response.sent(completion(), last=True)
    one.run(followed.finish(failed=not served))

    assert one.held == (SERVED if served else NOTHING)


@pytest.mark.parametrize("at", [LookUp, Delay, Settle])
def test_a_coroutine_that_is_closed_while_it_waits_gives_back_what_it_holds(at):
    one = Async(POLICY + PACE, max_delay=1)
    one.whole()
    one.clock.advance(-14)
    held = one.held

    async def run() -> None:
        waits = asyncio.Event()
        perform = one.enforcer._perform[at]

        async def waiting(*given: Any) -> Any:
            found = await perform(*given)
            await waits.wait()
            return found

        one.enforcer._perform[at] = waiting
        request = one.request()

        async def read(most: int) -> bytes:
            return ASK

        async def whole() -> None:
            outcome = await one.enforcer.run(one.enforcer.admit(request), read)
            served = Served(one.enforcer, request, outcome)
            await one.enforcer.run(served.finish(failed=True))

        going = whole()
        while not waits._waiters:
            pending = going.send(None)
            if waits._waiters:
                break
            if pending is None:
                await asyncio.sleep(0)
            else:
                pending._asyncio_future_blocking = False
                await asyncio.wait([pending])
        going.close()
        while one.guard._sending:
            await asyncio.wait(one.guard._sending)

    asyncio.run(run())
    assert one.held == held
    assert one.enforcer._delayed._held.total() == 0


def test_a_coroutine_that_is_closed_while_a_body_is_changed_gives_back_what_was_decided():
    one = Async(POLICY + LESS)
    held = []

    async def run() -> None:
        perform, waits = one.enforcer._perform[Compute], asyncio.Event()

        async def waiting(*given: Any) -> Any:
            found = await perform(*given)
            if Decide in one.steps:
                held.append(one.held)
                await waits.wait()
            return found

        one.enforcer._perform[Compute] = waiting

        async def read(most: int) -> bytes:
            return LARGE

        request = one.request(LARGE)
        going: Any = one.enforcer.run(one.enforcer.admit(request), read)
        while True:
            pending = going.send(None)
            if waits._waiters:
                break
            if pending is None:
                await asyncio.sleep(0)
            else:
                pending._asyncio_future_blocking = False
                await asyncio.wait([pending])
        going.close()
        while one.guard._sending:
            await asyncio.wait(one.guard._sending)

    asyncio.run(run())
    assert held == [{"calls": 1, "places": 1}]
    assert one.held == NOTHING


@pytest.mark.parametrize(("account", "holds"), [("good", True), ("bad", False)])
def test_a_reservation_holds_what_is_admitted_and_nothing_of_what_is_refused(account, holds):
    guard = Guard.from_policies(loaded(POLICY), environ={})
    steps = reserved(
        guard,
        {"account.id": account},
        {"requests": 1},
        unavailable=frozenset(),
        recorder=None,
        dialect=Dialect.OTHER,
        lease=9.0,
        clock=MovableClock(),
    )
    asked: Any = next(steps)
    with pytest.raises(StopIteration) as ended:
        steps.send(guard.decide(asked.facts, asked.estimate))
    reservation = ended.value.value

    assert reservation.held is holds
    assert (reservation.renewal(MovableClock().now + 5) is not None) is holds
    assert len(list(reservation.settle(RELEASED))) == holds


@pytest.mark.parametrize(
    ("more", "total"), [(0, 5), (2, 7), (0.5, 5.5), (-1, -1), ("2", "2"), (None, None)]
)
def test_nothing_more_leaves_an_amount_as_it_is_and_no_amount_is_left_for_the_guard(more, total):
    assert plus(5, more) == total
    assert plus(5, True) is True

"""Many tasks on one connection: batched, cancelled, and as many as a server can stand."""

from __future__ import annotations

import asyncio
import gc
from random import Random
from typing import Any

import pytest

from guardrail.errors import StoreError
from guardrail.model.cells import Charge, Counter, Member
from guardrail.stores.redis import pipelined
from guardrail.stores.redis.pipelined import PipelinedConnection
from guardrail.stores.redis.protocol import Call
from tests.cells.redis_stores import SERVERS, Shown, redis_store

S = 1_000_000
NOW = 1_700_000_000 * S
TTL = 10**12
BINDING = [Charge(True, None)]


def cells(name="x", ceiling=None):
    return [
        Counter(0, "budget__=a", 0, 1, 0, 1, ceiling, TTL),
        Counter(0, "pace____=a", 0, 1, NOW, S, NOW + 10**6 * S, TTL),
        Member(0, "flight__=a", name, NOW + 60 * S, None, TTL),
    ]


def test_concurrent_decisions_leave_in_pieces_of_so_many_and_none_goes_over():
    server = SERVERS.empty("valkey 9")

    async def crowd():
        store = redis_store(server.uri).awaited()
        await store.acquire(BINDING, cells("first", 0), NOW)
        writes = 0
        stream: Any = store._servers.at(0)._stream
        send = stream.send

        def counted(commands):
            nonlocal writes
            writes += 1
            send(commands)

        stream.send = counted
        answers = await asyncio.gather(
            *(store.acquire(BINDING, cells(str(n), 70), NOW) for n in range(300))
        )
        await store.close()
        return sum(answer.admitted for answer in answers), writes

    admitted, writes = asyncio.run(crowd())
    assert admitted == 70
    # The server has the first of them before the last has asked.
    assert writes == -(-300 // pipelined.MOST_AT_ONCE)


def test_while_a_connection_is_full_calls_gather_and_leave_when_there_is_room():
    server = SERVERS.empty("valkey 9")

    async def crowd():
        store = redis_store(server.uri, deadline=20.0).awaited()
        await store.acquire(BINDING, cells("first", 0), NOW)
        stream: Any = store._servers.at(0)._stream
        server.client.config_resetstat()
        stream.pause_writing()
        tasks = [
            asyncio.ensure_future(store.acquire(BINDING, cells(str(n)), NOW)) for n in range(40)
        ]
        await asyncio.sleep(0.05)
        asked = server.client.info("commandstats").get("cmdstat_evalsha")
        stream.resume_writing()
        answers = await asyncio.gather(*tasks)
        await store.close()
        return asked, sum(answer.admitted for answer in answers)

    assert asyncio.run(crowd()) == (None, 40)


def test_a_reply_that_nobody_asked_for_costs_the_connection_and_no_more():
    server = SERVERS.empty("valkey 9")

    async def told():
        store = redis_store(server.uri, deadline=20.0).awaited()
        await store.acquire(BINDING, cells("first", 0), NOW)
        connection: Any = store._servers.at(0)
        before = connection._stream
        before.data_received(b"+OK\r\n")
        gone = connection._stream is None
        outcome = await store.acquire(BINDING, cells(), NOW)
        await store.close()
        return gone, outcome.admitted, store.lost

    assert asyncio.run(told()) == (True, True, 0)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_cancelled_at_any_moment_leaves_nothing_charged(seed):
    server, draw = SERVERS.empty("valkey 9"), Random(seed)
    shown = Shown(server)

    async def crowd():
        store = redis_store(server.uri).awaited()
        await store.acquire(BINDING, cells("first", 0), NOW)
        tasks = []
        for number in range(400):
            tasks.append(asyncio.ensure_future(store.acquire(BINDING, cells(str(number)), NOW)))
            if draw.random() < 0.5:
                draw.choice(tasks).cancel()
            if draw.random() < 0.2:
                await asyncio.sleep(draw.choice((0, 0, 0.001)))
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await store.close()
        return sum(not isinstance(outcome, BaseException) for outcome in outcomes)

    served = asyncio.run(crowd())
    assert 0 < served < 400
    assert shown.slots("budget__=a") == {0: served}
    # What others were given back meanwhile bounds what a rate is given back: never too much.
    assert NOW + served * S <= shown.drained("pace____=a")[0] <= NOW + 400 * S
    assert len(shown.members("flight__=a")) == served
    shown.close()


def test_what_is_cancelled_before_it_was_sent_is_never_sent():
    server = SERVERS.empty("valkey 9")
    shown = Shown(server)

    async def never():
        store = redis_store(server.uri).awaited()
        await store.acquire(BINDING, cells("first", 0), NOW)
        server.client.config_resetstat()
        task = asyncio.ensure_future(store.acquire(BINDING, cells(), NOW))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.05)
        asked = server.client.info("commandstats").get("cmdstat_evalsha")
        await store.close()
        return asked

    assert asyncio.run(never()) is None
    assert shown.slots("budget__=a") == {}
    shown.close()


def test_more_calls_than_can_wait_are_refused_and_the_others_served(monkeypatch):
    server = SERVERS.empty("valkey 9")
    monkeypatch.setattr(pipelined, "MOST_WAITING", 50)

    async def crowd():
        store = redis_store(server.uri).awaited()
        await store.acquire(BINDING, cells("first", 0), NOW)
        answers = await asyncio.gather(
            *(store.acquire(BINDING, cells(str(n)), NOW) for n in range(80)),
            return_exceptions=True,
        )
        await store.close()
        return answers

    answers = asyncio.run(crowd())
    refused = [answer for answer in answers if isinstance(answer, StoreError)]
    assert len(refused) == 30
    assert all("wait for" in str(answer) and not answer.unsure for answer in refused)


def test_a_connection_that_fails_when_nobody_waits_for_it_any_more_does_so_quietly(caplog):
    async def left():
        gone = asyncio.Event()

        async def opener():
            await gone.wait()
            raise OSError("gone")

        connection = PipelinedConnection(opener, "`there`", 0.0, print)
        with pytest.raises(StoreError, match="not connected"):
            await connection.ask((b"PING",), Call(0, ("PING",)), 0.0)
        gone.set()
        for _ in range(3):
            await asyncio.sleep(0)
        await connection.close()

    asyncio.run(left())
    gc.collect()
    assert caplog.text == ""


def test_one_store_serves_one_loop_after_another():
    server = SERVERS.empty("valkey 9")
    store = redis_store(server.uri).awaited()

    async def once(last):
        outcome = await store.acquire(BINDING, cells(), NOW)
        await store.close()
        return outcome.replies[0][0]

    assert [asyncio.run(once(turn)) for turn in range(3)] == [0, 1, 2]

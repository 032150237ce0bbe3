"""Streams over ASGI: metered to the last token, settled once, their leases kept alive."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.http.driving import (
    ASK,
    MESSAGES,
    SSE,
    Call,
    Guarded,
    Host,
    body_messages,
    chat_stream,
    scope_of,
)

POLICY = """
guardrail: 1
policy: streams
models: {small: {max_output: 200}}
rules:
  - {id: calls, when: always, budget: {requests: 50, per: day, key: account.id}}
  - {id: tokens, when: always, budget: {tokens: 10k, per: day, key: account.id}}
  - {id: places, when: always, concurrency: {max: 2, lease: 10m, key: account.id}}
"""
STREAM = json.dumps({"model": "small", "messages": [], "max_tokens": 100, "stream": True}).encode()


def streaming(chunks, **more):
    return Guarded(POLICY, Host(chunks, headers=SSE, **more))


def test_every_chunk_arrives_as_it_was_sent():
    chunks = chat_stream(30)
    guarded = streaming(chunks)
    call = guarded.ask(STREAM)

    assert [m["body"] for m in call.sent[1:-1]] == chunks
    assert guarded.used("tokens") == 40


@pytest.mark.parametrize("cut", range(1, len(b"".join(chat_stream(2)))))
def test_events_cut_anywhere_tell_the_same_usage(cut):
    whole = b"".join(chat_stream(2))
    guarded = streaming([whole[:cut], whole[cut:]])
    call = guarded.ask(STREAM)

    assert call.body == whole
    assert guarded.used("tokens") == 12


def test_a_stream_without_usage_is_charged():
    guarded = streaming(chat_stream(20, usage=False))
    guarded.ask(STREAM)

    assert 20 <= guarded.used("tokens") <= 150


class LeavingHost(Host):
    """Sends its chunks while the client is there, as a server that goes on in silence does."""

    async def __call__(self, scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": SSE})
        for chunk in self.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})


def test_a_client_that_leaves_before_the_usage_is_charged():
    guarded = Guarded(POLICY, LeavingHost(chat_stream(20, usage=False, done=False)))
    guarded.ask(STREAM)

    assert guarded.used("calls") == 1
    assert 20 <= guarded.used("tokens") <= 150
    assert guarded.used("places") == 0


def test_a_cancelled_stream_is_settled_once():
    settled = []

    async def host(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": SSE})
        for chunk in chat_stream(5, usage=False, done=False):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        started.set()
        await asyncio.sleep(3600)

    guarded = Guarded(POLICY, host)
    settle = guarded.guard.settle

    async def counted(decision, *given, **more):
        settled.append(decision.id)
        await settle(decision, *given, **more)

    async def run():
        guarded.guard.settle = counted
        call = Call(scope_of(body=STREAM), body_messages(STREAM))
        task = asyncio.ensure_future(call.run(guarded.app))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    started = asyncio.Event()
    asyncio.run(run())

    assert len(settled) == 1
    assert guarded.used("places") == 0
    assert 0 < guarded.used("tokens") <= 150


@pytest.mark.parametrize("step", range(1, 14))
def test_cancelled_at_any_step_nothing_stays_reserved(step):
    guarded = streaming(chat_stream(5))
    steps = 0
    task: Any = None

    class Steps(Call):
        async def receive(self):
            await self.tick()
            return await super().receive()

        async def send(self, message):
            await self.tick()
            await super().send(message)

        async def tick(self):
            nonlocal steps
            steps += 1
            if steps == step:
                task.cancel()
            await asyncio.sleep(0)

    async def run():
        nonlocal task
        call = Steps(scope_of(body=STREAM), body_messages(STREAM))
        task = asyncio.ensure_future(call.run(guarded.app))
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())

    assert guarded.used("places") == 0
    assert guarded.used("tokens") <= 40


def test_a_whole_stream_whose_client_then_leaves_counts_as_it_says():
    async def host(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": SSE})
        for chunk in chat_stream(3):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        call.left.set()
        await receive()

    guarded = Guarded(POLICY, host)
    call = Call(scope_of(body=STREAM), body_messages(STREAM))
    asyncio.run(call.run(guarded.app))

    assert guarded.used("tokens") == 13


@pytest.mark.parametrize(
    ("path", "start"),
    [("/v1/chat/completions", b'data: {"error"'), (MESSAGES, b"event: error\ndata: ")],
)
def test_a_stream_that_breaks_off_says_so(path, start):
    guarded = streaming(chat_stream(2, usage=False, done=False), fails="after")
    call = Call(scope_of(path=path, body=STREAM), body_messages(STREAM))
    with pytest.raises(RuntimeError):
        asyncio.run(call.run(guarded.app))

    last = call.sent[-1]["body"].lstrip()
    assert last.startswith(start)
    assert json.loads(last.partition(b"data: ")[2])["error"]["message"].startswith("The stream")


def test_a_stream_that_was_whole_is_left_alone():
    guarded = streaming(chat_stream(2), fails="after")
    call = Call(scope_of(body=STREAM), body_messages(STREAM))
    with pytest.raises(RuntimeError):
        asyncio.run(call.run(guarded.app))

    assert call.body == b"".join(chat_stream(2))


def test_usage_is_asked_for_and_taken_out_again_where_the_host_takes_it():
    guarded = Guarded(POLICY, Host(chat_stream(3), headers=SSE), stream_usage=True)
    call = guarded.ask(STREAM)

    assert json.loads(guarded.host.bodies[0])["stream_options"] == {"include_usage": True}
    assert call.body == b"".join(chat_stream(3, usage=False))
    assert guarded.used("tokens") == 13


def test_usage_that_the_client_asked_for_stays():
    asked = json.loads(STREAM) | {"stream_options": {"include_usage": True}}
    guarded = Guarded(POLICY, Host(chat_stream(3), headers=SSE), stream_usage=True)
    call = guarded.ask(json.dumps(asked).encode())

    assert call.body == b"".join(chat_stream(3))


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_the_usage_chunk_is_taken_out_however_the_stream_is_cut(size):
    whole = b"".join(chat_stream(3)).replace(b"\n", b"\r\n")
    chunks = [whole[start : start + size] for start in range(0, len(whole), size)]
    guarded = Guarded(POLICY, Host(chunks, headers=SSE), stream_usage=True)
    call = guarded.ask(STREAM)

    assert call.body == b"".join(chat_stream(3, usage=False)).replace(b"\n", b"\r\n")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_stream_whose_last_event_does_not_end_is_passed_on_whole(size):
    whole = b"".join(chat_stream(3, usage=False)).rstrip()
    chunks = [whole[start : start + size] for start in range(0, len(whole), size)]

    assert Guarded(POLICY, Host(chunks, headers=SSE), stream_usage=True).ask(STREAM).body == whole


def test_a_stream_of_half_an_hour_keeps_its_lease_of_ten_minutes():
    in_flight: list[float] = []

    async def host(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": SSE})
        for chunk in chat_stream(30):
            guarded.clock.advance(60)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await asyncio.sleep(0)
            in_flight.append(await live())

    async def live():
        decision = await guarded.guard.decide({"account.id": "acct-a"}, {"requests": 0})
        status = next(limit for limit in decision.limits if limit.rule == "places")
        await guarded.guard.release(decision)
        return status.used - 1

    guarded = Guarded(POLICY, host)
    guarded.ask(STREAM)

    assert set(in_flight) == {1}
    assert guarded.used("places") == 0


def test_a_silent_request_keeps_its_lease_by_the_loops_own_time():
    policy = POLICY.replace("lease: 10m", "lease: 1s")
    renewed = asyncio.Event()

    async def host(scope, receive, send):
        await receive()
        guarded.clock.advance(0.5)
        await asyncio.wait_for(renewed.wait(), 10)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    guarded = Guarded(policy, host)
    renew = guarded.guard.renew

    async def counted(decision, **more):
        await renew(decision, **more)
        renewed.set()

    guarded.guard.renew = counted

    assert guarded.ask(ASK).status == 200

"""WebSocket connections: decided before they are accepted, and their place held until they end."""

from __future__ import annotations

import asyncio

import pytest

from tests.http.driving import Call, Guarded, scope_of

POLICY = """
guardrail: 1
policy: sockets
rules:
  - {id: calls, when: always, rate: {requests: 2/minute, key: account.id}}
  - {id: places, when: always, concurrency: {max: 3, key: account.id}}
"""
CONNECT = {"type": "websocket.connect"}
EXTENSION: dict[str, dict] = {"websocket.http.response": {}}


def socket_scope(extensions=None, path="/ws/chat", **more):
    scope = scope_of(path=path, **more)
    del scope["method"]
    return {**scope, "type": "websocket", "extensions": extensions or {}, "subprotocols": []}


async def echo(scope, receive, send):
    assert (await receive()) == CONNECT
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


def connect(guarded, *messages, **scope):
    ended = [CONNECT, *messages, {"type": "websocket.disconnect", "code": 1000}]
    return asyncio.run(Call(socket_scope(**scope), ended).run(guarded.app))


def test_an_admitted_connection_passes():
    guarded = Guarded(POLICY, echo)
    call = connect(guarded, {"type": "websocket.receive", "text": "hi"})

    assert [m["type"] for m in call.sent] == ["websocket.accept", "websocket.send"]
    assert dict(call.sent[0]["headers"])[b"ratelimit"].startswith(b'"calls";r=1')
    assert guarded.used("places") == 0


def test_a_refused_one_gets_the_whole_answer_where_the_server_can_send_it():
    guarded = Guarded(POLICY, echo)
    connect(guarded)
    connect(guarded)
    call = connect(guarded, extensions=EXTENSION)

    assert call.status == 429
    assert call.headers["retry-after"] == "30"
    assert call.json["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize(
    ("policy", "code"),
    [(POLICY, 1013), (POLICY + "  - {id: no, when: always, block: {}}", 1008)],
)
def test_elsewhere_it_is_closed(policy, code):
    guarded = Guarded(policy, echo)
    for _ in range(3):
        call = connect(guarded)

    assert call.sent == [{"type": "websocket.close", "code": code, "reason": "refused by policy"}]


def test_a_connection_holds_its_place_until_it_ends():
    held: list[float] = []

    async def host(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        facts = {"account.id": "acct-a"}
        decision = await guarded.guard.decide(facts, {"requests": 0})
        held.append(next(x.used for x in decision.limits if x.rule == "places") - 1)
        await guarded.guard.release(decision)
        raise RuntimeError("broke")

    guarded = Guarded(POLICY, host)
    with pytest.raises(RuntimeError, match="broke"):
        connect(guarded)

    assert held == [1]
    assert guarded.used("places") == 0


def test_a_connection_the_host_refuses_costs_nothing():
    async def host(scope, receive, send):
        await receive()
        await send({"type": "websocket.close", "code": 1000})

    guarded = Guarded(POLICY, host)
    for _ in range(5):
        assert connect(guarded).sent[0]["code"] == 1000

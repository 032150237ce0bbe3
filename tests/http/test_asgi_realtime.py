"""Realtime sessions: each turn is admitted, metered and settled by itself."""

from __future__ import annotations

import asyncio
import json

import pytest

from guardrail.signals.directory import Identity
from tests.http.driving import Call, Guarded
from tests.http.test_asgi_websockets import CONNECT, socket_scope

POLICY = """
guardrail: 1
policy: turns
models: {voice: {max_output: 400}}
rules:
  - {id: turns, when: always, budget: {requests: 2, per: day, key: account.id}}
  - {id: tokens, when: always, budget: {tokens: 10k, per: day, key: account.id}}
  - {id: places, when: always, concurrency: {max: 1, key: account.id}}
  - id: held
    when: {enforcement.status: banned}
    unknown: skip
    block: {reason: closed}
"""
CREATE = {"type": "response.create", "event_id": "evt-1", "response": {"max_output_tokens": 50}}
NONE = {"input_tokens": 0, "output_tokens": 0}
USED = {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}


def frame(**event):
    return {"type": "websocket.receive", "text": json.dumps(event)}


async def voice(scope, receive, send):
    """Answer each turn that reaches it; `speak` makes it start one by itself."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        event = json.loads(message["text"])
        events: list[dict] = []
        if event["type"] in ("response.create", "speak"):
            events.append({"type": "response.created"})
        if event["type"] == "response.create":
            events.append({"type": "response.done", "response": {"usage": USED}})
        events.append({"type": "heard", "of": event["type"]})
        for sent in events:
            await send({"type": "websocket.send", "text": json.dumps(sent)})


def talk(guarded, *messages):
    scope = socket_scope(path="/v1/realtime", query_string=b"model=voice")
    ended = [CONNECT, *messages, {"type": "websocket.disconnect", "code": 1000}]
    call = asyncio.run(Call(scope, ended).run(guarded.app))
    return [json.loads(m["text"]) for m in call.sent if m["type"] == "websocket.send"]


def test_check_41_turns_are_admitted_one_by_one_and_the_session_goes_on():
    guarded = Guarded(POLICY, voice)
    events = talk(guarded, *[frame(**CREATE)] * 3, frame(type="session.update", session={}))

    assert [e["type"] for e in events].count("response.done") == 2
    refused = next(e for e in events if e["type"] == "error")
    assert refused["error"]["code"] == "insufficient_quota"
    assert refused["error"]["event_id"] == "evt-1"
    assert events[-1] == {"type": "heard", "of": "session.update"}
    assert (guarded.used("turns"), guarded.used("tokens"), guarded.used("places")) == (2, 24, 0)


def test_a_session_that_only_listens_costs_nothing():
    guarded = Guarded(POLICY, voice)
    for _ in range(4):
        talk(guarded, frame(type="session.update", session={}))

    assert guarded.used("turns") == 0


def test_check_41_who_asks_is_established_anew_for_each_turn():
    guarded = Guarded(POLICY, voice)
    directory = guarded.directory
    before = directory.look_up

    def banned_later(credential, now):
        identity = before(credential, now)
        if directory.asked > 2:
            return Identity({**identity.facts, "enforcement.status": "banned"})
        return identity

    directory.look_up = banned_later
    events = talk(guarded, frame(**CREATE), frame(**CREATE))

    assert [e["type"] for e in events].count("response.done") == 1
    assert events[-1]["error"]["code"] == "account_on_hold"


def test_a_turn_that_the_host_starts_by_itself_is_charged_or_cancelled():
    guarded = Guarded(POLICY, voice)
    events = talk(guarded, *[frame(type="speak")] * 3, frame(**CREATE))

    assert {"type": "heard", "of": "response.cancel"} in events
    assert "error" in [e["type"] for e in events]
    assert guarded.used("places") == 0


def test_a_turn_of_the_hosts_own_that_is_refused_pays_for_what_it_used_all_the_same():
    async def eager(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(3):
            await send({"type": "websocket.send", "text": json.dumps({"type": "response.created"})})
            done = {"type": "response.done", "response": {"usage": USED, "status": "cancelled"}}
            await send({"type": "websocket.send", "text": json.dumps(done)})
        while (await receive())["type"] == "websocket.receive":
            pass

    guarded = Guarded(POLICY, eager)
    events = talk(guarded)

    assert [e["type"] for e in events].count("error") == 1
    assert (guarded.used("turns"), guarded.used("tokens")) == (3, 36)


def test_a_refused_turn_of_the_hosts_own_that_said_nothing_costs_nothing():
    async def eager(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        spent = await guarded.guard.decide({"account.id": "acct-a"}, {**NONE, "requests": 2})
        await guarded.guard.settle(spent, NONE)
        for _ in range(3):
            await send({"type": "websocket.send", "text": json.dumps({"type": "response.created"})})
            done = {"type": "response.done", "response": {"status": "failed", "usage": NONE}}
            await send({"type": "websocket.send", "text": json.dumps(done)})

    guarded = Guarded(POLICY, eager)
    events = talk(guarded)

    assert [e["type"] for e in events].count("error") == 3
    assert (guarded.used("turns"), guarded.used("tokens")) == (2, 0)


def test_a_refused_turn_lends_its_admission_to_no_other():
    guarded = Guarded(POLICY.replace("requests: 2", "requests: 1"), voice)
    events = talk(guarded, frame(**CREATE), frame(**CREATE), frame(type="speak"))

    assert [e["type"] for e in events].count("error") == 2
    assert {"type": "heard", "of": "response.cancel"} in events


@pytest.mark.parametrize("text", ["{", '{"type":"response.create","type":"x"}'])
def test_a_frame_that_cannot_be_read_is_no_free_turn(text):
    guarded = Guarded(POLICY, voice)
    events = talk(guarded, {"type": "websocket.receive", "text": text})

    assert events[0]["error"]["type"] == "invalid_request_error"
    assert len(events) == 1


def test_a_session_that_ends_in_a_turn_is_charged_for_it():
    async def dying(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        for event in ({"type": "response.created"}, {"type": "response.text.delta", "delta": "a"}):
            await send({"type": "websocket.send", "text": json.dumps(event)})
        raise RuntimeError("broke")

    guarded = Guarded(POLICY, dying)
    with pytest.raises(RuntimeError, match="broke"):
        talk(guarded, frame(**CREATE))

    assert guarded.used("turns") == 1
    assert guarded.used("tokens") > 0
    assert guarded.used("places") == 0

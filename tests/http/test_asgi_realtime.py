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
SPEAK = {"type": "input_audio_buffer.append", "audio": "AAAA"}
NONE = {"input_tokens": 0, "output_tokens": 0}
USED = {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}


def frame(**event):
    return {"type": "websocket.receive", "text": json.dumps(event)}


async def voice(scope, receive, send):
    """Answer each turn that reaches it; sound makes it start one by itself."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        event = json.loads(message["text"])
        events: list[dict] = []
        if event["type"] in ("response.create", SPEAK["type"]):
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


def test_turns_are_admitted_one_by_one_and_the_session_goes_on():
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


def test_who_asks_is_established_anew_for_each_turn():
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
    events = talk(guarded, *[frame(**SPEAK)] * 3, frame(**CREATE))

    assert {"type": "heard", "of": "response.cancel"} in events
    assert "error" in [e["type"] for e in events]
    assert (guarded.used("turns"), guarded.used("places")) == (3, 0)


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
    events = talk(guarded, frame(**CREATE), frame(**CREATE), frame(**SPEAK))

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


def test_a_frame_nested_without_end_is_refused_and_harms_nobody():
    guarded = Guarded(POLICY, voice)
    events = talk(guarded, {"type": "websocket.receive", "text": "[" * 50_000}, frame(**CREATE))

    assert [e["type"] for e in events][:2] == ["error", "response.created"]


def test_ten_turns_side_by_side_that_are_cut_are_ten_requests_each_within_its_own_cap():
    async def host(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        for number in range(10):
            await receive()
            for event in (
                {"type": "response.created", "response": {"id": f"r{number}"}},
                {
                    "type": "response.output_text.delta",
                    "response_id": f"r{number}",
                    "delta": "x" * 400,
                },
            ):
                await send({"type": "websocket.send", "text": json.dumps(event)})

    guarded = Guarded(
        POLICY.replace("requests: 2", "requests: 99").replace("max: 1", "max: 10"), host
    )
    talk(
        guarded,
        *[
            frame(type="response.create", response={"conversation": "none", "max_output_tokens": n})
            for n in range(1, 11)
        ],
    )

    assert (guarded.used("turns"), guarded.used("places")) == (10, 0)
    assert guarded.used("tokens") >= sum(range(1, 11))
    assert guarded.used("tokens") < 10 * (100 + 20)


TOOLS = """
guardrail: 1
policy: turns
facts: {account.tier: {type: level, values: [email, verified], default: email}}
rules:
  - {id: turns, when: always, budget: {requests: 9, per: day, key: account.id}}
  - {id: tools, when: {request.tools: {gt: 0}}, block: {reason: no_tools}}
"""


def test_a_session_that_may_ask_for_tools_is_let_in_and_those_turns_are_refused():
    guarded = Guarded(TOOLS, voice)
    tool = {"type": "function", "name": "f"}
    with_tools = {"type": "response.create", "response": {"tools": [tool]}}
    stored = {"type": "response.create", "response": {"prompt": {"id": "p"}}}
    events = talk(guarded, frame(**with_tools), frame(**CREATE), frame(**stored))

    kinds = [e["type"] for e in events]
    assert kinds == ["error", "response.created", "response.done", "heard", "error"]
    assert {e["error"]["code"] for e in events if e["type"] == "error"} == {"no_tools"}
    assert guarded.used("turns", **{"request.tools": 0}) == 1


def test_a_rule_that_hinges_on_more_than_its_turns_refuses_the_connection():
    policy = TOOLS.replace(
        "{request.tools: {gt: 0}}", "{account.tier: email, request.tools: {gt: 0}}"
    )
    assert "heard" in str(talk(Guarded(policy, voice), frame(**CREATE)))
    blocked = TOOLS.replace("{request.tools: {gt: 0}}", "{account.tier: email}")
    assert talk(Guarded(blocked, voice), frame(**CREATE)) == []


DEGRADES = """
guardrail: 1
policy: degrades
models: {voice: {weaker: small}, small: {}}
rules:
  - {id: turns, when: always, budget: {requests: 9, per: day, key: account.id}}
  - {id: less, when: WHEN, degrade: LESS}
"""


def degraded(
    less,
    *messages,
    when="{request.endpoint: /v1/realtime}",
    query=b"model=voice",
    path="/v1/realtime",
):
    """Talk to a host under a degrade; return what the host heard, what was said, and its query."""
    heard, queries = [], []

    async def host(scope, receive, send):
        queries.append((scope["path"], scope["query_string"]))
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            heard.append(json.loads(message["text"]))
            if heard[-1]["type"] == SPEAK["type"]:
                created = {"type": "response.created", "response": {"id": "r"}}
                await send({"type": "websocket.send", "text": json.dumps(created)})

    guarded = Guarded(DEGRADES.replace("WHEN", when).replace("LESS", less), host)
    scope = socket_scope(path=path, query_string=query)
    ended = [CONNECT, *messages, {"type": "websocket.disconnect", "code": 1000}]
    call = asyncio.run(Call(scope, ended).run(guarded.app))
    said = [json.loads(m["text"]) for m in call.sent if m["type"] == "websocket.send"]
    return heard, [e for e in said if e["type"] in ("error", "guardrail.degraded")], queries


def test_a_turn_is_degraded_in_its_own_frame_whatever_the_session_has():
    tools = [{"type": "function", "name": "f"}]
    session = {"type": "session.update", "session": {"tools": tools, "max_output_tokens": "inf"}}
    heard, said, _ = degraded(
        "{max_output_tokens: 64, disable: [tools]}", frame(**session), frame(type="response.create")
    )

    assert heard == [
        session,
        {
            "type": "response.create",
            "response": {"tools": [], "tool_choice": "none", "max_output_tokens": 64},
        },
    ]
    assert [e["type"] for e in said] == ["guardrail.degraded"]


@pytest.mark.parametrize(
    ("less", "messages"),
    [
        ("{model: small}", [frame(type="response.create")]),
        ("{disable: [stream]}", [frame(type="response.create")]),
        ("{disable: [tools]}", [frame(type="response.create", response={"prompt": {"id": "p"}})]),
        ("{disable: [tools]}", [frame(type="speak")]),
        (
            "{disable: [reasoning]}",
            [
                frame(type="session.update", session={"reasoning": {"effort": "high"}}),
                frame(type="response.create"),
            ],
        ),
    ],
)
def test_a_turn_that_cannot_be_degraded_does_not_reach_the_host(less, messages):
    when = "{request.stream: true}" if "model" in less else "{request.endpoint: /v1/realtime}"
    heard, said, _ = degraded(less, *messages, when=when)

    assert [e["type"] for e in heard] == [json.loads(m["text"])["type"] for m in messages[:-1]]
    assert [e["error"]["code"] for e in said] == ["degrade_not_possible"]


def test_a_turn_of_the_hosts_own_that_cannot_be_degraded_is_cancelled():
    heard, said, _ = degraded("{max_output_tokens: 64}", frame(**SPEAK))

    assert heard[-1] == {"type": "response.cancel", "response_id": "r"}
    assert said[0]["error"]["code"] == "degrade_not_possible"


def test_a_connection_is_degraded_in_its_address():
    create = frame(type="response.create")
    heard, said, addresses = degraded("{model: small}", create, query=b"a=b&model=voice")
    assert addresses == [("/v1/realtime", b"a=b&model=small")]
    heard, said, addresses = degraded("{model: small}", create, query=b"deployment=voice")
    assert addresses == [("/v1/realtime", b"deployment=small")]
    path = "/openai/deployments/voice/realtime"
    heard, said, addresses = degraded("{model: small}", create, query=b"", path=path)

    assert addresses == [("/openai/deployments/small/realtime", b"")]
    assert [e["type"] for e in heard] == ["response.create"]
    assert said == []


@pytest.mark.parametrize(
    "session",
    [
        {"audio": {"input": {"transcription": {"model": "t"}}}},
        {"input_audio_transcription": {"model": "t"}},
    ],
)
def test_a_unit_of_the_policys_own_is_settled_by_what_a_turn_tells(session):
    async def host(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            kind = "conversation.item.input_audio_transcription.completed"
            event: dict = {"type": "response.done", "response": {"usage": USED}}
            if json.loads(message["text"])["type"] == "input_audio_buffer.commit":
                event = {"type": kind, "item_id": "i", "usage": {"seconds": 12}}
            await send({"type": "websocket.send", "text": json.dumps(event)})

    sound = (
        "  - {id: sound, when: always, budget: {audio_seconds: 99, per: day, key: account.id}}\n"
    )
    policy = POLICY.replace("policy: turns", "policy: turns\nunits: [audio_seconds]") + sound
    guarded = Guarded(policy, host)
    update = frame(type="session.update", session=session)
    talk(guarded, update, frame(type="input_audio_buffer.commit"), frame(**CREATE))
    decision = asyncio.run(guarded.guard.decide({"account.id": "acct-a"}, {"audio_seconds": 0}))

    assert {limit.rule: limit.used for limit in decision.limits}["sound"] == 12


@pytest.mark.parametrize("query", [b"", b"model=", b"api-version=2025-08-28"])
@pytest.mark.parametrize("event", [frame(type="response.create"), frame(**SPEAK)])
def test_a_session_that_leaves_its_model_open_is_not_served_a_stronger_one(query, event):
    heard, said, _ = degraded("{model: small}", event, query=query)

    assert [e["error"]["code"] for e in said] == ["degrade_not_possible"]
    assert "response.create" not in [e["type"] for e in heard]


def test_a_session_may_leave_its_model_open_where_nothing_asks_for_another():
    heard, said, _ = degraded("{max_output_tokens: 64}", frame(type="response.create"), query=b"")

    assert heard[0]["response"] == {"max_output_tokens": 64}
    assert [e["type"] for e in said] == ["guardrail.degraded"]

"""Sessions over WebSockets, whatever they speak: guarded turn by turn, and settled one by one."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest

from tests.http.driving import Call, Guarded
from tests.http.test_asgi_websockets import CONNECT, socket_scope
from tests.http.test_journal import Kept

POLICY = """
guardrail: 1
policy: sessions
models: {large: {max_output: 400, weaker: small}, small: {max_output: 100}}
rules:
  - {id: turns, when: always, budget: {requests: 2, per: day, key: account.id}}
  - {id: tokens, when: always, budget: {tokens: 1M, per: day, key: account.id}}
  - {id: places, when: always, concurrency: {max: 2, key: account.id}}
"""
WIDE = POLICY.replace("requests: 2,", "requests: 99,")
TOOLLESS = WIDE + "  - {id: tools, when: {request.tools: {gt: 0}}, block: {reason: no_tools}}\n"
LESS = (
    WIDE + "  - {id: less, when: {request.model: large}, unknown: skip, "
    "degrade: {model: small, max_output_tokens: 64, disable: [tools]}}\n"
)
TOOL = {"type": "function", "name": "f", "parameters": {}}
USAGE = {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}
TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
LIVE = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
TURNS = "Refused by rule `turns`. Retry in 43200 s."
END = {"type": "websocket.disconnect", "code": 1000}


def frame(event=None, **members):
    return {"type": "websocket.receive", "text": json.dumps(event or members)}


def create(**body):
    return frame(type="response.create", model="large", input="hi", **body)


class Host:
    """Accepts a connection, keeps each frame, and answers it with what `answers` says."""

    def __init__(self, answers=lambda event: ()):
        self.answers = answers
        self.heard = []
        self.codes = []

    async def __call__(self, scope, receive, send):
        assert await receive() == CONNECT
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            given = message.get("text") or message.get("bytes") or ""
            with suppress(ValueError):
                given = json.loads(given)
            self.heard.append(given)
            for event in self.answers(given):
                await send({"type": "websocket.send", "text": json.dumps(event)})
        self.codes.append(message["code"])


def responses(event):
    """Answer as the Responses API does."""
    if event.get("type") != "response.create":
        return
    lane = {"stream_id": event["stream_id"]} if "stream_id" in event else {}
    yield {"type": "response.created", "response": {"id": "r"}, **lane}
    yield {"type": "response.output_text.delta", "delta": "ok", **lane}
    yield {"type": "response.completed", "response": {"id": "r", "usage": USAGE}, **lane}


def run(guarded, *messages, path="/v1/responses", **scope):
    """Run a connection to its end; return what the client was sent."""
    call = Call(socket_scope(path=path, **scope), [CONNECT, *messages, END])
    return asyncio.run(call.run(guarded.app))


def told(call):
    return [json.loads(m["text"]) for m in call.sent if m["type"] == "websocket.send"]


def errors(call):
    return [event for event in told(call) if event["type"] == "error"]


def test_requests_over_a_websocket_are_counted_one_by_one():
    guarded = Guarded(POLICY, Host(responses))
    call = run(guarded, *[create(tools=[TOOL], event_id="e")] * 20)

    assert len(guarded.host.heard) == 2
    assert len(errors(call)) == 18
    refused = errors(call)[0]
    assert (refused["status"], refused["code"]) == (429, "insufficient_quota")
    assert refused["error"]["event_id"] == "e"
    assert (guarded.used("turns"), guarded.used("tokens"), guarded.used("places")) == (2, 24, 0)


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [TOOL]},
        {"response": {"model": "large", "input": "hi", "tools": [TOOL]}},
    ],
)
def test_a_block_on_tools_refuses_the_requests_that_have_some(body):
    guarded = Guarded(TOOLLESS, Host(responses))
    first = frame(type="response.create", **body)
    call = run(guarded, first, create(), frame(type="response.create", model="large", **body))

    assert [event.get("tools") for event in guarded.host.heard] == [None]
    assert [event["code"] for event in errors(call)][:1] == ["no_tools"]
    assert len(errors(call)) == 2


@pytest.mark.parametrize("more", [{"models": ["huge"]}, {"fallbacks": ["huge"]}, {"lora": "x"}])
def test_a_turn_that_leaves_open_which_model_answers_is_not_served_a_stronger_one(more):
    less = WIDE + "  - {id: less, when: always, degrade: {model: small}}\n"
    guarded = Guarded(less, Host(responses))
    call = run(guarded, create(**more), create())

    assert [event["model"] for event in guarded.host.heard] == ["small"]
    assert [event["code"] for event in errors(call)] == ["degrade_not_possible"]


def test_a_request_in_two_places_of_one_frame_is_refused():
    guarded = Guarded(TOOLLESS, Host(responses))
    call = run(guarded, create(response={"tools": [TOOL]}))

    assert guarded.host.heard == []
    assert errors(call)[0]["code"] == "invalid_request"


def test_a_request_is_degraded_in_its_frame_and_the_client_is_told():
    guarded = Guarded(LESS, Host(responses))
    call = run(guarded, create(tools=[TOOL], stream_id="a", max_output_tokens=999))
    nested = {"model": "large", "input": "hi", "tools": [TOOL]}
    nested_call = run(guarded, frame(type="response.create", response=nested))

    less = {"model": "small", "input": "hi", "max_output_tokens": 64}
    assert guarded.host.heard == [
        {"type": "response.create", "stream_id": "a", **less},
        {"type": "response.create", "response": less},
    ]
    for one, lane in ((call, "a"), (nested_call, None)):
        said = told(one)[0]
        assert (said["type"], said.get("stream_id")) == ("guardrail.degraded", lane)
        assert said["rule"] == "less"


@pytest.mark.parametrize("more", [{"prompt": {"id": "p"}}, {"conversation": "c", "agent": "a"}])
def test_a_request_that_cannot_be_degraded_does_not_reach_the_host(more):
    guarded = Guarded(LESS, Host(responses))
    call = run(guarded, create(**more))

    assert guarded.host.heard == []
    assert errors(call)[0]["code"] == "degrade_not_possible"
    assert (guarded.used("turns"), guarded.used("places")) == (0, 0)


def test_lanes_run_side_by_side_and_each_holds_a_place():
    guarded = Guarded(WIDE, Host(lambda event: ()))
    call = run(guarded, *[create(stream_id=name, max_output_tokens=9) for name in "abc"])

    assert [event.get("stream_id") for event in guarded.host.heard] == ["a", "b"]
    assert errors(call)[0]["stream_id"] == "c"
    assert (guarded.used("turns"), guarded.used("places")) == (2, 0)


def test_a_response_that_the_host_goes_on_with_by_itself_is_a_turn_and_closes_the_connection():
    def steered(event):
        yield from responses(event)
        for name in ("s", "t"):
            yield {"type": "response.created", "response": {"id": name}}

    guarded = Guarded(POLICY, Host(steered))
    call = run(guarded, create(), frame(type="response.steer", input="x"))

    assert call.sent[-1]["type"] == "websocket.close"
    assert guarded.host.codes == [call.sent[-1]["code"]]
    assert guarded.used("turns") == 3


@pytest.mark.parametrize(
    ("error", "used"),
    [
        ({"status": 400, "error": {"type": "invalid_request_error"}}, (1, 0)),
        ({"status": 500, "error": {"type": "server_error"}}, (0, 0)),
    ],
)
def test_an_error_of_the_hosts_ends_the_request(error, used):
    guarded = Guarded(WIDE, Host(lambda event: [{"type": "error", **error}]))
    run(guarded, create())

    assert (guarded.used("turns"), guarded.used("tokens")) == used


def test_background_work_stays_reserved_when_the_connection_ends():
    guarded = Guarded(WIDE, Host(lambda event: ()))
    run(guarded, create(max_output_tokens=300, background=True))

    assert guarded.used("tokens") > 300


@pytest.mark.parametrize("kind", ["responses.unheard", None, 5])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/realtime"])
def test_frames_of_kinds_that_are_not_known_count(path, kind):
    guarded = Guarded(POLICY, Host())
    call = run(guarded, *[frame(type=kind)] * 3, path=path)

    assert len(guarded.host.heard) == 2
    assert len(errors(call)) == 1
    assert guarded.used("turns") == 2


def transcribe(event):
    if event["type"] == "input_audio_buffer.commit":
        usage = {"type": "tokens", **USAGE}
        yield {"type": "input_audio_buffer.committed", "item_id": "i"}
        yield {"type": TRANSCRIBED, "item_id": "i", "transcript": "hello", "usage": usage}


def test_a_transcription_is_a_turn():
    guarded = Guarded(POLICY, Host(transcribe))
    commit = frame(type="input_audio_buffer.commit")
    call = run(guarded, *[commit] * 20, path="/v1/realtime", query_string=b"intent=transcription")

    assert len(guarded.host.heard) == 2
    assert len(errors(call)) == 18
    assert (guarded.used("turns"), guarded.used("tokens"), guarded.used("places")) == (2, 24, 0)


def test_what_a_host_hears_by_itself_is_charged_and_a_refusal_closes_the_connection():
    def hears(event):
        yield {"type": "session.created", "session": {"type": "transcription"}}
        for number in range(3):
            yield {"type": "input_audio_buffer.committed", "item_id": f"i{number}"}
            usage = {"type": "tokens", **USAGE}
            yield {"type": TRANSCRIBED, "item_id": f"i{number}", "transcript": "x", "usage": usage}

    guarded = Guarded(POLICY, Host(hears))
    call = run(guarded, frame(type="input_audio_buffer.append", audio="AAAA"), path="/v1/realtime")

    assert call.sent[-1] == {
        "type": "websocket.close",
        "code": 1013,
        "reason": TURNS,
    }
    assert guarded.host.codes == [1013]
    assert guarded.used("turns") == 3


def live(event):
    if "clientContent" in event or "toolResponse" in event:
        parts = {"parts": [{"text": "hello"}]}
        yield {"serverContent": {"modelTurn": parts}}
        usage = {"promptTokenCount": 7, "responseTokenCount": 5, "totalTokenCount": 12}
        yield {"serverContent": {"turnComplete": True}, "usageMetadata": usage}


SETUP = {"setup": {"model": "models/large", "generationConfig": {"maxOutputTokens": 50}}}
CONTENT = {"clientContent": {"turns": [{"parts": [{"text": "hi"}]}], "turnComplete": True}}


def test_gemini_live_is_guarded_turn_by_turn():
    guarded = Guarded(POLICY, Host(live))
    call = run(guarded, *[frame(one) for one in (SETUP, CONTENT, CONTENT, CONTENT)], path=LIVE)

    assert len(guarded.host.heard) == 3
    assert call.sent[-1]["type"] == "websocket.close"
    assert guarded.host.codes == [1013]
    assert (guarded.used("turns"), guarded.used("tokens"), guarded.used("places")) == (2, 24, 0)


@pytest.mark.parametrize("character", ["é", "言", "a"])
def test_a_closing_says_as_much_of_a_message_as_fits(character):
    said = character * 150
    rule = f"  - {{id: no, when: {{request.model: large}}, block: {{message: {said}}}}}\n"
    guarded = Guarded(WIDE + rule, Host(live))
    reason = run(guarded, frame(SETUP), frame(CONTENT), path=LIVE).sent[-1]["reason"]

    assert reason == character * ((123 - 3) // len(character.encode())) + "..."


def test_gemini_live_has_the_tools_of_its_setup():
    setup = {"setup": {**SETUP["setup"], "tools": [{"functionDeclarations": [{"name": "f"}]}]}}
    guarded = Guarded(TOOLLESS, Host(live))
    assert run(guarded, frame(setup), frame(CONTENT), path=LIVE).sent[-1]["code"] == 1008
    assert run(guarded, frame(CONTENT), path=LIVE).sent[-1]["code"] == 1008
    assert guarded.host.heard == [setup]
    assert len(told(run(guarded, frame(SETUP), frame(CONTENT), path=LIVE))) == 2


@pytest.mark.parametrize("content", [CONTENT, {"realtimeInput": {"text": "hi"}}])
def test_gemini_live_cannot_be_degraded_in_its_course(content):
    guarded = Guarded(LESS, Host(live))

    assert run(guarded, frame(SETUP), frame(content), path=LIVE).sent[-1]["code"] == 1008
    assert guarded.host.heard == [SETUP]
    assert guarded.used("turns") == 0


def test_what_a_live_model_hears_by_itself_is_a_turn_and_a_refusal_closes():
    def hears(event):
        yield {"serverContent": {"modelTurn": {"parts": [{"text": "a"}]}, "turnComplete": True}}

    guarded = Guarded(POLICY, Host(hears))
    sound = {"realtimeInput": {"audio": {"data": "AAAA", "mimeType": "audio/pcm"}}}
    call = run(guarded, *[frame(one) for one in (SETUP, sound, sound)], path=LIVE)

    assert call.sent[-1]["type"] == "websocket.close"
    assert guarded.used("turns") == 3


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.receive", "text": "x" * 400},
        {"type": "websocket.receive", "bytes": b"\x00" * 400},
        {"type": "websocket.receive", "text": ""},
    ],
)
def test_each_frame_of_a_connection_that_is_not_known_is_a_request(message):
    guarded = Guarded(POLICY, Host())
    call = run(guarded, message, message, path="/ws/chat")

    assert len(guarded.host.heard) == 1
    assert call.sent[-1] == {
        "type": "websocket.close",
        "code": 1013,
        "reason": TURNS,
    }
    assert guarded.host.codes == [1013]
    assert (guarded.used("turns"), guarded.used("places")) == (2, 0)


def test_what_such_a_connection_says_is_charged_as_output():
    guarded = Guarded(WIDE, Host(lambda event: [{"text": "x" * 400}] * 3))
    run(guarded, {"type": "websocket.receive", "text": "hi"}, path="/ws/chat")

    assert guarded.used("tokens") > 300


def test_a_block_on_tools_refuses_such_a_connection_as_nothing_of_it_is_known():
    guarded = Guarded(TOOLLESS, Host())

    assert run(guarded, path="/ws/chat").sent[0]["code"] == 1008
    assert guarded.host.heard == []


def test_a_degrade_of_such_a_connection_is_not_possible():
    policy = LESS.replace("{request.model: large}, unknown: skip", "always")
    guarded = Guarded(policy.replace("model: small, ", ""), Host())
    extensions: dict = {"websocket.http.response": {}}
    call = run(guarded, path="/ws/chat", extensions=extensions)

    assert (call.status, call.json["code"]) == (403, "degrade_not_possible")
    assert guarded.used("places") == 0


def test_a_path_that_is_exempt_is_exempt_for_websockets_too():
    guarded = Guarded(POLICY, Host(), exempt=["/ws/chat"])
    run(guarded, *[{"type": "websocket.receive", "text": "hi"}] * 9, path="/ws/chat")

    assert len(guarded.host.heard) == 9
    assert guarded.used("turns") == 0


def test_a_guard_that_fails_refuses_the_turn_and_the_session_goes_on():
    guarded = Guarded(WIDE, Host(responses))
    decide, asked = guarded.guard.decide, []

    async def failing(*args, **more):
        asked.append(args)
        if len(asked) == 2:
            raise RuntimeError("no guard")
        return await decide(*args, **more)

    guarded.guard.decide = failing
    call = run(guarded, create(), create())

    assert [event["status"] for event in errors(call)] == [503]
    assert len(guarded.host.heard) == 1


@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize("path", ["/v1/responses", "/ws/chat"])
def test_the_place_of_a_turn_whose_lease_ran_out_is_taken_anew(path, taken):
    one = WIDE.replace("max: 2", "max: 1, lease: 9s")
    free: list[bool] = []

    async def host(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        # Meanwhile the process was suspended: nothing was renewed.
        guarded.clock.advance(10)
        facts = {"account.id": "acct-a"}
        other = await guarded.guard.decide(facts, {"requests": 0}) if taken else None
        event = {"type": "response.output_text.delta", "delta": "a"}
        await send({"type": "websocket.send", "text": json.dumps(event)})
        while guarded.app.door._tasks:
            await asyncio.sleep(0)
        free.append((await guarded.guard.decide(facts, {"requests": 0})).allowed)
        if other is not None:
            await guarded.guard.release(other)

    sink = Kept()
    guarded = Guarded(one, host, decision_sink=sink)
    run(guarded, create(), path=path)

    assert free == [False]
    assert guarded.used("places") == 0
    endings = [record["ending"] for record in sink.records]
    assert endings == (["released", "settled"] if path == "/v1/responses" else ["settled"] * 2)


def test_the_place_of_a_turn_is_renewed_while_its_host_says_nothing():
    one = WIDE.replace("max: 2", "max: 1, lease: 1s")
    renewed: list = []

    async def host(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        for _ in range(3):
            guarded.clock.advance(0.5)
            before = len(renewed)
            while len(renewed) == before:
                await asyncio.sleep(0.01)
        probe = await guarded.guard.decide({"account.id": "acct-a"}, {"requests": 0})
        renewed.append(probe.allowed)

    guarded = Guarded(one, host)
    renew = guarded.guard.renew

    async def noted(decision, **more):
        await renew(decision, **more)
        renewed.append(decision)

    guarded.guard.renew = noted
    run(guarded, create())

    assert renewed[-1] is False
    assert guarded.used("places") == 0


def test_a_turn_that_runs_although_it_is_refused_is_one_line_of_the_log():
    def eager(event):
        for name in () if event["type"] == "response.cancel" else ("a", "b", "c"):
            yield {"type": "response.created", "response": {"id": name}}
            yield {"type": "response.done", "response": {"id": name, "usage": USAGE}}

    sink = Kept()
    guarded = Guarded(POLICY, Host(eager), decision_sink=sink)
    run(guarded, frame(type="input_audio_buffer.append", audio="AAAA"), path="/v1/realtime")

    turns = [record for record in sink.records if record["ending"] != "released"]
    assert [record["ending"] for record in turns] == ["settled", "settled", "refused"]
    assert turns[-1]["usage"] == {"requests": 1, "input_tokens": 7, "output_tokens": 5}
    assert len({record["id"] for record in sink.records}) == len(sink.records)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "invalid_request"),
        ('{"type":"x","type":"y"}', "invalid_request"),
        ('[{"type":"response.create","model":"large","input":"hi"}]', "invalid_request"),
    ],
)
def test_a_turn_that_no_decision_refuses_is_in_the_log_by_the_id_its_client_sees(text, code):
    sink = Kept()
    guarded = Guarded(POLICY, Host(responses), decision_sink=sink)
    call = run(guarded, {"type": "websocket.receive", "text": text})

    told = [json.loads(m["text"]) for m in call.sent if m["type"] == "websocket.send"]
    refused = [record for record in sink.records if record["reason"] == code]
    assert len(told) == len(refused) == 1
    assert refused[0]["id"] in json.dumps(told)
    assert (refused[0]["status"], refused[0]["ending"]) == (400, "refused")


def test_a_session_that_is_cancelled_settles_every_turn_that_runs():
    async def scenario():
        call = Call(
            socket_scope(path="/v1/responses"),
            [CONNECT, *[create(stream_id=lane) for lane in "ab"]],
        )
        task = asyncio.ensure_future(call.run(guarded.app))
        while len(guarded.host.heard) < 2:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})

    guarded = Guarded(WIDE, Host(lambda event: ()))
    asyncio.run(scenario())

    assert (guarded.used("turns"), guarded.used("places")) == (2, 0)


def test_long_frames_are_read_beside_the_event_loop(monkeypatch):
    read = []
    plain = asyncio.to_thread

    async def noted(function, *args):
        read.append(function.__name__)
        return await plain(function, *args)

    monkeypatch.setattr(asyncio, "to_thread", noted)
    guarded = Guarded(WIDE, Host(responses))
    run(guarded, create(instructions="x" * 70_000), create())

    assert read == ["read"]
    assert len(guarded.host.heard) == 2


def test_a_handshake_does_not_assert_that_there_are_no_tools():
    policy = TOOLLESS.replace("{request.tools: {gt: 0}}", "{request.tools: 0}")
    guarded = Guarded(policy, Host(responses))
    call = run(guarded, create(tools=[TOOL]), create())

    assert [len(event.get("tools", ())) for event in guarded.host.heard] == [1]
    assert [event["code"] for event in errors(call)] == ["no_tools"]


def test_a_connection_degraded_in_its_address_degrades_each_of_its_turns():
    guarded = Guarded(LESS, Host(responses))
    tooled = frame(type="session.update", session={"type": "realtime", "tools": [TOOL]})
    turn = frame(
        type="response.create", response={"tools": [TOOL], "max_output_tokens": 4000, "input": []}
    )
    call = run(guarded, tooled, turn, path="/v1/realtime", query_string=b"model=large")

    sent = [event for event in guarded.host.heard if event["type"] == "response.create"]
    assert sent or errors(call)
    for event in sent:
        assert event["response"]["tools"] == []
        assert event["response"]["max_output_tokens"] <= 64


CLOSED = WIDE + "  - {id: closed, when: {request.model: large}, block: {reason: closed}}\n"


def test_a_block_on_a_model_is_left_to_the_turns_that_name_it():
    guarded = Guarded(CLOSED, Host(responses))
    models: tuple[dict[str, str], ...] = (
        {"model": "large"},
        {"model": "openai/Large"},
        {"model": "small"},
        {},
    )
    frames = [frame(type="response.create", input="hi", **model) for model in models]
    call = run(guarded, *frames)

    assert [event["model"] for event in guarded.host.heard] == ["small"]
    assert [event["code"] for event in errors(call)] == ["closed"] * 3


@pytest.mark.parametrize(("model", "turns"), [("small", 1), ("large", 0), (None, 0)])
def test_a_block_on_a_model_is_left_to_the_setup_of_a_live_session(model, turns):
    guarded = Guarded(CLOSED, Host(lambda event: ()))
    setup = [] if model is None else [frame(setup={"model": f"models/{model}"})]
    asks = frame(clientContent={"turns": [], "turnComplete": True})
    run(guarded, *setup, asks, path=LIVE)

    assert [*map(list, guarded.host.heard)].count(["clientContent"]) == turns


def test_a_session_whose_token_fixes_its_setup_may_have_tools_that_are_not_seen():
    def live(event):
        if "setup" in event:
            yield {"setupComplete": {}}

    content = frame(clientContent={"turns": [{"parts": [{"text": "hi"}]}], "turnComplete": True})
    open_, fixed = Host(live), Host(live)
    run(Guarded(TOOLLESS, open_), frame(setup={"model": "models/g"}), content, path=LIVE)
    run(Guarded(TOOLLESS, fixed), frame(setup={}), content, path=f"{LIVE}Constrained")

    assert [*map(list, open_.heard)] == [["setup"], ["clientContent"]]
    assert [*map(list, fixed.heard)] == [["setup"]]


@pytest.mark.parametrize(("conversation", "served"), [("none", 1), ("auto", 1), ("conv_1", 0)])
def test_a_turn_of_no_conversation_refers_to_nothing_that_is_stored(conversation, served):
    host = Host()
    turn = frame(type="response.create", response={"conversation": conversation})
    run(Guarded(TOOLLESS, host), turn, path="/v1/realtime", query_string=b"model=large")

    assert len(host.heard) == served

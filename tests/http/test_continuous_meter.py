"""Connections that are fed sound without pause: each minute of it is a turn."""

from __future__ import annotations

import asyncio
import json

import pytest

from guardrail.http.metering import Turn
from tests.http.driving import Call, Guarded
from tests.http.following import Followed, frame
from tests.http.test_asgi_websockets import CONNECT, socket_scope

TRANSLATION, TRANSCRIPTION = "/v1/realtime/translations", "/v1/audio/transcriptions/realtime"
SECOND = "A" * 64_000


def piece(path, sound=SECOND):
    kind = "session.input_audio_buffer.append" if path == TRANSLATION else "input_audio.append"
    return frame(type=kind, audio=sound)


@pytest.mark.parametrize("path", [TRANSLATION, TRANSCRIPTION])
def test_each_minute_of_sound_is_a_turn(path):
    followed = Followed(path, model="ears")
    assert followed.sent(frame(type="session.update", session={"audio": {}})) == []

    events = [event for _ in range(130) for event in followed.sent(piece(path))]
    turns = [event for event in events if isinstance(event, Turn)]
    ended = [event for event in events if not isinstance(event, Turn)]

    assert [turn.number for turn in turns] == [1, 2, 3]
    assert [one.fed["audio_seconds"] for one in ended] == [61, 61]
    facts = turns[0].facts
    assert facts["request.capability"] == "audio"
    assert (facts["request.model"], facts["request.tools"]) == ("ears", 0)
    assert turns[0].estimate == {"requests": 1, "input_tokens": 937, "audio_seconds": 60}


def test_a_translation_that_ends_is_charged_for_what_came_and_what_was_said():
    followed = Followed(TRANSLATION)
    turn = followed.asked(piece(TRANSLATION))
    for _ in range(9):
        delta = {"type": "session.output_transcript.delta", "delta": "word "}
        assert followed.received(frame(delta)) == []
        followed.received(frame(type="session.output_audio.delta", delta="AAAA" * 1_000))

    (ended,) = followed.received(frame(type="session.closed"))
    assert ended.number == turn.number
    assert dict(ended.usage) == {"input_tokens": 16, "output_tokens": 18}
    assert ended.fed["audio_seconds"] == 2
    assert followed.received(frame(type="session.closed")) == []


def test_a_live_transcription_is_charged_what_it_tells():
    followed = Followed(TRANSCRIPTION)
    turn = followed.asked(piece(TRANSCRIPTION))
    followed.received(frame(type="transcription.text.delta", text="hello "))
    usage = {"prompt_tokens": 40, "completion_tokens": 7, "prompt_audio_seconds": 3}

    (ended,) = followed.received(frame(type="transcription.done", text="hello", usage=usage))
    assert (ended.number, dict(ended.usage)) == (
        turn.number,
        {"input_tokens": 40, "output_tokens": 7},
    )
    assert ended.fed["audio_seconds"] == 3
    assert followed.asked(piece(TRANSCRIPTION)).number == turn.number + 1


def test_a_connection_that_is_cut_is_charged_for_what_was_heard():
    followed = Followed(TRANSLATION)
    turn = followed.asked(piece(TRANSLATION))
    followed.sent(piece(TRANSLATION))

    assert followed.cut() == {turn.number: {"input_tokens": 32, "output_tokens": 1}}
    assert followed.cut() == {}


@pytest.mark.parametrize(
    "text",
    [
        frame(type="response.create"),
        frame(type="session.update", session={"tools": [{"type": "function", "name": "f"}]}),
        "no frame",
        '{"type": "session.update", "type": "x"}',
    ],
)
def test_what_is_none_of_its_frames_counts_as_the_most_restricted(text):
    turn = Followed(TRANSLATION).asked(text)

    assert turn.facts["request.capability"] == "agentic"
    assert (turn.brief, turn.problem is None) in ((True, True), (False, False))


def test_a_translation_is_limited_by_the_minutes_it_hears():
    heard = []

    async def host(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            heard.append(json.loads(message["text"])["type"])

    policy = """
guardrail: 1
policy: minutes
units: [audio_seconds]
rules:
  - {id: sound, when: always, budget: {audio_seconds: 130, per: day, key: account.id}}
"""
    guarded = Guarded(policy, host)
    scope = socket_scope(path=TRANSLATION, query_string=b"model=ears")
    sound = {"type": "websocket.receive", "text": piece(TRANSLATION, SECOND * 10)}
    messages = [CONNECT, *[sound] * 20, {"type": "websocket.disconnect", "code": 1000}]
    call = asyncio.run(Call(scope, messages).run(guarded.app))

    assert len(heard) == 12
    told = [json.loads(m["text"]) for m in call.sent if m["type"] == "websocket.send"]
    assert [one["error"]["code"] for one in told] == ["insufficient_quota"] * 8

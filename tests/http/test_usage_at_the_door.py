"""What a request is charged through the middleware, by what its response says and does."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import zlib
from typing import Any

import pytest
from fastapi.background import BackgroundTasks
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import JSONResponse, StreamingResponse

from guardrail.http import response
from guardrail.http.metering import FED_UNITS, Meter, UsageFormat, unfed_units
from guardrail.http.response import BackgroundWork, UsageStripper
from tests.http.driving import (
    ASK,
    JSON,
    MESSAGES,
    SSE,
    Call,
    Guarded,
    Host,
    body_messages,
    chat_stream,
    completion,
    scope_of,
)
from tests.http.meters import events
from tests.http.wsgi_driving import Hosted, answering

POLICY = """
guardrail: 1
policy: usage
units: [audio_seconds, images]
models: {small: {max_output: 4096}}
rules:
  - {id: calls, when: always, budget: {requests: 1k, per: day, key: account.id}}
  - {id: in, when: always, budget: {input_tokens: 1M, per: day, key: account.id}}
  - {id: out, when: always, budget: {output_tokens: 1M, per: day, key: account.id}}
  - {id: sound, when: always, budget: {audio_seconds: 1k, per: day, key: account.id}}
  - {id: pictures, when: always, budget: {images: 1k, per: day, key: account.id}}
  - {id: places, when: always, concurrency: {max: 9, lease: 10m, key: account.id}}
"""
NOTHING = {"requests": 0, "input_tokens": 0, "output_tokens": 0, "audio_seconds": 0, "images": 0}


class Counted(Guarded):
    """A host behind the middleware, and what each limit counts."""

    def __init__(self, host=None, policy=POLICY, **options):
        super().__init__(policy, host, **options)

    async def count(self):
        decision = await self.guard.decide({"account.id": "acct-a"}, NOTHING)
        await self.guard.release(decision)
        counted = {limit.rule: limit.used for limit in decision.limits}
        counted["places"] -= 1
        return counted

    def counted(self):
        return asyncio.run(self.count())


def told(usage, *, path="/v1/chat/completions", headers=JSON, **members):
    """Return what the limits count after one response that tells a usage."""
    body = json.dumps({"model": "small", "usage": usage, **members}).encode()
    guarded = Counted(Host([body], headers=headers))
    assert guarded.ask(path=path).status == 200
    return guarded.counted()


def test_iterations_count_where_the_top_tells_the_last_alone():
    iterations = [
        {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500},
        {"type": "message", "input_tokens": 23_000, "output_tokens": 1_000},
    ]
    usage = {"input_tokens": 23_000, "output_tokens": 1_000, "iterations": iterations}

    counted = told(usage, path=MESSAGES)

    assert (counted["in"], counted["out"]) == (203_000, 4_500)
    included = {**usage, "input_tokens": 203_000, "output_tokens": 4_500}
    counted = told(included, path=MESSAGES)
    assert (counted["in"], counted["out"]) == (203_000, 4_500)


@pytest.mark.parametrize("names", [("prompt", "completion"), ("input", "output")])
def test_iterations_count_beside_the_names_of_another_api(names):
    into, out = (f"{name}_tokens" for name in names)
    iterations = [
        {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500},
        {"type": "message", "input_tokens": 23_000, "output_tokens": 1_000},
    ]
    usage = {into: 23_000, out: 1_000, "total_tokens": 24_000, "iterations": iterations}

    counted = told(usage)

    assert (counted["in"], counted["out"]) == (203_000, 4_500)
    included = {into: 203_000, out: 4_500, "total_tokens": 207_500, "iterations": iterations}
    counted = told(included)
    assert (counted["in"], counted["out"]) == (203_000, 4_500)


def test_of_very_many_iterations_the_first_ten_thousand_count():
    iterations = [{"type": "message", "input_tokens": 1, "output_tokens": 2}] * 10_001
    usage = {"input_tokens": 1, "output_tokens": 2, "iterations": iterations}

    counted = told(usage, path=MESSAGES)

    assert (counted["in"], counted["out"]) == (10_000, 20_000)


def test_iterations_of_a_model_that_declined_do_not_count():
    iterations = [
        {"type": "message", "model": "large", "input_tokens": 900, "output_tokens": 7},
        {"type": "message", "model": "small", "input_tokens": 1_000, "output_tokens": 300},
        {"type": "fallback_message", "model": "small", "input_tokens": 1_500, "output_tokens": 400},
    ]
    usage = {"input_tokens": 1_500, "output_tokens": 400, "iterations": iterations}

    counted = told(usage, path=MESSAGES)

    assert (counted["in"], counted["out"]) == (2_500, 700)


@pytest.mark.parametrize(
    ("prompt", "completion_", "total", "reasoning", "out"),
    [(10_120, 1_499, 14_428, 2_809, 4_308), (100, 500, 600, 200, 500), (5, 100, None, 300, 400)],
)
def test_the_total_tells_whether_reasoning_stands_beside_or_inside(
    prompt, completion_, total, reasoning, out
):
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completion_,
        "total_tokens": total,
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }

    counted = told(usage)

    assert (counted["in"], counted["out"]) == (prompt, out)


def test_zeros_told_for_a_stream_of_words_are_not_believed():
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    chunks = [*chat_stream(400, usage=False, done=False), events({"choices": [], "usage": zeros})]
    guarded = Counted(Host([*chunks, b"data: [DONE]\n\n"], headers=SSE))
    guarded.ask(json.dumps({**json.loads(ASK), "stream": True, "max_tokens": 4_096}).encode())

    counted = guarded.counted()

    assert 400 <= counted["out"] <= 600
    assert counted["in"] > 0


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_response_the_host_compressed_is_charged_as_told(coding):
    plain = completion(prompt=12, output=530)
    packed = gzip.compress(plain) if coding == "gzip" else zlib.compress(plain)
    headers = [*JSON, (b"content-encoding", coding.encode())]
    guarded = Counted(Host([packed[:9], packed[9:]], headers=headers))
    call = guarded.ask(headers=[(b"accept-encoding", b"gzip")])

    assert call.body == packed
    counted = guarded.counted()
    assert (counted["in"], counted["out"]) == (12, 530)


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
def test_a_gzip_middleware_inside_ours_changes_nothing_of_what_is_charged(kind):
    usage = {"prompt_tokens": 12, "completion_tokens": 530}
    choice = {"choices": [{"message": {"content": "so many words " * 150}}]}
    lines = {"message": {"content": "word "}, "done": False}
    last = {"done": True, "prompt_eval_count": 12, "eval_count": 530}

    async def host(scope, receive, send):
        await receive()
        if kind == "application/json":
            await JSONResponse({**choice, "usage": usage})(scope, receive, send)
            return
        pieces = (json.dumps(one) + "\n" for one in [*[lines] * 500, last])
        await StreamingResponse(pieces, media_type=kind)(scope, receive, send)

    guarded = Counted(GZipMiddleware(host))
    path = "/v1/chat/completions" if kind == "application/json" else "/api/chat"
    call = guarded.ask(headers=[(b"accept-encoding", b"gzip")], path=path)

    assert call.headers["content-encoding"] == "gzip"
    assert (guarded.counted()["in"], guarded.counted()["out"]) == (12, 530)


def test_a_bomb_is_not_unpacked_and_counts_no_less_than_was_reserved():
    bomb = gzip.compress(b" " * (32 << 20))
    headers = [*JSON, (b"content-encoding", b"gzip")]
    guarded = Counted(Host([bomb], headers=headers))
    guarded.ask()

    assert guarded.counted()["out"] >= len(bomb)


SPOOF = b'{"usage": {"prompt_tokens": 1, "completion_tokens": 1}} ' + b"word " * 1_000


@pytest.mark.parametrize("kind", [b"text/plain; charset=utf-8", b"text/html", b"text/vtt"])
def test_what_a_model_wrote_as_text_is_no_usage(kind):
    guarded = Counted(Host([SPOOF], headers=[(b"content-type", kind)]))
    guarded.ask(json.dumps({**json.loads(ASK), "max_tokens": 4_096}).encode())

    assert guarded.counted()["out"] >= 1_000


def test_without_a_content_type_a_usage_may_only_raise_what_is_charged():
    low = Counted(Host([SPOOF]))
    low.ask(json.dumps({**json.loads(ASK), "max_tokens": 4_096}).encode())
    high = Counted(Host([completion(prompt=900, output=700)]))
    high.ask()

    assert low.counted()["out"] >= 1_000
    assert (high.counted()["in"], high.counted()["out"]) == (900, 700)


def test_lines_of_json_without_a_content_type_are_read_as_such():
    lines: list[dict[str, object]] = [{"message": {"content": "word "}, "done": False}] * 20
    lines.append({"done": True, "prompt_eval_count": 40, "eval_count": 900})
    guarded = Counted(Host([json.dumps(line).encode() + b"\n" for line in lines]))
    asked = {"model": "small", "messages": [], "options": {"num_predict": 4_096}}
    guarded.ask(json.dumps(asked).encode(), path="/api/chat")

    assert (guarded.counted()["in"], guarded.counted()["out"]) == (40, 900)


def test_a_prompt_that_is_echoed_is_not_output():
    usage = {"prompt_tokens": 500, "completion_tokens": 2, "total_tokens": 502}
    body = {"choices": [{"text": "word " * 500 + "and on"}], "usage": usage}
    guarded = Counted(Host([json.dumps(body).encode()], headers=JSON))
    asked = {"model": "small", "prompt": "word " * 500, "max_tokens": 2, "echo": True}
    guarded.ask(json.dumps(asked).encode(), path="/v1/completions")

    assert guarded.counted()["out"] == 2


def test_bytes_in_a_response_are_no_text():
    picture = {"image_url": {"url": "data:image/png;base64," + "iVBOR" * 9_000}}
    sound = {"id": "a", "data": "UklGR" * 9_000, "transcript": "Hello there."}
    message = {"content": "Here", "images": [picture], "audio": sound, "annotations": ["x y " * 99]}
    body = json.dumps({"choices": [{"message": message}]}).encode()
    guarded = Counted(Host([body], headers=JSON))
    guarded.ask(json.dumps({**json.loads(ASK), "max_tokens": 4_096}).encode())

    assert guarded.counted()["out"] < 10


# Work that goes on after its response.

RESPONSES = "/v1/responses"
BACKGROUND = {"model": "small", "input": "hi", "max_output_tokens": 500, "background": True}
CREATED = {"id": "resp_1", "object": "response", "status": "queued", "background": True}
USAGE = {"input_tokens": 20, "output_tokens": 321, "total_tokens": 341}


class Answers:
    """A host whose next answers are given."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def __call__(self, scope, receive, send):
        kind, chunks, ends = self.answers.pop(0)
        await receive()
        headers = [(b"content-type", kind)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if ends:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def body_of(**members):
    return b"application/json", [json.dumps({**CREATED, **members}).encode()], True


def stream_of(*documents, ends=True):
    return b"text/event-stream", [events(document, named=True) for document in documents], ends


def fetched(guarded, name="resp_1"):
    return guarded.ask(None, path=f"{RESPONSES}/{name}", method="GET")


def begun(answer, *later, **more):
    guarded = Counted(Answers(answer, *later))
    guarded.ask(json.dumps({**BACKGROUND, **more}).encode(), path=RESPONSES)
    return guarded


LEFT = stream_of({"type": "response.created", "response": CREATED}, ends=False)


@pytest.mark.parametrize(
    ("answer", "streams"), [(body_of(usage=None), False), (LEFT, True), (stream_of(), True)]
)
def test_work_in_the_background_stays_as_reserved(answer, streams):
    guarded = begun(answer, stream=streams)

    assert guarded.counted()["out"] == 500


@pytest.mark.parametrize("first", [body_of(usage=None), LEFT])
def test_a_later_response_that_tells_the_end_settles_the_work(first):
    guarded = begun(
        first,
        body_of(status="in_progress", usage=None),
        body_of(id="resp_2", status="completed", usage=USAGE),
        body_of(status="completed", usage=USAGE),
        body_of(status="completed", usage=USAGE),
        stream="text/event-stream" in str(first[0]),
    )
    counts = []
    for name in ("resp_1", "resp_2", "resp_1", "resp_1"):
        assert fetched(guarded, name).status == 200
        counts.append(guarded.counted())

    assert [count["out"] for count in counts] == [500, 500, 321, 321]
    assert [count["places"] for count in counts] == [0, 0, 0, 0]
    assert counts[-1]["in"] == 20
    assert counts[-1]["calls"] == 5


def test_a_fetch_that_is_cancelled_while_it_is_settled_settles_the_work_all_the_same():
    guarded = begun(body_of(usage=None), body_of(status="completed", usage=USAGE))
    settle, calls = guarded.guard.settle, []

    async def cancelled_at_first(*arguments, **more):
        calls.append(arguments)
        await settle(*arguments, **more)
        if len(calls) == 1:
            raise asyncio.CancelledError

    guarded.guard.settle = cancelled_at_first
    with pytest.raises(asyncio.CancelledError):
        fetched(guarded)

    assert len(calls) == 2
    assert guarded.counted()["out"] == 321


def test_a_stream_that_is_resumed_settles_the_work_at_its_end():
    done = {**CREATED, "status": "completed", "usage": USAGE}
    delta = {"type": "response.output_text.delta", "delta": "x"}
    guarded = begun(
        LEFT, stream_of(delta, {"type": "response.completed", "response": done}), stream=True
    )
    fetched(guarded)

    assert guarded.counted()["out"] == 321


def test_work_that_was_cancelled_without_a_usage_stays_as_reserved():
    guarded = begun(body_of(usage=None), body_of(status="cancelled", usage=None))
    guarded.ask(b"", path=f"{RESPONSES}/resp_1/cancel")

    counted = guarded.counted()
    assert (counted["out"], counted["places"]) == (500, 0)


def test_of_too_much_work_the_oldest_is_no_longer_waited_for():
    later: Any = BackgroundWork(most=2)

    assert not later.waiting
    for name in ("a", "b", "c", "c"):
        later.keep(name, name)
    assert [later.take(name) for name in ("a", "b", "c", "c")] == [None, "b", "c", None]
    assert not later.waiting


def test_background_work_over_wsgi_waits_for_its_end_too():
    bodies = [
        json.dumps({**CREATED, "usage": None}).encode(),
        json.dumps({**CREATED, "status": "completed", "usage": USAGE}).encode(),
    ]

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        return [bodies.pop(0)]

    hosted = Hosted(app)
    hosted.ask(body=json.dumps(BACKGROUND).encode(), path=RESPONSES)
    reserved = hosted.used("tokens")
    hosted.ask(body=b"", path=f"{RESPONSES}/resp_1", method="GET")

    assert reserved >= 500
    assert hosted.used("tokens") == 341
    assert hosted.used("places") == 0


def test_a_compressed_response_over_wsgi_is_charged_as_told():
    packed = gzip.compress(completion(prompt=12, output=53))
    headers = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")]
    hosted = Hosted(answering([packed], headers))
    hosted.ask()

    assert hosted.used("tokens") == 65


# Reasoning that is not shown.

REASONS = {"model": "small", "input": "hi", "max_output_tokens": 500, "stream": True}


@pytest.mark.parametrize(
    "documents",
    [
        [{"type": "response.created", "response": {"reasoning": {"effort": "high"}}}],
        [{"type": "response.output_item.added", "item": {"type": "reasoning", "summary": []}}],
    ],
)
def test_a_stream_left_while_its_model_reasons_stays_as_reserved(documents):
    guarded = Counted(Answers(stream_of(*documents, ends=False)))
    guarded.ask(json.dumps(REASONS).encode(), path=RESPONSES)

    assert guarded.counted()["out"] == 500


def test_reasoning_asked_for_and_not_shown_stays_as_reserved_unless_told():
    asked = json.dumps({**json.loads(ASK), "stream": True, "reasoning_effort": "high"}).encode()
    untold = Counted(Host(chat_stream(3, usage=False), headers=SSE))
    untold.ask(asked)
    known = Counted(Host(chat_stream(3), headers=SSE))
    known.ask(asked)
    thought = {"choices": [{"delta": {"reasoning_content": "so "}}]}
    shown = Counted(Host([events(thought), *chat_stream(3, usage=False)], headers=SSE))
    shown.ask(asked)

    assert untold.counted()["out"] == 100
    assert known.counted()["out"] == 3
    assert 4 <= shown.counted()["out"] < 10


# Units of a policy's own.


def transcribed(answer, field=b""):
    """Return what the limits count after a transcription that is answered so."""
    guarded = Counted(Host([answer], headers=JSON))
    form = (
        b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nsmall\r\n'
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n'
        b"content-type: audio/wav\r\n\r\nRIFF\r\n" + field + b"--b--\r\n"
    )
    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    call = guarded.ask(form, path="/v1/audio/transcriptions", headers=headers)
    assert call.status == 200
    return guarded.counted()


@pytest.mark.parametrize(
    ("members", "seconds"),
    [
        ({"text": "Hi.", "usage": {"type": "duration", "seconds": 12}}, 12),
        ({"text": "Hi.", "usage": {"seconds": 11.2}}, 12),
        ({"task": "transcribe", "text": "Hi.", "duration": "8.47"}, 9),
        ({"text": "Hi.", "usage": {"prompt_audio_seconds": 7}}, 7),
        ({"text": "Hi."}, 1),
        ({"text": "Hi.", "usage": {"seconds": -5}}, 1),
        ({"text": "Hi.", "duration": float("nan")}, 1),
    ],
)
def test_seconds_of_sound_are_charged_as_told(members, seconds):
    assert transcribed(json.dumps(members).encode())["sound"] == seconds


@pytest.mark.parametrize(("wanted", "out"), [("srt", 4_096), ("text", 4_096), ("json", 1)])
def test_a_transcription_that_was_asked_for_as_text_tells_nothing(wanted, out):
    spoken = b'{"text": "Hi.", "usage": {"type": "tokens", "input_tokens": 1, "output_tokens": 1}}'
    head = '--b\r\ncontent-disposition: form-data; name="response_format"'

    assert transcribed(spoken, f"{head}\r\n\r\n{wanted}\r\n".encode())["out"] == out


@pytest.mark.parametrize("line", ['name="response_format"\n', "name=response_format\r\nx\r\n"])
def test_a_file_of_nothing_but_what_looks_like_that_wish_is_not_searched_for_ever(line):
    spoken = b'{"text": "Hi.", "usage": {"type": "tokens", "input_tokens": 1, "output_tokens": 1}}'
    head = '--b\r\ncontent-disposition: form-data; name="other"; filename="a.wav"'
    file = f"{head}\r\n\r\n{line * 100_000}\r\n".encode()

    assert transcribed(spoken, file)["out"] == 4_096


@pytest.mark.parametrize("size", [1, 100_000])
def test_pictures_are_reserved_as_asked_for_and_charged_as_made(size):
    pictures = [{"b64_json": "iVBOR" * size, "revised_prompt": "[{"}] * 3
    body = json.dumps({"created": 1, "data": pictures}).encode()
    chunks = [body[at : at + 65_536] for at in range(0, len(body), 65_536)]
    seen = []

    class Slow(Host):
        async def __call__(self, scope, receive, send):
            seen.append((await guarded.count())["pictures"])
            await super().__call__(scope, receive, send)

    guarded = Counted(Slow(chunks, headers=JSON))
    asked = json.dumps({"model": "small", "prompt": "a cat", "n": 4}).encode()
    guarded.ask(asked, path="/v1/images/generations")

    assert seen == [4]
    assert guarded.counted()["pictures"] == 3


def test_sound_makes_no_pictures_and_speech_hears_nothing():
    spoken = Counted(Host([b"ID3"], headers=[(b"content-type", b"audio/mpeg")]))
    asked = {"model": "small", "input": "Say this.", "voice": "a"}
    spoken.ask(json.dumps(asked).encode(), path="/v1/audio/speech")

    assert (spoken.counted()["pictures"], spoken.counted()["sound"]) == (0, 0)
    heard = transcribed(b'{"text": "Hi."}')
    assert (heard["pictures"], heard["sound"]) == (0, 1)


def test_what_has_no_pictures_and_no_sound_counts_none():
    guarded = Counted()
    guarded.ask()
    guarded.ask(None, path="/v1/models", method="GET")
    refused = Counted(Host([b"{}"], status=404, headers=JSON))
    refused.ask()

    assert (guarded.counted()["pictures"], guarded.counted()["sound"]) == (0, 0)
    assert (refused.counted()["pictures"], refused.counted()["sound"]) == (0, 0)


def test_a_unit_that_no_response_tells_is_said_at_start(caplog):
    policy = POLICY.replace("[audio_seconds, images]", "[audio_seconds, images, gpu_seconds]")
    with caplog.at_level(logging.WARNING, "guardrail"):
        Counted(policy=POLICY)
        assert "no response tells" not in caplog.text
        Counted(policy=policy)

    assert caplog.text.count("how much of the unit `gpu_seconds` was used") == 1
    assert unfed_units(["gpu_seconds", *FED_UNITS]) == ("gpu_seconds",)


# The end of a response.


def test_a_request_is_settled_when_its_response_has_ended_though_the_host_works_on():
    seen = []

    async def work():
        seen.append(await guarded.count())

    async def host(scope, receive, send):
        await receive()
        body = json.loads(completion(prompt=5, output=6))
        tasks = BackgroundTasks()
        tasks.add_task(work)
        await JSONResponse(body, background=tasks)(scope, receive, send)

    guarded = Counted(host)
    guarded.ask()

    assert [(count["in"], count["out"], count["places"]) for count in seen] == [(5, 6, 0)]
    assert guarded.counted()["out"] == 6


def test_a_host_sends_no_file_past_the_meter():
    host = Host([completion()], headers=JSON)
    guarded = Counted(host)
    extensions: dict[str, object] = {"http.response.pathsend": {}, "http.response.debug": {}}
    guarded.ask(extensions=extensions)
    guarded.ask(None, path="/v1/models", method="GET", extensions=extensions)

    assert [set(scope["extensions"]) for scope in host.scopes] == [
        {"http.response.debug"},
        set(extensions),
    ]


def test_a_stream_whose_usage_we_asked_for_is_not_compressed():
    host = Host(chat_stream(3), headers=SSE)
    guarded = Counted(host, stream_usage=True)
    asked = json.dumps({**json.loads(ASK), "stream": True}).encode()
    guarded.ask(asked, headers=[(b"accept-encoding", b"gzip")])

    assert b"accept-encoding" not in dict(host.scopes[0]["headers"])
    assert guarded.counted()["out"] == 3


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
def test_the_usage_is_taken_out_at_once_whatever_ends_the_lines(ending, size):
    stripper = UsageStripper()
    whole = b"".join(chat_stream(3)).replace(b"\n", ending)
    kept = b"".join(chat_stream(3, usage=False)).replace(b"\n", ending)

    passed = b"".join(
        stripper.feed(whole[at : at + size], last=False) for at in range(0, len(whole), size)
    )

    assert passed == kept


@pytest.mark.parametrize(
    ("choice", "stays"),
    [
        ({"delta": {"content": "x"}}, True),
        ({"delta": {}, "finish_reason": "stop"}, True),
        ({"delta": {}, "logprobs": {"content": []}}, True),
        ({"text": "x"}, True),
        ({"delta": "x"}, True),
        ({"delta": {}}, False),
        ({"delta": {"content": None, "role": ""}, "finish_reason": None, "logprobs": None}, False),
    ],
)
def test_a_chunk_of_usage_is_taken_out_only_if_it_says_nothing_else(choice, stays):
    chunk = {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}
    event = b"data: " + json.dumps(chunk).encode() + b"\n\n"

    assert UsageStripper().feed(event, last=True) == (event if stays else b"")


def test_a_client_that_leaves_a_stream_pays_for_what_passed():
    left = asyncio.Event()

    async def host(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": SSE})
        for chunk in chat_stream(20, usage=False, done=False):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        left.set()
        await receive()

    guarded = Counted(host)
    body = json.dumps({**json.loads(ASK), "stream": True, "max_tokens": 4_096}).encode()
    call = Call(scope_of(body=body), body_messages(body))

    async def run():
        task = asyncio.create_task(call.run(guarded.app))
        await left.wait()
        call.left.set()
        await task

    asyncio.run(run())
    assert 20 <= guarded.counted()["out"] <= 25


def test_a_path_of_the_hosts_own_is_charged_as_told_and_else_as_reserved():
    usage = {"inputTokens": 5, "outputTokens": 9, "cacheReadInputTokens": 30, "totalTokens": 44}
    body = {"output": {"message": {"content": [{"text": "one two"}]}}, "usage": usage}
    asked = b'{"messages": [{"role": "user", "content": [{"text": "hi"}]}]}'
    counts = []
    for answer in (body, {**body, "usage": {"inputTokens": 0, "outputTokens": 0}}, {"ok": True}):
        guarded = Counted(Host([json.dumps(answer).encode()], headers=JSON))
        guarded.ask(asked, path="/llm/answer")
        counts.append(guarded.counted())

    assert [count["out"] for count in counts] == [9, 4_096, 4_096]
    assert counts[0]["in"] == 35


@pytest.mark.parametrize("kind", [b"application/octet-stream", b"image/png"])
def test_what_is_no_text_of_an_api_stays_as_reserved(kind):
    guarded = Counted(Host([b"\x00" * 9_000], headers=[(b"content-type", kind)]))
    guarded.ask()

    assert guarded.counted()["out"] == 100


def test_an_embedding_of_ollamas_is_charged_the_input_it_tells():
    body = {"model": "small", "embeddings": [[0.1] * 50], "prompt_eval_count": 7}
    guarded = Counted(Host([json.dumps(body).encode()], headers=JSON))
    guarded.ask(b'{"model": "small", "input": "why is the sky blue?"}', path="/api/embed")

    assert (guarded.counted()["in"], guarded.counted()["out"]) == (7, 0)


@pytest.mark.parametrize(
    "body",
    [
        {
            "choices": [
                {"message": {"content": "Here.", "images": [{"image_url": {"url": "x"}}] * 2}}
            ]
        },
        {"candidates": [{"content": {"parts": [{"inlineData": {"mimeType": "image/png"}}] * 2}}]},
        {"output": [{"type": "image_generation_call"}, {"type": "image_generation_call"}]},
    ],
)
def test_pictures_of_a_chat_are_counted(body):
    guarded = Counted(Host([json.dumps({**body, "usage": {}}).encode()], headers=JSON))
    guarded.ask()

    assert guarded.counted()["pictures"] == 2


DRAWN = {
    "id": "r",
    "status": "completed",
    "usage": {"input_tokens": 300, "output_tokens": 60, "total_tokens": 360},
    "tool_usage": {
        "image_gen": {
            "input_tokens": 50,
            "input_tokens_details": {"image_tokens": 0, "text_tokens": 50},
            "output_tokens": 1568,
            "output_tokens_details": {"image_tokens": 1568, "text_tokens": 0},
            "total_tokens": 1618,
        },
        "web_search": {"num_requests": 1},
    },
}


@pytest.mark.parametrize("size", [10, 400_000])
@pytest.mark.parametrize("streams", [False, True])
def test_what_a_tool_of_a_response_used_is_charged_with_it(size, streams):
    picture = {"type": "image_generation_call", "status": "completed", "result": "i" * size}
    response = {"output": [picture], **DRAWN}
    answer = body_of(**response)
    if streams:
        unused = {"image_gen": {"input_tokens": 0, "output_tokens": 0}}
        created = {**CREATED, "background": False, "usage": None, "tool_usage": unused}
        answer = stream_of(
            {"type": "response.created", "response": created},
            {"type": "response.completed", "response": response},
        )
    guarded = Counted(Answers(answer))
    asked = {"model": "small", "input": "a cat", "max_output_tokens": 500, "stream": streams}
    guarded.ask(json.dumps(asked).encode(), path=RESPONSES)

    assert (guarded.counted()["in"], guarded.counted()["out"]) == (350, 1_628)


@pytest.mark.parametrize(
    "vectors", [{"embedding": [0.25] * 999}, {"embeddingsByType": {"float": [0.25] * 999}}]
)
def test_the_numbers_of_an_embedding_at_bedrock_are_no_text(vectors):
    body = json.dumps({**vectors, "inputTextTokenCount": 5}).encode()
    told = [(b"x-amzn-bedrock-input-token-count", b"5")]
    guarded = Counted(Host([body], headers=[*JSON, *told]))
    guarded.ask(b'{"inputText": "why is the sky blue?"}', path="/model/small/invoke")

    assert (guarded.counted()["in"], guarded.counted()["out"]) == (5, 1)


def test_a_stream_that_is_none_is_charged_by_its_bytes():
    lines = [b'{"choices": [{"delta": {"content": "word"}}]}\n'] * 20
    guarded = Counted(Host(lines, headers=SSE))
    guarded.ask(json.dumps({**json.loads(ASK), "stream": True, "max_tokens": 4_096}).encode())
    amazon = Counted(
        Host([b"x" * 300], headers=[(b"content-type", b"application/vnd.amazon.eventstream")])
    )
    amazon.ask()

    assert guarded.counted()["out"] >= 20
    assert amazon.counted()["out"] >= 100


def test_rubbish_after_a_compressed_response_does_not_undo_what_it_told():
    packed = gzip.compress(completion(prompt=12, output=53)) + b"rubbish"
    guarded = Counted(Host([packed], headers=[*JSON, (b"content-encoding", b"gzip")]))
    guarded.ask()

    assert guarded.counted()["out"] == 53


def test_reasoning_that_is_only_summed_up_is_not_shown():
    details = [{"type": "reasoning.summary", "summary": "thinks"}]
    thought = {"choices": [{"delta": {"reasoning": "thinks", "reasoning_details": details}}]}
    guarded = Counted(Host([events(thought), *chat_stream(3, usage=False)], headers=SSE))
    asked = {**json.loads(ASK), "stream": True, "reasoning_effort": "high"}
    guarded.ask(json.dumps(asked).encode())

    assert guarded.counted()["out"] == 100


ODD: list[object] = [
    None,
    True,
    -1,
    1.5,
    "x",
    "x" * 2_000,
    [],
    [[]],
    [{}],
    {},
    {"type": []},
    [1, 2],
    2**60,
]
PLACES = (
    "type status id usage response message delta choices candidates item content_block output "
    "done meta_info index error model usageMetadata x_groq meta svg_usage event_type metrics data "
    "tool_usage object background duration text content token tokens"
).split()


@pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream"])
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:20])
def test_nothing_a_host_puts_in_any_place_breaks_its_response(odd, kind):
    inner = dict.fromkeys((*PLACES, "finishReason", "parts", "role", "reasoning", "arguments"), odd)
    documents = [dict.fromkeys(PLACES, odd), *({name: odd, "usage": odd} for name in PLACES)]
    documents += [{name: inner} for name in PLACES] + [{name: [inner]} for name in PLACES]
    for usage_format in UsageFormat:
        meter = Meter(usage_format, True, {"output_tokens": 9}, units=FED_UNITS, reasons=True)
        meter.start(200, [(b"content-type", kind)])
        for document in documents:
            text = json.dumps(document).encode()
            meter.feed(b"data: " + text + b"\n\n" if kind == b"text/event-stream" else text)
        assert all(amount >= 0 for amount in meter.usage().values())
        assert meter.goes_on is None or isinstance(meter.goes_on, str)


@pytest.mark.parametrize("piece", [{"answer": "word "}, {"token": {"text": "word "}}, "word "])
def test_a_stream_in_a_shape_of_the_hosts_own_is_charged_for_its_text(piece):
    told = {"object": "note", "system": "not a part of it " * 99}
    chunks = [*[events(piece)] * 20, events(told), events("[DONE]")]
    guarded = Counted(Host(chunks, headers=SSE))
    guarded.ask(json.dumps({**json.loads(ASK), "stream": True, "max_tokens": 4_096}).encode())

    assert 20 <= guarded.counted()["out"] <= 40


@pytest.mark.parametrize(
    ("accepted", "asked"),
    [
        (b"gzip, deflate;q=0.5", b"gzip, deflate;q=0.5"),
        (b"gzip, compress, *;q=0.1", b"gzip"),
        (b"compress", b"identity"),
        (b"", b""),
    ],
)
def test_a_host_is_asked_for_no_coding_that_cannot_be_read(accepted, asked):
    host = Host([completion()], headers=JSON)
    Counted(host).ask(headers=[(b"accept-encoding", accepted)])
    seen = []

    def app(environ, start_response):
        seen.append(environ["HTTP_ACCEPT_ENCODING"])
        return answering([completion()])(environ, start_response)

    Hosted(app).ask(HTTP_ACCEPT_ENCODING=accepted.decode())

    assert dict(host.scopes[0]["headers"])[b"accept-encoding"] == asked
    assert seen == [asked.decode()]


def test_usage_in_an_answer_of_a_hosts_own_path_counts_only_where_work_was_asked_for():
    counted = Counted(Host([completion(prompt=10, output=20)], headers=JSON))

    counted.ask(b"", path="/dashboard", method="GET")
    assert (counted.used("calls"), counted.used("in"), counted.used("out")) == (1, 0, 0)
    counted.ask(json.dumps({"text": "hi"}).encode(), path="/summarise")
    assert (counted.used("calls"), counted.used("in"), counted.used("out")) == (2, 10, 20)


def test_what_answers_a_request_without_a_body_on_an_unknown_path_is_not_read_for_usage():
    guarded = Counted(Host([completion()], headers=JSON))
    assert guarded.ask(None, path="/unheard/of", method="GET").status == 200

    counted = guarded.counted()
    assert (counted["calls"], counted["in"], counted["out"]) == (1, 0, 0)


BEDROCK = {"inferenceConfig": {"maxTokens": 700}, "messages": [{"role": "user", "content": []}]}


@pytest.mark.parametrize(
    ("action", "answer"),
    [
        ("converse", {"usage": {"inputTokens": 5, "outputTokens": 9, "totalTokens": 14}}),
        ("invoke", {"usage": {"input_tokens": 5, "output_tokens": 9}}),
        ("invoke", {"prompt_token_count": 5, "generation_token_count": 9}),
    ],
)
def test_what_bedrock_answers_is_charged_as_told(action, answer):
    guarded = Counted(Host([json.dumps(answer).encode()], headers=JSON))
    guarded.ask(json.dumps(BEDROCK).encode(), path=f"/model/us.anthropic.claude-v1:0/{action}")

    assert (guarded.counted()["in"], guarded.counted()["out"]) == (5, 9)


TITAN = {"results": [{"outputText": "one two", "completionReason": "FINISH"}]}


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/model/titan/invoke", "x-amzn-bedrock-{}-token-count"),
        ("/generate", "x-{}-tokens"),
    ],
)
@pytest.mark.parametrize("out", [9, 0])
def test_what_fields_of_a_response_tell_is_charged(path, named, out):
    names = ("input", "output") if "bedrock" in named else ("prompt", "generated")
    told = [(named.format(n).encode(), b"%d" % c) for n, c in zip(names, (5, out), strict=True)]
    guarded = Counted(Host([json.dumps(TITAN).encode()], headers=[*JSON, *told]))
    guarded.ask(b'{"inputText": "hi"}', path=path)

    # Nothing told for some bytes of text is not believed.
    assert (guarded.counted()["in"], guarded.counted()["out"]) == (5, out or 4)


def test_a_usage_within_a_result_is_charged_as_told():
    usage = {"prompt_tokens": 5, "completion_tokens": 9}
    body = {"result": {"response": "one two", "usage": usage}, "success": True}
    guarded = Counted(Host([json.dumps(body).encode()], headers=JSON))
    guarded.ask(b'{"messages": []}', path="/ai/run/llama")

    assert (guarded.counted()["in"], guarded.counted()["out"]) == (5, 9)


def test_a_list_of_responses_is_charged_the_sum():
    usage = {"prompt_tokens": 5, "completion_tokens": 9}
    answer = [{"object": "chat.completion", "usage": usage}] * 2
    guarded = Counted(Host([json.dumps(answer).encode()], headers=JSON))
    guarded.ask(json.dumps({**json.loads(ASK), "model": "small,large"}).encode())

    counted = guarded.counted()
    assert (counted["calls"], counted["in"], counted["out"]) == (2, 10, 18)


def test_work_that_is_fetched_later_stays_as_reserved():
    guarded = Counted(Host([b'{"request_id": "r"}'], headers=JSON))
    guarded.ask(json.dumps({**json.loads(ASK), "deferred": True}).encode())

    assert guarded.counted()["out"] == 100


RUN = {"id": "run_1", "object": "thread.run", "status": "in_progress", "usage": None}


def left_run(*documents):
    guarded = Counted(
        Answers(
            stream_of(*documents, ends=False),
            body_of(**RUN | {"status": "completed", "usage": USAGE}),
        )
    )
    asked = {"assistant_id": "a", "model": "small", "stream": True, "max_completion_tokens": 500}
    guarded.ask(json.dumps(asked).encode(), path="/v1/threads/t/runs")
    return guarded


def test_a_run_of_an_assistant_goes_on_when_its_stream_is_left():
    delta = {"object": "thread.message.delta", "delta": {"content": [{"text": {"value": "Hi"}}]}}
    guarded = left_run({"type": "", **RUN}, {"type": "", **delta})
    reserved = guarded.counted()["out"]
    guarded.ask(None, path="/v1/threads/t/runs/run_1", method="GET")

    assert reserved == 500
    assert guarded.counted()["out"] == 321


def test_an_interaction_in_the_background_is_charged_when_its_end_is_told():
    usage = {"total_input_tokens": 20, "total_output_tokens": 300, "total_thought_tokens": 21}
    begun = {"id": "v1_1", "status": "in_progress"}
    answers = ({**begun, "usage": None}, {**begun, "status": "completed", "usage": usage})
    guarded = Counted(Answers(*((JSON[0][1], [json.dumps(a).encode()], True) for a in answers)))
    cap = {"generation_config": {"max_output_tokens": 500}}
    asked = {"model": "small", "input": "hi", "background": True, **cap}
    guarded.ask(json.dumps(asked).encode(), path="/v1beta/interactions")
    reserved = guarded.counted()["out"]
    guarded.ask(None, path="/v1beta/interactions/v1_1", method="GET")

    assert reserved == 500
    assert (guarded.counted()["in"], guarded.counted()["out"]) == (20, 321)


@pytest.mark.parametrize(
    ("last", "size"),
    [
        ("step.delta", 0),
        ("step.stop", 0),
        ("interaction.completed", 0),
        ("interaction.completed", 3_000_000),
    ],
)
def test_what_any_event_of_an_interaction_tells_in_its_metadata_is_charged(last, size):
    usage = {"total_input_tokens": 500, "total_output_tokens": 70, "total_thought_tokens": 900}
    told = (
        {"event_type": "interaction.created", "interaction": {"id": "v1_1"}},
        {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "one two"}},
        {
            "event_type": last,
            "delta": {"type": "image", "data": "A" * size},
            "metadata": {"total_usage": usage},
        },
    )
    guarded = Counted(Host([b"data: %s\n\n" % json.dumps(e).encode() for e in told], headers=SSE))
    asked = {"model": "small", "input": "hi", "stream": True}
    guarded.ask(json.dumps(asked).encode(), path="/v1beta/interactions")

    assert (guarded.counted()["in"], guarded.counted()["out"]) == (500, 970)


def test_a_run_that_waits_for_its_client_is_charged_what_passed():
    guarded = left_run({"type": "", **RUN}, {"type": "", **RUN, "status": "requires_action"})

    assert guarded.counted()["out"] == 1


def test_a_long_event_that_comes_in_small_pieces_is_looked_through_once(monkeypatch):
    looked, end = 0, response._END

    class Counting:
        def finditer(self, text, start):
            nonlocal looked
            looked += len(text) - start
            return end.finditer(text, start)

    monkeypatch.setattr(response, "_END", Counting())
    event, stripper = b"data: " + b"a" * 50_000, UsageStripper()
    for at in range(0, len(event), 50):
        assert stripper.feed(event[at : at + 50], last=False) == b""

    assert stripper.feed(b"\n\n", last=False) == event + b"\n\n"
    assert looked < 2 * len(event)

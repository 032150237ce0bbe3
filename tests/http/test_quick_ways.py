"""What is done the quick way for most requests comes to the same as the long way round."""

from __future__ import annotations

import asyncio
import json
import threading
from itertools import pairwise, product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guardrail.http import request
from guardrail.http.metering import Meter, UsageFormat
from guardrail.http.metering.accumulator import Passed, Tally
from guardrail.http.metering.chunks import AT_ONCE, READ_TOGETHER
from guardrail.http.metering.meter import _ANSWERS
from guardrail.http.metering.partial_json import Skim, read_whole
from guardrail.http.metering.streams import Event, EventStream
from guardrail.http.metering.usage_formats import Fed, figures_of
from guardrail.http.parsing import (
    ReadingLimits,
    RequestParts,
    plain,
    read_parts,
    read_plainly,
    with_units,
)
from guardrail.http.parsing.caps import caps_of
from guardrail.http.parsing.endpoints import endpoint_of
from guardrail.http.parsing.json_body import read_named
from guardrail.http.parsing.media import MEDIA_MEMBERS, READ_MEMBERS, SHOWING, may_list_media
from guardrail.http.parsing.members import DECIDING
from guardrail.http.parsing.shape import shape_of
from guardrail.http.parsing.values import UnreadableError
from guardrail.http.responses.client_view import ShownLimit
from guardrail.http.responses.fields import Wording, ratelimit_fields
from tests.http.driving import (
    ASK,
    JSON,
    Call,
    Guarded,
    body_messages,
    completion,
    scope_of,
)
from tests.http.meters import metered
from tests.http.requests import asked, problem_of
from tests.http.test_parsing_hostile import HOSTILE, WORST
from tests.http.wsgi_driving import Hosted, Response, answering

POLICY = """
guardrail: 1
policy: quick
models: {small: {max_output: 200}}
rules:
  - {id: calls, when: always, budget: {requests: 50, per: day, key: account.id}}
  - {id: tokens, when: always, budget: {tokens: 1M, per: day, key: account.id}}
  - {id: places, when: always, concurrency: {max: 2, lease: 10m, key: account.id}}
"""
COUNTS = st.integers(0, 1 << 40) | st.none()
MEMBERS = {
    "model": st.text(max_size=5) | st.none(),
    "type": st.sampled_from(["message", "error", "response.completed"]),
    "status": st.sampled_from(["queued", "completed"]),
    "done": st.booleans(),
    "error": st.none() | st.fixed_dictionaries({"message": st.text(max_size=5)}),
    "choices": st.lists(st.fixed_dictionaries({"usage": st.just(7)}), max_size=2),
    "usage": st.none()
    | st.dictionaries(
        st.sampled_from(["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"]),
        COUNTS,
    ),
    "response": st.fixed_dictionaries({}, optional={"usage": st.just({"output_tokens": 3})}),
    "eval_count": COUNTS,
    "prompt_eval_count": COUNTS,
    "more": st.recursive(COUNTS, st.lists, max_leaves=5),
}
DOCUMENTS = st.fixed_dictionaries({}, optional=MEMBERS)
FORMATS = (
    UsageFormat.OPENAI_CHAT,
    UsageFormat.OPENAI_RESPONSES,
    UsageFormat.ANTHROPIC,
    UsageFormat.GEMINI,
    UsageFormat.NATIVE,
)


@given(DOCUMENTS, st.sampled_from(FORMATS), st.sampled_from([b"", b"\n", b" "]))
def test_a_response_read_whole_is_metered_like_one_that_comes_in_pieces(document, kind, end):
    text = json.dumps(document).encode() + end

    whole = metered(kind, [text], headers=JSON)
    assert whole == metered(kind, [text[:1], text[1:]], headers=JSON)


ANSWER = {
    "id": st.just("c-1") | st.none(),
    "object": st.sampled_from(["chat.completion", "text_completion", "thread.run"]),
    "type": st.sampled_from(["message", "error"]),
    "model": st.sampled_from(["small", "", None, 7]),
    "choices": st.lists(
        st.fixed_dictionaries(
            {"message": st.fixed_dictionaries({"content": st.sampled_from(["a ", "long " * 40])})},
            optional={"usage": st.just({"prompt_tokens": 1, "completion_tokens": 900})},
        ),
        max_size=2,
    ),
    "error": st.none() | st.just({"message": "x"}),
    "status": st.just("in_progress"),
}
TOLD = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": COUNTS | st.integers(0, 3),
        "completion_tokens": st.integers(0, 60) | COUNTS,
        "total_tokens": COUNTS,
        "input_tokens": st.integers(0, 3),
        "output_tokens": st.integers(0, 60) | st.none(),
        "cache_read_input_tokens": st.integers(0, 3) | st.none(),
        "prompt_tokens_details": st.none() | st.just({"cached_tokens": 2}),
        "completion_tokens_details": st.none() | st.just({"reasoning_tokens": 3}),
    },
)
ANSWERING = (UsageFormat.OPENAI_CHAT, UsageFormat.OPENAI_COMPLETIONS, UsageFormat.ANTHROPIC)
OPTIONS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("reasons", "background", "echoes", "guessed"), st.booleans())
)


def told(kind, pieces, headers, status, options):
    """Return all that a meter says of a response that comes in some pieces."""
    meter = Meter(kind, False, {"input_tokens": 9, "output_tokens": 50}, **options)
    meter.start(status, headers)
    for piece in pieces:
        meter.feed(piece)
    usage = dict(meter.usage())
    model, work, ended = meter.served_model, meter.goes_on, meter.ended
    return usage, model, work, ended, meter.failed, meter.told, meter.told_end, meter.size


@given(
    st.fixed_dictionaries({}, optional=ANSWER),
    TOLD,
    st.sampled_from(ANSWERING),
    OPTIONS,
    st.sampled_from([b"", b"\n", b" "]),
    st.sampled_from([(), ((b"x-generated-tokens", b"7"),), ((b"content-encoding", b"zstd"),)]),
    st.sampled_from([200, 500]),
)
@settings(max_examples=300)
def test_an_answer_read_at_its_end_is_metered_like_one_that_is_followed(
    document, usage, kind, options, end, beside, status
):
    text = json.dumps({**document, "usage": usage}).encode() + end
    headers = [*JSON, *beside]

    # Whatever follows it, an answer is no more read at its end.
    whole = told(kind, [text], headers, status, options)
    assert whole == told(kind, [text, b""], headers, status, options)


@pytest.mark.parametrize("kind", ANSWERING)
def test_a_plain_answer_is_read_once_at_its_end(kind, monkeypatch):
    monkeypatch.setattr(Tally, "add", None)
    tokens = {"prompt_tokens": 9, "completion_tokens": 30, "total_tokens": 39}
    name, said = _ANSWERS[kind]
    answer = {"id": "c", name: said, "model": "small", "usage": tokens}

    whole = metered(kind, [json.dumps(answer).encode()], headers=JSON)
    assert (whole.usage, whole.model) == ({"input_tokens": 9, "output_tokens": 30}, "small")


def test_an_answer_that_goes_on_after_it_was_asked_about_is_followed():
    pieces = [b'{"object": "chat.completion", "usage": {"prompt_tokens": 5, "completion', b"_tok"]
    meter = Meter(UsageFormat.OPENAI_CHAT, False)
    meter.start(200, JSON)
    for piece in pieces:
        meter.feed(piece)
        assert not meter.ended
        meter.usage()
    meter.feed(b'ens": 6}}')

    assert meter.usage() == {"input_tokens": 5, "output_tokens": 6}
    assert meter.ended


@pytest.mark.parametrize(
    "document",
    [{"more": 1}, {"model": "m", "more": [2]}, {"usage": {"prompt_tokens": 9}}, {"done": False}],
)
def test_of_an_object_read_whole_is_kept_what_is_kept_of_one_in_pieces(document):
    text = json.dumps(document).encode()
    (followed,) = Skim().feed(text)

    assert read_whole(text) == (followed or None)


@pytest.mark.parametrize("end", [b"}", b"}}", b'} {"usage": {"prompt_tokens": 9}}', b"]}"])
def test_a_response_that_is_not_one_object_is_followed(end):
    text = b'{"usage": {"prompt_tokens": 5, "completion_tokens": 6' + end

    whole = metered(UsageFormat.OPENAI_CHAT, [text], headers=JSON)
    assert whole == metered(UsageFormat.OPENAI_CHAT, [text[:1], text[1:]], headers=JSON)


TOKENS = st.integers(-1, 9) | st.none() | st.sampled_from(["7", 1.5, True, 1 << 60])


@given(TOKENS, TOKENS, TOKENS | st.just(11))
def test_plain_figures_are_read_like_figures_with_more_beside_them(into, out, total):
    usage = {"prompt_tokens": into, "completion_tokens": out, "total_tokens": total}
    beside = {**usage, "prompt_tokens_details": None}

    for kind in FORMATS:
        if kind is not UsageFormat.ANTHROPIC:
            assert figures_of(usage, kind, 3) == figures_of(beside, kind, 3)


SAID = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": st.none() | st.sampled_from(["", "a b", "long" * 9, "data:x"]),
        "refusal": st.none() | st.just("I will not."),
        "tool_calls": st.just([{"function": {"name": "f", "arguments": '{"a": 1}'}}]),
    },
)
CHOICES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "delta": SAID,
            "message": SAID,
            "finish_reason": st.just("stop"),
            "logprobs": st.none() | st.just({"content": [{}, {}]}),
            "token_ids": st.just([1, 2, 3]),
        },
    ),
    max_size=2,
)


@given(CHOICES, st.booleans())
def test_a_plain_piece_counts_like_one_with_a_member_that_says_nothing(choices, whole):
    odd = [
        {
            at: {**said, "odd": None} if at in ("delta", "message") else said
            for at, said in one.items()
        }
        for one in choices
    ]
    both = []
    for listed in (choices, odd):
        tally = Tally(UsageFormat.OPENAI_CHAT)
        tally.add(
            {"id": "c", "choices": listed, "odd": None}
            if listed is odd
            else {"id": "c", "choices": listed},
            whole=whole,
        )
        both.append((tally.estimate, tally.least, tally.passed.pieces))

    assert both[0] == both[1]


SAYING: tuple[list[dict[str, object]], ...] = (
    [],
    [{"index": 0, "delta": {"role": "assistant", "content": None}}],
    [{"index": 0, "delta": {"content": "a b"}, "logprobs": None, "finish_reason": None}],
    [{"delta": {"content": "a"}, "logprobs": {"content": [{}]}}],
    [{"delta": {"content": "a", "reasoning_content": "so"}}],
    [{"delta": {"content": "a"}, "usage": {"completion_tokens": 5}}],
    [{"delta": {"content": "a"}}, {"delta": {"content": "b c"}}],
)
BESIDE: tuple[dict[str, object], ...] = (
    {},
    {"model": "small", "usage": None},
    {"model": ""},
    {"model": 7},
    {"usage": {"prompt_tokens": 3, "completion_tokens": 2}},
    {"object": "thread.run"},
    {"error": {"message": "x"}},
    {"type": "response.completed"},
    {"output": "all so far"},
    {"tokens_predicted": 5},
    {"meta_info": {"completion_tokens": 5}},
    {"x_groq": {"usage": {"completion_tokens": 5}}},
)


def held(counted):
    """Return all that is counted, whether it stands on an instance or, unchanged, on its class."""
    if isinstance(counted, dict):
        return {name: held(value) for name, value in counted.items()}
    if not isinstance(counted, Tally | Passed | Fed):
        return counted
    every = {**vars(type(counted)), **vars(counted)}
    return {name: held(value) for name, value in every.items()}


@pytest.mark.parametrize("kind", UsageFormat)
def test_a_plain_chunk_of_a_stream_is_taken_in_like_any_document(kind):
    for saying, beside, reasons, feeds in product(SAYING, BESIDE, (False, True), (False, True)):
        quick, long = (Tally(kind, 5, reasons=reasons, feeds=feeds) for _ in range(2))
        chunk = {"id": "c", "object": "chat.completion.chunk", "choices": saying, **beside}
        text = json.dumps(chunk).encode()
        for _ in range(2):
            quick.take_event(Event(text, (), len(text)))
            long.add(chunk)

        assert quick.figures == long.figures
        assert held(quick) == held(long)


WORDS = st.sampled_from(
    ["a", "a b", " ", "b ", " c", "\u00e9\u2003", "long" * 9, "data:x", "", None]
)
PIECE = st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.fixed_dictionaries(
                {"delta": st.fixed_dictionaries({"content": WORDS})},
                optional={"finish_reason": st.just("stop"), "logprobs": st.none()},
            ),
            max_size=2,
        ),
    },
    optional={
        "object": st.sampled_from(["chat.completion.chunk", None, "thread.run"]),
        "model": st.sampled_from(["small", "large", "", None, 7]),
        "usage": st.none(),
    },
)
BLOCKS: tuple[tuple[str, str, dict[str, st.SearchStrategy[object]]], ...] = (
    ("text_delta", "text", {"citations": st.just([{"cited_text": "c"}])}),
    ("thinking_delta", "thinking", {"text": WORDS}),
    ("input_json_delta", "partial_json", {}),
    ("signature_delta", "signature", {}),
)
BLOCK = st.fixed_dictionaries(
    {
        "type": st.just("content_block_delta"),
        "delta": st.one_of(
            [
                st.fixed_dictionaries({"type": st.just(kind), name: WORDS}, optional=more)
                for kind, name, more in BLOCKS
            ]
        ),
    },
    optional={"index": st.just(0), "usage": st.just({"output_tokens": 900})},
)
DELTA: st.SearchStrategy[dict[str, object]] = st.fixed_dictionaries(
    {"type": st.just("response.output_text.delta"), "delta": WORDS},
    optional={
        "logprobs": st.sampled_from([None, [], [{}, {}]]),
        "obfuscation": st.just("x"),
        "response": st.just({"usage": {"output_tokens": 900}}),
    },
)
TURNING: tuple[dict[str, object], ...] = (
    {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 3}}},
    {"type": "content_block_start", "content_block": {"type": "thinking"}},
    {"type": "message_delta", "delta": {"stop_reason": "x"}, "usage": {"output_tokens": 7}},
    {"type": "message_stop"},
    {"type": "error", "error": {"type": "overloaded_error"}},
    {"type": "response.created", "response": {"id": "r", "background": True, "status": "queued"}},
    {"type": "response.completed", "response": {"usage": {"output_tokens": 2}, "model": "m"}},
    {"object": "thread.run", "status": "queued", "id": "r"},
)
EVENT = st.one_of(
    (PIECE | BLOCK | DELTA | st.sampled_from(TURNING)).map(lambda one: json.dumps(one).encode()),
    st.tuples(st.sampled_from(SAYING), st.sampled_from(BESIDE)).map(
        lambda both: json.dumps(
            {"object": "chat.completion.chunk", "choices": both[0], **both[1]}
        ).encode()
    ),
    st.sampled_from([b"[DONE]", b" [DONE]", b"", b"{", b"[]", b'[{"choices": []}]', b"\xff", b"7"]),
)
BEGINS = st.sampled_from([b"data: "] * 9 + [b"event: e\ndata: "] * 5 + [b"data:", b"id: 1\ndata: "])
ENDING = st.sampled_from(
    [b"\n\n"] * 12 + [b"\n", b"\r\n\r\n", b"\n\n\n", b"\n: c\n\n", b"", b"\n\nx\n"]
)


PLAIN_CHUNK = {"object": "chat.completion.chunk", "choices": [{"delta": {"content": "a b"}}]}
PLAIN_BLOCK = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a b"}}
PLAIN_DELTA = {"type": "response.output_text.delta", "delta": "a b"}
STREAM = [(b"content-type", b"text/event-stream; charset=utf-8")]


def read_one_by_one(meter):
    """Have a meter read each event of a stream as it comes."""
    meter._backlog = None
    return meter


@given(
    st.sampled_from([*READ_TOGETHER, UsageFormat.GEMINI]),
    st.lists(st.tuples(BEGINS, EVENT, ENDING), max_size=9),
    st.lists(st.integers(0, 600), max_size=4),
    st.booleans(),
    st.booleans(),
)
@example(
    # An event of two lines of data, and one of none: as many lines as two of one each.
    UsageFormat.OPENAI_CHAT,
    [(b"event: e\ndata: ", b'{"choices":\ndata: [], "usage": {"completion_tokens": 9}}', b"\n\n"),
     (b"event: e", b"", b"\n\n")],
    [], False, False,
)  # fmt: skip
@settings(max_examples=400)
def test_events_read_together_come_to_the_same_as_one_by_one(kind, events, cuts, reasons, feeds):
    stream = b"".join(map(b"".join, events))
    ends = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    units = ("images",) if feeds else ()
    both = [
        Meter(kind, True, {"output_tokens": 50}, reasons=reasons, units=units) for _ in range(2)
    ]
    for meter in both:
        meter.start(200, STREAM)
    together, apart = both[0], read_one_by_one(both[1])
    for number, (start, end) in enumerate(pairwise(ends)):
        together.feed(stream[start:end])
        apart.feed(stream[start:end])
        if number == 1:
            assert together.usage() == apart.usage()

    assert together.usage() == apart.usage()
    assert held(together._now()) == held(apart._now())
    for name in ("ended", "failed", "told", "goes_on", "told_end", "served_model", "_read"):
        assert getattr(together, name) == getattr(apart, name)


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        (UsageFormat.OPENAI_CHAT, {"id": "c", "model": "m", **PLAIN_CHUNK}),
        (UsageFormat.ANTHROPIC, {"index": 0, **PLAIN_BLOCK}),
        (UsageFormat.OPENAI_RESPONSES, {"item_id": "i", "logprobs": [], **PLAIN_DELTA}),
    ],
)
def test_what_streams_consist_of_is_read_together(kind, event, monkeypatch):
    monkeypatch.setattr(Tally, "take_event", None)
    meter = Meter(kind, True)
    meter.start(200, STREAM)
    for _ in range(5):
        meter.feed(b"event: e\ndata: " + json.dumps(event).encode() + b"\n\n")

    assert meter.usage() == {"output_tokens": 6}


THOUGHT = {"type": "thinking_delta", "thinking": "a b"}
MORE = {"text": "so it is said", "reasoning_content": "as it was thought"}


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        (UsageFormat.OPENAI_CHAT, {**PLAIN_CHUNK, **MORE}),
        (UsageFormat.OPENAI_CHAT, {"choices": [{"delta": {"content": "a b", **MORE}}]}),
        (UsageFormat.OPENAI_CHAT, {"choices": [{"delta": {"content": "a b"}, **MORE}]}),
        (UsageFormat.ANTHROPIC, {**PLAIN_BLOCK, **MORE}),
        (UsageFormat.ANTHROPIC, {**PLAIN_BLOCK, "delta": {**THOUGHT, **MORE}}),
        (UsageFormat.OPENAI_RESPONSES, {**PLAIN_DELTA, **MORE}),
    ],
)
def test_what_says_more_than_most_events_is_not_read_together_with_them(kind, event, monkeypatch):
    taken = []
    monkeypatch.setattr(Tally, "take_event", lambda _, event, **more: taken.append(event.text))
    meter = Meter(kind, True)
    meter.start(200, STREAM)
    meter.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
    meter.usage()

    assert [json.loads(text) for text in taken] == [event]


def test_a_stream_that_waits_is_read_before_it_grows_long(monkeypatch):
    taken = []
    monkeypatch.setattr(Tally, "take_plain", lambda _, texts, chunks, model: taken.append(chunks))
    chunk = {"object": "chat.completion.chunk", "choices": [{"delta": {"content": "a b"}}]}
    event = b"data: " + json.dumps(chunk).encode() + b"\n\n"
    meter = Meter(UsageFormat.OPENAI_CHAT, True)
    meter.start(200, STREAM)
    for number in range(1000):
        meter.feed(event[:20])
        meter.feed(event[20:])
        assert number - sum(taken) < AT_ONCE // len(event) + 2

    assert sum(taken) > 800


def test_an_event_without_an_end_is_not_held_however_long_it_is():
    meter = Meter(UsageFormat.OPENAI_CHAT, True)
    meter.start(200, STREAM)
    for _ in range(200):
        meter.feed(b'data: {"a": "' + b"x" * 1000)
        assert sum(map(len, meter._backlog or ())) < 2 * AT_ONCE


SETTINGS = {
    "model": st.sampled_from(["small", "a,b", "", 7, None, "@preset/x"]),
    "messages": st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["system", "user", "developer"])},
            optional={"content": st.just("Do.") | st.just([{"type": "text", "text": "Do."}])},
        )
        | st.just([{"role": "user", "content": "a"}]),
        max_size=3,
    ),
    "system": st.just("Be brief.") | st.none(),
    "max_tokens": st.sampled_from([0, 5, -1, None, "9"]),
    "max_completion_tokens": st.sampled_from([7, None]),
    "n": st.sampled_from([1, 3, None, 1.5]),
    "stream": st.sampled_from([True, False, None, 1]),
    "metadata": st.just({"a": "b"}),
    "stop": st.just(["x"]),
    "response_format": st.just({"type": "json_schema", "json_schema": {"name": "n"}}),
}


@given(st.fixed_dictionaries({}, optional=SETTINGS), st.sampled_from(["chat", "agentic", "other"]))
def test_a_usual_body_asks_for_the_same_when_it_is_searched(document, capability):
    rules = caps_of(endpoint_of("/v1/chat/completions"))
    *_, names = read_named(json.dumps(document).encode(), ReadingLimits())

    def shape(known):
        try:
            return shape_of(document, capability, rules, known)
        except UnreadableError as problem:
            return str(problem), problem.param, problem.completions

    assert shape(names) == shape(None)


NAMED = {b"content-type": b"application/json"}
ROUND = st.sampled_from([0, 1, 5, 1 << 53, (1 << 53) - 1, -1, 1.0, 1.5, True, None, "9"])
TEXTS = st.text(max_size=4) | st.sampled_from(
    ["data:image/png;base64,AAAA", "iVBORw0KGgo" * 200, 'a"b\\', "\u00e9\u20ac\U0001f600", "x\n"]
)
PLAIN: dict[str, st.SearchStrategy[object]] = {
    "model": st.sampled_from(
        ["small", "org/m-1.5", "a,b", "a:b", "x@y", "@preset/x", "", "a b", "m" * 257, 7, None]
    ),
    "messages": st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["system", "user", "developer", 7]), "content": TEXTS},
            optional={"name": st.just("n")},
        )
        | st.fixed_dictionaries({"content": TEXTS | st.none(), "tools": st.just([])})
        | st.just([{"role": "user", "content": "a"}]),
        max_size=3,
    )
    | st.none(),
    "system": st.just("Be brief."),
    "max_tokens": ROUND,
    "max_completion_tokens": ROUND,
    "n": ROUND,
    "stream": st.sampled_from([True, False, None, 1, "true"]),
    "stream_options": st.sampled_from([{"include_usage": True}, {"include_usage": 1}, {}, None]),
    "temperature": ROUND,
    "stop": TEXTS | st.just(["x"]),
    "user": TEXTS | st.just({"tools": [{"type": "x"}]}),
    "thinking": st.just({"budget_tokens": 7}),
    "Max_Tokens": st.just(9),
}


def ways(path, body, named=NAMED, limits=None):
    """Return what the quick way and the long one read in a body; None is for the long one."""
    limits = limits or ReadingLimits()
    quick = read_plainly(path, named, body, b"key", limits)
    headers = tuple(named.items())
    parts = RequestParts("POST", path, b"", headers, body, b"key", limits)
    return quick, with_units(read_parts(parts))


def assert_alike(quick, long):
    """Assert that the quick way left a body to the long one, or read the same in it."""
    if quick is not None:
        assert (quick, list(quick.facts), list(quick.estimate)) == (
            long,
            list(long.facts),
            list(long.estimate),
        )
        assert type(quick.estimate["input_tokens"]) is int


PATHS = st.sampled_from(["/v1/chat/completions", "/v1/messages", "/v1/completions", "/x"])


@given(
    PATHS,
    st.fixed_dictionaries({}, optional=PLAIN),
    st.sampled_from([(",", ":"), (", ", ": ")]),
    st.booleans(),
    st.data(),
)
@settings(max_examples=300)
def test_a_plain_chat_asks_for_the_same_as_at_length(path, document, separators, ascii_only, data):
    text = json.dumps(document, separators=separators, ensure_ascii=ascii_only).encode()
    assert_alike(*ways(path, text))

    at = data.draw(st.integers(0, len(text)))
    piece = data.draw(
        st.sampled_from([b'"', b"\\", b",", b"{", b'"n":3,', b'"role":"system",', b"\xff"])
    )
    assert_alike(*ways(path, text[:at] + piece + text[at:]))
    assert_alike(*ways(path, text[:at] + text[at + 1 :]))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("body", [*HOSTILE.values(), *WORST.values()], ids=[*HOSTILE, *WORST])
def test_a_hostile_body_is_left_to_the_long_way(path, body):
    assert read_plainly(path, NAMED, body, b"key", ReadingLimits()) is None


CHAT = {
    "model": "small",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": 'Caf\u00e9 \\ "q" \n'},
    ],
    "max_tokens": 5,
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.5,
}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_what_nearly_all_chats_consist_of_is_read_the_quick_way(path, ascii_only):
    quick, long = ways(path, json.dumps(CHAT, ensure_ascii=ascii_only).encode())

    assert quick == long
    assert long.problem is None


PROFILE = "arn:aws:bedrock:us-east-1:1:application-inference-profile/p"


@pytest.mark.parametrize("path", plain.PATHS)
def test_every_pair_of_caps_with_every_count_and_role_is_read_the_quick_way_as_at_length(path):
    read = 0
    few, caps = (None, 0, 2), (None, 0, 3, 9, (1 << 53) - 1)
    models = (None, "small", PROFILE)
    for first, second, n, role, model in product(
        caps, caps, few, ("system", "developer", "user"), models
    ):
        members = {"max_tokens": first, "max_completion_tokens": second, "n": n, "model": model}
        stated = {name: value for name, value in members.items() if value is not None}
        body = {"messages": [{"role": role, "content": "Be brief."}], **stated}
        for document in (body, dict(reversed(body.items()))):
            quick, long = ways(path, json.dumps(document).encode())
            assert_alike(quick, long)
            read += quick is not None

    assert read >= 2 * len(caps) ** 2 * len(few) * 3 * 2  # all but those of a profile


@pytest.mark.parametrize(
    ("once", "twice"),
    [
        ('"max_tokens"', '"max_tokens": 500, "max_tokens"'),
        ('"role"', '"role": "system", "role"'),
        ('"role"', '"role": "system", "\\u0072ole"'),
        ('"content"', '"content": "\\\\\\"", "content"'),
        ('"stream"', '"stream": false, "stream"'),
        ('"include_usage"', '"include_usage": false, "include_usage"'),
    ],
)
def test_a_key_twice_in_a_plain_chat_is_left_to_the_long_way(once, twice):
    text = json.dumps(CHAT).replace(once, twice, 1).encode()
    quick, long = ways("/v1/chat/completions", text)

    assert quick is None
    assert "twice" in str(long.problem)


@pytest.mark.parametrize(
    "limits",
    [{"max_nodes": 4}, {"max_nodes": 5}, {"max_depth": 1}, {"max_depth": 2}, {"max_body": 200}],
)
def test_a_plain_chat_beyond_the_bounds_is_refused(limits):
    quick, long = ways(
        "/v1/chat/completions", json.dumps(CHAT).encode(), limits=ReadingLimits(**limits)
    )

    assert (quick is None) == (long.problem is not None)


@pytest.mark.parametrize(
    "named",
    [
        {},
        {b"content-type": b"application/json; charset=utf-16"},
        {b"content-type": b"text/plain"},
        {**NAMED, b"content-encoding": b"gzip"},
        {**NAMED, b"x-body-compressed": b"zstd"},
    ],
)
def test_a_body_of_another_kind_is_left_to_the_long_way(named):
    body = json.dumps(CHAT).encode()

    assert read_plainly("/v1/chat/completions", named, body, b"key", ReadingLimits()) is None


def test_what_is_plain_can_hold_no_media_and_decides_nothing_within():
    """The quick way looks for neither; what its members are called says that there is none."""
    inner = {"role", "content", "include_usage"}
    held = {"messages", "model", "stream", "n", "stream_options", *plain.CAPS, *plain.SETTINGS}

    assert DECIDING.isdisjoint(inner)
    assert (MEDIA_MEMBERS | READ_MEMBERS | {SHOWING}).isdisjoint(inner | held)
    assert not any(may_list_media(name) for name in inner | held)


LONG = [{"role": "user", "content": "Over and over. " * 100}]


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), ("\n,", ":\t")])
@pytest.mark.parametrize("value", ["plain", "\u00e9\u2028", 'a\\/"b', 1e300, 1e-7, -0.0, 1.5])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_long_body_is_read_however_it_is_written(separators, value, ascii_only):
    document = {"model": "small", "messages": LONG, "metadata": {"a": value, "b": [value]}}
    text = json.dumps(document, separators=separators, ensure_ascii=ascii_only).encode()

    assert asked("/v1/chat/completions", text).document == document


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize(
    ("once", "twice"),
    [
        ('"max_tokens"', '"max_tokens"{s}5,"max_tokens"'),
        ('"role"', '"role"{s}"system","role"'),
        ('"role"', '"role"{s}"system","\\u0072ole"'),
    ],
)
def test_a_key_twice_in_a_long_body_is_found(separators, once, twice):
    document = {"model": "small", "messages": LONG, "max_tokens": 10}
    text = json.dumps(document, separators=separators)
    doubled = text.replace(once, twice.format(s=separators[1]), 1)

    assert "twice" in problem_of(asked("/v1/chat/completions", doubled.encode()))


def test_a_key_twice_is_found_where_its_length_is_made_up_for():
    document = {"model": "small", "messages": LONG, "logit_bias": "MARK"}
    text = json.dumps(document, separators=(", ", ": ")).replace('"MARK"', "[1e5, 1e5, 1e5]")
    doubled = text.replace('"model"', '"max_tokens": 1, "max_tokens": 9, "model"')

    # Written out, each of the numbers is five longer: as much as the first cap, which is lost.
    lost = json.dumps(json.loads(doubled), separators=(",", ":"))
    assert len(lost) == len(doubled.replace(", ", ",").replace(": ", ":"))
    assert "twice" in problem_of(asked("/v1/chat/completions", doubled.encode()))


def test_a_long_body_is_read_beside_the_event_loop_and_a_short_one_on_it():
    threads = []

    def classifier(parts):
        threads.append(threading.current_thread() is threading.main_thread())

    guarded = Guarded(POLICY, classifiers=[classifier])
    for content in ("a" * 100, "a" * 70_000):
        body = json.dumps({"model": "small", "messages": [{"role": "user", "content": content}]})
        assert guarded.ask(body.encode()).status == 200

    assert threads == [True, False]


def test_a_body_that_is_there_is_read_without_a_timer(monkeypatch):
    monkeypatch.setattr(asyncio, "timeout", None)

    assert Guarded(POLICY).ask(messages=body_messages(ASK[:9], ASK[9:])).status == 200


def test_what_a_server_raises_while_a_body_is_waited_for_goes_through():
    class Broken(Call):
        async def receive(self):
            await asyncio.sleep(0)
            raise OSError("the connection broke")

    guarded = Guarded(POLICY)
    with pytest.raises(OSError, match="broke"):
        asyncio.run(Broken(scope_of(body=ASK)).run(guarded.app))

    assert guarded.used("calls") == 0


def test_a_server_that_is_waited_for_learns_of_a_cancelled_request():
    seen = []

    class Waiting(Call):
        async def receive(self):
            try:
                return await super().receive()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

    async def run():
        task = asyncio.ensure_future(Waiting(scope_of(body=ASK)).run(guarded.app))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        seen.append("over")

    guarded = Guarded(POLICY)
    asyncio.run(run())

    assert seen == ["cancelled", "over"]


def failing(*given):
    raise ZeroDivisionError


def test_a_fault_of_ours_after_the_decision_gives_everything_back(monkeypatch):
    monkeypatch.setattr(request.Request, "decided", failing)
    guarded, hosted = Guarded(POLICY), Hosted(answering(Response([completion()])))

    assert guarded.ask().status == hosted.ask()[0] == 503
    assert (guarded.used("calls"), guarded.used("tokens"), guarded.used("places")) == (0, 0, 0)
    assert (hosted.used("calls"), hosted.used("tokens"), hosted.used("places")) == (0, 0, 0)


@given(
    st.lists(
        st.builds(
            ShownLimit,
            st.sampled_from(["a", 'b"', "c\u00e9"]),
            st.sampled_from(["requests", "tokens"]),
            st.sampled_from([1, 1 << 60]),
            st.none() | st.integers(1, 3),
            st.integers(0, 1 << 60),
            st.none() | st.integers(0, 10**12),
            st.none(),
            st.just("key"),
        ),
        max_size=4,
    )
)
def test_limits_are_worded_alike_the_second_time(standings):
    wording = Wording()

    for partition in (None, b"k" * 32, None):
        fields = ratelimit_fields(standings, partition)
        assert ratelimit_fields(standings, partition, wording) == fields


PIECES = st.sampled_from(
    [
        b"data: x\n\n",
        b"data: \n\n",
        b"data:x\n\n",
        b"event: a\ndata: x\n\n",
        b"event: a\nid: 1\ndata: x\n\n",
        b"data: a\ndata: b\n\n",
        b"data: a\n\ndata: b\n\n",
        b"data: a\r\n\r\n",
        b"\xef\xbb\xbfdata: a\n\n",
        b": c\n\n",
        b"stray\n\n",
        b"event: a\n",
        b"data: a\n",
        b"data",
        b"d",
        b"\n",
        b"\r",
    ]
)


@example([b"d", b"data: x\n\n"])
@example([b"data: a\n", b"data: x\n\n"])
@example([b"data: a\rdata: b\n\n"])
@given(st.lists(PIECES, max_size=6))
def test_a_chunk_that_holds_one_event_is_read_as_if_it_came_byte_by_byte(chunks):
    quick, careful = EventStream(), EventStream()
    whole = b"".join(chunks)

    found = [event for chunk in chunks for event in quick.feed(chunk)]
    assert found == [
        event for at in range(len(whole)) for event in careful.feed(whole[at : at + 1])
    ]
    assert (quick.unfinished(), quick.stray) == (careful.unfinished(), careful.stray)

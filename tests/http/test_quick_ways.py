"""What is done the quick way for most requests comes to the same as the long way round."""

from __future__ import annotations

import asyncio
import json
import threading
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guardrail.http import request
from guardrail.http.metering import UsageFormat
from guardrail.http.metering.accumulator import Passed, Tally
from guardrail.http.metering.partial_json import Skim, read_whole
from guardrail.http.metering.streams import Event, EventStream
from guardrail.http.metering.usage_formats import Fed, figures_of
from guardrail.http.parsing import ReadingLimits
from guardrail.http.parsing.caps import caps_of
from guardrail.http.parsing.endpoints import endpoint_of
from guardrail.http.parsing.json_body import read_named
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

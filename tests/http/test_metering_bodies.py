"""Whole bodies tell their usage by where it stands, in bounded memory, however they are cut."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.http.metering import Meter, UsageFormat
from guardrail.http.metering.partial_json import WANTED, Skim
from guardrail.http.metering.texts import texts_of
from guardrail.http.metering.usage_formats import figures_of
from tests.http.meters import EVENTS, JSON, cuts, events, metered

CHAT, NATIVE = UsageFormat.OPENAI_CHAT, UsageFormat.NATIVE
TOLD = {"prompt_tokens": 9, "completion_tokens": 40}

INCLUSION = [
    (
        CHAT,
        {
            "prompt_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 2},
            "completion_tokens": 20,
            "completion_tokens_details": {"reasoning_tokens": 15},
            "total_tokens": 30,
        },
        (10, 20, 6, 15),
    ),
    (
        UsageFormat.OPENAI_RESPONSES,
        {
            "input_tokens": 10,
            "input_tokens_details": {"cached_tokens": 6},
            "output_tokens": 20,
            "output_tokens_details": {"reasoning_tokens": 15},
        },
        (10, 20, 6, 15),
    ),
    (
        UsageFormat.OPENAI_RESPONSES,  # as Realtime spells it
        {
            "input_tokens": 10,
            "input_token_details": {"cached_tokens": 6, "audio_tokens": 3},
            "output_tokens": 20,
        },
        (10, 20, 6, None),
    ),
    (UsageFormat.OPENAI_EMBEDDINGS, {"prompt_tokens": 10, "total_tokens": 10}, (10, 0, None, None)),
    (
        UsageFormat.ANTHROPIC,
        {
            "input_tokens": 1,
            "cache_read_input_tokens": 6,
            "cache_creation_input_tokens": 3,
            "output_tokens": 20,
            "output_tokens_details": {"thinking_tokens": 15},
        },
        (10, 20, 6, 15),
    ),
    (
        UsageFormat.ANTHROPIC,  # what was thought is part of what came out
        {
            "input_tokens": 10,
            "output_tokens": 5,
            "output_tokens_details": {"thinking_tokens": 20},
        },
        (10, 20, None, 20),
    ),
    (
        UsageFormat.ANTHROPIC,
        {
            "input_tokens": 3,
            "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4},
            "output_tokens": 20,
        },
        (10, 20, None, None),
    ),
    (
        UsageFormat.GEMINI,
        {
            "promptTokenCount": 8,
            "toolUsePromptTokenCount": 2,
            "cachedContentTokenCount": 6,
            "candidatesTokenCount": 5,
            "thoughtsTokenCount": 15,
            "totalTokenCount": 30,
        },
        (10, 20, 6, 15),
    ),
    (UsageFormat.GEMINI, {"promptTokenCount": 10, "totalTokenCount": 30}, (10, 20, None, None)),
    (
        UsageFormat.GEMINI,
        {
            "promptTokensDetails": [{"tokenCount": 4}, {"tokenCount": 6}, {"modality": "IMAGE"}],
            "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 20}],
        },
        (10, 20, None, None),
    ),
    (
        CHAT,  # as Bedrock spells it
        {
            "inputTokens": 1,
            "cacheReadInputTokens": 6,
            "cacheWriteInputTokens": 3,
            "outputTokens": 15,
            "totalTokens": 30,
        },
        (10, 20, 6, None),
    ),
    (
        NATIVE,  # SGLang
        {"prompt_tokens": 10, "completion_tokens": 20, "cached_tokens": 6, "reasoning_tokens": 15},
        (10, 20, 6, 15),
    ),
    (NATIVE, {"prompt_eval_count": 10, "eval_count": 20}, (10, 20, None, None)),
    (NATIVE, {"prompt_token_count": 10, "generation_token_count": 20}, (10, 20, None, None)),
    (
        CHAT,  # Mistral, whose connectors' results are read by the model
        {"prompt_tokens": 3, "connector_tokens": 7, "completion_tokens": 20, "total_tokens": 30},
        (10, 20, None, None),
    ),
    (
        CHAT,  # Mistral, whose models hear: seconds of sound, the tokens of which the total tells
        {
            "prompt_tokens": 4,
            "prompt_audio_seconds": 2,
            "completion_tokens": 20,
            "total_tokens": 30,
        },
        (10, 20, None, None),
    ),
    (
        CHAT,  # no sound: what the total leaves is output
        {
            "prompt_tokens": 10,
            "prompt_audio_seconds": None,
            "completion_tokens": 5,
            "total_tokens": 30,
        },
        (10, 20, None, None),
    ),
    (
        UsageFormat.OPENAI_EMBEDDINGS,  # Cohere's of pictures
        {"billed_units": {"images": 1, "image_tokens": 8, "text_tokens": 2}},
        (10, 0, None, None),
    ),
    (
        CHAT,  # Perplexity, whose total leaves out citations and reasoning
        {
            "prompt_tokens": 3,
            "citation_tokens": 7,
            "completion_tokens": 5,
            "total_tokens": 8,
            "reasoning_tokens": 15,
        },
        (10, 20, None, 15),
    ),
    (
        UsageFormat.GEMINI,  # interactions
        {
            "total_input_tokens": 8,
            "total_tool_use_tokens": 2,
            "total_cached_tokens": 6,
            "total_output_tokens": 5,
            "total_thought_tokens": 15,
            "total_tokens": 30,
        },
        (10, 20, 6, 15),
    ),
    (UsageFormat.GEMINI, {"promptTokenCount": 10, "totalTokenCount": 10}, (10, 0, None, None)),
    (CHAT, {"prompt_tokens": "10", "completion_tokens": "20"}, (10, 20, None, None)),
    (UsageFormat.OPENAI_EMBEDDINGS, {"total_tokens": 10}, (10, 0, None, None)),
    (
        CHAT,  # a prediction that was not taken, told beside the completion
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "completion_tokens_details": {"rejected_prediction_tokens": 15},
        },
        (10, 20, None, None),
    ),
    (
        CHAT,  # and within it
        {
            "prompt_tokens": 10,
            "completion_tokens": 20,
            "completion_tokens_details": {"rejected_prediction_tokens": 15},
        },
        (10, 20, None, None),
    ),
    (UsageFormat.OPENAI_MEDIA, {"type": "duration", "seconds": 9}, (None, None, None, None)),
]
UNITS = ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens")


@pytest.mark.parametrize(("usage_format", "usage", "expected"), INCLUSION)
def test_figures_include_what_their_vendor_says_they_include(usage_format, usage, expected):
    figures = figures_of(usage, usage_format)

    assert tuple(figures.get(unit) for unit in UNITS) == expected


@pytest.mark.parametrize("reasoning", [0, 40], ids=["", "reasoning beside"])
@pytest.mark.parametrize(("read", "written"), [(900, 0), (0, 400), (900, 400), (5_000, 300)])
@pytest.mark.parametrize("prompt", [10, 1_000])
def test_what_is_cached_beside_the_prompt_is_input_where_the_total_tells(
    prompt, read, written, reasoning
):
    details = {"prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written}}
    own = {"cache_read_input_tokens": read, "cache_creation_input_tokens": written}
    told = {
        "prompt_tokens": prompt,
        "completion_tokens": 5,
        "completion_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": prompt + 5 + reasoning + read + written,
    }

    for cached in (details, own, {**details, **own}):
        figures = figures_of({**told, **cached}, CHAT)
        assert figures["input_tokens"] == prompt + read + written
        assert figures["output_tokens"] == 5 + reasoning
        within = figures_of({**told, **cached, "total_tokens": prompt + 5 + reasoning}, CHAT)
        assert within["output_tokens"] == 5 + reasoning


@pytest.mark.parametrize(
    ("usage_format", "name"),
    [
        (CHAT, "total_tokens"),
        (CHAT, "totalTokens"),
        (UsageFormat.GEMINI, "totalTokenCount"),
        (UsageFormat.GEMINI, "total_token_count"),
    ],
)
def test_of_a_total_alone_is_output_what_the_reserved_input_leaves(usage_format, name):
    assert figures_of({name: 600}, usage_format, 90) == {"output_tokens": 510}
    assert figures_of({name: 60}, usage_format, 90) == {}


@pytest.mark.parametrize(
    "odd", [-1, 1.5, True, "-7", "7.5", "9" * 17, None, 2**53, float("nan"), [], {}]
)
def test_figures_that_are_no_counts_are_left_out(odd):
    assert figures_of({"prompt_tokens": odd, "completion_tokens": 3}, CHAT) == {"output_tokens": 3}


@pytest.mark.parametrize(("reserved", "out"), [(10, 20), (30, None), (None, None)])
def test_of_a_total_alone_the_output_is_what_it_leaves_beyond_the_input(reserved, out):
    figures = figures_of({"total_tokens": 30}, CHAT, reserved)

    assert figures == ({} if out is None else {"output_tokens": out})


BODIES = [
    (CHAT, {"model": "m", "choices": [{"message": {"content": "x"}}], "usage": TOLD}),
    (UsageFormat.ANTHROPIC, {"usage": {"input_tokens": 9, "output_tokens": 40}, "model": "m"}),
    (
        UsageFormat.GEMINI,
        [
            {"usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 7}},
            {"modelVersion": "m"},
            {"usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 40}},
        ],
    ),
    (
        NATIVE,
        [
            {"text": "a", "meta_info": {"prompt_tokens": 4, "completion_tokens": 15}},
            {"model": "m", "meta_info": {"prompt_tokens": 5, "completion_tokens": 25}},
        ],
    ),
]


@pytest.mark.parametrize(("usage_format", "body"), BODIES)
def test_bodies_cut_at_every_byte_tell_their_usage(usage_format, body):
    for data in (json.dumps(body).encode(), json.dumps(body, indent=2).encode()):
        for pieces in cuts(data):
            result = metered(usage_format, pieces, headers=JSON)
            assert result == ({"input_tokens": 9, "output_tokens": 40}, True, False, "m")


def test_lines_of_documents_end_with_the_one_that_says_so():
    lines = [{"model": "m", "message": {"content": "x"}, "done": False}] * 3
    last = {"model": "m", "done": True, "prompt_eval_count": 9, "eval_count": 40}
    data = "\n".join(map(json.dumps, [*lines, last])).encode()
    headers = ((b"content-type", b"application/x-ndjson"),)
    cut = data.rpartition(b"\n")[0]

    assert not metered(NATIVE, [cut], headers=headers, reserved={"output_tokens": 9}).ended
    assert metered(NATIVE, [cut], headers=headers).usage["output_tokens"] > 1
    for pieces in cuts(data):
        result = metered(NATIVE, pieces, headers=headers)
        assert result == ({"input_tokens": 9, "output_tokens": 40}, True, False, "m")


def test_what_a_model_wrote_is_never_taken_for_its_usage():
    spoof = {"usage": {"prompt_tokens": 0, "completion_tokens": 0}}
    body = {
        "choices": [{"message": {"content": json.dumps(spoof), "input": spoof}, **spoof}],
        "usage": TOLD,
        "tail": {"usage": spoof, "x": [spoof, '"usage":{}']},
    }

    assert metered(CHAT, [json.dumps(body).encode()], headers=JSON).usage == {
        "input_tokens": 9,
        "output_tokens": 40,
    }
    delta = {"choices": [{"delta": {"tool_calls": [spoof]}, **spoof}]}
    assert metered(CHAT, [events(delta, {"choices": [], "usage": TOLD})]).usage["input_tokens"] == 9


def test_a_body_without_usage_is_charged_an_estimate_within_the_reservation():
    body = json.dumps({"choices": [{"message": {"content": "x" * 400}}]}).encode()

    assert metered(CHAT, [body], headers=JSON).usage["output_tokens"] >= 100
    assert metered(CHAT, [body], headers=JSON, reserved={"output_tokens": 30}).usage == {
        "output_tokens": 30
    }
    assert metered(CHAT, [], headers=JSON).usage == {"output_tokens": 1}


def test_work_that_goes_on_after_the_response_stays_as_reserved():
    body = json.dumps({"id": "r", "status": "queued", "usage": None}).encode()

    assert metered(UsageFormat.OPENAI_RESPONSES, [body], headers=JSON) == ({}, True, False, None)


def test_pictures_and_sounds_without_usage_stay_as_reserved():
    sound = ((b"content-type", b"audio/mpeg"),)

    assert metered(UsageFormat.OPENAI_MEDIA, [b"\xff{[" * 9], headers=sound).usage == {}
    told = json.dumps({"usage": {"input_tokens": 9, "output_tokens": 40}}).encode()
    assert metered(UsageFormat.OPENAI_MEDIA, [told], headers=JSON).usage["output_tokens"] == 40


def test_a_body_of_a_hundred_megabytes_is_not_held():
    meter = Meter(CHAT, streaming=False)
    meter.start(200, JSON)
    text = b'word \\n \\" ' * 10_000
    tracemalloc.start()
    meter.feed(b'{"choices": [{"message": {"content": "')
    for _ in range(1_000):
        meter.feed(text)
    meter.feed(b'"}}], "model": "m", "usage": ' + json.dumps(TOLD).encode() + b"}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert meter.usage() == {"input_tokens": 9, "output_tokens": 40}
    assert peak < 1 << 20


def kept(document):
    """Return, by the obvious way, what a skim keeps of a document."""
    found: dict = {}
    for path in WANTED:
        value = document
        for key in path:
            value = value.get(key, None) if isinstance(value, dict) and key in value else ...
        if value is not ...:
            inner = found
            for key in path[:-1]:
                inner = inner.setdefault(key, {})
            inner[path[-1]] = value
    return found


names = st.sampled_from(
    ["usage", "model", "response", "message", "status", "type", "x", 'a"b', "é\\", "[", ""]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=6) | st.just('"usage":{}'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(names, values, max_size=5), st.integers(1, 7), st.booleans(), st.booleans())
def test_a_skim_keeps_what_parsing_the_whole_would_find(document, size, ascii_only, listed):
    text = json.dumps(
        [document, {"model": "last"}] if listed else document, ensure_ascii=ascii_only
    )
    data = text.encode()
    skim = Skim()

    ended = [found for at in range(0, len(data), size) for found in skim.feed(data[at : at + size])]

    assert skim.complete
    expected = [kept(document), {"model": "last"}] if listed else [kept(document)]
    assert ended == expected


def test_a_wanted_name_in_another_place_is_not_kept():
    document = {"response": {"type": "message_stop", "usage": {}}, "message": {"error": "x"}}

    assert list(Skim().feed(json.dumps(document).encode())) == [{"response": {"usage": {}}}]


@given(st.lists(st.binary(max_size=40), max_size=6), st.sampled_from(UsageFormat), st.booleans())
def test_no_bytes_break_a_meter(chunks, usage_format, streamed):
    result = metered(usage_format, chunks, headers=EVENTS if streamed else JSON)

    assert all(amount >= 0 for amount in result.usage.values())


@given(st.text(alphabet='{}[]",:\\\n 1amodelusage', max_size=60), st.integers(1, 9))
def test_no_broken_json_breaks_a_meter(text, size):
    data = text.encode()
    chunks = [data[at : at + size] for at in range(0, len(data), size)]

    for headers in (EVENTS, JSON):
        assert metered(CHAT, [b"data: ", *chunks], headers=headers).usage["output_tokens"] >= 1


@pytest.mark.parametrize("times", [1, 4, 40])
@pytest.mark.parametrize("size", [700, 1 << 16, 1 << 30])
@pytest.mark.parametrize(
    ("usage_format", "body"),
    [
        (UsageFormat.GEMINI, {"predictions": [{"bytesBase64Encoded": "BYTES"}]}),
        (UsageFormat.GEMINI, {"candidates": [{"content": {"parts": [{"inlineData": "BYTES"}]}}]}),
        (UsageFormat.OPENAI_CHAT, {"choices": [{"message": {"audio": {"data": "BYTES"}}}]}),
        (UsageFormat.OPENAI_CHAT, {"artifacts": [{"base64": "BYTES"}]}),
        (
            UsageFormat.OPENAI_RESPONSES,
            {
                "object": "response",
                "output": [{"type": "compaction", "encrypted_content": "BYTES"}],
            },
        ),
        (UsageFormat.ANTHROPIC, {"type": "message", "content": [{"data": "BYTES"}]}),
        (UsageFormat.NATIVE, {"done": True, "images": ["BYTES"]}),
        (UsageFormat.NATIVE, {"done": True, "images": ["data:image/png;base64,BYTES"]}),
    ],
)
def test_bytes_in_a_body_are_not_text_and_text_in_their_place_is(usage_format, body, size, times):
    def used(text):
        content = json.dumps(body).replace("BYTES", text).encode()
        chunks = [content[at : at + size] for at in range(0, len(content), size)]
        return metered(usage_format, chunks, headers=JSON).usage["output_tokens"]

    media, words = "iVBORw0K" * 2_000 * times, "and so on" * 1_777 * times

    assert used(media) <= len(media) // 64 + 100
    assert used(words) >= len(words) // 4


@pytest.mark.parametrize(("told", "charged"), [(1000, 1000), (999, 2000)])
def test_a_whole_body_is_looked_into_unless_a_token_is_told_for_six_bytes(told, charged):
    def written(padding):
        usage = {"prompt_tokens": 9, "completion_tokens": told}
        choices = [{"message": {"content": "a " * 2000}}]
        return json.dumps({"id": padding, "choices": choices, "usage": usage}).encode()

    body = written("x" * (6000 - len(written(""))))

    assert len(body) == 6000
    assert metered(CHAT, [body], headers=JSON).usage["output_tokens"] == charged


def test_of_a_document_with_very_many_texts_the_first_are_gone_through():
    assert sum(1 for _ in texts_of({"content": ["a"] * 200_000})) == 200_000 - 1


@pytest.mark.parametrize("told", [{}, {"usage": {"prompt_tokens": 9, "completion_tokens": 1}}])
def test_a_text_counts_once_whether_or_not_other_units_are_declared(told):
    def charged(units):
        meter = Meter(CHAT, False, {"output_tokens": 5000}, units=units)
        meter.start(200, JSON)
        choices = [{"message": {"role": "assistant", "content": "a " * 2000}}]
        meter.feed(json.dumps({"choices": choices, **told}).encode())
        return meter.usage()["output_tokens"]

    assert charged(()) == charged(("images",)) == 2000

"""Streams tell the same usage however they are cut, and a cut stream is never free."""

from __future__ import annotations

import json

import pytest

from guardrail.http.metering import UsageFormat
from tests.http.meters import EVENTS, cuts, distant_cuts, events, metered

CHAT, ANTHROPIC = UsageFormat.OPENAI_CHAT, UsageFormat.ANTHROPIC

# What the recorded streams say themselves: input, output.
RECORDED = {
    "openai-streams/173417d55340.sse": (79, 11),
    "openai-streams/4cc50a6135d2.sse": (79, 1),
    "openai-streams/7e5ea4d12e7c.sse": (79, 14),
    "openai-streams/a247c49c5fcd.sse": (48, 19),
    "openai-streams/c6aa7e397b71.sse": (76, 24),
    "openai-streams/e2aad469b71d.sse": (14, 30),
    "anthropic-streams/basic_response.txt": (11, 6),
    "anthropic-streams/incomplete_partial_json_response.txt": (450, 124),
    "anthropic-streams/tool_use_response.txt": (377, 65),
}


def chat(text, **more):
    return {"model": "m-1", "choices": [{"index": 0, "delta": {"content": text}}], **more}


USAGE = {"prompt_tokens": 9, "completion_tokens": 40, "total_tokens": 49}
CHAT_STREAM = events(chat("Hel"), chat("lo"), chat("", choices=[], usage=USAGE), "[DONE]")
RESPONSES_STREAM = events(
    {"type": "response.created", "response": {"model": "r-1", "usage": None}},
    {"type": "response.output_text.delta", "delta": "Hello"},
    {
        "type": "response.completed",
        "response": {
            "model": "r-1",
            "output": [{"content": [{"text": 'x"usage": {"output_tokens": 0}' * 9}]}],
            "usage": {
                "input_tokens": 9,
                "input_tokens_details": {"cached_tokens": 4},
                "output_tokens": 40,
                "output_tokens_details": {"reasoning_tokens": 30},
                "total_tokens": 49,
            },
        },
    },
    named=True,
)
ANTHROPIC_STREAM = events(
    {
        "type": "message_start",
        "message": {
            "model": "c-1",
            "usage": {
                "input_tokens": 2,
                "cache_read_input_tokens": 3,
                "cache_creation_input_tokens": 4,
                "output_tokens": 1,
            },
        },
    },
    {"type": "ping"},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 17}},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end"},
        "usage": {"input_tokens": None, "output_tokens": 40},
    },
    {"type": "message_stop"},
    named=True,
)
GEMINI_STREAM = events(
    {
        "candidates": [{"content": {"parts": [{"text": "Hel"}]}}],
        "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9},
        "modelVersion": "g-1",
    },
    {
        "candidates": [{"content": {"parts": [{"text": "lo"}]}, "finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": 9,
            "candidatesTokenCount": 10,
            "thoughtsTokenCount": 30,
            "totalTokenCount": 49,
        },
        "modelVersion": "g-1",
    },
)
NATIVE_STREAM = events(
    {"text": "He", "index": 0, "meta_info": {"prompt_tokens": 4, "completion_tokens": 1}},
    {"text": "He", "index": 1, "meta_info": {"prompt_tokens": 5, "completion_tokens": 1}},
    {"text": "Hey", "index": 0, "meta_info": {"prompt_tokens": 4, "completion_tokens": 15}},
    {"text": "Hey", "index": 1, "meta_info": {"prompt_tokens": 5, "completion_tokens": 25}},
    "[DONE]",
)
STREAMS = {
    "chat": (CHAT, CHAT_STREAM, "m-1"),
    "responses": (UsageFormat.OPENAI_RESPONSES, RESPONSES_STREAM, "r-1"),
    "anthropic": (ANTHROPIC, ANTHROPIC_STREAM, "c-1"),
    "gemini": (UsageFormat.GEMINI, GEMINI_STREAM, "g-1"),
    "native": (UsageFormat.NATIVE, NATIVE_STREAM, None),
}


@pytest.mark.parametrize(("pieces", "tokens"), [(["a"] * 10, 10), (["four" * 25], 25), ([], 0)])
def test_what_passes_after_its_usage_was_told_last_is_added(pieces, tokens):
    told = {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 17}}
    texts = [
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}
        for text in pieces
    ]
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}}

    usage = metered(ANTHROPIC, [events(start, told, *texts, named=True)]).usage
    assert usage["output_tokens"] == 17 + tokens


@pytest.mark.parametrize(("name", "tokens"), RECORDED.items(), ids=RECORDED)
def test_recorded_streams_cut_at_every_byte_tell_the_same_usage(test_data, name, tokens):
    data = (test_data / "conformance" / name).read_bytes()
    usage_format = CHAT if name.startswith("openai") else ANTHROPIC
    whole = metered(usage_format, [data])

    assert (whole.usage["input_tokens"], whole.usage["output_tokens"]) == tokens
    assert whole.ended
    assert not whole.failed
    assert all(metered(usage_format, pieces) == whole for pieces in distant_cuts(data))
    assert metered(usage_format, (data[at : at + 1] for at in range(len(data)))) == whole


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize(("usage_format", "data", "model"), STREAMS.values(), ids=STREAMS)
def test_streams_of_each_vendor_cut_at_every_byte_tell_their_usage(
    usage_format, data, model, ending
):
    data = data.replace(b"\n", ending)
    whole = metered(usage_format, [data])

    assert (whole.usage["input_tokens"], whole.usage["output_tokens"]) == (9, 40)
    assert (whole.ended, whole.model) == (True, model)
    assert all(metered(usage_format, pieces) == whole for pieces in cuts(data))


@pytest.mark.parametrize(("usage_format", "data", "model"), STREAMS.values(), ids=STREAMS)
def test_streams_cut_short_at_any_byte_are_charged_and_never_less_for_more(
    usage_format, data, model
):
    charged = 1
    for kept in range(len(data) + 1):
        usage = metered(usage_format, [data[:kept]], reserved={"output_tokens": 7}).usage

        assert charged <= usage["output_tokens"] <= 40
        charged = usage["output_tokens"]


def test_a_client_that_leaves_just_before_the_usage_is_charged_for_what_streamed():
    text = ["word " * 4] * 25
    data = events(*map(chat, text))

    assert metered(CHAT, [data]).usage == {"output_tokens": 125}
    assert metered(CHAT, [data], reserved={"output_tokens": 110}).usage == {"output_tokens": 110}
    assert not metered(CHAT, [data]).ended


def test_a_host_that_streams_more_than_was_reserved_is_charged_for_the_words_that_passed():
    data = events(*map(chat, ["word " * 4] * 25))

    assert metered(CHAT, [data], reserved={"output_tokens": 60}).usage == {"output_tokens": 100}


def test_a_stream_that_ends_without_usage_is_charged_an_estimate():
    data = events(*[chat("x")] * 12, "[DONE]")

    assert metered(CHAT, [data])[:2] == ({"output_tokens": 12}, True)
    assert metered(CHAT, [events("[DONE]")]).usage == {"output_tokens": 1}


def test_usage_told_on_every_chunk_counts_until_the_last_one():
    first = chat("a", usage={"prompt_tokens": 5, "completion_tokens": 30})
    second = chat("b", usage={"prompt_tokens": 5, "completion_tokens": 60})

    assert metered(CHAT, [events(first)]).usage == {"input_tokens": 5, "output_tokens": 30}
    assert metered(CHAT, [events(first, second, "[DONE]")]).usage["output_tokens"] == 60


def test_a_figure_told_as_null_or_lower_than_before_leaves_the_former_one():
    told = [
        chat("a", usage={"prompt_tokens": 5, "completion_tokens": 30}),
        chat("b", usage={"prompt_tokens": None, "completion_tokens": 20}),
    ]

    assert metered(CHAT, [events(*told, "[DONE]")]).usage == {
        "input_tokens": 5,
        "output_tokens": 30,
    }


@pytest.mark.parametrize("others", [{}, {"reasoning_content": "c d " * 50}])
def test_a_piece_with_more_than_its_text_is_charged_for_all_of_it(others):
    piece = {"choices": [{"index": 0, "delta": {"content": "a b " * 50, **others}}]}

    used = metered(CHAT, [events(piece)]).usage["output_tokens"]
    assert (used >= 150) == bool(others)
    assert used >= 50


@pytest.mark.parametrize(("told", "charged"), [(70, 70), (69, 140)])
def test_of_many_short_pieces_a_token_for_eight_characters_is_believed_and_no_less(told, charged):
    pieces = [chat("letters") for _ in range(80)]
    last = chat("", usage={"prompt_tokens": 5, "completion_tokens": told})

    assert metered(CHAT, [events(*pieces, last, "[DONE]")]).usage["output_tokens"] == charged


def test_what_was_told_counts_even_above_the_reservation():
    assert metered(CHAT, [CHAT_STREAM], reserved={"output_tokens": 5}).usage["output_tokens"] == 40


def test_usage_of_anthropic_is_cumulative_and_the_last_one_counts():
    cut = ANTHROPIC_STREAM.partition(b'"output_tokens": 40')[0]

    assert metered(ANTHROPIC, [cut]).usage["output_tokens"] == 17
    assert metered(ANTHROPIC, [ANTHROPIC_STREAM]).usage == {
        "input_tokens": 9,
        "cached_input_tokens": 3,
        "output_tokens": 40,
    }


@pytest.mark.parametrize(
    ("usage_format", "frame"),
    [
        (CHAT, {"error": {"message": "overloaded", "code": 503}}),
        (ANTHROPIC, {"type": "error", "error": {"type": "overloaded_error"}}),
        (UsageFormat.OPENAI_RESPONSES, {"type": "error", "code": "server_error"}),
        (UsageFormat.GEMINI, {"error": {"code": 503, "status": "UNAVAILABLE"}}),
    ],
)
def test_an_error_in_the_stream_is_told_and_what_streamed_is_charged(usage_format, frame):
    data = events({"delta": {"text": "x" * 40}}, frame)

    result = metered(usage_format, [data])

    assert (result.failed, result.usage) == (True, {"output_tokens": 10})


def test_comments_names_and_several_lines_of_data_are_read_as_the_standard_says():
    lines = json.dumps(chat("", choices=[], usage=USAGE), indent=1).splitlines()
    data = "\n".join([": hello", "id: 7", "retry: 1", *(f"data:{line}" for line in lines)])

    for ending in ("\n", "\r\n", "\r"):
        text = (data + "\n\n: bye\n\ndata: [DONE]\n\n").replace("\n", ending).encode()
        assert metered(CHAT, [b"\xef\xbb\xbf" + text]).usage["output_tokens"] == 40
        assert all(metered(CHAT, pieces).usage["output_tokens"] == 40 for pieces in cuts(text))


def test_a_mark_before_the_first_event_is_passed_over():
    data = b"\xef\xbb\xbf" + events(chat("", choices=[], usage=USAGE))

    assert all(metered(CHAT, pieces).usage["output_tokens"] == 40 for pieces in cuts(data))


@pytest.mark.parametrize(("usage_format", "data", "model"), STREAMS.values(), ids=STREAMS)
def test_a_last_event_counts_though_no_line_ends_it(usage_format, data, model):
    whole = metered(usage_format, [data])

    assert metered(usage_format, [data.rstrip(b"\n")]) == whole
    assert metered(usage_format, [data[:-1]]) == whole


def test_events_too_long_to_hold_tell_their_usage_all_the_same():
    head, gap, tail = RESPONSES_STREAM.rpartition(b'"output": [')
    padded = head + gap + b'{"text": "' + b"x" * 300_000 + b'"}, ' + tail
    spread = padded.replace(b'"usage": {"input', b'\ndata: "usage": {"input')
    expected = metered(UsageFormat.OPENAI_RESPONSES, [RESPONSES_STREAM])

    for data in (padded, spread):
        for size in (1_000, 65_536, 65_537, 1 << 20):
            pieces = [data[at : at + size] for at in range(0, len(data), size)]
            assert metered(UsageFormat.OPENAI_RESPONSES, pieces) == expected


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4_000}},
        {"type": "image", "image": "A" * 4_000},
        {"inline_data": "A" * 4_000},
        {"type": "image", "pixels": "A" * 1_024},
        {"type": "text", "text": "data:image/png;base64," + "A" * 4_000},
    ],
)
def test_pictures_in_a_stream_are_no_text_that_a_model_wrote(block):
    delta = {"choices": [{"delta": {"content": [block, {"type": "text", "text": "x" * 40}]}}]}

    assert metered(CHAT, [events(delta)]).usage == {"output_tokens": 10}


def test_events_after_one_too_long_to_hold_are_read_as_ever():
    usage = chat("", choices=[], usage=USAGE)
    data = events(chat("x" * 300_000), chat("lo"), usage, "[DONE]")

    for size in (1_000, 65_536, 1 << 20):
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        told = metered(CHAT, pieces)
        assert (told.usage, told.ended) == ({"input_tokens": 9, "output_tokens": 40}, True)


def test_a_stream_of_gemini_that_ends_without_a_word_is_charged_none():
    usage = {"promptTokenCount": 9, "candidatesTokenCount": 0, "totalTokenCount": 9}
    ends = {"candidates": [{"finishReason": "SAFETY"}], "usageMetadata": usage}

    told = metered(UsageFormat.GEMINI, [events(ends)], reserved={"output_tokens": 7})
    assert told.usage == {"input_tokens": 9, "output_tokens": 0}
    cut = metered(UsageFormat.GEMINI, [events({"usageMetadata": usage})])
    assert cut.usage["output_tokens"] == 1


def test_of_more_sequences_than_are_kept_the_first_ones_count_on():
    def told(sequence, tokens):
        meta = {"prompt_tokens": 1, "completion_tokens": tokens}
        return {"text": "x", "index": sequence, "meta_info": meta}

    first = [told(sequence, 1) for sequence in range(5_000)]
    later = [told(sequence, 11) for sequence in range(5_000)]

    usage = metered(UsageFormat.NATIVE, [events(*first, *later, "[DONE]")]).usage
    assert usage["output_tokens"] == 11 * 4_096


def test_a_line_without_an_end_is_not_held():
    meter_format = UsageFormat.OPENAI_RESPONSES
    chunks = [b'data: {"type": "x", "delta": "', *[b"y" * 100_000] * 100]

    assert metered(meter_format, chunks, reserved={"output_tokens": 50}).usage == {
        "output_tokens": 50
    }
    assert metered(meter_format, [b": ", *[b"y" * 100_000] * 100]).usage == {"output_tokens": 1}


@pytest.mark.parametrize("coding", [b"compress", b"gzip, gzip, gzip, gzip", b"gzip", b"zstd"])
def test_what_cannot_be_decoded_counts_a_token_a_byte_and_no_less_than_was_reserved(coding):
    encoded = ((b"content-type", b"text/event-stream"), (b"Content-Encoding", coding))
    data = CHAT_STREAM[:90]  # none of any coding

    assert metered(CHAT, [data], headers=encoded).usage == {"output_tokens": 90}
    reserved = {"output_tokens": 500}
    assert metered(CHAT, [data], headers=encoded, reserved=reserved).usage == reserved


def test_a_response_with_the_coding_of_none_is_read():
    plain = (*EVENTS, (b"content-encoding", b"identity"))

    assert metered(CHAT, [CHAT_STREAM], headers=plain).usage["output_tokens"] == 40


@pytest.mark.parametrize("status", [307, 400, 422, 429, 500])
def test_an_answer_that_is_no_success_settles_nothing(status):
    assert metered(CHAT, [CHAT_STREAM], status=status).usage == {}


@pytest.mark.parametrize("size", [1_000, 1 << 30])
@pytest.mark.parametrize(
    ("usage_format", "document"),
    [
        (
            UsageFormat.OPENAI_RESPONSES,
            {"type": "response.image_generation_call.partial_image", "partial_image_b64": "BYTES"},
        ),
        (UsageFormat.OPENAI_RESPONSES, {"type": "response.output_audio.delta", "delta": "BYTES"}),
        (UsageFormat.OPENAI_CHAT, {"choices": [{"delta": {"images": [{"url": "BYTES"}]}}]}),
        (UsageFormat.ANTHROPIC, {"type": "content_block_delta", "delta": {"signature": "BYTES"}}),
        (UsageFormat.GEMINI, {"candidates": [{"content": {"parts": [{"inlineData": "BYTES"}]}}]}),
    ],
)
def test_bytes_in_events_too_long_to_hold_are_not_text(usage_format, document, size):
    def used(text):
        content = events(*[json.loads(json.dumps(document).replace("BYTES", text))] * 3)
        chunks = [content[at : at + size] for at in range(0, len(content), size)]
        return metered(usage_format, chunks).usage["output_tokens"]

    media, words = "iVBORw0K" * 20_000, "and so on" * 17_770

    assert used(media) <= 3 * (len(media) // 64 + 100)
    assert used(words) >= 3 * len(words) // 4


def test_text_that_begins_as_a_picture_does_is_text():
    pieces = ["Look: ", "data:image/png;base64," + "and so on " * 1_000]
    stream = events(*({"choices": [{"delta": {"content": piece}}]} for piece in pieces))

    assert metered(UsageFormat.OPENAI_CHAT, [stream]).usage["output_tokens"] >= 2_500

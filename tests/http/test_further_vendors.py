"""What the APIs of further vendors and servers tell of their use is charged at the door."""

from __future__ import annotations

import base64
import json
from random import Random

import pytest

from tests.http.driving import JSON, SSE, Guarded, Host
from tests.http.requests import asked

POLICY = """
guardrail: 1
policy: vendors
models: {small: {max_output: 4096}}
rules:
  - {id: in, when: always, budget: {input_tokens: 100M, per: day, key: account.id}}
  - {id: out, when: always, budget: {output_tokens: 100M, per: day, key: account.id}}
"""
PREDICT = "/v1/projects/p/locations/l/publishers/google/models/small:predict"
DASHSCOPE = "/api/v1/services/aigc/text-generation/generation"
LINES = [(b"content-type", b"application/stream+json")]
PICTURE = base64.b64encode(Random(1).randbytes(60_000)).decode()


def charged(path, body, chunks, kind=JSON):
    """Return the input and output that a request is charged in the end."""
    guarded = Guarded(POLICY, Host(chunks, headers=kind))
    assert guarded.ask(json.dumps(body).encode(), path=path).status == 200
    return guarded.used("in"), guarded.used("out")


def embedded(*counts):
    vectors = [{"values": [0.5] * 9, "statistics": {"token_count": count}} for count in counts]
    return {"predictions": [{"embeddings": vector} for vector in vectors]}


def counted(into, out):
    told = {"inputTokenCount": {"totalTokens": into}, "outputTokenCount": {"totalTokens": out}}
    return {"predictions": [{"content": "a b c"}], "metadata": {"tokenMetadata": told}}


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize(
    ("told", "tokens"),
    [
        (embedded(7), (7, 0)),
        (embedded(7, 5), (12, 0)),
        (counted(9, 6), (9, 6)),
        ({"predictions": [{"bytesBase64Encoded": PICTURE}]}, (3, 4096)),
        ({"predictions": [{"embeddings": {}}, embedded(7)["predictions"][0]]}, (3, 4096)),
        ({"predictions": ["a b"], "metadata": {"tokenMetadata": 5}}, (3, 4096)),
    ],
)
def test_what_vertex_tells_beside_predictions_is_charged(told, tokens, pieces):
    text = json.dumps(told).encode()
    chunks = [text] if pieces == 1 else [text[:20], text[20:]]

    assert charged(PREDICT, {"instances": [{"a": "b"}]}, chunks) == tokens


VECTORS = {"imageEmbedding": [0.5] * 900, "textEmbedding": [0.5] * 900}


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize(
    ("model", "instance", "told", "tokens"),
    [
        ("text-embedding-005", {"content": "hi there"}, embedded(7), 7),
        ("textembedding-gecko@003", {"content": "hi"}, embedded(3), 3),
        ("multimodalembedding@001", {"text": "hi there"}, {"predictions": [VECTORS]}, 6),
    ],
)
def test_vectors_that_vertex_predicts_are_no_pictures(model, instance, told, tokens, pieces):
    path, body = PREDICT.replace("small", model), {"instances": [instance]}
    request = asked(path, body)
    text = json.dumps(told).encode()

    assert request.facts["request.capability"] == "embedding"
    assert request.facts["request.model"] == model
    assert request.estimate["output_tokens"] == 0
    assert charged(path, body, [text] if pieces == 1 else [text[:20], text[20:]]) == (tokens, 0)


def test_what_vertex_predicts_with_a_model_of_another_name_may_be_pictures():
    body = {"instances": [{"content": "embedding"}]}

    assert asked(PREDICT, body).facts["request.capability"] == "image"
    long = PREDICT.replace("small:predict", "embedding:predictLongRunning")
    assert asked(long, body).facts["request.capability"] == "image"


def said(text, out, whole):
    output = {"text": text} if whole else {"choices": [{"message": {"content": text}}]}
    usage = {"input_tokens": 9, "output_tokens": out}
    return (
        b"id:1\nevent:result\ndata:%b\n\n"
        % json.dumps({"output": output, "usage": usage, "request_id": "r"}).encode()
    )


WORDS = [f"word{number} " for number in range(30)]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("told", [30, 0])
def test_text_that_dashscope_repeats_counts_once(whole, told):
    body = {"model": "small", "input": {"messages": []}, "parameters": {"max_tokens": 99}}
    repeated = [said("".join(WORDS[: at + 1]), told and at + 1, whole) for at in range(30)]
    repeated.append(said("".join(WORDS), told, whole))
    in_pieces = [said(word, told and at + 1, whole) for at, word in enumerate(WORDS)]

    first = charged(DASHSCOPE, body, repeated, SSE)
    assert charged(DASHSCOPE, body, in_pieces, SSE)[1] >= 30
    assert first[1] == 30 if told else 30 <= first[1] < 90


def test_pieces_that_are_alike_are_no_repetition():
    body = {"model": "small", "input": {"messages": []}}

    assert charged(DASHSCOPE, body, [said("again ", 0, True)] * 20, SSE)[1] >= 20


@pytest.mark.parametrize(("read", "least"), [(20, 20), (11, 10)])
def test_a_stream_of_cohere_is_charged_by_its_end_or_by_what_passed(read, least):
    meta = {"billed_units": {"input_tokens": 4, "output_tokens": 20}, "tokens": {"input_tokens": 7}}
    events = [{"event_type": "stream-start", "is_finished": False}]
    events += [{"event_type": "text-generation", "text": " w", "is_finished": False}] * 20
    events += [{"event_type": "stream-end", "is_finished": True, "response": {"meta": meta}}]
    chunks = [json.dumps(event).encode() + b"\n" for event in events]
    chunks = chunks if read == 20 else chunks[:read]

    into, out = charged(
        "/v1/chat", {"model": "small", "message": "hi", "stream": True}, chunks, LINES
    )
    assert least <= out <= least + 2
    assert into == 7 or read < 20


def token(text, **more):
    return {"token": {"id": 1, "text": text, "special": False}, "generated_text": None, **more}


@pytest.mark.parametrize(
    ("details", "tokens"),
    [
        ({"generated_tokens": 35, "input_length": 12}, (12, 35)),
        ({"generated_tokens": 35, "prefill": [{"id": 1}] * 6}, (6, 35)),
        ({"generated_tokens": 35, "best_of_sequences": [{"generated_tokens": 40}]}, (15, 75)),
        ({"generated_tokens": 3}, (15, 20)),
        ({"finish_reason": "length"}, (15, 20)),
        (None, (15, 20)),
    ],
)
def test_the_details_of_a_text_of_tgi_are_charged(details, tokens):
    body = {"inputs": "hello", "parameters": {"max_new_tokens": 200, "details": True}}
    stream = [token(" w")] * 19 + [token(" w", generated_text=" w" * 20, details=details)]
    events = [b"data:" + json.dumps(one).encode() + b"\n\n" for one in stream]
    whole = json.dumps({"generated_text": " w" * 20, "details": details}).encode()

    (into, out), expected = charged("/generate_stream", body, events, SSE), tokens
    assert out == expected[1]
    assert into == expected[0] or expected[0] == 15
    assert charged("/generate", body, [whole])[1] == expected[1]


def test_pictures_in_the_settings_of_a_script_are_media_and_arguments_of_calls_are_text():
    unit = {"image": PICTURE, "module": "canny"}
    drawn = {"prompt": "x", "alwayson_scripts": {"controlnet": {"args": [unit]}}}
    called = {"prompt": "x", "functionCall": {"name": "f", "args": unit}}

    assert asked("/sdapi/v1/txt2img", drawn).estimate["input_tokens"] < 4_000
    assert asked("/sdapi/v1/txt2img", called).estimate["input_tokens"] > 15_000


def generated(text, written, read, **more):
    one = {"generated_text": text, "generated_token_count": written, "input_token_count": read}
    return {"model_id": "small", "results": [one | more]}


TITAN = {"inputTextTokenCount": 12, "results": [{"tokenCount": 40, "outputText": "one two"}]}
TITANS_LAST = {"outputText": " two", "inputTextTokenCount": 12, "totalOutputTextTokenCount": 40}
ALEPH = {
    "completions": [{"completion": "one two"}],
    "num_tokens_prompt_total": 12,
    "num_tokens_generated": 40,
}
GOES_ON, ENDS = {"stop_reason": "not_finished"}, {"stop_reason": "eos_token"}
WATSONX = [
    generated("one", 1, 12, **GOES_ON),
    generated(" two", 39, 0, **GOES_ON),
    generated("", 40, 0, **ENDS),
]


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/model/m/invoke", TITAN),
        ("/model/m/invoke", TITANS_LAST),
        ("/ml/v1/text/generation", generated("one two", 40, 12)),
        ("/complete", ALEPH),
    ],
)
def test_what_is_counted_beside_a_text_is_charged(path, told, pieces):
    text = json.dumps(told).encode()
    chunks = [text] if pieces == 1 else [text[:20], text[20:]]

    assert charged(path, {"model": "small", "prompt": "hi"}, chunks) == (12, 40)


def test_what_is_counted_in_each_result_of_a_stream_is_charged_as_it_was_last():
    body = {"model_id": "small", "input": "hi", "parameters": {"max_new_tokens": 200}}
    chunks = [b"data: " + json.dumps(one).encode() + b"\n\n" for one in WATSONX]

    assert charged("/ml/v1/text/generation_stream", body, chunks, SSE) == (12, 40)


def test_several_results_are_added_up_and_what_is_no_count_is_left_out():
    several = {"results": [*WATSONX[1]["results"], *WATSONX[0]["results"], 7]}
    none = {"results": [{"generated_text": "one two", "generated_token_count": -5}]}
    body = {"model_id": "small", "input": "hi"}

    assert charged("/ml/v1/text/generation", body, [json.dumps(several).encode()]) == (12, 40)
    assert charged("/ml/v1/text/generation", body, [json.dumps(none).encode()])[1] > 0


@pytest.mark.parametrize(
    ("path", "told", "headers"),
    [
        ("/v1/multimodalembeddings", {"usage": {"text_tokens": 5, "total_tokens": 3576}}, []),
        ("/v1/contextualizedembeddings", {"usage": {"total_tokens": 3576}}, []),
        ("/v1/embeddings", {"input_token_count": 3576, "results": [{"embedding": [0.5]}]}, []),
        ("/embed", [[0.5, 0.25]], [(b"x-compute-tokens", b"3576")]),
    ],
)
def test_what_is_read_for_vectors_is_input_alone(path, told, headers):
    body = {"model": "small", "inputs": [{"content": [{"type": "text", "text": "hi"}]}]}
    kind = [*JSON, *headers]

    assert charged(path, body, [json.dumps(told).encode()], kind) == (3576, 0)

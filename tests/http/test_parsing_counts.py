"""How many completions and how much output a body asks for, and what is no number."""

from __future__ import annotations

import base64
import json

import pytest

from guardrail.http.dialects import Dialect
from guardrail.http.parsing import ReadingLimits
from tests.http.requests import JSON, asked, form, problem_of

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]
GEMINI = "/v1beta/models/g:generateContent"

# Path, members, completions, output (None: no cap).
TABLE = [
    (CHAT, {}, 1, None),
    (CHAT, {"max_tokens": 9}, 1, 9),
    (CHAT, {"max_tokens": 9, "max_completion_tokens": 5}, 1, 9),
    (CHAT, {"max_tokens": 5, "max_completion_tokens": 9}, 1, 9),
    (CHAT, {"max_tokens": None, "max_completion_tokens": 9}, 1, 9),
    (CHAT, {"max_tokens": 9, "n": 3}, 3, 27),
    (CHAT, {"n": 3}, 3, None),
    (CHAT, {"n": None, "max_tokens": 9}, 1, 9),
    (CHAT, {"n": 0, "max_tokens": 9}, 1, 9),
    (CHAT, {"n": 2, "best_of": 5, "max_tokens": 9}, 5, 45),
    (CHAT, {"n": 4, "use_beam_search": True, "max_tokens": 9}, 4, 36),
    (CHAT, {"model": "small, large", "n": 2, "max_tokens": 9}, 4, 36),
    (CHAT, {"max_tokens": 9, "min_tokens": 20}, 1, 20),
    (CHAT, {"min_tokens": 20}, 1, None),
    (CHAT, {"max_completion_tokens": 0}, 1, None),
    (CHAT, {"max_completion_tokens": 0, "max_tokens": 7}, 1, 7),
    (CHAT, {"thinking_token_budget": 50, "max_tokens": 9}, 1, 50),
    (CHAT + "/batch", {"messages": [MESSAGES] * 4, "n": 2, "max_tokens": 9}, 8, 72),
    ("/v1/completions", {"prompt": "x", "max_tokens": 9}, 1, 9),
    ("/v1/completions", {"prompt": ["x", "y"], "n": 3, "max_tokens": 9}, 6, 54),
    ("/v1/completions", {"prompt": [1, 2, 3], "max_tokens": 9}, 1, 9),
    ("/v1/completions", {"prompt": [[1, 2], [3]], "max_tokens": 9}, 2, 18),
    ("/v1/completions", {"prompt": [1, [3]], "max_tokens": 9}, 2, 18),
    ("/v1/completions", {"prompt": "x", "prompt_embeds": ["a", "b"], "max_tokens": 9}, 2, 18),
    ("/v1/responses", {"input": "x", "max_output_tokens": 9}, 1, 9),
    ("/v1/embeddings", {"input": ["x", "y"], "max_tokens": 9}, 1, 0),
    ("/v1/images/generations", {"prompt": "x", "n": 4}, 4, None),
    ("/v1/messages", {"max_tokens": 9}, 1, 9),
    ("/v1/messages", {"max_tokens": 0}, 1, 0),
    ("/v1/messages", {"max_tokens": 9, "thinking": {"budget_tokens": 40}}, 1, 40),
    ("/v1/complete", {"prompt": "x", "max_tokens_to_sample": 9}, 1, 9),
    (GEMINI, {"generationConfig": {"maxOutputTokens": 9, "candidateCount": 2}}, 2, 18),
    (GEMINI, {"generation_config": {"max_output_tokens": 9, "candidate_count": 2}}, 2, 18),
    (GEMINI, {"generationConfig": {"thinkingConfig": {"thinkingBudget": -1}}}, 1, None),
    ("/generate", {"text": "x", "sampling_params": {"max_new_tokens": 9, "n": 2}}, 2, 18),
    ("/generate", {"text": ["x", "y"], "sampling_params": {"max_new_tokens": 9}}, 2, 18),
    ("/generate", {"input_ids": [[1], [2]], "sampling_params": [{"max_new_tokens": 9}] * 2}, 2, 18),
    (
        "/generate",
        {"text": ["x", "y"], "sampling_params": [{"max_new_tokens": 1}, {"max_new_tokens": 9}]},
        2,
        18,
    ),
    ("/vertex_generate", {"instances": [{}] * 3, "parameters": {"max_new_tokens": 9}}, 3, 27),
    ("/inference/v1/generate", {"token_ids": [1], "sampling_params": {"max_tokens": 9}}, 1, 9),
    ("/api/chat", {"messages": MESSAGES, "options": {"num_predict": 9}}, 1, 9),
    ("/v2/chat", {"messages": MESSAGES, "max_tokens": 9}, 1, 9),
    ("/v2/chat", {"messages": MESSAGES, "max_completion_tokens": 1}, 1, None),
    ("/v1/interactions", {"input": "x", "generation_config": {"max_output_tokens": 9}}, 1, 9),
    ("/v1/interactions", {"input": "x", "max_output_tokens": 1}, 1, None),
    ("/model/m/converse", {"messages": [], "inferenceConfig": {"maxTokens": 9}}, 1, 9),
    ("/model/m/invoke", {"messages": [], "max_tokens": 1}, 1, None),
    ("/invocations", {"messages": MESSAGES, "max_tokens": 9, "n": 2}, 2, 18),
    # A cap that the endpoint does not heed is none.
    ("/unheard/of", {"prompt": ["x", "y"], "max_new_tokens": 9}, 2, None),
    (CHAT, {"max_new_tokens": 1, "max_output_tokens": 1, "options": {"num_predict": 1}}, 1, None),
    (CHAT, {"max_new_tokens": 50, "max_tokens": 9}, 1, 50),
    ("/v1/responses", {"input": "x", "max_tokens": 1}, 1, None),
    ("/v1/completions", {"prompt": "x", "max_completion_tokens": 1}, 1, None),
    ("/v1/messages", {"max_completion_tokens": 1}, 1, None),
    (GEMINI, {"maxOutputTokens": 1, "max_tokens": 1}, 1, None),
    ("/generate", {"text": "x", "max_tokens": 1, "max_new_tokens": 1}, 1, None),
    ("/generate", {"text": ["x", "y"], "sampling_params": [{"max_new_tokens": 9}, {}]}, 2, None),
    ("/inference/v1/generate", {"sampling_params": {"max_new_tokens": 1}}, 1, None),
    (CHAT, {"n": 2**53 - 1, "max_tokens": 2**53 - 1}, 2**53 - 1, 2**53 - 1),
]


@pytest.mark.parametrize(("path", "members", "completions", "output"), TABLE)
def test_completions_and_the_largest_cap_are_counted(path, members, completions, output):
    body = {"model": "m", "messages": MESSAGES, **members} if path == CHAT else members

    estimate = asked(path, body).estimate

    assert (estimate["requests"], estimate.get("output_tokens")) == (completions, output)
    assert estimate["input_tokens"] > 0


@pytest.mark.parametrize(
    "text",
    ["1.5", "1.0", "1e9", "-1", "true", '"7"', "[]", "{}", "9007199254740992", "9" * 400, "-0.0"],
)
@pytest.mark.parametrize(
    "member",
    ["max_tokens", "max_completion_tokens", "n", "best_of", "min_tokens", "max_output_tokens"],
)
def test_what_is_no_whole_number_is_a_problem_that_names_the_member(member, text):
    request = asked(CHAT, f'{{"model": "m", "messages": [], "{member}": {text}}}'.encode())

    assert f"`{member}`" in problem_of(request)
    assert ("the text `7`" in problem_of(request)) is text.startswith('"')
    assert (request.status, request.param) == (400, member)


@pytest.mark.parametrize(
    "body",
    [
        {"sampling_params": {"max_new_tokens": -1}},
        {"sampling_params": [{}, {"n": 1.5}]},
        {"generationConfig": {"maxOutputTokens": "9"}},
        {"thinking": {"budget_tokens": True}},
    ],
)
def test_caps_within_are_held_to_the_same(body):
    assert asked(CHAT, {"messages": [], **body}).problem


def test_the_requests_of_a_batch_are_summed():
    params = {"model": "m", "max_tokens": 9, "messages": MESSAGES}
    tools = {**params, "tools": [{"name": "f", "input_schema": {}}]}

    def batch(*bodies):
        return asked("/v1/messages/batches", {"requests": [{"params": body} for body in bodies]})

    assert batch(*[params] * 5).estimate["requests"] == 5
    assert batch(*[params] * 5).estimate["output_tokens"] == 45
    assert batch(params, params).facts["request.capability"] == "batch"
    assert batch(params, tools).facts["request.capability"] == "agentic"
    assert "output_tokens" not in batch(params, {"messages": []}).estimate
    assert batch(params, {"max_tokens": 1.5}).problem


def test_a_batch_of_gemini_is_summed():
    request = {"contents": [], "generationConfig": {"maxOutputTokens": 9}}
    inner = {"requests": {"requests": [{"request": request}] * 3}}

    estimate = asked(
        "/v1/models/g:batchGenerateContent", {"batch": {"input_config": inner}}
    ).estimate

    assert (estimate["requests"], estimate["output_tokens"]) == (3, 27)


def lines(*bodies):
    return b"\n".join(
        json.dumps({"custom_id": "a", "url": CHAT, "body": body}).encode() for body in bodies
    )


def test_a_line_of_a_batch_is_capped_as_the_endpoint_it_names_reads_it():
    line: dict = {"url": "/v1/responses", "body": {"input": "x", "max_tokens": 9}}

    assert "output_tokens" not in uploaded(json.dumps(line).encode()).estimate
    line["body"]["max_output_tokens"] = 9
    assert uploaded(json.dumps(line).encode()).estimate["output_tokens"] == 9


def uploaded(content, purpose="batch", **options):
    headers, body = form(("purpose", purpose), ("file", content))
    return asked("/v1/files", body, headers=headers, **options)


def test_a_file_of_requests_is_counted_line_by_line():
    body = {"model": "m", "messages": MESSAGES, "max_tokens": 9, "n": 2}

    request = uploaded(lines(*[body] * 4) + b"\n\n")

    assert (request.estimate["requests"], request.estimate["output_tokens"]) == (8, 72)
    assert request.facts["request.capability"] == "batch"
    assert request.facts["request.model"] == "m"
    problem = problem_of(uploaded(lines(body, {"max_tokens": -1})))
    assert "line 2" in problem
    assert "`max_tokens`" in problem
    assert uploaded(b"{}").problem
    assert uploaded(lines(body), purpose="assistants").estimate["output_tokens"] == 0


UPLOAD = "/upload/v1beta/files"
RAW = ((b"x-goog-upload-command", b"upload, finalize"), (b"x-goog-upload-offset", b"0"))
PICTURE = b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(range(256)) * 64


def of_gemini(cap: int = 9) -> bytes:
    request = {"contents": [], "generationConfig": {"maxOutputTokens": cap}}
    return json.dumps({"key": "a", "request": request}).encode()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        # The first request describes the file; the documents write it with single quotes.
        ((*JSON, (b"x-goog-upload-command", b"start")), b'{"file": {"display_name": "x"}}'),
        ((*JSON, (b"x-goog-upload-command", b"start")), b"{'file': {'display_name': 'x'}}"),
        (RAW, PICTURE),
        # What curl says of a body of which it is told nothing.
        (((b"content-type", b"application/x-www-form-urlencoded"), *RAW), PICTURE),
        (((b"content-type", b"image/jpeg"), *RAW), PICTURE),
        (RAW, b"just words;\n{braces}\n"),
        (RAW, b'{"text_input": "of a tuning", "output": "line"}\n'),
        (((b"x-goog-upload-command", b"query"),), b""),
    ],
)
def test_a_file_sent_to_gemini_is_a_request_and_no_more(headers, body):
    request = asked(UPLOAD, body, headers=headers)

    assert request.problem is None
    assert request.dialect is Dialect.GEMINI
    assert request.facts["request.endpoint"] == "/upload/*/files"
    assert request.facts["request.capability"] == "other"
    assert request.estimate == {"requests": 1, "input_tokens": 0, "output_tokens": 0}


def test_requests_in_a_file_sent_to_gemini_are_counted():
    request = asked(UPLOAD, b"\n".join([of_gemini()] * 4), headers=RAW)

    assert (request.estimate["requests"], request.estimate["output_tokens"]) == (4, 36)
    assert request.facts["request.capability"] == "batch"
    bounded = asked(
        UPLOAD,
        b"\r\n".join([of_gemini()] * 50),
        headers=RAW,
        limits=ReadingLimits(max_batch_lines=10),
    )
    assert bounded.estimate["requests"] == 50
    assert "output_tokens" not in bounded.estimate


@pytest.mark.parametrize("at", [1, 2, 30, 200])
def test_no_request_of_a_file_is_lost_where_it_is_cut(at):
    file = b"\xef\xbb\xbf" + b"\n \t".join([of_gemini()] * 6)
    at += file.index(b"{")

    pieces = [asked(UPLOAD, piece, headers=RAW) for piece in (file[:at], file[at:])]

    assert sum(piece.estimate["requests"] for piece in pieces) >= 6
    assert {piece.facts["request.capability"] for piece in pieces} & {"agentic", "batch"}


def test_a_form_is_read_as_one_wherever_files_are_sent():
    headers, body = form(("purpose", "batch"), ("file", lines({"messages": MESSAGES})))

    assert asked("/upload/v1/files", body, headers=headers).estimate["requests"] == 1
    assert asked("/upload/v1/files", body, headers=headers).facts["request.capability"] == "batch"


def test_lines_beyond_the_bound_count_at_their_worst():
    body = {"model": "m", "messages": MESSAGES, "max_tokens": 9}

    request = uploaded(lines(*[body] * 50), limits=ReadingLimits(max_batch_lines=10))

    assert request.estimate["requests"] == 50
    assert "output_tokens" not in request.estimate
    assert request.facts["request.capability"] == "agentic"


def test_a_batch_named_by_its_file_asks_for_what_the_host_assumes():
    limits = ReadingLimits(unseen_batch=500)

    request = asked("/v1/batches", {"input_file_id": "f"}, limits=limits)

    assert request.estimate["requests"] == 500
    assert "output_tokens" not in request.estimate
    assert asked("/v1/batches", {"input_file_id": "f"}).estimate["requests"] == 1


@pytest.mark.parametrize("member", ["previous_response_id", "conversation", "cachedContent"])
def test_input_that_the_host_keeps_is_reserved_for(member):
    limits = ReadingLimits(unseen_tokens=5_000)

    request = asked(
        "/v1/responses", {"input": "x", member: "id", "background": True}, limits=limits
    )

    assert 5_000 < request.estimate["input_tokens"] < 5_100
    assert "output_tokens" not in request.estimate


def test_input_is_a_token_for_four_bytes_of_text_and_one_a_number():
    def tokens(content, path=CHAT, name="content"):
        return asked(path, {"messages": [{name: content}]}).estimate["input_tokens"]

    assert tokens("x" * 4_000) - tokens("") == 1_000
    assert tokens("语" * 4_000) - tokens("") == 3_000
    assert tokens(["x" * 4_000, "y"]) - tokens([]) >= 1_000
    numbers = asked("/v1/completions", {"prompt": list(range(5_000))}).estimate["input_tokens"]
    assert 5_000 <= numbers < 5_010


def test_media_count_as_media_and_text_as_text():
    def tokens(part):
        return asked(CHAT, {"messages": [{"content": [part]}]}).estimate["input_tokens"]

    data = "A" * 64_000
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    source = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": data},
    }
    assert 2_600 <= tokens(url) < 2_700
    assert 2_600 <= tokens(source) < 2_700
    text = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": data},
    }
    assert tokens(text) >= 16_000
    assert tokens({"type": "image_url", "image_url": {"url": f"data:,{data}"}}) >= 16_000
    assert tokens({"data": "data: " + data}) >= 16_000
    assert tokens({"image_url": f"data:text/plain;base64,{data}"}) >= 16_000


@pytest.mark.parametrize("size", [3_000, 400_000, 2_000_000], ids=["short", "long", "longest"])
def test_pictures_that_a_text_shows_in_markdown_are_no_words(size):
    def tokens(text):
        return asked("/generate", {"inputs": text}).estimate["input_tokens"]

    data = base64.b64encode(bytes(range(256)) * (size // 341)).decode()
    picture = f"![](data:image/png;base64,{data})"
    words = "What is it? " * (size // 12)
    plain, media = tokens(words), 1_600 + len(picture) // 64

    assert plain - 10 <= tokens(words + picture) - media <= plain + 40
    assert plain - 10 <= tokens(picture + words) - media <= plain + 40
    assert tokens(picture * 2) >= 2 * media - 10
    assert tokens("![](https://host.example/a.png)Is it so?") >= 1_600
    for text in (
        f"![](data:text/plain;base64,{data})",
        f"![](data:image/png;base64,{base64.b64encode(words.encode()).decode()})",
        f"![](data:image/png;base64,{words})",
        f"![]({words})",
        picture.replace("![", "[["),
        "![](" * (size // 4),
        "![]()" * (size // 5),
    ):
        assert tokens(text) >= len(text) // 4 - 10
    assert asked("/v1/chat/completions", {"messages": [{"content": picture}]}).estimate[
        "input_tokens"
    ] >= (len(picture) // 4)


def tensor(shape: object, datatype: str = "BYTES", **more: object) -> dict[str, object]:
    return {"name": "text_input", "shape": shape, "datatype": datatype, "data": ["x"], **more}


INFER = "/v2/models/m/infer"


@pytest.mark.parametrize(
    ("inputs", "requests"),
    [
        ([tensor([4, 1])], 4),
        ([tensor([4, 1]), tensor([4, 1], "INT32")], 4),
        ([tensor([1, 128], "INT32")], 1),
        ([tensor([128], "INT32")], 1),
        ([tensor([3])], 3),
        ([tensor([])], 1),
        ([tensor(["5", 1])], 5),
        ([tensor("odd")], 1),
        ([{"name": "t", "data": ["x"]}], 1),
        ([tensor([0, 4])], 1),
    ],
)
def test_the_first_dimension_of_a_tensor_is_how_many_prompts_it_has(inputs, requests):
    request = asked(INFER, {"inputs": inputs})

    assert request.problem is None
    assert request.estimate["requests"] == requests


def test_tensors_that_follow_their_description_as_bytes_are_counted_like_others():
    head = json.dumps({"inputs": [tensor([4, 1], parameters={"binary_data_size": 400})]}).encode()
    binary = ((b"inference-header-content-length", str(len(head)).encode()),)

    request = asked(INFER, head + bytes(400), headers=binary)

    assert request.problem is None
    assert request.estimate["requests"] == 4
    assert request.estimate["input_tokens"] >= 100
    for length in (b"x", b"1" * 20, b"0"):
        odd = asked(INFER, head + bytes(400), headers=((binary[0][0], length),))
        assert odd.problem
        assert odd.facts["request.capability"] == "agentic"

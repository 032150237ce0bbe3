"""What hides in a request, or is not seen in it, is counted, unknown or refused: never absent."""

from __future__ import annotations

import base64
import json
from urllib.parse import urlencode

import pytest

from guardrail.http.parsing import ReadingLimits
from guardrail.http.parsing.endpoints import endpoint_of
from guardrail.http.parsing.members import ALSO_MODELS, OTHER_MODELS
from tests.http.requests import JSON, asked, form, problem_of

CHAT, MESSAGES, GEMINI = "/v1/chat/completions", "/v1/messages", "/v1beta/models/g:generateContent"
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
BYTES = "iVBORw0K" * 50_000
PAGES = "data:application/pdf;base64," + BYTES
FRAMES = "data:video/jpeg;base64," + ",".join([BYTES[:50_000] + "=="] * 8)
LINES = "\r\n".join(BYTES[at : at + 76] for at in range(0, len(BYTES), 76))
TEXT = base64.b64encode(b"and so forth " * 30_000).decode()


def sealed(kind, data):
    return {"type": kind, "data": data}


HIDDEN_TOOLS = [
    ("/v1/responses", {"input": [{"type": "additional_tools", "tools": [FUNCTION]}]}, 1),
    ("/v1/responses", {"input": [{"type": "tool_search_output", "tools": [FUNCTION] * 2}]}, 2),
    ("/v1/responses", {"input": "x", "tools": [{"type": "namespace", "tools": [FUNCTION]}]}, 2),
    (CHAT, {**ASK, "extra_body": {"tools": [FUNCTION]}}, 1),
    (CHAT, {**ASK, "tools": [[FUNCTION, FUNCTION], FUNCTION]}, 3),
    (CHAT, {**ASK, "tools": [{"type": "web_search", "function": {"name": "f"}}]}, 1),
    (CHAT, {**ASK, "tools": [{"type": "image_generation", "parameters": {}}]}, 1),
    (MESSAGES, {**ASK, "tools": [{"type": "web_search_20250305", "input_schema": {}}]}, 1),
    (GEMINI, {"contents": [], "tools": [{"function_declarations": [{"name": "f"}] * 2}]}, 2),
    (
        GEMINI,
        {"contents": [], "tools": [{"type": "x", "functionDeclarations": [{"name": "f"}]}]},
        2,
    ),
    ("/v1/realtime/client_secrets", {"session": {"tools": [FUNCTION]}}, 1),
]


@pytest.mark.parametrize(("path", "body", "count"), HIDDEN_TOOLS)
def test_tools_count_wherever_a_body_can_carry_them(path, body, count):
    facts = asked(path, body).facts

    assert (facts["request.tools"], facts["request.capability"]) == (count, "agentic")


@pytest.mark.parametrize(
    "body",
    [
        {**ASK, "tool_choice": {"type": "allowed_tools", "tools": [{"name": "f"}]}},
        {**ASK, "response_format": {"json_schema": {"schema": {"properties": {"tools": []}}}}},
        {**ASK, "metadata": {"tools": "x", "n": "nine"}},
        {
            "messages": [
                {"content": [{"type": "tool_use", "input": {"tools": [1], "n": "x", "model": 7}}]}
            ]
        },
    ],
)
def test_what_is_shown_to_be_data_counts_as_none(body):
    request = asked(CHAT, body)

    assert (request.problem, request.facts["request.tools"]) == (None, 0)
    assert request.estimate["requests"] == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"model": "m", "prompt": {"id": "pmpt_1"}}),
        ("/v1/responses", {"model": "m", "input": "x", "previous_response_id": "resp_1"}),
        ("/v1/responses", {"model": "m", "input": "x", "conversation": "conv_1"}),
        ("/v1/responses", {"model": "m", "input": "x", "conversation": {"id": "conv_1"}}),
        ("/v1/messages", {**ASK, "thread": {"type": "continue", "previous_message_id": "msg_1"}}),
        ("/v1/threads/runs", {"assistant_id": "asst_1"}),
        ("/v1/threads/t_1/runs", {"model": "m"}),
        (GEMINI, {"contents": [], "cachedContent": "cachedContents/x"}),
        (GEMINI, {"contents": [], "cached_content": "cachedContents/x"}),
        (CHAT, {**ASK, "agent_id": "a"}),
        ("/v1/realtime/client_secrets", {"session": {"prompt": {"id": "pmpt_1"}}}),
        ("/v1/brand/new", ASK),
        ("/v1beta/models/g:brandNew", {"contents": []}),
        ("/v1/models/m", ASK),
    ],
)
def test_what_is_stored_or_unknown_makes_tools_unknown_and_not_absent(path, body):
    facts = asked(path, body).facts

    assert "request.tools" not in facts
    assert "request.reasoning" not in facts
    goes_on = {"previous_response_id", "conversation", "thread"} & body.keys()
    assert facts["request.capability"] == ("chat" if goes_on else "agentic")


@pytest.mark.parametrize(
    "members",
    [
        {"thread": {"type": "create"}},
        {"thread": None},
        {"diagnostics": {"previous_message_id": "msg_1"}},
    ],
)
def test_what_begins_or_compares_a_conversation_goes_on_with_none(members):
    request = asked("/v1/messages", {**ASK, **members})

    assert request.facts["request.tools"] == 0
    assert request.estimate["input_tokens"] < 100


def test_a_thread_that_is_begun_with_its_run_refers_to_an_assistant_alone():
    thread = {"messages": [{"role": "user", "content": "hi there"}]}
    begun = asked("/v1/threads/runs", {"assistant_id": "asst_1", "thread": thread})
    bare = asked("/v1/threads/runs", {"assistant_id": "asst_1"})

    assert begun.estimate["input_tokens"] - bare.estimate["input_tokens"] < 100


def test_a_batch_by_file_and_a_part_of_an_upload_may_hold_tools():
    headers, part = form(("data", b"{}" * 99))

    for request in (
        asked("/v1/batches", {"input_file_id": "f"}),
        asked("/v1/uploads/u_1/parts", part, headers=headers),
    ):
        assert request.facts["request.capability"] == "batch"
        assert "request.tools" not in request.facts
        assert "output_tokens" not in request.estimate


@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST"])
def test_methods_that_nobody_documents_are_the_most_restricted(method):
    request = asked("/v1/models/m", ASK, method=method)

    assert request.facts["request.capability"] == "agentic"
    assert "output_tokens" not in request.estimate
    assert asked("/v1/brand/new", None, method="GET").facts["request.capability"] == "agentic"
    assert asked("/v1/models/ft:m:o::1", None, method="GET").facts["request.capability"] == "other"


WHOLE = [{"params": ASK}] * 1_000


@pytest.mark.parametrize(
    "body",
    [
        {"requests": WHOLE},
        {"batch": {}, "requests": WHOLE},
        {"batch": {"requests": []}, "requests": WHOLE},
        {"input_config": {"requests": {}}, "requests": WHOLE},
        {"batch": {"inputConfig": {"requests": {"requests": WHOLE}}}},
        {"requests": [{"params": ASK, "request": {}}] * 1_000},
    ],
)
def test_a_batch_counts_as_the_worst_of_its_readings(body):
    request = asked("/v1/messages/batches", body)

    assert request.problem is None
    assert request.estimate["requests"] >= 1_000


@pytest.mark.parametrize("purpose", ["batch", "Batch", " batch", "brand-new"])
def test_a_file_of_requests_is_counted_whatever_its_purpose_is_called(purpose):
    line = b'{"body": {"model": "m", "messages": [], "max_tokens": 5}}'
    headers, body = form(("purpose", purpose), ("file", line + b"\n" + line))

    assert asked("/v1/files", body, headers=headers).estimate["requests"] == 2
    headers, body = form(("purpose", "user_data"), ("file", line))
    assert asked("/v1/files", body, headers=headers).estimate["input_tokens"] == 0


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1beta/models/vertex_ai/gemini-pro:generateContent", "vertex_ai/gemini-pro"),
        ("/v1/projects/p/publishers/google/models/g-1:generateContent", "g-1"),
        ("/v1beta/models/models/g:generateContent", None),
        ("/v1beta/tunedModels/t:generateContent", None),
        ("/v1/publishers/google/g-1:generateContent", None),
        ("/v1/engines/large/completions", "large"),
        ("/engines/org/large/chat/completions", "org/large"),
        ("/openai/deployments/a/b/chat/completions", "a/b"),
        ("/engines/x/deployments/y/chat/completions", None),
    ],
)
def test_a_name_in_a_path_is_all_before_the_known_tail_and_in_doubt_there_is_none(path, model):
    body = {"contents": []} if ":" in path else {"messages": [], "prompt": "x"}

    assert endpoint_of(path).model == model
    assert asked(path, body).facts.get("request.model") == model
    if model is None:
        assert "request.model" not in asked(path, {**body, "model": "small"}).facts


def test_a_path_and_a_body_that_name_two_models_are_refused():
    request = asked("/engines/large/chat/completions", {**ASK, "model": "small"})

    assert (request.status, request.param) == (400, "model")
    assert "`large`" in problem_of(request)
    assert asked("/engines/m/chat/completions", ASK).problem is None
    assert asked(GEMINI, {"contents": [], "model": "models/g"}).problem is None
    assert asked(CHAT, {**ASK, "extra_body": {"model": "large"}}).param == "model"
    assert "request.model" not in asked(CHAT, {**ASK, "models": ["a", "b"]}).facts


@pytest.mark.parametrize(
    "stated",
    [
        None,
        b"text/plain",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data; boundary=xyz",
        b"application/json; charset=unicode_escape",
        b"application/json; charset=utf-16",
        b"application/json;charset=latin-1",
        b'application/json; x="; charset=utf-8',
        b"application/merge-patch+json",
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/messages/batches", GEMINI, "/v1/embeddings"])
def test_another_media_type_than_an_endpoint_documents_is_a_415(path, stated):
    request = asked(path, {"x": 1}, headers=() if stated is None else ((b"content-type", stated),))

    assert request.status == 415
    assert "content" in problem_of(request)


@pytest.mark.parametrize(
    "stated",
    [b"application/json", b"Application/JSON; charset=UTF-8", b'application/json;charset="utf-8"'],
)
def test_json_in_utf_8_is_taken(stated):
    assert asked(CHAT, ASK, headers=((b"content-type", stated),)).problem is None
    assert asked(CHAT, ASK, headers=(*JSON, *JSON)).status == 415
    assert asked("/v1/audio/transcriptions", ASK).status == 415


def test_ollama_takes_json_under_any_label_as_the_most_restricted():
    labelled = ((b"content-type", b"application/x-www-form-urlencoded"),)

    request = asked("/api/chat", ASK, headers=labelled)

    assert (request.problem, request.facts["request.capability"]) == (None, "agentic")
    assert asked("/api/chat", ASK).facts["request.capability"] == "chat"


@pytest.mark.parametrize("endless", [-1, -2])
def test_an_endless_answer_of_ollama_has_no_cap(endless):
    request = asked("/api/chat", {**ASK, "options": {"num_predict": endless}, "max_tokens": 5})

    assert request.problem is None
    assert "output_tokens" not in request.estimate
    assert asked("/api/chat", {**ASK, "options": {"num_predict": -3}}).param


@pytest.mark.parametrize(
    "name",
    [
        "Model",
        "TOOLS",
        "N",
        "Max_Tokens",
        "generationconfig",
        "tool\u017f",
        "max_to\u212aens",
        "\u017fTREAM",
    ],
)
def test_a_setting_in_other_letters_is_refused(name):
    request = asked(CHAT, {**ASK, name: 1})

    assert (request.status, request.param) == (400, name)


@pytest.mark.parametrize(
    "name", [" large", "large ", "lar\0", "lar\u200bge", "large\n", "\u202elarge"]
)
def test_a_name_that_hosts_may_trim_is_none(name):
    assert asked(CHAT, {**ASK, "model": name}).param == "model"
    assert "request.model" not in asked(f"/v1beta/models/{name}:generateContent", {}).facts
    assert "request.model" not in asked(f"/openai/deployments/{name}/embeddings", {}).facts
    query = urlencode({"model": name}).encode()
    assert "request.model" not in asked("/v1/realtime", None, method="GET", query=query).facts


SHORT = "iVBORw0K"


@pytest.mark.parametrize(
    "block",
    [
        {"image_url": {"url": "https://pictures.test/cat"}},
        {"image_url": "https://pictures.test/cat"},
        {"fileData": {"fileUri": "gs://pictures/cat"}},
        {"b64_json": SHORT},
        {"source": {"media_type": "image/png", "data": SHORT}},
        {"type": "image_generation_call", "result": SHORT},
        {"input_reference": "data:image/png;base64," + SHORT},
        {"source": "data:image/png;base64," + SHORT},
    ],
)
def test_media_cost_what_media_do_however_short_they_are(block):
    plain = asked(CHAT, {"messages": [{"content": [{"text": "x"}]}]}).estimate["input_tokens"]
    tokens = asked(CHAT, {"messages": [{"content": [{"text": "x"}, block]}]}).estimate

    assert tokens["input_tokens"] - plain >= ReadingLimits().media_tokens


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"messages": [{"content": "x", "images": [BYTES]}]}),
        (
            CHAT,
            {"messages": [{"content": [{"image_url": {"url": "data:image/png;base64," + BYTES}}]}]},
        ),
        ("/v1/responses", {"input": [{"image_url": "data:image/png;base64," + BYTES}]}),
        ("/v1/responses", {"input": [{"type": "reasoning", "encrypted_content": BYTES}]}),
        ("/v1/responses", {"input": [{"type": "image_generation_call", "result": BYTES}]}),
        ("/v1/m:predict", {"instances": [{"image": {"bytesBase64Encoded": BYTES}}]}),
        (MESSAGES, {"messages": [{"content": [{"type": "redacted_thinking", "data": BYTES}]}]}),
        (MESSAGES, {"messages": [{"content": [{"thinking": "x", "signature": BYTES}]}]}),
        (GEMINI, {"contents": [{"parts": [{"thoughtSignature": BYTES}]}]}),
        ("/generate", {"text": "x", "image_data": BYTES}),
        ("/completion", {"prompt": "x", "image_data": [{"data": BYTES, "id": 1}]}),
        ("/completion", {"prompt": {"prompt_string": "x", "multimodal_data": [BYTES]}}),
        (CHAT, {"messages": [{"content": [{"mediaType": "image/png", "data": BYTES}]}]}),
        ("/generate", {"text": ["x"], "image_data": [[BYTES]]}),
        (CHAT, {"messages": [{"content": [{"type": "audio_embeds", "audio_embeds": BYTES}]}]}),
        (CHAT, {"messages": [{"content": [{"type": "input_audio", "input_audio": BYTES}]}]}),
        (CHAT, {"messages": [{"audio": {"id": "a", "data": BYTES, "transcript": "x"}}]}),
        (CHAT, {"messages": [{"reasoning_details": [sealed("reasoning.encrypted", BYTES)]}]}),
        (CHAT, {"messages": [{"provider_specific_fields": {"thought_signatures": [BYTES]}}]}),
        (CHAT, {"messages": [{"content": [{"document_url": PAGES}]}]}),
        (CHAT, {"messages": [{"content": [{"type": "image_base64", "image_base64": PAGES}]}]}),
        (MESSAGES, {"messages": [{"content": [{"citations": [{"encrypted_index": BYTES}]}]}]}),
        (MESSAGES, {"messages": [{"content": [{"content": {"encrypted_stdout": BYTES}}]}]}),
        ("/m/x/converse", {"messages": [{"content": [{"c": {"redactedContent": BYTES}}]}]}),
        ("/m/x/invoke", {"inputText": "x", "inputImage": BYTES}),
        ("/v1/audio/speech", {"input": "x", "speaker_wav": BYTES}),
        ("/swap", {"prompt": "x", "source_img": BYTES}),
        (CHAT, {"messages": [{"content": [{"type": "picture", "picture": BYTES}]}]}),
        (CHAT, {"messages": [{"content": [{"frames": [BYTES]}]}]}),
        ("/v1/audio/speech", {"input": "x", "ref_audio": "data:audio/wav;base64," + BYTES}),
        ("/v1/responses", {"prompt": {"id": "p", "variables": {"v": {"image_url": PAGES}}}}),
        (CHAT, {"messages": [{"content": [{"video_url": {"url": FRAMES}}]}]}),
        (GEMINI, {"contents": [{"parts": [{"inlineData": {"mimeType": "a/b", "data": LINES}}]}]}),
    ],
)
def test_bytes_count_as_media_and_never_as_text(path, body):
    tokens = asked(path, body).estimate["input_tokens"]

    assert len(BYTES) // 64 < tokens < len(LINES) // 64 + 4 * ReadingLimits().media_tokens


READ = [
    (GEMINI, {"contents": [{"functionCall": {"name": "f", "args": {"image": BYTES}}}]}),
    (GEMINI, {"contents": [{"functionResponse": {"name": "f", "response": {"images": [BYTES]}}}]}),
    (GEMINI, {"contents": [{"functionResponse": {"name": "f", "response": {"url": PAGES}}}]}),
    (GEMINI, {"contents": [{"inlineData": {"mimeType": "Text/plain", "data": BYTES}}]}),
    (GEMINI, {"contents": [{"inlineData": {"mimeType": "application/json", "data": TEXT}}]}),
    (MESSAGES, {"messages": [{"content": [{"type": "tool_use", "input": {"mask": BYTES}}]}]}),
    (MESSAGES, {"messages": [], "tools": [{"name": "f", "input_schema": {"signature": BYTES}}]}),
    (MESSAGES, {"messages": [{"source": {"type": "text", "media_type": "a/b", "data": BYTES}}]}),
    (MESSAGES, {"messages": [{"type": "search_result", "source": PAGES}]}),
    (MESSAGES, {"messages": [{"thinking": "x", "signature": BYTES[:2_048] + "and, so " * 50_000}]}),
    (
        CHAT,
        {"messages": [], "tools": [{"function": {"name": "f", "parameters": {"image": BYTES}}}]},
    ),
    (CHAT, {"messages": [{"image_url": {"url": "https://x/" + BYTES}}]}),
    (CHAT, {"messages": [{"image_url": {"url": PAGES[:2_048] + "and, so " * 50_000}}]}),
    (CHAT, {"messages": [{"file": {"filename": "a.md", "file_data": BYTES}}]}),
    (CHAT, {"messages": [{"file": {"file_data": TEXT}}]}),
    (CHAT, {"messages": [{"data": TEXT, "id": 1}]}),
    (CHAT, {"messages": [{"mediaType": "text/plain", "data": BYTES}]}),
    (CHAT, {"messages": [{"file": {"file_data": "data:;base64," + BYTES}}]}),
    ("/m/x/converse", {"messages": [{"toolResult": {"content": [{"json": {"image": BYTES}}]}}]}),
    ("/m/x/converse", {"messages": [{"document": {"format": "txt", "source": {"bytes": BYTES}}}]}),
    ("/v1/responses", {"prompt": {"id": "p", "variables": {"image": BYTES}}}),
]


@pytest.mark.parametrize(("path", "body"), READ)
def test_what_a_model_reads_word_for_word_is_text_whatever_it_is_called(path, body):
    short = json.loads(json.dumps(body).replace(BYTES, BYTES[:40_000]))

    assert asked(path, body).estimate["input_tokens"] > 90_000
    assert asked(path, short).estimate["input_tokens"] > 9_000


def test_a_source_that_an_answer_cited_is_text_and_no_picture():
    cited = {"type": "url_citation", "url": "https://example.com/a", "title": "A", "start_index": 0}

    request = asked("/v1/responses", {"input": [{"content": [{"annotations": [cited] * 50}]}]})

    assert request.estimate["input_tokens"] < 2_000


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"content": "data:image/png;base64," + BYTES}]},
        {"messages": [{"content": [{"type": "text", "text": BYTES}]}]},
        {"messages": [{"content": "x", "images": ["to be read, " * 40_000]}]},
        {"messages": [{"content": "x", "signature": "to be read, " * 40_000}]},
    ],
)
def test_text_counts_as_text_wherever_it_stands(body):
    assert asked(CHAT, body).estimate["input_tokens"] > 90_000


@pytest.mark.parametrize(
    "extra",
    [
        {"extra_body": {"google": {"cached_content": "cachedContents/c"}}},
        {"google": {"cachedContent": "cachedContents/c"}},
        {"vendor_settings": {"previous_response_id": "r", "assistant_id": "a"}},
    ],
)
def test_what_is_stored_makes_tools_unknown_wherever_it_is_referred_to(extra):
    request = asked(CHAT, {**ASK, **extra})

    assert "request.tools" not in request.facts
    assert request.facts["request.capability"] == "agentic"
    assert request.estimate["input_tokens"] > ReadingLimits().unseen_tokens


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": [{"content": [{"type": "input_file", "file_id": "f"}]}]}),
        (CHAT, {"messages": [{"content": [{"type": "file", "file": {"file_id": "f"}}]}]}),
        (MESSAGES, {"messages": [{"content": [{"source": {"type": "file", "file_id": "f"}}]}]}),
        ("/v1/responses", {"input": [{"type": "item_reference", "id": "m"}] * 9}),
    ],
)
def test_what_the_host_keeps_counts_as_input_wherever_it_is_referred_to(path, body):
    request = asked(path, body)

    assert 4_096 <= request.estimate["input_tokens"] < 4_196
    assert request.facts["request.tools"] == 0


def test_a_file_that_an_answer_cited_is_no_input():
    cited = {"type": "file_citation", "file_id": "f", "index": 1, "filename": "a.pdf"}

    request = asked("/v1/responses", {"input": [{"content": [{"annotations": [cited]}]}]})

    assert request.estimate["input_tokens"] < 100


@pytest.mark.parametrize(
    "extra", [{"thinking_budget": 4_000}, {"extra_body": {"reasoning_budget": -1}}]
)
def test_a_budget_for_thinking_asks_for_it(extra):
    assert asked(CHAT, {**ASK, **extra}).facts["request.reasoning"] is True
    none = dict.fromkeys(("thinking_budget", "reasoning_budget"), 0)
    assert asked(CHAT, {**ASK, **none}).facts["request.reasoning"] is False


@pytest.mark.parametrize("query", [b"model=large", b"x=1&model=m&model=large", b"mod%65l=large"])
def test_a_query_and_a_request_that_name_two_models_are_refused(query):
    assert "model" in problem_of(asked(CHAT, ASK, query=query))
    assert "request.model" not in asked("/own/cars", ASK, query=query).facts


@pytest.mark.parametrize(
    ("query", "model"),
    [
        (b"deployment=voice", "voice"),
        (b"api-version=1&deployment=voice&model=voice", "voice"),
        (b"deployment=voice&model=other", None),
        (b"deployment=a&deployment=b", None),
    ],
)
def test_a_session_has_the_model_of_its_deployment(query, model):
    opened = asked("/openai/realtime", None, method="GET", query=query)

    assert opened.facts.get("request.model") == model
    assert asked(CHAT, ASK, query=query.replace(b"model", b"x")).facts["request.model"] == "m"


def test_a_query_that_names_the_model_of_the_body_is_read():
    assert asked(CHAT, ASK, query=b"model=m").facts["request.model"] == "m"


@pytest.mark.parametrize(
    "path",
    [
        "/v1beta/models/vertex_ai%2Fgemini-pro:generateContent",
        "/v1beta/models/vertex;x/gemini-pro:generateContent",
        "/openai/deployments/large;v=1/chat/completions",
    ],
)
def test_a_name_that_hosts_decode_differently_is_none(path):
    found = endpoint_of(path)

    assert (found.model, found.unnamed) == (None, True)


@pytest.mark.parametrize("name", ALSO_MODELS)
def test_another_name_of_the_model_is_read_and_makes_it_unknown_where_it_differs(name):
    alone = {"messages": ASK["messages"], name: "large"}

    assert asked(CHAT, alone).facts["request.model"] == "large"
    assert asked(CHAT, {**ASK, name: "m"}).facts["request.model"] == "m"
    assert "request.model" not in asked(CHAT, {**ASK, name: "large"}).facts
    assert "request.model" not in asked(CHAT, {**ASK, "extra_body": {name: "large"}}).facts
    assert asked("/own/cars", {"model": "m", name: {"power": 5}}).facts["request.model"] == "m"


@pytest.mark.parametrize("name", ["lora_path", "lora_adapter", "adapter_id"])
def test_what_is_laid_over_a_model_makes_it_unknown(name):
    assert "request.model" not in asked(CHAT, {**ASK, name: "other"}).facts
    assert "request.model" not in asked("/generate", {"model": "m", name: ["a", None]}).facts
    assert asked(CHAT, {**ASK, name: None}).facts["request.model"] == "m"


@pytest.mark.parametrize("name", ["beam_width", "num_beams", "best_of", "num_generations"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {**ASK, "NAME": 4}),
        (CHAT, {**ASK, "extra_body": {"NAME": 4}}),
        ("/v1/completions", {"prompt": "x", "NAME": 4}),
        ("/generate", {"text": "x", "sampling_params": {"NAME": 4}}),
        ("/vertex_generate", {"instances": [{"text": "x"}], "parameters": {"NAME": 4}}),
        ("/api/generate", {"model": "m", "prompt": "x", "options": {"NAME": 4}}),
        ("/v1/batches", {"requests": [{"body": {**ASK, "NAME": 4}}]}),
    ],
)
def test_beams_and_candidates_multiply_what_is_asked_for(path, body, name):
    named = json.loads(json.dumps(body).replace("NAME", name))

    assert asked(path, named).estimate["requests"] == 4


@pytest.mark.parametrize(
    "extra",
    [
        {"chat_template_kwargs": {"reasoning_effort": "high"}},
        {"chat_template_kwargs": {"thinking_budget": 100}},
        {"additionalModelRequestFields": {"reasoning_config": {"type": "enabled"}}},
        {"reasoningConfig": {"type": "enabled"}},
    ],
)
def test_reasoning_is_seen_where_templates_and_vendors_ask_for_it(extra):
    assert asked(CHAT, {**ASK, **extra}).facts["request.reasoning"] is True


@pytest.mark.parametrize("name", OTHER_MODELS)
def test_where_another_model_may_answer_the_one_that_is_named_is_not_certain(name):
    body = json.dumps({"model": "small", "messages": [], name: ["large"]}).encode()

    assert "request.model" not in asked("/v1/chat/completions", body).facts


ROUTED = {"routingConfig": {"manualMode": {"modelName": "large"}}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (GEMINI, {"contents": [], "generationConfig": ROUTED}),
        (GEMINI, {"contents": [], "generation_config": {"routing_config": ROUTED}}),
        (GEMINI, {"contents": [], "generationConfig": {"modelSelectionConfig": {"x": "y"}}}),
        ("/openai/deployments/small/chat/completions", {"messages": [], "fallbacks": ["large"]}),
        ("/v1/models/small/versions/1:predict", {"instances": [], "models": ["large"]}),
        (CHAT, {**ASK, "compound_custom": {"models": {"answering_model": "large"}}}),
    ],
)
def test_nor_is_the_one_that_a_path_names_or_that_is_routed_to_others(path, body):
    request = asked(path, body)

    assert request.problem is None
    assert "request.model" not in request.facts


def test_another_model_that_may_answer_is_not_taken_back_further_in():
    fallback = {**ASK, "fallbacks": ["other"], "extra_body": {"fallbacks": [], "lora": None}}

    assert "request.model" not in asked(CHAT, fallback).facts


@pytest.mark.parametrize("model", ["small,large", "@preset/mine", "small@preset/mine"])
def test_what_may_stand_for_other_models_is_no_name(model):
    assert "request.model" not in asked(CHAT, {**ASK, "model": model}).facts


def test_what_goes_on_with_a_conversation_is_no_free_request():
    asked_for = [
        asked("/v1/conversations", {"agent_id": "a", "inputs": "hi"}),
        asked("/v1/conversations/c", {"inputs": "hi"}),
        asked("/v1/conversations/c/restart", {"inputs": "hi", "from_entry_id": "e"}),
    ]
    for request in asked_for:
        assert request.estimate["input_tokens"] > 4_096
        assert request.facts["request.capability"] == "agentic"
        assert "request.tools" not in request.facts
    kept = asked("/v1/conversations/c", {"metadata": {"a": "b"}})
    assert (kept.estimate["input_tokens"], kept.facts["request.capability"]) == (0, "other")

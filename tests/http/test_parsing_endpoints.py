"""Which endpoint, dialect, model and capability a request has, vendor by vendor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.http.parsing import Dialect, ParsedRequest, UsageFormat, header_only
from guardrail.http.parsing.endpoints import DOCUMENTED, ENDPOINTS, PLAIN_NAME, endpoint_of, is_name
from tests.http.requests import asked, form

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
UNNAMED = {"messages": [{"role": "user", "content": "hi"}]}
GEMINI = {"contents": [{"parts": [{"text": "hi"}]}]}

# Path, body, dialect, capability, model, usage format.
TABLE = [
    ("/v1/chat/completions", CHAT, "openai", "chat", "m", "openai chat"),
    ("/v1/completions", {"model": "m", "prompt": "x"}, "openai", "chat", "m", "openai completions"),
    (
        "/v1/completions",
        {"model": "m", "prompt": "def f(", "suffix": ")"},
        "openai",
        "code",
        "m",
        "openai completions",
    ),
    ("/v1/responses", {"model": "m", "input": "x"}, "openai", "chat", "m", "openai responses"),
    (
        "/v1/embeddings",
        {"model": "m", "input": ["x"]},
        "openai",
        "embedding",
        "m",
        "openai embeddings",
    ),
    (
        "/v1/images/generations",
        {"model": "m", "prompt": "x"},
        "openai",
        "image",
        "m",
        "openai media",
    ),
    ("/v1/audio/speech", {"model": "m", "input": "x"}, "openai", "audio", "m", "openai media"),
    ("/v1/batches", {"input_file_id": "f"}, "openai", "batch", None, "none"),
    ("/v1/threads/runs", {"assistant_id": "a"}, "openai", "agentic", None, "openai chat"),
    ("/v1/messages", CHAT, "anthropic", "chat", "m", "anthropic"),
    ("/v1/messages/count_tokens", CHAT, "anthropic", "other", "m", "none"),
    (
        "/v1/messages/batches",
        {"requests": [{"custom_id": "1", "params": CHAT}]},
        "anthropic",
        "batch",
        "m",
        "none",
    ),
    ("/v1beta/models/g-1:generateContent", GEMINI, "gemini", "chat", "g-1", "gemini"),
    ("/v1beta/models/g-1:streamGenerateContent", GEMINI, "gemini", "chat", "g-1", "gemini"),
    (
        "/v1/projects/p/locations/l/publishers/google/models/g-1:generateContent",
        GEMINI,
        "gemini",
        "chat",
        "g-1",
        "gemini",
    ),
    ("/v1beta/models/g-1:embedContent", {"content": {}}, "gemini", "embedding", "g-1", "gemini"),
    ("/v1/publishers/anthropic/models/c-1:rawPredict", UNNAMED, "anthropic", "chat", "c-1", "anth"),
    ("/openai/deployments/d-1/chat/completions", UNNAMED, "openai", "chat", "d-1", "openai chat"),
    ("/model/us.a-v1:0/converse", UNNAMED, "other", "chat", "us.a-v1:0", "openai chat"),
    ("/bedrock/model/arn:a/b/invoke", UNNAMED, "other", "chat", "arn:a/b", "native"),
    ("/model/a/model/b/converse", UNNAMED, "other", "chat", None, "openai chat"),
    ("/cohere/v2/chat", CHAT, "other", "chat", "m", "openai chat"),
    ("/v2/embed", {"model": "m", "texts": ["x"]}, "other", "embedding", "m", "openai embeddings"),
    ("/v1beta/interactions", {"model": "m", "input": "x"}, "gemini", "chat", "m", "gemini"),
    ("/v1/batch/jobs", {"input_files": ["f"], "model": "m"}, "openai", "batch", None, "none"),
    ("/openai/deployments/d-1/extensions/chat/completions", UNNAMED, "openai", "chat", None, ""),
    ("/generate", {"text": "x", "sampling_params": {}}, "openai", "chat", None, "native"),
    ("/inference/v1/generate", {"token_ids": [1, 2]}, "openai", "chat", None, "native"),
    ("/invocations", CHAT, "openai", "chat", "m", "openai chat"),
    ("/api/chat", CHAT, "other", "chat", "m", "native"),
    ("/models/m/v1/chat/completions", CHAT, "openai", "chat", "m", "openai chat"),
    ("/models/n/v1/chat/completions", CHAT, "openai", "chat", None, "openai chat"),
    (
        "/v1/models/org/n/v1/embeddings",
        {"model": "n", "input": "x"},
        "openai",
        "embedding",
        None,
        "openai",
    ),
    ("/models/chat/completions", CHAT, "openai", "chat", "m", "openai chat"),
    ("/serving-endpoints/n/invocations", CHAT, "openai", "chat", None, "openai chat"),
    ("/serving-endpoints/m/invocations", CHAT, "openai", "chat", "m", "openai chat"),
    ("/endpoints/n/invocations", CHAT, "openai", "chat", None, "openai chat"),
    ("/serving-endpoints/chat/completions", CHAT, "openai", "chat", "m", "openai chat"),
    ("/v1/p/endpoints/openapi/chat/completions", CHAT, "openai", "chat", "m", "openai chat"),
    ("/unheard/of", CHAT, "other", "chat", "m", "openai chat"),
    ("/unheard/of", {"x": 1}, "other", "other", None, "none"),
]


@pytest.mark.parametrize(("path", "body", "dialect", "capability", "model", "usage"), TABLE)
def test_a_request_is_told_by_its_path_and_body(path, body, dialect, capability, model, usage):
    request = asked(path, body)

    assert request.problem is None
    assert request.dialect is Dialect(dialect)
    assert request.facts["request.capability"] == capability
    assert request.facts.get("request.model") == model
    assert request.usage_format.value.startswith(usage)
    assert request.estimate["requests"] == 1


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/",
        "//v1//chat/completions",
        "/V1/Chat/COMPLETIONS",
        "/v1/./chat/completions",
        "/mounted/here/v1/chat/completions",
        "/chat/completions",
    ],
)
def test_spelling_and_mounting_a_path_differently_changes_nothing(path):
    assert endpoint_of(path) == endpoint_of("/v1/chat/completions")


def test_every_name_leads_to_its_own_endpoint_by_any_way():
    for endpoint in ENDPOINTS.values():
        assert endpoint_of(endpoint.name) == endpoint
        assert endpoint_of(endpoint.name + "/") == endpoint


@pytest.mark.parametrize(
    "path", ["/models/generate", "/responses/completions", "/v1/batches/score"]
)
def test_what_may_generate_goes_before_what_may_be_an_id(path):
    assert endpoint_of(path).kind.value in {"generate", "embed"}


def test_ids_on_unknown_paths_do_not_multiply_names():
    assert endpoint_of("/v1/evals/eval_67abd5/runs").name == "/v1/evals/*/runs"
    assert len(endpoint_of("/x" * 5_000).name) == 128


def test_a_realtime_connection_names_its_model_in_the_query():
    def opened(query):
        return asked("/v1/realtime", None, method="GET", query=query).facts

    assert opened(b"model=r-1&x=2")["request.model"] == "r-1"
    assert opened(b"model=r-1")["request.capability"] == "audio"
    assert "request.model" not in opened(b"model=a&model=b")


def by_head(path: str, *headers: tuple[bytes, bytes]) -> ParsedRequest:
    return header_only(endpoint_of(path), path, headers)


@pytest.mark.parametrize(
    ("header", "dialect"),
    [(b"anthropic-version", Dialect.ANTHROPIC), (b"X-Goog-Api-Key", Dialect.GEMINI)],
)
def test_headers_tell_the_dialect_where_the_path_does_not(header, dialect):
    assert asked("/unheard/of", CHAT, headers=((header, b"1"),)).dialect is dialect
    assert by_head("/v1/models", (header, b"1")).dialect is dialect
    assert by_head("/v1/embeddings", (header, b"1")).dialect is Dialect.OPENAI


def test_headers_alone_tell_endpoint_and_model_in_the_path():
    known = by_head("/v1beta/models/g-1:generateContent")

    assert known.facts == {
        "request.endpoint": "/v1/models:generateContent",
        "request.model": "g-1",
    }
    assert known.usage_format is UsageFormat.GEMINI


def test_the_fields_of_a_form_are_read():
    headers, body = form(
        ("model", "whisper-1"), ("file", b"\x00\r\n--xy\r\n" * 99), ("stream", "true"), ("n", "3")
    )

    request = asked("/v1/audio/transcriptions", body, headers=headers)

    assert request.facts["request.model"] == "whisper-1"
    assert request.facts["request.capability"] == "audio"
    assert request.streams
    assert request.estimate["requests"] == 3
    assert request.estimate["input_tokens"] > 1_600


@pytest.mark.parametrize(
    "body",
    [
        form(("model", "a"), ("model", "b"))[1],
        form(("model", "a"))[1][:-6],
        b"",
        b"--xyz\r\nno header\r\n--xyz--\r\n",
        form(("x", "1"))[1].replace(b"name=", b"nam="),
        form(("x", "1"))[1].replace(b'name="x"', b'name="x"; name="y"'),
        form(*[("x[]", "1")] * 1_001)[1],
        form(("n", "1.5"))[1],
    ],
)
def test_an_ambiguous_form_is_a_problem(body):
    headers = ((b"content-type", b"multipart/form-data; boundary=xyz"),)

    assert asked("/v1/images/edits", body, headers=headers).problem


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
def test_a_request_without_a_body_is_one_request_and_no_tokens(method):
    for path in ("/v1/models", "/v1/responses/resp_1", "/unheard/of", "/v1/chat/completions"):
        request = asked(path, None, method=method)
        assert request.problem is None
        assert request.estimate == {"requests": 1, "input_tokens": 0, "output_tokens": 0}
        assert request.facts["request.capability"] == "other"


def test_a_request_without_a_body_is_known_to_hold_no_tools_but_on_unknown_paths():
    nothing = {"request.tools": 0, "request.stream": False, "request.reasoning": False}

    for path in ("/v1/models", "/v1/responses/resp_1", "/v1/realtime"):
        assert nothing.items() <= asked(path, None, method="GET").facts.items()
    assert nothing.keys().isdisjoint(asked("/ws/agent", None, method="GET").facts)


def test_a_body_is_read_whatever_the_method():
    request = asked("/v1/chat/completions", CHAT, method="GET")

    assert request.facts["request.capability"] == "chat"
    assert "output_tokens" not in request.estimate


def test_what_looks_after_stored_things_is_free_unless_it_makes_a_model_speak():
    free = {"requests": 1, "input_tokens": 0, "output_tokens": 0}

    assert asked("/v1/threads", {"messages": []}).estimate == free
    assert asked("/v1/responses/r_1/cancel", b"").estimate == free
    spoken = asked("/v1/threads/t_1/messages", CHAT)
    assert spoken.estimate["input_tokens"] > 0
    assert "output_tokens" not in spoken.estimate
    assert spoken.facts["request.capability"] == "chat"


def test_a_classifier_of_the_host_goes_first():
    mine = asked("/v1/embeddings", {"input": "x"})

    assert asked("/x", b"y", classifiers=[lambda parts: None, lambda parts: mine]) is mine
    parts: list = []
    assert asked("/x", b"y", classifiers=[parts.append]).problem
    assert (parts[0].path, parts[0].body, parts[0].headers[0][0]) == ("/x", b"y", b"content-type")


def test_what_was_asked_does_not_show_in_its_repr():
    shown = repr(asked("/v1/chat/completions", {**CHAT, "user": "secret-words"}))

    assert "secret-words" not in shown
    assert "hi" not in shown.replace("/chat/", "")


@given(st.from_regex(PLAIN_NAME, fullmatch=True))
def test_what_is_plainly_a_name_is_one(name):
    assert is_name(name)


def test_a_documented_path_leads_where_it_would_be_found():
    assert DOCUMENTED
    for path, endpoint in DOCUMENTED.items():
        found = endpoint_of(f"/{path}/") if "*" not in path else endpoint_of(path)
        assert found == endpoint

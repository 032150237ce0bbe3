"""A degrade is carried out wherever a model, a cap or a tool stands, or the request is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from guardrail.http.parsing import (
    ReadingLimits,
    RequestParts,
    RewriteError,
    rewritten,
    rewritten_path,
)
from guardrail.http.parsing.endpoints import ENDPOINTS, Kind, endpoint_of
from guardrail.http.parsing.values import FREE
from tests.http.driving import Guarded
from tests.http.requests import asked, form

TOOL = {"type": "function", "name": "f", "function": {"name": "f"}}
GEMINI_TOOLS = [{"functionDeclarations": [{"name": "f"}]}]
ALL = {
    "tools": [TOOL],
    "tool_choice": "auto",
    "reasoning_effort": "high",
    "reasoning": {"effort": "high", "max_tokens": 900},
    "thinking": {"type": "enabled", "budget_tokens": 2_000},
    "stream": True,
    "n": 2,
}
CHAT = {"model": "large", "messages": [{"role": "user", "content": "hi"}], **ALL}
UNNAMED = {name: value for name, value in CHAT.items() if name != "model"}
SESSION = {"type": "realtime", "model": "large", "tools": [TOOL], "max_output_tokens": "inf"}
GENERATE = {
    "contents": [{"parts": [{"text": "hi"}]}],
    "tools": GEMINI_TOOLS,
    "generationConfig": {
        "maxOutputTokens": 900,
        "thinkingConfig": {"thinkingBudget": 500},
        "candidateCount": 2,
    },
}
SNAKE = {
    "contents": [{"parts": [{"text": "hi"}]}],
    "tools": [{"function_declarations": [{"name": "f"}]}],
    "tool_config": {"x": 1},
    "generation_config": {"max_output_tokens": 900, "thinking_config": {"thinking_budget": 5}},
}
NATIVE = {"model": "large", "text": "hi", "prompt": "hi", "stream": True}
RESPONSES = {"model": "large", "input": "hi", "max_output_tokens": 900, **ALL}
BODIES: dict[str, list[dict]] = {
    "/v1/chat/completions": [
        CHAT,
        {**CHAT, "max_tokens": 900, "min_tokens": 80},
        {**CHAT, "extra_body": {**ALL, "max_tokens": 900, "model": "large"}},
        {**CHAT, "extra_body": {"extra_body": {"tools": [TOOL], "model": "large"}}},
        {**CHAT, "models": ["large", "huge"], "fallbacks": ["huge"]},
        {**CHAT, "web_search_options": {}, "functions": [{"name": "f"}]},
        {**CHAT, "compound_custom": {"models": {"answering_model": "huge"}, "tools": {"x": [1]}}},
        {**CHAT, "multi_agent": {"enabled": True}},
        {**CHAT, "chat_template_kwargs": {"enable_thinking": True, "thinking": True}},
        {**CHAT, "provider": {"order": [{"tools": [TOOL], "max_tokens": 9_000}]}},
    ],
    "/v1/completions": [{"model": "large", "prompt": "hi", "max_tokens": 900, "stream": True}],
    "/v1/responses": [
        RESPONSES,
        {**RESPONSES, "input": [{"type": "additional_tools", "tools": [TOOL]}]},
        {**RESPONSES, "prompt": {"id": "p"}},
    ],
    "/v1/messages": [
        {**CHAT, "max_tokens": 9_000, "mcp_servers": [{"url": "u"}], "n": None},
        {**CHAT, "max_tokens": 9_000, "container": {"skills": [{"id": "s"}]}},
        {**CHAT, "max_tokens": 9_000, "output_config": {"effort": "high"}},
    ],
    "/v1/threads/runs": [
        {"assistant_id": "a", "model": "large", "tools": [TOOL], "max_completion_tokens": 900}
    ],
    "/generate": [
        {**NATIVE, "sampling_params": {"max_new_tokens": 900, "n": 2}},
        {**NATIVE, "sampling_params": [{"max_new_tokens": 900}, {"min_new_tokens": 70}]},
    ],
    "/api/chat": [
        {**CHAT, "think": True, "options": {"num_predict": 900}},
        {"model": "large", "messages": [], "options": {"num_predict": -1}},
        {"model": "large", "messages": []},
    ],
    "/v1/embeddings": [{"model": "large", "input": ["hi", "ho"]}],
    "/v1/moderations": [{"model": "large", "input": "hi"}, {"input": "hi"}],
    "/v1/images/generations": [{"model": "large", "prompt": "hi", "n": 2, "stream": True}],
    "/v1/realtime/client_secrets": [
        {"session": SESSION},
        {"session": {**SESSION, "prompt": {"id": "p"}, "reasoning": {"effort": "low"}}},
        {"session": {"type": "transcription", "model": "large"}},
        {"session": {"type": "realtime"}},
    ],
    "/v1/realtime/sessions": [
        {"model": "large", "tools": [TOOL], "max_response_output_tokens": "inf"},
        {"model": "large"},
    ],
    "/v1/realtime/transcription_sessions": [{"input_audio_transcription": {"model": "large"}}],
    "/v1/messages/batches": [
        {"requests": [{"custom_id": "a", "params": {**CHAT, "max_tokens": 900, "n": None}}] * 2},
    ],
    "/v1/batches": [{"input_file_id": "f", "endpoint": "/v1/chat/completions"}],
}
METHODS: dict[str, list[dict]] = {
    "/v1beta/models/large:generateContent": [GENERATE, SNAKE, {**GENERATE, "cachedContent": "c"}],
    "/v1beta/models/large:streamGenerateContent": [GENERATE, SNAKE],
    "/v1beta/models/large:embedContent": [{"content": {}, "model": "models/large"}],
    "/v1beta/models/large:batchEmbedContents": [
        {"requests": [{"content": {}, "model": "models/large"}]}
    ],
    "/v1beta/models/large:batchGenerateContent": [
        {"batch": {"input_config": {"requests": {"requests": [{"request": GENERATE}]}}}},
        {"batch": {"input_config": {"file_name": "f"}}},
    ],
    "/v1beta/models/large:predict": [{"instances": [{"prompt": "hi"}]}],
    "/v1/projects/p/locations/l/publishers/anthropic/models/large:streamRawPredict": [
        {"messages": [], "max_tokens": 900, "stream": True, "tools": [TOOL]}
    ],
    "/openai/deployments/large/chat/completions": [CHAT, UNNAMED],
    "/openai/deployments/chat/chat/completions": [CHAT, UNNAMED],
    "/somewhere/else": [CHAT, {"x": 1}],
}
OTHERS: list[dict] = [CHAT, RESPONSES, {"model": "large", "max_tokens": 900}, {"x": 1}]
OBLIGATIONS: dict[str, dict[str, object]] = {
    "model": {"model": "small"},
    "max_output_tokens": {"max_output_tokens": 64},
    "tools": {"disable": ["tools"]},
    "reasoning": {"disable": ["reasoning"]},
    "stream": {"disable": ["stream"]},
}
CAPS = frozenset(
    "max_tokens max_completion_tokens max_output_tokens maxOutputTokens max_new_tokens num_predict "
    "max_tokens_to_sample max_response_output_tokens min_tokens min_new_tokens".split()
)
THINKS = frozenset(
    "reasoning_effort reasoning thinking think thinkingConfig thinking_config enable_thinking "
    "effort".split()
)
TOOLISH = frozenset("tools functions mcp_servers web_search_options skills".split())
STORED = frozenset({"assistant_id", "cachedContent", "prompt"})


def table() -> Iterator[tuple[str, dict]]:
    """Yield every known endpoint with all that is sent to it."""
    for parts, endpoint in ENDPOINTS.items():
        path = "/v1/" + "/".join("x1" if part == "*" else part for part in parts)
        path = path if endpoint.name.startswith("/v1/") else path.removeprefix("/v1")
        for body in [*BODIES.get(endpoint.name, []), *OTHERS]:
            yield path, body
    for path, bodies in METHODS.items():
        for body in bodies:
            yield path, body


def served(path: str, body: dict, obligation: str) -> tuple[str, dict] | None:
    """Return the path and the body that the host gets, None if the request is refused."""
    request = asked(path, body)
    if request.problem is not None:
        return None
    try:
        text = rewritten(request, OBLIGATIONS[obligation])
        after = rewritten_path(request, OBLIGATIONS[obligation])
    except RewriteError:
        return None
    return after or path, body if text is None else json.loads(text)


def body_served(path: str, body: dict, obligation: str) -> dict:
    """Return the body that the host gets."""
    after = served(path, body, obligation)
    assert after is not None
    return after[1]


def members(value, where="") -> Iterator[tuple[str, str, object]]:
    """Yield all that a body says, however deep, with the name of what it stands in."""
    if isinstance(value, list):
        for one in value:
            yield from members(one, where)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield where, name, inner
            yield from members(inner, name)


def obeys(path, body, obligation) -> bool:
    """Whether a request keeps an obligation, told without any code of ours."""
    every = list(members(body))
    names = {name for _, name, _ in every}
    if obligation == "model":
        path_model = path.rpartition("/")[2].partition(":")[0] if ":" in path else None
        if "/deployments/" in path:
            path_model = path.split("/deployments/")[1].split("/")[0]
        models = {v for where, name, v in every if name == "model" and where != "transcription"}
        models |= {path_model} - {None}
        return models <= {"small", "models/small"} and bool(models) and "fallbacks" not in names
    if obligation == "max_output_tokens":
        return all(
            isinstance(value, int) and 0 <= value <= 64 for _, name, value in every if name in CAPS
        )
    if obligation == "tools":
        stored = any(
            name in STORED and (name != "prompt" or isinstance(value, dict))
            for _, name, value in every
        )
        return not stored and not any(value for _, name, value in every if name in TOOLISH)
    if obligation == "reasoning":
        return not any(name in THINKS for name in names)
    return not any(value for _, name, value in every if name == "stream") and ":stream" not in path


@pytest.mark.parametrize("obligation", OBLIGATIONS)
def test_what_is_passed_on_keeps_its_obligation_by_two_readings(obligation):
    carried = set()
    for path, body in table():
        request = asked(path, body)
        after = served(path, body, obligation)
        endpoint = endpoint_of(path)
        if after is None:
            continue
        if dict(request.estimate) == dict(FREE):
            assert endpoint.kind in (Kind.CONTROL, Kind.COUNT, Kind.UPLOAD), (path, body)
            continue
        assert obeys(*after, obligation), (path, body, after)
        read = asked(*after)
        assert read.problem is None, (path, after)
        facts, capless = read.facts, endpoint.name.startswith("/v1/realtime")
        speechless = endpoint.usage.value == "openai media" or endpoint.capability == "image"
        if obligation == "model":
            assert facts["request.model"] == "small", (path, after)
        elif obligation == "max_output_tokens":
            uncapped = 1 << 60 if not (capless or speechless) else 0
            output = read.estimate.get("output_tokens", uncapped)
            assert output <= 64 * read.estimate["requests"], (path, after)
        else:
            assert not facts[f"request.{obligation}"], (path, after)
        carried.add(endpoint.name)
    assert {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/generate",
        "/api/chat",
        "/v1/embeddings",
        "/v1/realtime/client_secrets",
        "/v1/realtime/sessions",
        "/v1/messages/batches",
        "/v1/models:generateContent",
        "/v1/models:streamGenerateContent",
        "/v1/models:batchGenerateContent",
    } <= carried
    assert "/v1/batches" not in carried


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", {**CHAT, "extra_body": {**ALL, "model": "large"}}),
        ("/v1/messages", BODIES["/v1/messages"][0]),
        ("/v1/responses", RESPONSES),
        ("/v1/realtime/client_secrets", {"session": SESSION}),
        ("/v1beta/models/large:streamGenerateContent", GENERATE),
        ("/v1beta/models/large:generateContent", SNAKE),
        ("/openai/deployments/chat/chat/completions", UNNAMED),
        ("/api/chat", BODIES["/api/chat"][0]),
    ],
)
@pytest.mark.parametrize("obligation", OBLIGATIONS)
def test_what_can_be_degraded_is_not_refused(path, body, obligation):
    assert served(path, body, obligation) is not None


def test_a_session_is_degraded_before_it_is_opened():
    path, body = "/v1/realtime/client_secrets", {"session": SESSION, "expires_after": {"x": 1}}

    assert body_served(path, body, "model")["session"] == {**SESSION, "model": "small"}
    capped = body_served(path, body, "max_output_tokens")
    assert capped == {**body, "session": {**SESSION, "max_output_tokens": 64}}
    beta = body_served("/v1/realtime/sessions", {"model": "large"}, "max_output_tokens")
    assert beta == {"model": "large", "max_response_output_tokens": 64}
    assert "tools" not in body_served(path, body, "tools")["session"]


@pytest.mark.parametrize(
    ("path", "query", "body"),
    [
        ("/v1/realtime/client_secrets", b"", {"session": {"prompt": {"id": "p"}}}),
        ("/v1/realtime/calls", b"model=large", {"session": {}}),
        ("/v1/realtime/client_secrets", b"", {"session": {"type": "transcription"}}),
    ],
)
def test_a_session_that_cannot_be_degraded_is_refused(path, query, body):
    request = asked(path, body, query=query)
    every = {"model": "small", "max_output_tokens": 64, "disable": ["tools"]}

    with pytest.raises(RewriteError):
        rewritten(request, every, None if not query else request_parts(path, query, body))


def request_parts(path, query, body):
    headers = ((b"content-type", b"application/json"),)
    text = json.dumps(body).encode()
    return RequestParts("POST", path, query, headers, text, b"", ReadingLimits())


@pytest.mark.parametrize("obligation", OBLIGATIONS)
@pytest.mark.parametrize("kind", ["multipart", "urlencoded", "sdp"])
@pytest.mark.parametrize("path", ["/v1/realtime/calls", "/v1/chat/completions", "/generate"])
def test_what_is_no_json_and_makes_a_model_speak_is_refused(path, kind, obligation):
    if kind == "multipart":
        headers, body = form(("sdp", "v=0"), ("session", json.dumps(SESSION)), ("text", "hi"))
    else:
        sdp = kind == "sdp"
        body = b"v=0\r\n" if sdp else b"model=large&text=hi&max_tokens=900"
        mime = b"application/sdp" if sdp else b"application/x-www-form-urlencoded"
        headers = ((b"content-type", mime),)
    request = asked(path, body, headers=headers)

    with pytest.raises(RewriteError):
        rewritten(request, OBLIGATIONS[obligation])


def test_the_model_of_a_path_is_changed_where_it_stands_and_nowhere_else():
    def path(before, model="small"):
        return rewritten_path(asked(before, UNNAMED), {"model": model})

    assert path("/openai/deployments/chat/chat/completions") == (
        "/openai/deployments/small/chat/completions"
    )
    assert path("/v1beta/models/models:generateContent") == "/v1beta/models/small:generateContent"
    with pytest.raises(RewriteError):
        path("/openai/deployments/large/chat/completions", ".")


WEAKER = """
guardrail: 1
policy: weaker
models: {huge: {weaker: large}, large: {weaker: small}, small: {}}
rules:
  - {id: less, when: always, degrade: {model: small}}
"""
PLAIN = {"model": "large", "messages": []}


def lines(*models):
    """Return a file of requests for models, as a form."""
    asking = [{"body": {"model": model, "messages": []}} for model in models]
    text = "\n".join(json.dumps({"url": "/v1/chat/completions", **one}) for one in asking)
    return form(("purpose", "batch"), ("file", text.encode()))


def batch(*models):
    return {"requests": [{"params": {"model": model, "messages": []}} for model in models]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {**PLAIN, "models": ["small"]}),
        ("/v1/chat/completions", {**PLAIN, "fallbacks": ["huge"]}),
        ("/v1/chat/completions", {**PLAIN, "model": "large,huge"}),
        ("/v1/chat/completions", {**PLAIN, "model": "@preset/mine"}),
        ("/v1/chat/completions", {**PLAIN, "engine": "huge"}),
        ("/v1/chat/completions", {**PLAIN, "extra_body": {"lora_path": "x"}}),
        ("/v1/chat/completions", {"models": ["huge"], "messages": []}),
        ("/engines/large/deployments/huge/chat/completions", {"messages": []}),
        ("/v1/messages/batches", batch("large", "huge")),
    ],
)
def test_who_leaves_open_which_model_answers_is_not_served_the_one_that_is_taken_away(path, body):
    guarded = Guarded(WEAKER)

    refused = guarded.ask(json.dumps(body).encode(), path=path)
    assert (refused.status, guarded.host.bodies) == (403, [])
    assert b"which model would answer cannot be told" in refused.body
    shadow = Guarded(WEAKER.replace("when: always,", "when: always, mode: shadow,"))
    assert shadow.ask(json.dumps(body).encode(), path=path).status == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": []}),
        ("/v1/chat/completions", {"messages": [{"content": "x", "model": "huge"}]}),
        ("/v1/messages/batches", batch("large", "large")),
        ("/ask", {"question": "?"}),
    ],
)
def test_who_names_no_model_or_one_is_served(path, body):
    assert Guarded(WEAKER).ask(json.dumps(body).encode(), path=path).status == 200


@pytest.mark.parametrize(
    ("models", "status"), [(("large", "huge"), 403), (("small", "small"), 200)]
)
def test_a_file_of_requests_for_several_models_is_refused_where_a_weaker_one_is_obliged(
    models, status
):
    headers, body = lines(*models)

    assert Guarded(WEAKER).ask(body, path="/v1/files", headers=headers).status == status


def test_what_makes_no_model_work_may_leave_open_which_one_would_answer():
    headers, body = form(("purpose", "user_data"), ("file", b"for no model"))
    assert Guarded(WEAKER).ask(body, path="/v1/files", headers=headers).status == 200
    count = json.dumps({"input": {"converse": {"messages": []}}}).encode()
    assert Guarded(WEAKER).ask(count, path="/model/large;a=b/count-tokens").status == 200
    assert Guarded(WEAKER).ask(count, path="/model/large;a=b/converse").status == 403

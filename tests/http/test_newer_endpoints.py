"""What newer and native APIs of vendors and servers ask for, and what they tell of their use."""

from __future__ import annotations

import base64
import json
from random import Random

import pytest

from tests.http.driving import JSON, SSE, Guarded, Host
from tests.http.requests import asked

POLICY = """
guardrail: 1
policy: newer
models: {small: {max_output: 4096}}
rules:
  - {id: in, when: always, budget: {input_tokens: 100M, per: day, key: account.id}}
  - {id: out, when: always, budget: {output_tokens: 100M, per: day, key: account.id}}
"""
CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]
CALL = {"type": "realtime", "model": "m", "tools": [{"type": "function", "name": "f"}]}
VERTEX = "/v1/projects/p/locations/l/publishers/anthropic/models"
PROMPT = "/model/arn:aws:bedrock:us-east-1:1:prompt/P1:1/converse"
AGENT = "/agents/A/agentAliases/B/sessions/S/text"
SPEAKS = "/model/sonic/invoke-with-bidirectional-stream"


@pytest.mark.parametrize(
    ("path", "body", "capability", "model", "requests"),
    [
        ("/v1/videos/edits", {"prompt": "x", "model": "m"}, "image", "m", 1),
        ("/v1/videos/extensions", {"prompt": "x"}, "image", None, 1),
        ("/openai/v1/video/generations/jobs", {"model": "m", "n_variants": 4}, "image", "m", 4),
        ("/v1/realtime/calls/c/accept", CALL, "agentic", "m", 1),
        (
            "/v1/ocr",
            {"model": "m", "document": {"document_url": "https://x/y.pdf"}},
            "chat",
            "m",
            1,
        ),
        ("/v1/agents/completions", {"agent_id": "a", "messages": HI}, "agentic", None, 1),
        ("/v1/moderations", {"model": "m", "input": "x"}, "other", "m", 1),
        ("/v1/chat/moderations", {"model": "m", "input": [HI]}, "other", "m", 1),
        ("/v1/chat/classifications", {"model": "m", "input": [HI]}, "embedding", "m", 1),
        ("/completion", {"prompt": "x", "n_predict": 5, "n_cmpl": 4}, "chat", None, 4),
        ("/infill", {"input_prefix": "a", "input_suffix": "b"}, "code", None, 1),
        ("/embedding", {"content": "x"}, "embedding", None, 1),
        ("/embed", {"inputs": ["a"] * 50}, "embedding", None, 1),
        ("/generate_stream", {"inputs": "x"}, "chat", None, 1),
        ("/v2/models/m/generate", {"text_input": "x"}, "chat", "m", 1),
        ("/v2/models/m/versions/3/generate_stream", {"text_input": "x"}, "chat", "m", 1),
        ("/v2/models/m/infer", {"inputs": [{"name": "t", "data": ["x"]}]}, "agentic", "m", 1),
        ("/v2/models/a/b/generate", {"text_input": "x"}, "chat", None, 1),
        ("/invocations", {"inputs": ["a", "b", "c"]}, "chat", None, 3),
        ("/invocations", {"dataframe_records": [{"p": "a"}, {"p": "b"}]}, "chat", None, 2),
        ("/invocations", {"dataframe_split": {"data": [["a"], ["b"]]}}, "chat", None, 2),
        ("/v1/conversations", {"model": "m", "inputs": HI * 3}, "chat", "m", 1),
        ("/async-invoke", {"modelId": "m", "modelInput": {"taskType": "x"}}, "image", "m", 1),
        ("/model-invocation-job", {"modelId": "m"}, "batch", None, 1),
        ("/model/m/invoke", {"textToImageParams": {"text": "x"}}, "image", "m", 1),
        (AGENT, {"inputText": "x"}, "agentic", None, 1),
        (SPEAKS, {}, "agentic", None, 1),
    ],
)
def test_a_newer_or_native_endpoint_is_known(path, body, capability, model, requests):
    request = asked(path, body)

    assert request.problem is None
    assert request.facts["request.capability"] == capability
    assert request.facts.get("request.model") == model
    assert request.estimate["requests"] == requests


@pytest.mark.parametrize(
    "path",
    [
        "/v1/realtime/calls/c/hangup",
        "/v1/realtime/calls/c/reject",
        "/v1/fine_tuning/jobs/j/pause",
        "/v1/evals/e/runs/r",
        "/v1/chatkit/sessions/s/cancel",
        "/model-invocation-job/j/stop",
    ],
)
def test_ending_something_is_no_work_of_a_model(path):
    request = asked(path, b"")

    assert request.facts["request.capability"] == "other"
    assert request.estimate == {"requests": 1, "input_tokens": 0, "output_tokens": 0}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PROMPT, {"messages": []}),
        ("/model/m/converse", {"promptVariables": {"a": {"text": "x"}}}),
        (AGENT, {"inputText": "x"}),
        ("/flows/F/aliases/A", {"inputs": []}),
        (SPEAKS, {}),
    ],
)
def test_what_is_stored_with_the_host_may_hold_tools(path, body):
    facts = asked(path, body).facts

    assert facts["request.capability"] == "agentic"
    assert "request.tools" not in facts


ARN = "arn:aws:bedrock:us-east-1:1"


@pytest.mark.parametrize(
    ("resource", "known"),
    [
        (f"{ARN}:foundation-model/anthropic.m-v1:0", True),
        (f"{ARN}:inference-profile/us.anthropic.m-v1:0", True),
        (f"{ARN}:application-inference-profile/abc", False),
        (f"{ARN}:provisioned-model/abc", False),
        (f"{ARN}:prompt/P", False),
        ("arn:aws:sagemaker:us-east-1:1:endpoint/e", False),
        ("ARN:aws:bedrock", True),
        ("team/arn-1", True),
        ("barn:x", True),
    ],
)
def test_a_resource_that_stands_for_a_model_names_none(resource, known):
    by_path = asked(f"/model/{resource}/converse", {"messages": []}).facts
    by_body = asked(CHAT, {"model": resource, "messages": HI}).facts
    behind = asked(CHAT, {"model": f"bedrock/{resource}", "messages": HI}).facts

    assert ["request.model" in facts for facts in (by_path, by_body, behind)] == [known] * 3


def test_a_prompt_whose_words_stand_beside_pictures_is_not_stored():
    picture = base64.b64encode(Random(1).randbytes(30_000)).decode()
    body = {"prompt": {"prompt_string": "What is it?", "multimodal_data": [picture]}}
    request = asked("/completion", body)

    assert request.facts["request.capability"] == "chat"
    assert request.facts["request.tools"] == 0
    assert 1_600 < request.estimate["input_tokens"] < 3_000
    stored = {"prompt": {"prompt_string": "x", "id": "p"}}
    assert "request.tools" not in asked("/v1/responses", stored).facts


def test_a_stored_prompt_in_the_place_of_a_model_is_no_name_of_one():
    assert "request.model" not in asked(PROMPT, {"messages": []}).facts
    assert "request.model" not in asked(CHAT, {"model": "m", "preset": "p", "messages": HI}).facts


def test_tokens_that_vertex_counts_are_no_request_for_a_model_of_that_name():
    body = {"model": "claude", "messages": HI, "tools": [{"name": "f", "input_schema": {}}]}
    request = asked(f"{VERTEX}/count-tokens:rawPredict", body)

    assert request.problem is None
    assert request.facts["request.model"] == "claude"
    assert request.facts["request.capability"] == "other"
    assert asked(f"{VERTEX}/count-tokens:streamRawPredict", body).problem is not None
    assert asked(f"{VERTEX}/claude:rawPredict", {"messages": HI}).estimate["input_tokens"] > 0


def test_an_empty_name_of_a_model_names_none():
    assert "request.model" not in asked(CHAT, {"model": "", "messages": HI}).facts
    assert asked(CHAT, {"model": "", "modelId": "m", "messages": HI}).facts["request.model"] == "m"


@pytest.mark.parametrize("more", [{"enable_search": True}, {"tools": [{"type": "x_search"}]}])
def test_a_search_of_a_vendors_own_is_a_lookup(more):
    facts = asked(CHAT, {"model": "m", "messages": HI, **more}).facts

    assert facts["request.tools"] == 1
    assert facts["request.capability"] == "chat"
    assert asked(CHAT, {"messages": HI, "enable_search": False}).facts["request.tools"] == 0


def test_a_prompt_that_reasons_asks_to_reason():
    assert asked(CHAT, {"messages": HI, "prompt_mode": "reasoning"}).facts["request.reasoning"]
    assert not asked(CHAT, {"messages": HI, "prompt_mode": None}).facts["request.reasoning"]


def test_what_is_read_off_pages_has_no_cap():
    request = asked("/v1/ocr", {"model": "m", "document": {}, "max_tokens": 5})

    assert "output_tokens" not in request.estimate


@pytest.mark.parametrize(
    ("body", "cap"),
    [
        ({"n_predict": 5}, 5),
        ({"n_predict": 0}, 0),
        ({"n_predict": -1}, None),
        ({"max_tokens": 5}, None),
        ({"prompt": ["a", "b"], "n_predict": 5}, 10),
    ],
)
def test_llama_cpp_heeds_a_cap_of_its_own(body, cap):
    assert asked("/completion", {"prompt": "x", **body}).estimate.get("output_tokens") == cap


def charged(path, body, chunks, kind=JSON):
    """Return the input and output that a request is charged in the end."""
    guarded = Guarded(POLICY, Host(chunks, headers=kind))
    assert guarded.ask(json.dumps(body).encode(), path=path).status == 200
    return guarded.used("in"), guarded.used("out")


def events(*documents):
    return [b"data: " + json.dumps(document).encode() + b"\n\n" for document in documents]


WHOLE = {"content": "one two", "stop": True, "tokens_predicted": 40, "tokens_evaluated": 12}
PIECES = [
    {"content": "one", "stop": False, "tokens_predicted": 1, "tokens_evaluated": 12},
    {"content": " two", "stop": False, "tokens_predicted": 2, "tokens_evaluated": 12},
    {"content": "", "stop": True, "tokens_predicted": 3, "tokens_evaluated": 12},
]
SEVERAL = [{**WHOLE, "index": 0}, {**WHOLE, "index": 1, "tokens_predicted": 2}]
BROKEN_DOWN = {
    "choices": [{"index": 0, "message": {"content": "x"}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    "usage_breakdown": {
        "models": [
            {"model": "a", "usage": {"prompt_tokens": 2000, "completion_tokens": 300}},
            {"model": "b", "usage": {"prompt_tokens": 10, "completion_tokens": 5}},
            {"model": "c", "usage": None},
            7,
        ]
    },
}
CAMEL = {
    "choices": [{"index": 0, "message": {"content": "x"}}],
    "usage": {"promptTokens": 12, "completionTokens": 34, "totalTokens": 46},
}
ASKS_BACK = {
    "id": "i",
    "status": "requires_action",
    "outputs": [],
    "usage": {"total_input_tokens": 7, "total_output_tokens": 20, "total_tokens": 27},
}


@pytest.mark.parametrize(
    ("path", "chunks", "kind", "tokens"),
    [
        ("/completion", [json.dumps(WHOLE).encode()], JSON, (12, 40)),
        ("/completion", [json.dumps(SEVERAL).encode()], JSON, (24, 42)),
        ("/completion", events(*PIECES), SSE, (12, 3)),
        ("/completion", events(*PIECES[:2]), SSE, (12, 2)),
        (CHAT, [json.dumps(BROKEN_DOWN).encode()], JSON, (2010, 305)),
        (CHAT, [json.dumps(CAMEL).encode()], JSON, (12, 34)),
        ("/v1beta/interactions", [json.dumps(ASKS_BACK).encode()], JSON, (7, 20)),
    ],
)
def test_what_is_told_is_charged(path, chunks, kind, tokens):
    body = {"prompt": "x", "n_predict": 500} if path == "/completion" else {"model": "small"}
    text = "input" if "interactions" in path else "messages"
    more = {} if path == "/completion" else {text: "hi" if text == "input" else HI}

    assert charged(path, body | more, chunks, kind) == tokens


def test_groq_may_tell_of_its_models_within_its_own_member():
    told = {"x_groq": {"usage_breakdown": BROKEN_DOWN["usage_breakdown"]}, "choices": []}
    chunks = [*events(told), b"data: [DONE]\n\n"]

    assert charged(CHAT, {"model": "small", "messages": HI, "stream": True}, chunks, SSE) == (
        2010,
        305,
    )


ADVISOR = {"type": "advisor_20260301", "name": "advisor"}
OF_LARGE = {"model": "large"}


@pytest.mark.parametrize(
    ("tool", "told"),
    [
        ({**ADVISOR, **OF_LARGE}, False),
        ({**ADVISOR, "model": "small"}, True),
        (ADVISOR, False),
        ({"type": "openrouter:advisor", "parameters": OF_LARGE}, False),
        ({"type": "openrouter:advisor", "parameters": {}}, False),
        ({"type": "openrouter:fusion"}, False),
        ({"type": "openrouter:fusion", "parameters": {"analysis_models": ["large"]}}, False),
        ({"type": "openrouter:fusion", "parameters": {"analysis_models": ["small"]}}, True),
        ({"type": "function", "name": "f", "parameters": OF_LARGE, **OF_LARGE}, True),
        ({"name": "advisor", "input_schema": {"type": "object"}, **OF_LARGE}, True),
        ({"type": "image_generation", **OF_LARGE}, True),
        ({"type": "web_search"}, True),
        ({"type": "openrouter:web_search", "parameters": "large"}, True),
        ("advisor", True),
    ],
)
def test_a_tool_that_asks_another_model_leaves_none_to_be_named(tool, told):
    facts = asked("/v1/messages", {"model": "small", "messages": HI, "tools": [tool]}).facts

    assert facts.get("request.model") == ("small" if told else None)
    assert facts["request.tools"] == 1


def test_a_panel_of_models_that_a_plugin_asks_leaves_none_to_be_named():
    body = {"model": "small", "messages": HI, "plugins": [{"id": "fusion"}]}

    assert "request.model" not in asked(CHAT, body).facts
    assert asked(CHAT, body | {"plugins": [{"id": "web"}]}).facts["request.model"] == "small"


ONLY_SMALL = """
guardrail: 1
policy: one
models: {small: {max_output: 4096}, large: {max_output: 4096}}
rules:
  - id: no-large
    when: {request.model: large}
    block: {message: Not here.}
"""


def test_a_model_that_is_blocked_is_not_asked_by_way_of_a_tool():
    guarded = Guarded(ONLY_SMALL, Host([b"{}"], headers=JSON))
    body = {"model": "small", "messages": HI, "max_tokens": 9}
    advised = body | {"tools": [{**ADVISOR, **OF_LARGE}]}

    assert guarded.ask(json.dumps(body).encode(), path="/v1/messages").status == 200
    assert guarded.ask(json.dumps(advised).encode(), path="/v1/messages").status == 403
    assert len(guarded.host.bodies) == 1


TO_SMALL = """
guardrail: 1
policy: weaker
models: {small: {max_output: 4096}, large: {max_output: 4096, weaker: small}}
rules:
  - {id: less, when: always, degrade: {model: small%s}}
"""


@pytest.mark.parametrize(("more", "status"), [("", 403), (", disable: [tools]", 200)])
def test_a_degrade_that_would_leave_another_model_to_be_asked_is_refused(more, status):
    guarded = Guarded(TO_SMALL % more, Host([b"{}"], headers=JSON))
    body = {"model": "large", "messages": HI, "max_tokens": 9}
    advised = body | {"tools": [{**ADVISOR, **OF_LARGE}]}

    assert guarded.ask(json.dumps(body).encode(), path="/v1/messages").status == 200
    assert guarded.ask(json.dumps(advised).encode(), path="/v1/messages").status == status
    assert all(b"large" not in body for body in guarded.host.bodies)

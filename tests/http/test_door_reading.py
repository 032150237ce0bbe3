"""What a request is taken for, seen from its reservation: through the whole middleware."""

from __future__ import annotations

import json
import time

import pytest

from guardrail.http.dialects import Dialect, UsageFormat
from guardrail.http.flow import STATE_KEY
from guardrail.http.parsing import ParsedRequest
from tests.http.driving import CHAT, JSON, MESSAGES, Guarded, Host, ask, completion
from tests.http.requests import form
from tests.http.test_asgi_websockets import connect, echo
from tests.test_layers import HOMES

POLICY = """
guardrail: 1
policy: reading
models: {small: {price: {input: 1, output: 2}, max_output: 200}, large: {max_output: 900}}
rules:
  - {id: calls, when: always, budget: {requests: 1M, per: day, key: account.id}}
  - {id: incoming, when: always, budget: {input_tokens: 1G, per: day, key: account.id}}
  - {id: outgoing, when: always, budget: {output_tokens: 1M, per: day, key: account.id}}
  - {id: agents, when: {request.capability: agentic}, unknown: skip, block: {reason: agents}}
  - {id: batches, when: {request.capability: batch}, unknown: skip, block: {reason: batches}}
"""
GEMINI = "/v1beta/models/gem:generateContent"
TOKENIZERS = {"tiktoken", "tokenizers", "transformers", "sentencepiece", "anthropic", "litellm"}
BUDGET = 0.1
"""Seconds of the processor that reading a body of 1 MiB may take."""


def decision_on(path, body, guarded=None, **scope):
    """Return the decision behind a request that was passed on."""
    guarded = guarded or Guarded(POLICY)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    call = guarded.ask(content, path=path, **scope)
    assert call.status == 200, call.body
    return guarded.host.scopes[-1][STATE_KEY].decision


def reserved(path, body, **scope):
    """Return what a request reserved by itself, limit by limit."""
    return {limit.rule: limit.used for limit in decision_on(path, body, **scope).limits}


@pytest.mark.parametrize(
    ("caps", "output"),
    [
        ({"max_tokens": 90, "max_completion_tokens": 5}, 90),
        ({"max_tokens": 5, "max_completion_tokens": 90}, 90),
        ({"max_tokens": None, "max_completion_tokens": 90}, 90),
        ({"max_tokens": 5, "min_tokens": 90}, 90),
        ({"max_completion_tokens": 0, "max_tokens": 7}, 7),
    ],
)
def test_the_largest_of_all_caps_is_reserved(caps, output):
    assert reserved(CHAT, {"model": "small", "messages": [], **caps})["outgoing"] == output


@pytest.mark.parametrize(
    "members",
    [
        '"max_tokens": 1, "max_tokens": 99999',
        '"max_tokens": NaN',
        '"max_tokens": 1e3',
        '"max_tokens": 10.0',
        '"max_tokens": -1',
        '"max_tokens": true',
        '"max_tokens": "10"',
        '"n": -1',
        '"n": 1.5',
        '"n": 1, "n": 1',
    ],
)
def test_a_limit_that_is_no_whole_number_is_refused_and_costs_nothing(members):
    guarded = Guarded(POLICY)
    call = guarded.ask(f'{{"model": "small", "messages": [], {members}}}'.encode())

    assert call.status == 400
    assert call.json["error"]["type"] == "invalid_request_error"
    assert guarded.host.scopes == []
    assert (guarded.used("calls"), guarded.used("outgoing")) == (0, 0)


@pytest.mark.parametrize(
    ("path", "body", "calls"),
    [
        (CHAT, {"messages": [], "n": 3}, 3),
        (CHAT, {"messages": [], "n": 4, "use_beam_search": True}, 4),
        ("/v1/completions", {"prompt": "x", "best_of": 5, "n": 2}, 5),
        ("/v1/completions", {"prompt": ["x", "y"], "n": 3}, 6),
        ("/v1/completions", {"prompt": [[1, 2], [3]]}, 2),
        (f"{CHAT}/batch", {"messages": [[], [], []], "n": 2}, 6),
    ],
)
def test_what_is_asked_for_several_times_costs_as_often(path, body, calls):
    found = reserved(path, {"model": "small", "max_tokens": 10, **body})

    assert (found["calls"], found["outgoing"]) == (calls, 10 * calls)


@pytest.mark.parametrize(("model", "output"), [("small", 200), ("large", 900), ("unheard-of", 900)])
def test_without_a_cap_the_most_its_model_gives_is_reserved(model, output):
    assert reserved(CHAT, {"model": model, "messages": []})["outgoing"] == output


@pytest.mark.parametrize("kind", ["function", "never_heard_of", "computer_20991231", "", 7, None])
def test_a_tool_of_an_unknown_type_is_of_the_most_restricted(kind):
    body = {"model": "small", "messages": [], "tools": [{"type": kind, "name": "x"}]}
    call = Guarded(POLICY).ask(json.dumps(body).encode())

    assert (call.status, call.json["error"]["code"]) == (403, "agents")


@pytest.mark.parametrize("kind", ["web_search", "web_search_20250305", "web_search_20991231"])
def test_a_tool_with_a_date_is_known_by_what_stands_before_it(kind):
    body = {"model": "small", "max_tokens": 9, "messages": [], "tools": [{"type": kind}]}
    facts = decision_on(MESSAGES, body).facts

    assert (facts["request.capability"], facts["request.tools"]) == ("chat", 1)


def test_a_response_made_in_the_background_stays_as_reserved():
    host = Host([b'{"id": "r", "status": "queued", "usage": null}'], headers=JSON)
    guarded = Guarded(POLICY, host)
    body = {"model": "small", "input": "hi", "max_output_tokens": 70, "background": True}
    decision_on("/v1/responses", body, guarded)

    assert (guarded.used("calls"), guarded.used("outgoing")) == (1, 70)


def test_input_that_the_host_keeps_is_reserved_for():
    body = {"model": "small", "input": "hi", "max_output_tokens": 70}
    alone = reserved("/v1/responses", body)["incoming"]

    after = reserved("/v1/responses", {**body, "previous_response_id": "resp_1"})["incoming"]
    assert after > alone + 4000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/batches", {"input_file_id": "file-1", "endpoint": CHAT}),
        ("/v1/messages/batches", {"requests": [{"params": {"max_tokens": 9}}] * 3}),
    ],
)
def test_a_rule_can_refuse_batches_and_without_one_they_are_counted(path, body):
    content = json.dumps(body).encode()
    refused = Guarded(POLICY).ask(content, path=path)
    lenient = Guarded(POLICY.replace("request.capability: batch", "request.capability: image"))
    lenient.ask(content, path=path)

    assert refused.status == 403
    assert b"batches" in refused.body
    assert lenient.used("calls") == (3 if "requests" in body else 1)
    assert lenient.used("outgoing") > 0


@pytest.mark.parametrize(
    ("path", "body", "query"),
    [
        (GEMINI, {"contents": []}, b""),
        (CHAT, {"model": "gem", "messages": []}, b""),
        ("/openai/deployments/gem/chat/completions", {"messages": []}, b""),
    ],
)
def test_the_model_is_named_by_the_path_or_the_body(path, body, query):
    assert decision_on(path, body, query_string=query).facts["request.model"] == "gem"


def test_the_model_is_named_by_the_query_of_a_socket_or_the_field_of_a_form():
    headers, body = form(("model", "gem"), ("file", b"RIFF"))
    spoken = decision_on("/v1/audio/transcriptions", body, headers=headers)
    seen = []

    async def host(scope, receive, send):
        seen.append(scope[STATE_KEY].decision.facts["request.model"])
        await echo(scope, receive, send)

    connect(Guarded(POLICY, host), path="/v1/realtime", query_string=b"model=gem")
    assert (spoken.facts["request.model"], seen) == ("gem", ["gem"])


def test_a_model_that_path_and_body_name_differently_is_unknown():
    policy = POLICY.partition("  - {id: agents")[0]
    guarded = Guarded(policy, unreadable="strictest")
    body = {"contents": [], "model": "large"}

    assert "request.model" not in decision_on(GEMINI, body, guarded).facts
    assert decision_on(GEMINI, {"contents": []}, guarded).facts["request.model"] == "gem"


def test_what_a_classifier_says_stands_below_what_is_established():
    def classifier(parts):
        facts = {"account.id": "another", "request.model": "small", "client.seat": "7"}
        return ParsedRequest(Dialect.OTHER, facts, {"requests": 1}, UsageFormat.NONE)

    facts = decision_on("/own", {}, Guarded(POLICY, classifiers=[classifier])).facts

    assert facts["account.id"] == "acct-a"
    assert (facts["request.model"], facts["client.seat"]) == ("small", "7")


def test_an_unknown_model_costs_as_the_dearest():
    money = "  - {id: money, when: always, budget: {cost_usd: 9, per: day, key: account.id}}\n"
    priced = POLICY.replace("large: {", "large: {price: {input: 5, output: 9}, ") + money
    spent = {}
    for model in ("small", "large", "other"):
        body: dict = {"model": model, "messages": [], "max_tokens": 100}
        spent[model] = reserved(CHAT, body, guarded=Guarded(priced))["money"]

    assert spent["small"] < spent["large"] == spent["other"]


def test_a_body_of_a_mebibyte_is_read_within_its_budget():
    words = {"role": "user", "content": "word " * 50}
    body = {"model": "small", "messages": [words] * 3800, "max_tokens": 9}
    content = json.dumps(body).encode()
    assert len(content) > 1 << 20
    guarded = Guarded(POLICY)
    took = []
    for _ in range(5):
        start = time.process_time()
        assert ask(guarded.app, content).status == 200
        took.append(time.process_time() - start)

    assert min(took) < BUDGET


def test_no_part_of_the_door_knows_a_tokenizer():
    allowed = {name for name, homes in HOMES.items() if homes != ("http.litellm",)}

    assert not TOKENIZERS & allowed


USAGE: dict[str, tuple[dict, bytes, int, int]] = {
    CHAT: (
        {"messages": []},
        completion(prompt=10, output=20).replace(
            b'"total_tokens"', b'"prompt_tokens_details": {"cached_tokens": 6}, "total_tokens"'
        ),
        10,
        20,
    ),
    MESSAGES: (
        {"messages": []},
        b'{"type": "message", "stop_reason": "end_turn", "usage": {"input_tokens": 3, '
        b'"cache_read_input_tokens": 40, "cache_creation_input_tokens": 500, "output_tokens": 20}}',
        543,
        20,
    ),
    GEMINI: (
        {"contents": []},
        b'{"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 10, '
        b'"candidatesTokenCount": 4, "thoughtsTokenCount": 30, "totalTokenCount": 44}}',
        10,
        34,
    ),
}


@pytest.mark.parametrize(("path", "told"), USAGE.items(), ids=["openai", "anthropic", "gemini"])
def test_usage_counts_what_its_vendor_says_it_includes(path, told):
    body, response, incoming, outgoing = told
    guarded = Guarded(POLICY, Host([response], headers=JSON))
    named = {} if path == GEMINI else {"model": "small"}
    guarded.ask(json.dumps({**named, "max_tokens": 90, **body}).encode(), path=path)

    assert (guarded.used("incoming"), guarded.used("outgoing")) == (incoming, outgoing)

"""A model that policies list is that model however a client spells it; another one is not."""

from __future__ import annotations

import json

import pytest

from guardrail.loading import load_text
from guardrail.model.spellings import Spellings
from tests.http.driving import Guarded

POLICY = """
guardrail: 1
policy: spelled
models:
  large: {price: {input: 10, output: 10}, max_output: 500, weaker: small, aliases: [large-latest]}
  small: {price: {input: 1, output: 1}, max_output: 200}
  anthropic.claude-big-v1:0: {max_output: 300, weaker: small}
rules:
  - id: tokens
    when: always
    budget: {tokens: 1k, per: day, key: account.id}
    steps: [{at: 1%, degrade: {model: small}}]
"""
BLOCKING = """
guardrail: 1
policy: closed
models: {large: {}, small: {}, gpt-x: {}}
rules:
  - id: large-is-closed
    when: {request.model: large}
    unknown: skip
    block: {reason: closed}
"""
LARGE = [
    "Large",
    "LARGE",
    "openai/large",
    "OpenAI/Large",
    "azure/large",
    "openrouter/openai/large",
    "models/large",
    "large:latest",
    "litellm_proxy/openai/large",
]
OTHERS = [
    "large-2026-03-01",
    "ft:large:org::id",
    "someone/large",
    "huggingface/someone/large",
    "large:free",
    "large:online",
    "us.large",
    "openai/",
    "/large",
    "larg",
    "xlarge",
]


def chat(model: str) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}
    return json.dumps(body).encode()


@pytest.mark.parametrize("name", LARGE)
def test_a_rule_on_a_model_is_not_dodged_by_another_spelling(name):
    guarded = Guarded(BLOCKING)

    assert guarded.ask(chat(name)).status == 403
    assert guarded.ask(chat("small")).status == 200


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_another_model_does_not_count_as_a_listed_one(name):
    assert Guarded(BLOCKING).ask(chat(name)).status == 200


@pytest.mark.parametrize(
    "name",
    [
        *LARGE,
        "large-latest",
        "Large-Latest",
        "us.anthropic.claude-big-v1:0",
        "bedrock/converse/eu.anthropic.claude-big-v1:0",
        "global.anthropic.claude-big-v1:0",
        "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-big-v1:0",
        "bedrock/arn:aws:bedrock:eu-west-1:12:inference-profile/eu.anthropic.claude-big-v1:0",
    ],
)
def test_a_degrade_is_not_dodged_by_another_spelling(name):
    guarded = Guarded(POLICY)
    call = guarded.ask(chat(name))

    assert call.status == 200
    assert json.loads(guarded.host.bodies[-1])["model"] in ("small", "models/small")


def test_the_path_of_a_model_is_read_so_too():
    guarded = Guarded(BLOCKING)
    body = b'{"contents": [{"parts": [{"text": "hi"}]}]}'

    for name in ("large", "Large", "google/large"):
        assert guarded.ask(body, path=f"/v1beta/models/{name}:generateContent").status == 403
    assert guarded.ask(body, path="/v1beta/models/small:generateContent").status == 200


def test_a_name_that_two_models_are_spelled_by_is_neither():
    models = load_text(
        "guardrail: 1\npolicy: p\nmodels: {openai/m: {}, azure/m: {}, n: {aliases: [azure/n]}}\n"
        "rules: [{id: one, when: always, rate: {requests: 1/second, key: account.id}}]\n"
    ).models
    listed = Spellings(models).listed

    assert [listed(name) for name in ("m", "M", "openai/m", "azure/m")] == [
        "m",
        "M",
        "openai/m",
        "azure/m",
    ]
    assert (listed("openai/N"), listed("azure/n")) == ("n", "azure/n")


def test_a_path_that_may_name_the_model_is_not_passed_by_another_one_in_the_body():
    guarded = Guarded(POLICY)

    assert guarded.ask(chat("large"), path="/models/large/v1/chat/completions").status == 403
    assert guarded.ask(chat("small"), path="/models/large/v1/chat/completions").status == 403
    assert guarded.ask(chat("small"), path="/models/small/v1/chat/completions").status == 200

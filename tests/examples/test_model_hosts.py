"""The vLLM and the LiteLLM example: configurations alone, no code of the host's own."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import openai
import pytest
import yaml

from tests.examples.asking import ASK
from tests.examples.starting import EXAMPLES, started
from tests.http.servers import ROOT

LITELLM = EXAMPLES / "litellm" / "config.yaml"


@pytest.fixture(scope="module")
def vllm(tmp_path_factory):
    """The vLLM example, with a `vllm` that loads its middleware as the real one does."""
    folder = tmp_path_factory.mktemp("vllm")
    command = folder / "vllm"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.examples.serving_vllm "$@"\n')
    command.chmod(0o755)
    with started(
        EXAMPLES / "vllm" / "serve.sh", folder, place="--port {}", path_first=folder
    ) as running:
        yield running


def complete(host, key, path="/v1/chat/completions", **headers):
    headers = {"authorization": f"Bearer {key}", **headers}
    return host.client.post(path, json=ASK, headers=headers)


def test_vllm_is_guarded_by_its_configuration_alone(vllm):
    served, paid = vllm.charged("sk-verified", lambda: complete(vllm, "sk-verified"))
    refused = complete(vllm, "sk-nobody")

    assert served.status_code == 200
    assert paid == served.json()["usage"]["total_tokens"]
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")


def test_paths_that_only_vllm_has_are_guarded_too(vllm):
    refused = complete(vllm, "sk-on-hold", path="/invocations")

    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "account_on_hold")


def test_a_browser_may_read_a_refusal_of_vllm(vllm):
    refused = complete(vllm, "sk-nobody", origin="http://localhost:3000")

    assert refused.headers["access-control-allow-origin"] == "http://localhost:3000"


@pytest.fixture(scope="module")
def litellm(tmp_path_factory):
    if shutil.which("litellm") is None:
        pytest.skip("the command `litellm` is not installed")
    folder = tmp_path_factory.mktemp("litellm")
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    health = "/health/liveliness"
    with started(LITELLM, folder, place="--port {}", health=health, **offline) as running:
        yield running


def test_litellm_is_guarded_by_its_configuration_alone(litellm):
    with openai.OpenAI(api_key="sk-example", base_url=litellm.url, max_retries=0) as client:
        served = client.chat.completions.with_raw_response.create(**ASK | {"model": "large"})
        tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
        with pytest.raises(openai.PermissionDeniedError, match="Verify your identity"):
            client.chat.completions.create(**ASK, tools=tools)
        with pytest.raises(openai.BadRequestError, match="tokens-per-day"):
            client.chat.completions.create(**ASK | {"max_tokens": 20_001})
        again = client.chat.completions.with_raw_response.create(**ASK)
    left = int(served.headers["x-ratelimit-remaining-tokens"])

    assert served.headers["x-guardrail-decision"] == "degrade; reason=trial-model;model=small"
    assert served.parse().choices[0].message.content == "I am the small model."
    # Both calls reserve the same; what the first gave back is what it did not use.
    reserved = 20_000 - left
    used = served.parse().usage.total_tokens
    assert int(again.headers["x-ratelimit-remaining-tokens"]) == 20_000 - used - reserved


def test_the_litellm_example_names_a_callback_that_is_there():
    settings = yaml.safe_load(LITELLM.read_text("utf-8"))["litellm_settings"]
    (callback,) = settings["callbacks"]
    module, _, name = callback.rpartition(".")
    source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text("utf-8")

    assert f'if name == "{name}":' in source

"""LiteLLM's own command: the example as it stands, and configurations that cannot be served."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI

from guardrail.errors import SettingError
from guardrail.http.litellm import GuardrailCallback
from tests.examples.asking import ASK
from tests.examples.starting import EXAMPLES, started
from tests.http.servers import PATIENCE, ROOT, free_port

OWN_POLICY = Path(__file__).parent / "policy.yaml"
LITELLM = EXAMPLES / "litellm" / "config.yaml"
POLICY = """
guardrail: 1
policy: p
rules: [{id: calls, when: always, budget: {requests: 5, per: day, key: account.id}}]
"""
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("litellm")
    health = "/health/liveliness"
    with started(LITELLM, folder, place="--port {}", health=health, **OFFLINE) as running:
        yield running


def test_litellm_is_guarded_by_its_configuration_alone(example):
    with openai.OpenAI(api_key="sk-example", base_url=example.url, max_retries=0) as client:
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


def test_a_key_that_litellm_does_not_know_is_refused(example):
    answer = httpx.post(
        f"{example.url}/v1/chat/completions",
        json=ASK,
        headers={"authorization": "Bearer sk-of-nobody"},
        timeout=PATIENCE,
    )

    assert answer.status_code in (401, 503)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("policies = 'p.yaml'\nstore = 'lmdb:///proc/lost'\n", "lost"),
        ("policies = 'p.yaml'\nstoer = 'memory://'\n", "did you mean `store`"),
    ],
)
def test_a_setting_that_is_wrong_ends_the_proxy_at_its_start(tmp_path, settings, says):
    (tmp_path / "p.yaml").write_text(POLICY)
    (tmp_path / "gr.toml").write_text(settings)
    environment = {**os.environ, **OFFLINE, "GUARDRAIL_CONFIG": str(tmp_path / "gr.toml")}
    command = [Path(sys.executable).parent / "litellm", "--config", LITELLM]
    run = subprocess.run(
        [*map(str, command), "--port", str(free_port())],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
        check=False,
    )

    assert run.returncode != 0
    assert says in run.stdout + run.stderr


def test_outside_of_the_proxy_it_says_where_it_belongs(monkeypatch):
    monkeypatch.delitem(sys.modules, "litellm.proxy.proxy_server", raising=False)

    with pytest.raises(SettingError, match="under `litellm_settings: callbacks`"):
        GuardrailCallback()


def test_an_app_that_is_served_again_is_guarded_again(proxy):
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def complete() -> dict:
        return {"choices": []}

    entry = GuardrailCallback(app=app, policies=str(OWN_POLICY), environ={})

    async def ask():
        transport = httpx.ASGITransport(app)
        headers = {"authorization": "Bearer sk-few-again"}
        async with httpx.AsyncClient(
            transport=transport, base_url=proxy.url, headers=headers
        ) as client:
            answers = [await client.post("/v1/chat/completions", json=ASK) for _ in range(2)]
        return [answer.status_code for answer in answers], entry.door

    served, first = asyncio.run(ask())
    closed = first.closed
    again, second = asyncio.run(ask())

    assert served == again == [200, 429]
    assert closed
    assert second is not first

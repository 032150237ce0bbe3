"""The LiteLLM callback: what each hook decides, changes and settles.

LiteLLM itself is far larger than all else that tests need; the two classes that the callback
takes from it stand in for it here, as their own source defines them.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from guardrail.guard import AsyncGuard
from guardrail.loading import load_text
from guardrail.testing import MovableClock
from tests.http.driving import chat_stream, completion

POLICY = """
guardrail: 1
policy: proxy
models: {large: {max_output: 500, weaker: small}, small: {max_output: 200}}
rules:
  - {id: calls, when: always, budget: {requests: 5, per: day, key: account.id}}
  - {id: tokens, when: always, budget: {tokens: 10k, per: day, key: account.id}}
  - {id: places, when: always, concurrency: {max: 5, key: account.id}}
  - {id: less, when: {request.model: large}, degrade: {model: small, disable: [tools]}}
"""
KEY = SimpleNamespace(user_id="u1", team_id="team", org_id=None, token="hashed")
CHAT = {
    "model": "small",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 100,
    "litellm_call_id": "c1",
    "metadata": {"of": "the proxy"},
}


class ProxyException(Exception):  # noqa: N818 - its name there
    def __init__(self, message, type, param, code=None, headers=None, **more):
        super().__init__(message)
        self.type, self.code, self.headers, self.more = type, str(code), headers or {}, more


class CustomLogger:
    pass


@pytest.fixture
def proxy(monkeypatch):
    """The callback on a movable clock, within a proxy that stands in for LiteLLM's."""
    logger, types = ModuleType("litellm.integrations.custom_logger"), ModuleType("_types")
    vars(logger)["CustomLogger"], vars(types)["ProxyException"] = CustomLogger, ProxyException
    for name in ("litellm", "litellm.integrations", "litellm.proxy"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "litellm.integrations.custom_logger", logger)
    monkeypatch.setitem(sys.modules, "litellm.proxy._types", types)
    monkeypatch.delitem(sys.modules, "guardrail.http.litellm", raising=False)
    module = importlib.import_module("guardrail.http.litellm")
    clock = MovableClock()
    guard = AsyncGuard.from_policies(load_text(POLICY), clock=clock, environ={})
    yield module.GuardrailCallback(guard=guard, clock=clock, environ={}, jitter=lambda: 0.0)
    sys.modules.pop("guardrail.http.litellm", None)


def before(proxy, call_type="acompletion", **members):
    data = {**CHAT, **members}
    return asyncio.run(proxy.async_pre_call_hook(KEY, None, data, call_type))


def used(proxy, rule):
    nothing = {"requests": 0, "input_tokens": 0, "output_tokens": 0}
    decision = asyncio.run(proxy.guard.decide({"account.id": "u1"}, nothing))
    status = next(limit for limit in decision.limits if limit.rule == rule)
    asyncio.run(proxy.guard.release(decision))
    return status.used - (status.unit == "concurrent-requests")


def response(text=None):
    return SimpleNamespace(model_dump_json=lambda: (text or completion()).decode())


def test_a_whole_response_is_settled_by_its_usage_and_tells_how_limits_stand(proxy):
    data = before(proxy)
    assert used(proxy, "places") == 1
    asyncio.run(proxy.async_post_call_success_hook(data, KEY, response()))
    fields = asyncio.run(proxy.async_post_call_response_headers_hook(data, KEY, None))

    assert (used(proxy, "calls"), used(proxy, "tokens"), used(proxy, "places")) == (1, 30, 0)
    assert fields["x-ratelimit-remaining-requests"] == "4"
    assert asyncio.run(proxy.async_post_call_response_headers_hook(data, KEY, None)) is None


@pytest.mark.parametrize("leaves", [False, True])
def test_a_stream_passes_and_is_settled_whatever_ends_it(proxy, leaves):
    data = before(proxy, stream=True)
    chunks = [json.loads(c[6:]) for c in chat_stream(8, usage=not leaves, done=False)]

    async def run():
        async def source():
            for chunk in chunks:
                yield SimpleNamespace(model_dump_json=lambda chunk=chunk: json.dumps(chunk))

        passed = proxy.async_post_call_streaming_iterator_hook(KEY, source(), data)
        seen = 0
        async for _ in passed:
            seen += 1
            if leaves and seen == 4:
                break
        await passed.aclose()
        return seen

    assert asyncio.run(run()) == (4 if leaves else 9)
    assert used(proxy, "places") == 0
    assert 0 < used(proxy, "tokens") <= 110
    if not leaves:
        assert used(proxy, "tokens") == 18


@pytest.mark.parametrize(("status", "calls"), [(400, 1), (429, 0), (500, 0), (None, 0)])
def test_a_failed_call_gives_its_tokens_back(proxy, status, calls):
    data = before(proxy)
    problem = RuntimeError("no")
    if status is not None:
        vars(problem)["status_code"] = status
    asyncio.run(proxy.async_post_call_failure_hook(data, problem, KEY))

    assert (used(proxy, "calls"), used(proxy, "tokens"), used(proxy, "places")) == (calls, 0, 0)


def test_a_refusal_is_the_proxys_own_exception(proxy):
    for _ in range(5):
        data = before(proxy)
        asyncio.run(proxy.async_post_call_success_hook(data, KEY, response()))
    with pytest.raises(ProxyException) as caught:
        before(proxy)

    assert caught.value.code == "429"
    assert caught.value.type == "insufficient_quota"
    assert caught.value.headers["retry-after"] == "43200"
    assert caught.value.headers["x-should-retry"] == "false"
    assert "content-length" not in caught.value.headers
    assert caught.value.more["openai_code"] == "insufficient_quota"
    asyncio.run(proxy.async_post_call_failure_hook(CHAT, caught.value, KEY))
    assert used(proxy, "calls") == 5


def test_a_degraded_call_is_changed_in_place_and_keeps_what_is_the_proxys(proxy):
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    data = before(proxy, model="large", tools=[tool])

    assert data["model"] == "small"
    assert "tools" not in data
    assert data["metadata"] == CHAT["metadata"]
    assert data["litellm_call_id"] == "c1"


def test_calls_that_share_an_id_are_settled_each(proxy):
    calls = [before(proxy), before(proxy)]
    assert used(proxy, "places") == 2
    for data in calls:
        asyncio.run(proxy.async_post_call_success_hook(data, KEY, response()))

    assert (used(proxy, "tokens"), used(proxy, "places")) == (60, 0)


def test_anothers_call_of_the_same_id_is_not_touched(proxy):
    data = before(proxy)
    stranger = SimpleNamespace(user_id="u2", token="other")
    asyncio.run(proxy.async_post_call_failure_hook(data, RuntimeError(), stranger))

    assert used(proxy, "places") == 1


def test_facts_of_a_key_can_say_more(proxy):
    facts = type(proxy)(guard=proxy.guard, environ={}, facts=lambda key: {"account.id": "x"})
    asyncio.run(facts.async_pre_call_hook(KEY, None, dict(CHAT), "acompletion"))

    assert used(proxy, "calls") == 0


def test_a_configuration_names_the_callback_of_the_module(proxy, tmp_path, monkeypatch):
    (tmp_path / "p.yaml").write_text(POLICY)
    (tmp_path / "gr.toml").write_text('policies = "p.yaml"\n')
    monkeypatch.setenv("GUARDRAIL_CONFIG", str(tmp_path / "gr.toml"))
    module = sys.modules[type(proxy).__module__]

    assert module.guard is module.guard
    assert isinstance(module.guard, CustomLogger)
    with pytest.raises(AttributeError):
        _ = module.lost

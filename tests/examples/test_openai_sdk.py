"""The official OpenAI SDK against the FastAPI example, started by its own command on uvicorn."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.examples.asking import ABROAD, ASK, LARGE, LONG, SPENDING, until_throttled
from tests.examples.sdks import awaited, clients, served_after_its_wait, tried_once
from tests.http.servers import until

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER: Any = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
TOOLS: Any = {"tools": [WEATHER]}
USAGE: Any = {"stream_options": {"include_usage": True}}
EACH: Any = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}

REFUSALS: Any = {
    "unknown key": (
        "sk-nobody",
        {},
        ("AuthenticationError", 401, "invalid_api_key", "invalid_request_error"),
        "This API key is not known here.",
    ),
    "country": (
        "sk-verified",
        ABROAD,
        (
            "PermissionDeniedError",
            403,
            "unsupported_country_region_territory",
            "request_forbidden",
        ),
        "not offered in your country",
    ),
    "account on hold": (
        "sk-on-hold",
        {},
        ("PermissionDeniedError", 403, "account_on_hold", "permission_error"),
        "on hold. Write to us to have it reviewed. mailto:trust@api.example",
    ),
    "tools": (
        "sk-trial",
        TOOLS,
        ("PermissionDeniedError", 403, "verification_required", "permission_error"),
        "Verify your identity to use tools. https://api.example/verify",
    ),
    "more than a day": (
        "sk-trial",
        {"max_tokens": 20_001},
        ("BadRequestError", 400, "request_exceeds_quota", "invalid_request_error"),
        "tokens-per-day",
    ),
    "large body": (
        "sk-verified",
        LARGE,
        ("APIStatusError", 413, "request_too_large", "invalid_request_error"),
        "longer than 1000000 bytes",
    ),
}


@pytest.fixture
def client(openai, example):
    """Return a client of the SDK for a key, with its own retries on."""
    with clients(openai, (openai.OpenAI, openai.AsyncOpenAI), f"{example.url}/v1") as make:
        yield make


def completed(client, **ask):
    """Complete a chat, whole or as a stream."""
    return client.chat.completions.create(**{**ASK, **ask})


KINDS: Any = {
    "sync": ("OpenAI", completed),
    "async": (
        "AsyncOpenAI",
        lambda sdk, **ask: awaited(sdk, sdk.chat.completions.create, **ask),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_incurable_refusal_is_readable_and_not_tried_again(
    openai, example, client, refusal, stream, kind
):
    key, more, (error, status, code, type_), message = REFUSALS[refusal]
    made, complete = client(key, getattr(openai, KINDS[kind][0])), KINDS[kind][1]
    refused = tried_once(
        example, getattr(openai, error), lambda: complete(made, stream=stream, **more)
    )

    assert (refused.status_code, refused.code, refused.type) == (status, code, type_)
    assert message in refused.message
    assert refused.request_id


@pytest.mark.parametrize("kind", KINDS)
def test_a_throttled_call_succeeds_after_the_wait_it_was_told(openai, example, client, kind):
    impatient = client("sk-trial", max_retries=0)
    patient, complete = client("sk-trial", getattr(openai, KINDS[kind][0])), KINDS[kind][1]
    refused, made = served_after_its_wait(
        example, openai.RateLimitError, lambda: completed(impatient), lambda: complete(patient)
    )

    assert (refused.status_code, refused.type) == (429, "requests")
    assert refused.code == "rate_limit_exceeded"
    assert "trial-pace" in refused.message
    assert made.choices[0].message.content == "Say this."


def test_a_spent_budget_is_told_and_not_tried_again(openai, example, client):
    spender, patient = client("sk-trial-2", max_retries=0), client("sk-trial-2")
    until_throttled(lambda: completed(spender, **SPENDING), openai.RateLimitError)
    error = tried_once(example, openai.RateLimitError, lambda: completed(patient, **SPENDING))

    assert (error.status_code, error.code, error.type) == (429, *["insufficient_quota"] * 2)
    assert error.body["reason"] == "daily_tokens"
    assert int(error.response.headers["retry-after"]) > 60


def test_a_degraded_call_says_so_and_names_the_model_that_answered(client):
    made = client("sk-trial").chat.completions.with_raw_response.create(**ASK | {"model": "large"})

    assert made.headers["x-guardrail-decision"] == "degrade; reason=trial-model;model=small"
    assert made.parse().model == "small"


def last(stream):
    """Read a stream to its end; return what came last."""
    return [*stream][-1]


FUNCTION = {"type": "function", "name": "weather", "parameters": PARAMETERS}
SAY = {"model": "small", "input": "Say this."}

CALLS: Any = {
    "chat": lambda sdk: completed(sdk).usage,
    "cut": lambda sdk: completed(sdk, max_tokens=2).usage,
    "tools": lambda sdk: completed(sdk, **TOOLS).usage,
    "streamed": lambda sdk: last(completed(sdk, **USAGE, stream=True)).usage,
    "streamed tools": lambda sdk: last(completed(sdk, **TOOLS, **USAGE, stream=True)).usage,
    "response": lambda sdk: sdk.responses.create(**SAY).usage,
    "streamed response": lambda sdk: last(sdk.responses.create(**SAY, stream=True)).response.usage,
    "called function": lambda sdk: (
        last(sdk.responses.create(**SAY, stream=True, tools=[FUNCTION])).response.usage
    ),
    "embeddings": lambda sdk: sdk.embeddings.create(model="small", input=["One", "and two"]).usage,
}


@pytest.mark.parametrize("call", CALLS)
def test_an_account_pays_what_the_model_says_it_used_to_the_token(example, client, call):
    sdk = client()
    usage, paid = example.charged("sk-verified", lambda: CALLS[call](sdk))

    assert paid == usage.total_tokens > 0


def test_a_tool_is_called_told_of_and_paid_for(example, client):
    sdk = client()

    def both_turns():
        called = completed(sdk, **TOOLS)
        message = called.choices[0].message
        told = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "Rain."}
        turns = [*ASK["messages"], message.model_dump(exclude_none=True), told]
        return called, completed(sdk, messages=turns, **TOOLS)

    (called, answered), paid = example.charged("sk-verified", both_turns)

    assert called.choices[0].finish_reason == "tool_calls"
    assert called.choices[0].message.tool_calls[0].function.arguments == '{"city": "Say this."}'
    assert answered.choices[0].message.content == "Say this. Rain."
    assert paid == called.usage.total_tokens + answered.usage.total_tokens


def test_a_stream_whose_client_does_not_ask_for_usage_is_paid_to_the_token(example, client):
    chunks, paid = example.charged(
        "sk-verified", lambda: [*client().chat.completions.create(**ASK, stream=True)]
    )

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Say this."
    assert paid == sum(example.generated()[-1])


def leave(made, after):
    """Read some chunks of a stream, then close its connection."""
    for _ in range(after):
        next(made)
    made.close()


def test_an_aborted_stream_that_told_its_usage_is_paid_to_the_token(example, client):
    before = len(example.generated())

    def abort():
        leave(client().chat.completions.create(**LONG, **EACH, stream=True), 20)
        until(lambda: len(example.generated()) > before)

    _, paid = example.charged("sk-verified", abort)
    incoming, outgoing = example.generated()[-1]

    assert 19 <= outgoing < 2500
    assert paid == incoming + outgoing


def test_an_aborted_stream_pays_its_output_to_the_token_and_its_input_as_estimated(example, client):
    before = len(example.generated())

    def abort():
        leave(client().chat.completions.create(**LONG, stream=True), 20)
        until(lambda: len(example.generated()) > before)

    _, paid = example.charged("sk-verified", abort)
    incoming, outgoing = example.generated()[-1]

    assert incoming + outgoing <= paid <= incoming + outgoing + 100


def test_calls_at_the_same_time_are_paid_together_to_the_token(openai, example, client):
    sdk = client(kind=openai.AsyncOpenAI)

    async def run():
        async with sdk:
            ask = [sdk.chat.completions.create(**ASK) for _ in range(12)]
            return sum(made.usage.total_tokens for made in await asyncio.gather(*ask))

    used, paid = example.charged("sk-verified", lambda: asyncio.run(run()))

    assert paid == used


def test_what_needs_no_key_needs_none(example):
    assert example.client.get("/health").json() == {"status": "ok"}
    assert example.client.get("/docs").status_code == 200

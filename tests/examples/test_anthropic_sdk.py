"""The official Anthropic SDK against the FastAPI example, started by its own command on uvicorn."""

from __future__ import annotations

from typing import Any

import pytest

from tests.examples.asking import ABROAD, ASK, LARGE, LONG, SPENDING, until_throttled
from tests.examples.sdks import awaited, clients, served_after_its_wait, tried_once
from tests.http.servers import until

WEATHER: Any = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TOOLS: Any = {"tools": [WEATHER]}

REFUSALS: Any = {
    "unknown key": (
        "sk-nobody",
        {},
        ("AuthenticationError", 401, "authentication_error", "invalid_api_key"),
        "This API key is not known here.",
    ),
    "country": (
        "sk-verified",
        ABROAD,
        (
            "PermissionDeniedError",
            403,
            "permission_error",
            "unsupported_country_region_territory",
        ),
        "not offered in your country",
    ),
    "tools": (
        "sk-trial",
        TOOLS,
        ("PermissionDeniedError", 403, "permission_error", "verification_required"),
        "Verify your identity to use tools. https://api.example/verify",
    ),
    "more than a day": (
        "sk-trial",
        {"max_tokens": 20_001},
        ("BadRequestError", 400, "invalid_request_error", "request_exceeds_quota"),
        "tokens-per-day",
    ),
    "large body": (
        "sk-verified",
        LARGE,
        ("RequestTooLargeError", 413, "request_too_large", "request_too_large"),
        "longer than 1000000 bytes",
    ),
}


@pytest.fixture
def client(anthropic, example):
    """Return a client of the SDK for a key, with its own retries on."""
    with clients(anthropic, (anthropic.Anthropic, anthropic.AsyncAnthropic), example.url) as make:
        yield make


def answered(client, **ask):
    """Answer messages, whole or as a stream."""
    return client.messages.create(**{**ASK, **ask})


KINDS: Any = {
    "sync": ("Anthropic", answered),
    "async": (
        "AsyncAnthropic",
        lambda sdk, **ask: awaited(sdk, sdk.messages.create, **ask),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_incurable_refusal_is_readable_and_not_tried_again(
    anthropic, example, client, refusal, stream, kind
):
    key, more, (error, status, type_, code), message = REFUSALS[refusal]
    made, answer = client(key, getattr(anthropic, KINDS[kind][0])), KINDS[kind][1]
    expected = getattr(anthropic, error)
    refused = tried_once(example, expected, lambda: answer(made, stream=stream, **more))
    told = refused.body["error"]

    assert (refused.status_code, refused.type) == (status, type_)
    assert told["details"]["error_code"] == code
    assert message in told["message"]
    assert refused.request_id == refused.body["request_id"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_throttled_call_succeeds_after_the_wait_it_was_told(anthropic, example, client, kind):
    impatient = client("sk-trial", max_retries=0)
    patient = client("sk-trial", getattr(anthropic, KINDS[kind][0]))
    answer = KINDS[kind][1]
    refused, made = served_after_its_wait(
        example, anthropic.RateLimitError, lambda: answered(impatient), lambda: answer(patient)
    )

    assert (refused.status_code, refused.type) == (429, "rate_limit_error")
    assert refused.body["error"]["details"] == {"error_code": "trial-pace"}
    assert made.content[0].text == "Say this."


def test_a_spent_budget_is_told_and_not_tried_again(anthropic, example, client):
    spender, patient = client("sk-trial-2", max_retries=0), client("sk-trial-2")
    until_throttled(lambda: answered(spender, **SPENDING), anthropic.RateLimitError)
    error = tried_once(example, anthropic.RateLimitError, lambda: answered(patient, **SPENDING))

    assert (error.status_code, error.type) == (429, "rate_limit_error")
    assert error.body["error"]["details"] == {"error_code": "daily_tokens"}
    assert int(error.response.headers["retry-after"]) > 60


def test_a_degraded_call_says_so_and_names_the_model_that_answered(client):
    made = client("sk-trial").messages.with_raw_response.create(**ASK | {"model": "large"})

    assert made.headers["x-guardrail-decision"] == "degrade; reason=trial-model;model=small"
    assert made.parse().model == "small"


def final(client, **ask):
    """Return the message that a stream adds up to."""
    with client.messages.stream(**{**ASK, **ask}) as events:
        return events.get_final_message()


def awaiting(client):
    """Return a client that is awaited, for the key and the server of one that is not."""
    import anthropic

    return anthropic.AsyncAnthropic(api_key=client.api_key, base_url=client.base_url)


CALLS: Any = {
    "message": answered,
    "cut": lambda sdk: answered(sdk, max_tokens=2),
    "system": lambda sdk: answered(sdk, system="Be brief."),
    "tools": lambda sdk: answered(sdk, **TOOLS),
    "streamed": final,
    "streamed tools": lambda sdk: final(sdk, **TOOLS),
    "awaited": lambda sdk: KINDS["async"][1](awaiting(sdk)),
}


@pytest.mark.parametrize("call", CALLS)
def test_an_account_pays_what_the_model_says_it_used_to_the_token(example, client, call):
    sdk = client()
    made, paid = example.charged("sk-verified", lambda: CALLS[call](sdk))

    assert paid == made.usage.input_tokens + made.usage.output_tokens > 0


def test_an_aborted_stream_is_paid_to_the_token(example, client):
    before = len(example.generated())

    def abort():
        with client().messages.stream(**LONG) as events:
            for _ in range(20):
                next(events)
        until(lambda: len(example.generated()) > before)

    _, paid = example.charged("sk-verified", abort)
    incoming, outgoing = example.generated()[-1]

    assert 5 <= outgoing < 2500
    assert paid == incoming + outgoing

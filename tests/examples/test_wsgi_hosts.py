"""The Flask and the Django example on gunicorn, each started by its own command."""

from __future__ import annotations

import asyncio
import json
from functools import partial

import httpx
import pytest

from tests.examples.asking import ABROAD, ASK, LARGE, LONG, asking, until_throttled
from tests.examples.starting import EXAMPLES, started
from tests.http.servers import PATIENCE, until


@pytest.fixture(scope="module", params=["flask_app", "django_app"])
def host(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    with started(EXAMPLES / "server" / f"{request.param}.py", folder) as running:
        yield running


@pytest.fixture
def client(host, openai):
    """Return a client of the SDK for a key, with its own retries on."""
    clients = []

    def make(key="sk-verified", **options):
        options |= {"base_url": f"{host.url}/v1", "timeout": PATIENCE}
        options["http_client"] = openai.DefaultHttpxClient(verify=False)
        clients.append(openai.OpenAI(api_key=key, **options))
        return clients[-1].chat.completions

    yield make
    for made in clients:
        made.close()


def test_calls_are_paid_to_the_token(host, client):
    whole, paid = host.charged("sk-verified", lambda: client().create(**ASK))
    chunks, paid_for_chunks = host.charged(
        "sk-verified", lambda: [*client().create(**ASK, stream=True)]
    )

    assert whole.choices[0].message.content == "Say this."
    assert paid == whole.usage.total_tokens
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Say this."
    assert paid_for_chunks == sum(host.generated()[-1])


def test_an_aborted_stream_pays_for_what_was_streamed(host, client):
    before = len(host.generated())

    def abort():
        made = client().create(
            **LONG,
            stream=True,
            stream_options={"include_usage": True, "continuous_usage_stats": True},
        )
        next(made)
        made.close()
        until(lambda: len(host.generated()) > before)

    _, paid = host.charged("sk-verified", abort)

    assert paid == sum(host.generated()[-1])


REFUSALS = [
    ("sk-nobody", {}, 401, "invalid_api_key"),
    ("sk-verified", ABROAD, 403, "unsupported_country_region_territory"),
    ("sk-on-hold", {}, 403, "account_on_hold"),
    ("sk-trial", {"max_tokens": 20_001}, 400, "request_exceeds_quota"),
    ("sk-verified", LARGE, 413, "request_too_large"),
]


@pytest.mark.parametrize(("key", "more", "status", "code"), REFUSALS)
def test_an_incurable_refusal_is_readable(openai, client, key, more, status, code):
    with pytest.raises(openai.APIStatusError) as caught:
        client(key).create(**{**ASK, **more})

    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("key", "size", "status"), [("sk-verified", 4, 413), ("sk-on-hold", 0.9, 403)]
)
def test_a_client_that_is_still_sending_sees_why_it_is_refused(host, key, size, status):
    body = json.dumps(asking("x" * int(size * 1_000_000))).encode()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}

    async def answers():
        async with httpx.AsyncClient(base_url=host.url, timeout=PATIENCE, verify=False) as client:
            ask = partial(client.post, "/v1/chat/completions", content=body, headers=headers)
            return [await ask() for _ in range(8)]

    assert {answer.status_code for answer in asyncio.run(answers())} == {status}


def test_a_throttled_call_succeeds_after_the_wait_it_was_told(openai, client):
    impatient, patient = client("sk-trial", max_retries=0), client("sk-trial")
    refused = until_throttled(lambda: impatient.create(**ASK), openai.RateLimitError)

    assert "trial-pace" in refused.message
    assert patient.create(**ASK).choices[0].message.content == "Say this."


def test_what_needs_no_key_needs_none(host):
    assert host.client.get("/health").json() == {"status": "ok"}

"""Real clients against real servers: what SDKs make of a refusal, and whose address is believed."""

from __future__ import annotations

import http.client
import json
from contextlib import ExitStack

import pytest

from tests.signals.test_client import VECTORS


@pytest.fixture
def sdks(server, anthropic, openai):
    """Return the clients of both vendors for one key, each with the requests it made."""
    with ExitStack() as stack:

        def get(key):
            made: tuple[list, list] = ([], [])
            first, second = (
                stack.enter_context(sdk.DefaultHttpxClient(event_hooks={"request": [sent.append]}))
                for sdk, sent in zip((openai, anthropic), made, strict=True)
            )
            return (
                openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, http_client=first),
                anthropic.Anthropic(base_url=server.url, auth_token=key, http_client=second),
                *made,
            )

        yield get


def of_openai(client, model, **more):
    return client.chat.completions.create(model=model, messages=[], **more)


def of_anthropic(client, model):
    messages = [{"role": "user", "content": "hi"}]
    return client.messages.create(model=model, messages=messages, max_tokens=10)


def test_sdks_show_what_is_said_and_try_what_no_wait_cures_once(sdks, anthropic, openai):
    openais, anthropics, first, second = sdks("key-b")
    with pytest.raises(openai.PermissionDeniedError) as caught:
        of_openai(openais, "gone")
    with pytest.raises(anthropic.PermissionDeniedError) as other:
        of_anthropic(anthropics, "gone")

    assert caught.value.code == "closed_model"
    assert caught.value.type == "permission_error"
    assert "This model is closed to you." in caught.value.message
    assert other.value.response.json()["error"]["type"] == "permission_error"
    assert other.value.response.json()["error"]["details"]["error_code"] == "closed_model"
    assert "This model is closed to you." in str(other.value)
    assert caught.value.request_id
    assert other.value.request_id
    assert (len(first), len(second)) == (1, 1)


def test_sdks_try_a_long_wait_once_and_show_its_code(sdks, anthropic, openai):
    openais, anthropics, first, second = sdks("key-c")
    of_openai(openais, "hourly")
    with pytest.raises(openai.RateLimitError) as caught:
        of_openai(openais, "hourly")
    with pytest.raises(anthropic.RateLimitError) as other:
        of_anthropic(anthropics, "hourly")

    for error in (caught.value, other.value):
        assert error.response.headers["x-should-retry"] == "false"
        assert 60 < int(error.response.headers["retry-after"]) <= 3 * 3600 + 180
    assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")
    assert other.value.response.json()["error"]["type"] == "rate_limit_error"
    assert other.value.response.json()["error"]["details"]["error_code"] == "hours"
    assert (len(first), len(second)) == (2, 1)


def test_an_sdk_that_waits_as_told_is_served(sdks):
    client, _, attempts, _ = sdks("key-d")
    for _ in range(2):
        assert of_openai(client, "paced").choices

    assert len(attempts) in (2, 3)


@pytest.mark.parametrize("caps", [(1, 200), (200, 1), (None, 200)])
def test_the_larger_cap_counts_whichever_the_host_would_heed(sdks, openai, caps):
    client, *_ = sdks("key-e")
    named = {"max_tokens": caps[0], "max_completion_tokens": caps[1]}
    with pytest.raises(openai.BadRequestError) as caught:
        of_openai(client, "capped", **{k: v for k, v in named.items() if v is not None})
    served = of_openai(client, "capped", max_tokens=1, max_completion_tokens=2)

    assert caught.value.code == "request_exceeds_quota"
    assert served.usage.completion_tokens == 20


def whoami(server, headers, source="127.0.0.1"):
    """Ask who one is, from an address of this machine."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", server.port, timeout=30, source_address=(source, 0)
    )
    try:
        connection.putrequest("GET", "/whoami")
        for name, value in headers:
            connection.putheader(name.decode(), value)
        connection.endheaders()
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


# Those with another header, or a peer that no client over IPv4 has, are shown without a server.
REAL = [name for name in VECTORS if name[:2] not in ("04", "13", "14", "15", "16", "17")]


def test_a_real_server_believes_the_first_stranger_from_the_right(server):
    found, expected = {}, {}
    for vector in REAL:
        peer, headers, _, client = VECTORS[vector]
        source = "127.0.0.2" if peer == "203.0.113.9" else "127.0.0.1"
        found[vector] = whoami(server, headers, source).get("client.ip")
        # The peers of the vectors are addresses that this machine has not.
        expected[vector] = source if client == peer else client

    assert found == expected


def test_no_header_of_a_stranger_is_read(server):
    forged = [
        (name, b"8.8.8.8") for name in (b"x-forwarded-for", b"x-real-ip", b"cf-connecting-ip")
    ]
    forged.append((b"forwarded", b"for=8.8.8.8"))

    assert whoami(server, forged, "127.0.0.2")["client.ip"] == "127.0.0.2"


def test_a_long_header_ends_at_the_first_stranger(server):
    headers = [(b"x-forwarded-for", b"6.6.6.6, " * 500 + b"198.51.100.7, 10.0.0.3")]

    assert whoami(server, headers)["client.ip"] == "198.51.100.7"

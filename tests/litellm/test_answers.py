"""What clients of LiteLLM's proxy see of the guard: refusals, fields, what is served instead."""

from __future__ import annotations

import httpx
import pytest

from guardrail.http.litellm import FALLBACKS
from tests.http.servers import until
from tests.litellm.test_calls import ASK, CALLS
from tests.litellm.upstream import SEEN

ANTHROPIC = "/v1/messages"
OVERRIDE = {"fallbacks": [{"small": ["closed"]}]}


@pytest.mark.parametrize("call", CALLS)
def test_a_refusal_of_any_call_arrives_with_its_status_its_fields_and_its_words(proxy, call):
    path, sent, _ = CALLS[call]
    with proxy.client(f"few-{call}") as client:
        served, refused = client.post(path, **sent), client.post(path, **sent)
    error = refused.json()["error"]

    assert served.status_code == 200
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "43200"
    assert refused.headers["x-should-retry"] == "false"
    assert refused.headers["cache-control"] == "no-store"
    if path == ANTHROPIC:
        assert refused.json()["type"] == "error"
        assert (error["type"], error["details"]["error_code"]) == ("rate_limit_error", "few")
    else:
        assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
    assert proxy.settled(client.name)["calls"] == 1


def test_an_admitted_call_tells_how_the_callers_own_limits_stand(proxy):
    with proxy.client() as client:
        answer = client.post("/v1/chat/completions", json=ASK)

    assert answer.headers["x-ratelimit-remaining-requests"] == "99999"
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/chat/completions", "large"),
        ("/v1/responses", "large"),
        ("/openai/deployments/large/chat/completions", "large"),
        ("/mine", "large"),
    ],
)
def test_a_degraded_call_is_served_by_the_weaker_model_and_says_so(proxy, path, model):
    with proxy.client() as client:
        body = ASK | {"model": model} | ({"input": "hi"} if "responses" in path else {})
        SEEN.clear()
        answer = client.post(path, json=body)

    assert answer.headers["x-guardrail-decision"] == "degrade; reason=less;model=small"
    assert [seen["model"] for seen in SEEN] == ["small"]


@pytest.mark.parametrize(("name", "status"), [("free-1", 403), ("paid-1", 200)])
def test_facts_of_a_key_decide(proxy, name, status):
    with proxy.client(name) as client:
        assert (
            client.post("/v1/chat/completions", json=ASK | {"model": "dear"}).status_code == status
        )


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [
        ("x-forwarded-for", "5.160.139.132", 451),
        ("x-forwarded-for", "198.51.100.7", 200),
        ("user-agent", "robot", 403),
    ],
)
def test_facts_of_the_connection_decide(proxy, field, value, status):
    with proxy.client() as client:
        answer = client.post("/v1/chat/completions", json=ASK, headers={field: value})

    assert answer.status_code == status


@pytest.mark.parametrize("name", FALLBACKS)
def test_models_that_only_litellm_would_choose_are_refused(proxy, name):
    with proxy.client() as client:
        SEEN.clear()
        listed = client.post("/v1/chat/completions", json={**ASK, name: ["closed"]})
        overridden = client.post("/v1/chat/completions", json={**ASK, name: OVERRIDE})
        joined = client.post("/v1/chat/completions", json=ASK | {"model": "small,closed"})
        closed = client.post("/v1/chat/completions", json=ASK | {"model": "closed"})

    assert (listed.status_code, listed.json()["error"]["param"]) == (400, name)
    assert (overridden.status_code, overridden.json()["error"]["param"]) == (400, name)
    assert (joined.status_code, joined.json()["error"]["param"]) == (400, "model")
    assert (closed.status_code, closed.json()["error"]["code"]) == (403, "closed_model")
    assert SEEN == []


def test_a_key_that_litellm_does_not_accept_is_refused_by_litellm(proxy):
    with proxy.client() as client:
        headers = {"authorization": "Bearer of-nobody"}
        answer = client.post("/v1/chat/completions", json=ASK, headers=headers)

    assert answer.status_code == 401
    assert "no such key" in answer.text


def test_while_litellm_cannot_tell_who_asks_nobody_is_taken_for_somebody_else(proxy):
    with proxy.client("away") as client:
        answer = client.post("/v1/chat/completions", json=ASK)

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "facts_unavailable")


@pytest.mark.parametrize("content", [b"{", b'{"model": "small", "model": "large"}'])
def test_a_body_that_cannot_be_read_is_refused_and_costs_nothing(proxy, content):
    with proxy.client() as client:
        headers = {"content-type": "application/json"}
        answer = client.post("/v1/chat/completions", content=content, headers=headers)

    assert answer.status_code == 400
    assert proxy.settled(client.name)["calls"] == 0


@pytest.mark.parametrize("path", ["/health/liveliness", "/routes", "/key/list", "/v2/model/info"])
def test_administration_is_not_counted(proxy, path):
    with proxy.client() as client:
        answer = client.get(path)

    assert "x-ratelimit-limit-requests" not in answer.headers
    assert proxy.settled(client.name)["calls"] == 0


def test_a_call_of_nobody_known_is_decided_too(proxy):
    before = len(proxy.entry.RECORDS)
    with httpx.Client(base_url=proxy.url) as client:
        served = client.post("/v1/chat/completions", json=ASK)
        closed = client.post("/v1/chat/completions", json=ASK | {"model": "closed"})
    records = until(lambda: proxy.entry.RECORDS[before:][1:] and proxy.entry.RECORDS[before:])

    assert (served.status_code, closed.status_code) == (200, 403)
    assert [record["ending"] for record in records] == ["settled", "refused"]
    assert "account" not in records[0]


def test_litellm_sets_the_cost_of_a_call_aside_once(proxy):
    with proxy.client("budget-1") as client:
        answer = client.post("/v1/chat/completions", json=ASK | {"model": "priced"})

    assert answer.status_code == 200
    # A call may cost 0.108, its prompt and 100 tokens at the price of the model.
    assert 0 < proxy.spent("budget-1") < 0.15

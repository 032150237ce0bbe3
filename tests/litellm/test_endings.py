"""How calls to LiteLLM's proxy end: failures, clients that leave, leases, and an unusable clock."""

from __future__ import annotations

import json
from contextlib import contextmanager

import httpx
import pytest
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import connect

from tests.http.servers import until
from tests.litellm.test_calls import ASK
from tests.litellm.upstream import SEEN, Held

CHAT = "/v1/chat/completions"
TURN = json.dumps({"type": "response.create", "response": {"max_output_tokens": 100}})


def saying(text, **more):
    return {**ASK, "messages": [{"role": "user", "content": text}], **more}


@contextmanager
def going_on(client):
    """Open a stream that goes on, and yield its chunks."""
    asked = saying("please go on", stream=True)
    with client.stream("POST", CHAT, json=asked) as answer:
        assert answer.status_code == 200
        yield answer.iter_lines()


@pytest.mark.parametrize(
    ("asks", "status", "calls"), [("please fail", 500, 0), ("please refuse", 400, 1)]
)
def test_a_failed_call_pays_for_no_tokens(proxy, asks, status, calls):
    with proxy.client() as client:
        answer = client.post(CHAT, json=saying(asks))
    used = proxy.settled(client.name)

    assert answer.status_code == status
    assert (used["calls"], used["tokens"]) == (calls, 0)


def test_a_stream_shows_no_usage_that_its_client_did_not_ask_for(proxy):
    with proxy.client() as client:
        silent = client.post(CHAT, json=ASK | {"stream": True})
        asked = client.post(
            CHAT, json=ASK | {"stream": True, "stream_options": {"include_usage": True}}
        )

    assert '"usage"' not in silent.text
    assert silent.text.rstrip().endswith("data: [DONE]")
    assert '"total_tokens":22' in asked.text.replace(" ", "")
    assert proxy.settled(client.name)["tokens"] == 44


def test_a_client_that_leaves_a_stream_pays_for_what_streamed(proxy):
    with proxy.client() as client, going_on(client) as lines:
        for _ in range(20):
            next(lines)
        assert proxy.place_of(client.name) == 1
    used = proxy.settled(client.name)

    assert used["calls"] == 1
    assert 0 < used["tokens"] <= 110


def test_a_client_that_leaves_before_an_answer_holds_its_place_until_the_call_has_ended(proxy):
    Held.goes, waiting = False, Held.waiting
    with proxy.client() as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post(CHAT, json=saying("please wait"), timeout=1.0)
        until(lambda: Held.waiting > waiting)
        Held.goes = True

    assert proxy.settled(client.name)["calls"] == 1


def test_a_call_that_was_suspended_past_its_lease_takes_its_place_anew(proxy):
    with proxy.client() as client, going_on(client) as first:
        next(first)
        proxy.clock.advance(45)
        for line in first:
            if line and proxy.place_of(client.name) == 1:
                break
        with going_on(client) as second:
            next(second)
            third = client.post(CHAT, json=ASK)

    assert third.status_code == 429
    assert third.json()["error"]["reason"] == "places"
    assert proxy.settled(client.name)["calls"] == 2


def test_a_clock_that_is_unusable_when_a_call_ends_does_not_reach_the_client(proxy):
    Held.goes, waiting, now = True, Held.waiting, proxy.clock.now
    with proxy.client() as client, going_on(client) as lines:
        next(lines)
        proxy.clock.now = float("nan")
        try:
            for _ in range(5):
                next(lines)
        finally:
            proxy.clock.now = now
    with proxy.client() as client:
        until(lambda: Held.waiting > waiting)
        assert client.post(CHAT, json=ASK).status_code == 200


def session(proxy, name, **more):
    url = proxy.url.replace("http", "ws") + "/v1/realtime?model=talks"
    return connect(url, additional_headers={"authorization": f"Bearer sk-{name}"}, **more)


def turn(socket):
    """Ask for one response, and return the event that ends it."""
    socket.send(TURN)
    while True:
        event = json.loads(socket.recv(30))
        if event["type"] in ("response.done", "error"):
            return event


def test_a_realtime_session_is_decided_and_settled_turn_by_turn(proxy):
    with session(proxy, "talker") as socket:
        ended = [turn(socket)["type"] for _ in range(3)]
    used = proxy.settled("talker")

    assert ended == ["response.done"] * 3
    assert (used["calls"], used["tokens"]) == (3, 66)


def test_a_turn_that_is_refused_does_not_reach_the_model(proxy):
    with session(proxy, "few-turns") as socket:
        SEEN.clear()
        served, refused = turn(socket), turn(socket)

    assert served["type"] == "response.done"
    assert refused["error"]["code"] == "insufficient_quota"
    assert [seen["type"] for seen in SEEN] == ["response.create"]


def test_a_session_without_an_accepted_key_is_refused_by_litellm(proxy):
    with pytest.raises((InvalidStatus, WebSocketException)):
        connect(proxy.url.replace("http", "ws") + "/v1/realtime?model=talks")


def test_a_handshake_that_policy_refuses_is_refused(proxy):
    with session(proxy, "few-shakes") as socket:
        turn(socket)
    with pytest.raises(InvalidStatus) as caught:
        session(proxy, "few-shakes")

    assert caught.value.response.status_code == 429

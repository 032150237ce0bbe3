"""Requests over ASGI, message by message: what is read when, what is passed on, what is charged."""

from __future__ import annotations

import asyncio
from itertools import chain

import pytest

from guardrail.http.request import head_of_scope
from tests.http.driving import (
    ASK,
    JSON,
    Call,
    Guarded,
    Host,
    ask,
    body_messages,
    completion,
    scope_of,
)

POLICY = """
guardrail: 1
policy: requests
models: {large: {max_output: 500, weaker: small}, small: {max_output: 200}}
rules:
  - id: banned
    when: {enforcement.status: banned}
    unknown: skip
    block: {reason: closed}
  - {id: calls, when: always, budget: {requests: 5, per: day, key: account.id}}
  - {id: tokens, when: always, budget: {tokens: 10k, per: day, key: account.id}}
  - {id: places, when: always, concurrency: {max: 5, key: account.id}}
"""


@pytest.mark.parametrize(
    ("status", "calls", "tokens"),
    [(200, 1, 30), (307, 0, 0), (400, 1, 0), (404, 1, 0), (429, 0, 0), (500, 0, 0), (503, 0, 0)],
)
def test_what_is_not_a_success_gives_its_tokens_back(status, calls, tokens):
    guarded = Guarded(POLICY, Host([completion()], status=status, headers=JSON))
    guarded.ask()

    assert (guarded.used("calls"), guarded.used("tokens")) == (calls, tokens)
    assert guarded.used("places") == 0


@pytest.mark.parametrize(("fails", "tokens"), [("before", 0), ("after", 30)])
def test_what_the_host_raises_goes_through_and_is_settled(fails, tokens):
    guarded = Guarded(POLICY, Host([completion()], headers=JSON, fails=fails))
    with pytest.raises(RuntimeError, match="model") as caught:
        guarded.ask()

    assert caught.traceback[-1].name == "__call__"
    assert str(caught.traceback[-1].path).endswith("driving.py")
    assert guarded.used("tokens") == tokens
    assert guarded.used("places") == 0


def test_unknown_messages_and_scopes_pass():
    sent: list[dict] = [
        {"type": "http.response.early_hint", "links": [b"</a>"]},
        {"type": "http.response.debug", "info": {}},
        {"type": "http.response.start", "status": 200, "headers": [], "trailers": True},
        {"type": "http.response.pathsend", "path": "/tmp/x"},
        {"type": "http.response.trailers", "headers": [(b"a", b"b")]},
    ]

    async def host(scope, receive, send):
        for message in sent:
            await send(message)

    guarded = Guarded(POLICY, host)
    call = guarded.ask()

    assert [m["type"] for m in call.sent] == [m["type"] for m in sent]
    assert call.sent[3:] == sent[3:]
    assert call.sent[2]["trailers"] is True

    other = Call({"type": "webtransport"})
    asyncio.run(other.run(guarded.app))
    assert len(other.sent) == 5


def test_after_the_body_the_host_hears_the_server_itself():
    heard = []

    async def host(scope, receive, send):
        heard.append(await receive())
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        assert not waiting.done()
        call.left.set()
        heard.append(await waiting)

    guarded = Guarded(POLICY, host)
    call = Call(scope_of(body=ASK), body_messages(ASK))

    async def run():
        call.left = asyncio.Event()
        await call.run(guarded.app)

    asyncio.run(run())

    assert heard == [
        {"type": "http.request", "body": ASK, "more_body": False},
        {"type": "http.disconnect"},
    ]


def test_a_client_that_leaves_before_the_first_byte_pays_for_its_input():
    async def host(scope, receive, send):
        await receive()
        call.left.set()
        await receive()

    guarded = Guarded(POLICY, host)
    call = Call(scope_of(body=ASK), body_messages(ASK))
    asyncio.run(call.run(guarded.app))

    assert guarded.used("calls") == 1
    assert 0 < guarded.used("tokens") < 40
    assert guarded.used("places") == 0


def test_our_own_failure_is_a_503_and_is_not_charged(monkeypatch):
    guarded = Guarded(POLICY)
    monkeypatch.setattr(guarded.guard, "decide", None)
    call = guarded.ask()

    assert call.status == 503
    assert call.headers["retry-after"] == "1"
    assert "x-should-retry" not in call.headers
    assert guarded.host.scopes == []


def test_facts_that_cannot_be_had_are_a_503_not_a_guess():
    guarded = Guarded(POLICY)
    guarded.directory.down = True
    call = guarded.ask()

    assert call.status == 503
    assert call.json["error"]["code"] == "facts_unavailable"
    assert call.received_first == 0


def test_shadow_changes_no_byte():
    enforced = "  - {id: w, when: always, rate: {requests: 1/day, key: account.id}, mode: shadow}"
    shadowed = Guarded(POLICY + enforced)
    plain = Guarded(POLICY)
    calls = [[guarded.ask() for _ in range(3)] for guarded in (plain, shadowed)]

    def bare(call):
        return [
            {**m, "headers": [h for h in m.get("headers", []) if h[0] != b"x-request-id"]}
            for m in call.sent
        ]

    assert [bare(call) for call in calls[0]] == [bare(call) for call in calls[1]]


def test_a_shadow_rule_still_says_what_it_would_have_done():
    rule = "  - {id: w, when: always, rate: {requests: 1/day, key: account.id}, mode: shadow}"
    guarded = Guarded(POLICY + rule)
    guarded.ask()
    guarded.ask()
    decision = guarded.host.scopes[-1]["guardrail.passage"].decision

    assert [report.rule for report in decision.shadow] == ["w"]


def test_fields_of_the_host_stand():
    guarded = Guarded(POLICY, Host(headers=[*JSON, (b"X-Request-Id", b"mine")]))
    headers = guarded.ask().sent[0]["headers"]

    assert [v for k, v in headers if k.lower() == b"x-request-id"] == [b"mine"]


def test_a_short_throttle_is_held_instead_of_refused():
    policy = (
        "guardrail: 1\npolicy: p\nrules:\n"
        "  - {id: r, when: always, rate: {requests: 1/second, burst: 1, key: account.id}}"
    )
    slept = []

    async def sleep(seconds):
        slept.append(seconds)
        guarded.clock.advance(seconds)

    guarded = Guarded(policy, max_delay=2, sleep=sleep)
    statuses = [guarded.ask().status for _ in range(4)]
    assert statuses == [200] * 4
    assert slept == [pytest.approx(1)] * 3

    unheld = Guarded(policy)
    assert [unheld.ask().status for _ in range(2)] == [200, 429]
    full = Guarded(policy, max_delay=2, max_held=0)
    assert [full.ask().status for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    "given",
    [
        [(b"content-length", b"5"), (b"x", b"Y")],
        [[b"content-length", b"5"], [b"x", b"Y"]],
        [(b"Content-Length", b"5"), (b"X", b"Y")],
        [(bytearray(b"content-length"), b"5"), (b"x", memoryview(b"Y"))],
        iter([(b"content-length", b"5"), (b"X", b"Y")]),
    ],
)
def test_header_fields_are_bytes_in_lower_case_however_a_server_hands_them_over(given):
    head = head_of_scope({"type": "http", "path": "/", "headers": given})

    assert head.headers == ((b"content-length", b"5"), (b"x", b"Y"))
    assert set(map(type, chain.from_iterable(head.headers))) == {bytes}
    assert head.stated_length == 5


def test_a_request_without_a_body_is_not_waited_for():
    guarded = Guarded(POLICY)

    async def host(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    guarded.app.app = host
    call = ask(guarded.app, None, (), path="/v1/models", method="GET")

    assert call.status == 200
    assert call.received == 0
    assert (guarded.used("calls"), guarded.used("tokens")) == (1, 0)


@pytest.mark.parametrize(
    ("served", "spent"), [("small", 10), ("small-2026-01-01", 10), ("big", 50)]
)
def test_money_is_counted_at_the_model_that_answered_if_it_is_known(served, spent):
    policy = """
guardrail: 1
policy: money
models:
  big: {price: {input: 1000, output: 2000}, max_output: 200}
  small: {price: {input: 200, output: 400}, max_output: 200}
rules:
  - {id: money, when: always, budget: {cost_usd: 100, per: day, key: account.id}}
"""
    host = Host([completion(served, prompt=10, output=20)], headers=JSON)
    guarded = Guarded(policy, host)
    guarded.ask()

    assert guarded.used("money") == pytest.approx(spent / 1000)


@pytest.mark.parametrize("client", [None, ("", 0), ("", "0")], ids=["none", "empty", "granian"])
def test_the_peer_of_a_unix_socket_has_no_address(client):
    scope = {"type": "http", "path": "/", "headers": [], "client": client}

    assert head_of_scope(scope).peer is None

"""Requests over ASGI, message by message: what is read when, what is passed on, what is charged."""

from __future__ import annotations

import asyncio
import json

import pytest

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
DEGRADE = """
guardrail: 1
policy: less
models: {large: {max_output: 500, weaker: small}, small: {max_output: 200}}
rules:
  - id: less
    when: always
    degrade: {model: small, max_output_tokens: 50, disable: [tools], x-note: "less"}
"""
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
LARGE = json.dumps({"model": "large", "messages": [], "max_tokens": 20, "tools": [TOOL]}).encode()


def test_check_31_what_the_head_refuses_never_asks_for_the_body():
    policy = "guardrail: 1\npolicy: p\nrules:\n  - {id: g, when: {geo.country: US}, block: {}}"
    guarded = Guarded(policy)
    call = guarded.ask()

    assert call.status == 403
    assert call.received == 0
    assert guarded.host.scopes == []


def test_check_31_what_a_body_could_change_waits_for_it():
    policy = (
        "guardrail: 1\npolicy: p\nrules:\n"
        "  - {id: g, when: {geo.country: US, request.tools: {gt: 0}}, block: {}}"
    )
    guarded = Guarded(policy)

    assert guarded.ask().status == 200
    assert guarded.ask(LARGE).status == 403


def test_check_31_an_exemption_holds_for_the_head_too():
    policy = """
guardrail: 1
policy: p
rules:
  - {id: g, when: {geo.country: US}, block: {}}
exemptions:
  - {id: e, rules: [g], when: {account.id: acct-a}, reason: pilot, expires: 2030-01-01}
"""
    guarded = Guarded(policy)

    assert guarded.ask().status == 200
    assert guarded.ask(key="key-b").status == 403


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_check_32_an_unchanged_body_is_passed_byte_by_byte(pieces):
    odd = b'  {"model" : "small","max_tokens":\t1e1 , "messages":[]}\n'.replace(b"1e1 ", b"10")
    size = -(-len(odd) // pieces)
    chunks = [odd[start : start + size] for start in range(0, len(odd), size)]
    guarded = Guarded(POLICY)
    call = guarded.ask(odd, messages=body_messages(*chunks))

    assert call.status == 200
    assert guarded.host.bodies == [odd]


def test_check_32_a_changed_body_has_its_own_length_and_the_callers_scope_stays():
    guarded = Guarded(DEGRADE)
    scope = scope_of(body=LARGE, headers=[(b"content-encoding", b"identity")])
    before = {**scope, "headers": list(scope["headers"])}
    asyncio.run(Call(scope, body_messages(LARGE)).run(guarded.app))
    passed = guarded.host.scopes[0]
    headers = dict(passed["headers"])

    assert scope == before
    assert json.loads(guarded.host.bodies[0])["model"] == "small"
    assert headers[b"content-length"] == str(len(guarded.host.bodies[0])).encode()
    assert b"content-encoding" not in headers


def test_check_64_less_is_declared_and_never_more_than_was_asked():
    guarded = Guarded(DEGRADE)
    call = guarded.ask(LARGE)
    served = json.loads(guarded.host.bodies[0])

    assert call.status == 200
    assert served["max_tokens"] == 20
    assert "tools" not in served
    assert call.headers["x-guardrail-decision"] == (
        "degrade; reason=less;model=small;max_output_tokens=50;disable=tools"
    )
    assert call.headers["x-note"] == "less"


def test_a_body_that_cannot_be_served_with_less_is_refused_and_given_back():
    guarded = Guarded(
        DEGRADE.replace(
            "rules:",
            "rules:\n  - {id: n, when: always, budget: {requests: 5, per: day, key: account.id}}",
        )
    )
    call = guarded.ask(b"[1, 2]", path="/infer")

    assert call.status == 403
    assert guarded.used("n") == 0
    assert guarded.host.scopes == []


def test_check_33_a_stated_length_over_the_bound_is_refused_unread():
    call = Guarded(POLICY, max_body=100).ask(b"x" * 101)

    assert call.status == 413
    assert call.received == 0
    assert call.json["error"]["code"] == "request_too_large"
    assert call.headers["connection"] == "close"


def test_check_33_an_unstated_length_is_counted_and_bounded():
    guarded = Guarded(POLICY, max_body=100)
    chunked = [(b"transfer-encoding", b"chunked")]
    messages = body_messages(*[b"x" * 30] * 5)
    call = Call(scope_of(headers=chunked), messages)
    asyncio.run(call.run(guarded.app))

    assert call.status == 413
    assert call.received == 4
    assert guarded.used("calls") == 0


def test_check_33_a_body_that_never_comes_times_out():
    guarded = Guarded(POLICY, body_timeout=0.01)
    call = guarded.ask(messages=body_messages(b"x", b"y")[:1])

    assert call.status == 408
    assert guarded.host.scopes == []


def test_a_client_that_leaves_before_its_body_is_complete_is_not_served():
    guarded = Guarded(POLICY)
    messages = [*body_messages(b"x", b"y")[:1], {"type": "http.disconnect"}]
    call = guarded.ask(messages=messages)

    assert call.sent == []
    assert guarded.host.scopes == []


@pytest.mark.parametrize(
    ("status", "calls", "tokens"),
    [(200, 1, 30), (307, 0, 0), (400, 1, 0), (404, 1, 0), (429, 0, 0), (500, 0, 0), (503, 0, 0)],
)
def test_check_44_what_is_not_a_success_gives_its_tokens_back(status, calls, tokens):
    guarded = Guarded(POLICY, Host([completion()], status=status, headers=JSON))
    guarded.ask()

    assert (guarded.used("calls"), guarded.used("tokens")) == (calls, tokens)
    assert guarded.used("places") == 0


@pytest.mark.parametrize(("fails", "tokens"), [("before", 0), ("after", 30)])
def test_check_45_what_the_host_raises_goes_through_and_is_settled(fails, tokens):
    guarded = Guarded(POLICY, Host([completion()], headers=JSON, fails=fails))
    with pytest.raises(RuntimeError, match="model") as caught:
        guarded.ask()

    assert caught.traceback[-1].name == "__call__"
    assert caught.traceback[-1].path.name == "driving.py"
    assert guarded.used("tokens") == tokens
    assert guarded.used("places") == 0


def test_check_40_unknown_messages_and_scopes_pass():
    sent = [
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


def test_check_29_30_after_the_body_the_host_hears_the_server_itself():
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


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", (), 400),
        (b"\xff\xfe", (), 400),
        (b'{"max_tokens":1,"max_tokens":9}', (), 400),
        (ASK, [(b"content-encoding", b"gzip")], 415),
    ],
)
def test_check_23_a_body_its_endpoint_cannot_take_is_refused(body, headers, status):
    guarded = Guarded(POLICY)
    call = guarded.ask(body, headers=headers)

    assert call.status == status
    assert call.json["error"]["type"] == "invalid_request_error"
    assert guarded.host.scopes == []


@pytest.mark.parametrize("body", [b"{", ASK + b"\x00", b"\x1f\x8bzip"])
def test_check_23_an_unreadable_body_that_is_passed_on_is_never_free(body):
    guarded = Guarded(POLICY, unreadable="strictest")
    guarded.host.status = 201
    guarded.host.chunks = (b"ok",)
    call = guarded.ask(body)

    assert call.status == 201
    assert guarded.used("calls") == 1
    assert guarded.used("tokens") > 0


def test_an_unknown_path_takes_any_body_and_charges_it():
    guarded = Guarded(POLICY)
    guarded.host.chunks = (b"ok",)

    assert guarded.ask(b"\x00proto", path="/svc.Infer/Run").status == 200
    assert guarded.used("calls") == 1
    assert guarded.used("tokens") > 0


def test_check_60_our_own_failure_is_a_503_and_is_not_charged(monkeypatch):
    guarded = Guarded(POLICY)
    monkeypatch.setattr(guarded.guard, "decide", None)
    call = guarded.ask()

    assert call.status == 503
    assert call.headers["retry-after"] == "1"
    assert "x-should-retry" not in call.headers
    assert guarded.host.scopes == []


def test_check_60_facts_that_cannot_be_had_are_a_503_not_a_guess():
    guarded = Guarded(POLICY)
    guarded.app.door.configured.asker.directory.down = True
    call = guarded.ask()

    assert call.status == 503
    assert call.json["error"]["code"] == "facts_unavailable"
    assert call.received == 0


def test_check_61_shadow_changes_no_byte():
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


def test_check_61_a_shadow_rule_still_says_what_it_would_have_done():
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

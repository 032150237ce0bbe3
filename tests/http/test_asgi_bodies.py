"""Bodies over ASGI: when they are asked for, how much is read, and what is passed on."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.http.driving import ASK, Call, Guarded, body_messages, scope_of
from tests.http.test_asgi_requests import POLICY

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


ABROAD = "guardrail: 1\npolicy: p\nrules:\n  - {id: g, when: {geo.country: US}, block: {}}"


def test_what_the_head_refuses_never_asks_for_the_body():
    guarded = Guarded(ABROAD)
    call = guarded.ask(headers=[(b"expect", b"100-continue")])

    assert call.status == 403
    assert call.received == 0
    assert guarded.host.scopes == []


def test_what_the_head_refuses_is_answered_before_the_body_is_taken_away():
    call = Guarded(ABROAD).ask(messages=body_messages(b"x", b"y", b"z"))

    assert (call.received_first, call.received) == (0, 3)
    assert call.headers["content-length"] == str(len(call.body))


def test_what_a_body_could_change_waits_for_it():
    policy = (
        "guardrail: 1\npolicy: p\nrules:\n"
        "  - {id: g, when: {geo.country: US, request.tools: {gt: 0}}, block: {}}"
    )
    guarded = Guarded(policy)

    assert guarded.ask().status == 200
    assert guarded.ask(LARGE).status == 403


def test_an_exemption_holds_for_the_head_too():
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
def test_an_unchanged_body_is_passed_byte_by_byte(pieces):
    odd = b'  {"model" : "small","max_tokens":\t1e1 , "messages":[]}\n'.replace(b"1e1 ", b"10")
    size = -(-len(odd) // pieces)
    chunks = [odd[start : start + size] for start in range(0, len(odd), size)]
    guarded = Guarded(POLICY)
    call = guarded.ask(odd, messages=body_messages(*chunks))

    assert call.status == 200
    assert guarded.host.bodies == [odd]


def test_a_changed_body_has_its_own_length_and_the_callers_scope_stays():
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


def test_less_is_declared_and_never_more_than_was_asked():
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


def test_a_stated_length_over_the_bound_is_refused_unread():
    call = Guarded(POLICY, max_body=100).ask(b"x" * 101)

    assert call.status == 413
    assert call.received_first == 0
    assert call.json["error"]["code"] == "request_too_large"
    assert call.headers["connection"] == "close"


def test_an_unstated_length_is_counted_and_bounded():
    guarded = Guarded(POLICY, max_body=100)
    chunked = [(b"transfer-encoding", b"chunked")]
    messages = body_messages(*[b"x" * 30] * 5)
    call = Call(scope_of(headers=chunked), messages)
    asyncio.run(call.run(guarded.app))

    assert call.status == 413
    assert call.received_first == 4
    assert guarded.used("calls") == 0


MORE = {"type": "http.request", "body": b"x" * 60, "more_body": True}
LAST = {"type": "http.request", "body": b"x", "more_body": False}
LEFT = {"type": "http.disconnect"}


@pytest.mark.parametrize(
    "rest", [[MORE, LAST, MORE], [MORE, LEFT, MORE], [MORE]], ids=["ends", "leaves", "stalls"]
)
def test_a_client_still_sending_is_listened_to_until_it_sees_the_refusal(rest):
    guarded = Guarded(POLICY, max_body=100, body_timeout=0.05)
    chunked = [(b"transfer-encoding", b"chunked")]
    call = Call(scope_of(headers=chunked), [MORE, MORE, *rest])
    asyncio.run(call.run(guarded.app))

    assert call.json["error"]["code"] == "request_too_large"
    assert (call.received_first, call.received) == (2, 4)
    assert [message.get("more_body", False) for message in call.sent[1:]] == [True, False]


def test_a_body_that_never_comes_times_out():
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
    ("body", "headers", "status"),
    [
        (b"{", (), 400),
        (b"\xff\xfe", (), 400),
        (b'{"max_tokens":1,"max_tokens":9}', (), 400),
        (ASK, [(b"content-encoding", b"gzip")], 415),
    ],
)
def test_a_body_its_endpoint_cannot_take_is_refused(body, headers, status):
    guarded = Guarded(POLICY)
    call = guarded.ask(body, headers=headers)

    assert call.status == status
    assert call.json["error"]["type"] == "invalid_request_error"
    assert guarded.host.scopes == []


@pytest.mark.parametrize("body", [b"{", ASK + b"\x00", b"\x1f\x8bzip"])
def test_an_unreadable_body_that_is_passed_on_is_never_free(body):
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


class Awaited:
    """What a server may return in the place of a coroutine: its steps are an iterator, no more."""

    def __init__(self, future):
        self.steps = iter(future.__await__())

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.steps)


@pytest.mark.parametrize("sent", [2, 1], ids=["whole", "late"])
def test_what_is_awaited_of_a_server_need_be_no_coroutine(sent):
    guarded = Guarded(POLICY, body_timeout=0.01)
    call = Call(scope_of(body=ASK))

    async def run():
        loop = asyncio.get_running_loop()
        pieces = [*body_messages(ASK[:5], ASK[5:])][:sent]

        def receive():
            future = loop.create_future()
            if pieces:
                loop.call_soon(future.set_result, pieces.pop(0))
            return Awaited(future)

        await guarded.app(call.scope, receive, call.send)

    asyncio.run(run())
    assert call.status == (200 if sent == 2 else 408)

"""Limits shared with strangers: no answer tells of them, neither a refusal nor a success."""

from __future__ import annotations

import json

import pytest

from guardrail.signals.directory import Identity
from tests.http.accounts import Accounts
from tests.http.driving import Guarded
from tests.http.test_asgi_websockets import connect, echo
from tests.http.wsgi_driving import Hosted, answering

OWN = "  - {id: own, when: always, rate: {requests: 60/minute, burst: 30, key: account.id}}\n"
SHARED = {
    "global": "  - {id: all, when: always, budget: {requests: 2, per: day, key: global}}",
    "network": "  - {id: all, when: always, budget: {requests: 2, per: 3h, key: client.network}}",
    "template": "  - {id: all, when: always, rate: {requests: 2/day, "
    "key: [client.network, request.model]}}",
    "never fits": "  - {id: all, when: always, budget: {tokens: 20, per: 3h, key: client.network}}",
}


def guarded_by(kind, over=""):
    return Guarded(f"guardrail: 1\npolicy: hidden\nrules:\n{OWN}{SHARED[kind]}{over}")


@pytest.mark.parametrize("kind", ["global", "network", "template"])
def test_a_success_shows_only_limits_of_the_callers_own(kind):
    headers = guarded_by(kind).ask().headers

    assert "all" not in str(headers)
    assert headers["ratelimit-policy"] == '"own";q=30;w=30'
    assert headers["x-ratelimit-remaining-requests"] == "29"


@pytest.mark.parametrize("kind", SHARED)
def test_a_refusal_names_no_limit_and_tells_the_wait_in_hours(kind):
    guarded = guarded_by(kind)
    if kind != "never fits":
        guarded.ask(key="key-b")
        guarded.ask(key="key-c")
    guarded.clock.advance(61)
    call = guarded.ask()

    assert call.status == 429
    assert call.json["error"]["code"] == "abnormal_usage_detected"
    assert "all" not in str(call.json).replace("all ", "")
    assert "ratelimit" not in str(call.headers)
    assert call.headers["x-should-retry"] == "false"
    if kind != "never fits":
        assert int(call.headers["retry-after"]) % 3600 == 0
        assert int(call.headers["retry-after"]) >= 3600


def test_two_accounts_that_share_a_limit_see_the_same_successes_as_one():
    alone, together = guarded_by("network"), guarded_by("network")
    together.ask(key="key-b")

    assert shown(alone.ask().headers) == shown(together.ask().headers)


GROUPS = {
    "network": "client.network",
    "signup": "account.signup",
    "identity": "kyc.subject",
    "card": "payment.fingerprint",
    "device": "device.fingerprint",
    "system prompt": "client.network, request.template",
    "everyone": "global",
}
KINDS = {
    "budget": "budget: {requests: 9, per: 3h, key: KEY}",
    "steps": "budget: {requests: 9, per: day, key: KEY}\n"
    "    steps:\n"
    "      - {at: 10%, notify: {x-group: busy}}\n"
    "      - {at: 20%, notify: {x-group: busier}}",
    "rate": "rate: {requests: 9/minute, key: KEY}",
    "places": "concurrency: {max: 9, key: KEY}",
    "distinct": "distinct: {count: account.id, max: 3, per: 9d, key: KEY}",
}
SHARED_BY_TWO = {
    "account.signup": "cohort-1",
    "kyc.subject": "person-1",
    "payment.fingerprint": "card-1",
    "device.fingerprint": "device-1",
}
PATHS = (
    "/v1/chat/completions",
    "/v1/messages",
    "/v1beta/models/small:generateContent",
    "/other",
)
PROMPTED = json.dumps(
    {
        "model": "small",
        "max_tokens": 100,
        "system": "You are one of many.",
        "messages": [{"role": "user", "content": "hi"}],
    }
).encode()


class Group(Accounts):
    """A directory of accounts that have everything in common but their names."""

    provides = Accounts.provides | SHARED_BY_TWO.keys()

    def look_up(self, credential, now):
        found = super().look_up(credential, now)
        return Identity({**found.facts, **SHARED_BY_TWO})


def in_group(kind, fact):
    key = f"[{fact}]" if fact != "global" else fact
    rule = f"  - id: group\n    when: always\n    {KINDS[kind].replace('KEY', key)}\n"
    policy = f"guardrail: 1\npolicy: hidden\nrules:\n{OWN}{rule}"
    return policy, Guarded(policy, directory=Group())


def shown(headers):
    return {k: v for k, v in headers.items() if k not in ("x-request-id", "request-id")}


@pytest.mark.parametrize("fact", GROUPS.values(), ids=GROUPS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_on_a_success_tells_two_accounts_of_one_group_of_each_other(kind, fact):
    if (kind, fact) == ("distinct", "global"):
        pytest.skip("what everyone shares counts no different accounts")
    _, alone = in_group(kind, fact)
    _, together = in_group(kind, fact)
    for _ in range(3):
        together.ask(PROMPTED, key="key-b")
    for path in PATHS:
        first, second = alone.ask(PROMPTED, path=path), together.ask(PROMPTED, path=path)
        assert (first.status, second.status) == (200, 200)
        assert shown(first.headers) == shown(second.headers)
        assert first.body == second.body
        assert "group" not in str(second.sent)
        assert "busy" not in str(second.sent)


def test_nothing_on_an_accepted_socket_or_over_wsgi_tells_of_the_group():
    policy, alone = in_group("steps", "kyc.subject")
    _, together = in_group("steps", "kyc.subject")
    alone.host, together.host = echo, echo
    for guarded in (alone, together):
        guarded.app.app = echo
    for _ in range(3):
        connect(together, key="key-b")

    told = [dict(connect(guarded).sent[0]["headers"]) for guarded in (alone, together)]
    assert shown({k.decode(): v for k, v in told[0].items()}) == shown(
        {k.decode(): v for k, v in told[1].items()}
    )
    sync, more = (Hosted(answering([b"{}"]), policy) for _ in range(2))
    for hosted in (sync, more):
        hosted.app.door.configured.callers.directory = Group()
    for _ in range(3):
        more.ask(HTTP_AUTHORIZATION="Bearer key-b")
    assert shown(sync.ask()[1]) == shown(more.ask()[1])


def test_degrading_by_a_shared_limit_is_declared_without_naming_it():
    policy = """
guardrail: 1
policy: hidden
models: {large: {weaker: small}, small: {}}
rules:
  - id: crowd
    when: always
    budget: {requests: 100, per: day, key: global}
    steps:
      - {at: 1%, degrade: {max_output_tokens: 7, x-crowd: "busy"}}
      - {at: 100%, throttle: {reason: crowd}}
"""
    guarded = Guarded(policy)
    guarded.ask(key="key-b")
    headers = guarded.ask().headers

    assert headers["x-guardrail-decision"] == (
        "degrade; reason=abnormal_usage_detected;max_output_tokens=7"
    )
    assert "crowd" not in str(headers)
    assert b'"max_tokens":7' in guarded.host.bodies[-1] or b":7" in guarded.host.bodies[-1]


def test_a_network_that_stands_in_for_an_account_is_shared():
    policy = "guardrail: 1\npolicy: hidden\nrules:\n" + OWN.replace("burst: 30", "burst: 1")
    guarded = Guarded(policy)
    first, second = guarded.ask(key=None), guarded.ask(key=None)

    assert "ratelimit" not in first.headers
    assert second.json["error"]["code"] == "abnormal_usage_detected"


def test_an_account_that_stands_in_for_a_missing_fact_is_the_callers_own():
    rule = "  - {id: id, when: always, rate: {requests: 1/minute, key: kyc.subject}}"
    headers = Guarded(f"guardrail: 1\npolicy: hidden\nrules:\n{rule}").ask().headers

    assert headers["ratelimit-policy"] == '"id";q=1;w=60'


def test_a_refusal_by_an_own_limit_with_the_longer_wait_says_so():
    rules = """
  - {id: own, when: always, budget: {requests: 1, per: day, key: account.id}}
  - {id: all, when: always, rate: {requests: 1/minute, key: client.network}}
"""
    guarded = Guarded(f"guardrail: 1\npolicy: hidden\nrules:\n{rules}")
    guarded.ask()
    call = guarded.ask()

    assert call.json["error"]["reason"] == "own"
    assert call.headers["retry-after"] == "43200"
    assert "all" not in str(call.json)


def test_a_refusal_by_an_own_limit_with_the_shorter_wait_tells_hours():
    rules = """
  - {id: own, when: always, rate: {requests: 1/minute, key: account.id}}
  - {id: all, when: always, budget: {requests: 1, per: day, key: client.network}}
"""
    guarded = Guarded(f"guardrail: 1\npolicy: hidden\nrules:\n{rules}")
    guarded.ask()
    guarded.clock.advance(1)
    call = guarded.ask()

    assert call.json["error"]["code"] == "abnormal_usage_detected"
    assert call.headers["retry-after"] == "43200"

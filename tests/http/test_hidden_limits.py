"""Limits shared with strangers: no answer tells of them, neither a refusal nor a success."""

from __future__ import annotations

import pytest

from tests.http.driving import Guarded

OWN = "  - {id: own, when: always, rate: {requests: 60/minute, burst: 30, key: account.id}}\n"
SHARED = {
    "global": "  - {id: all, when: always, budget: {requests: 2, per: day, key: global}}",
    "network": "  - {id: all, when: always, budget: {requests: 2, per: 3h, key: client.network}}",
    "template": "  - {id: all, when: always, rate: {requests: 2/day, key: request.model}}",
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

    def shown(call):
        return {k: v for k, v in call.headers.items() if k != "x-request-id"}

    assert shown(alone.ask()) == shown(together.ask())


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

"""What a refusal says: status, code, type, wait, in the words of each dialect."""

from __future__ import annotations

import json
import re

import pytest

from tests.http.accounts import Accounts
from tests.http.driving import MESSAGES, Guarded

GEMINI = "/v1beta/models/small:generateContent"
POLICY = """
guardrail: 1
policy: refusals
models: {small: {max_output: 200}}
facts: {account.tier: {type: level, values: [email, verified, trial]}}
rules:
  - id: pace
    when: always
    rate: {requests: 60/minute, burst: 2, key: account.id}
  - id: tokens-a-day
    when: {account.tier: trial}
    budget: {tokens: 140, per: day, key: account.id}
    over: {throttle: {reason: daily_tokens}}
"""


def policy_of(rule, facts=""):
    return f"guardrail: 1\npolicy: one\n{facts}\nrules:\n{rule}"


def once_refused(policy, times=1, **options):
    """Return the refusal after some requests were served."""
    scope = {name: options.pop(name) for name in ("path", "headers") if name in options}
    guarded = Guarded(policy, **options)
    for _ in range(times):
        assert guarded.ask(**scope).status == 200
    return guarded.ask(**scope)


def test_a_short_wait_is_a_429_that_clients_may_retry():
    call = once_refused(POLICY, 2)

    assert call.status == 429
    assert call.headers["retry-after"] == "1"
    assert "x-should-retry" not in call.headers
    assert call.json["error"] == {
        "message": "Refused by rule `pace`. Retry in 1 s.",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
        "reason": "pace",
    }


def test_the_wait_is_rounded_up_and_no_less_than_any_limits_own():
    rule = """
  - {id: slow, when: always, rate: {requests: 10/minute, burst: 1, key: account.id}}
  - {id: fast, when: always, rate: {requests: 40/minute, burst: 1, key: account.id}}
"""
    guarded = Guarded(policy_of(rule))
    guarded.ask()
    guarded.clock.advance(0.3)
    call = guarded.ask()

    assert call.headers["retry-after"] == "6"
    assert call.headers["ratelimit"] == '"slow";r=0;t=6, "fast";r=0;t=2'


def test_a_wait_below_a_second_is_told_as_one():
    guarded = Guarded(POLICY)
    guarded.ask()
    guarded.ask()
    guarded.clock.advance(0.7)

    assert guarded.ask().headers["retry-after"] == "1"


def test_milliseconds_are_finer_and_never_later():
    guarded = Guarded(POLICY)
    guarded.ask()
    guarded.ask()
    guarded.clock.advance(0.7)
    headers = guarded.ask().headers

    assert headers["retry-after-ms"] == "300"
    assert int(headers["retry-after-ms"]) <= 1000 * int(headers["retry-after"])


@pytest.mark.parametrize(("unit", "told"), [("minute", None), ("hour", "false")])
def test_a_wait_over_a_minute_is_not_for_clients_to_wait_out(unit, told):
    rule = f"  - {{id: r, when: always, rate: {{requests: 1/{unit}, key: account.id}}}}"
    headers = once_refused(policy_of(rule)).headers

    assert headers.get("x-should-retry") == told
    assert headers["retry-after"] == {"minute": "60", "hour": "3600"}[unit]


def test_what_no_wait_cures_has_none_and_is_not_retried():
    rule = "  - {id: b, when: always, budget: {requests: 1, per: lifetime, key: account.id}}"
    call = once_refused(policy_of(rule))

    assert call.status == 403
    assert "retry-after" not in call.headers
    assert call.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("status", [403, 429, 451])
def test_refusals_are_not_stored(status):
    rule = f"  - {{id: b, when: always, block: {{reason: no, status: {status}}}}}"
    call = once_refused(policy_of(rule), 0)

    assert call.status == status
    assert call.headers["cache-control"] == "no-store"


def test_each_dialect_has_its_own_body():
    refused = {path: once_refused(POLICY, 2, path=path).json for path in (MESSAGES, GEMINI)}
    anthropic, gemini = refused[MESSAGES], refused[GEMINI]

    assert anthropic["type"] == "error"
    assert anthropic["error"]["type"] == "rate_limit_error"
    assert anthropic["error"]["details"] == {"error_code": "pace"}
    assert gemini["error"]["code"] == 429
    assert gemini["error"]["status"] == "RESOURCE_EXHAUSTED"
    assert gemini["error"]["details"][1]["retryDelay"] == "1s"


@pytest.mark.parametrize(
    "scope", [{"headers": [(b"accept", b"application/problem+json")]}, {"path": "/infer"}]
)
def test_problem_documents_where_asked_or_no_dialect_is_known(scope):
    call = once_refused(POLICY, 2, **scope)

    assert call.headers["content-type"] == "application/problem+json"
    assert call.json["status"] == call.status == 429
    assert call.json["type"].endswith("#quota-exceeded")
    assert call.json["violated-policies"] == ["pace"]


def test_a_refusal_names_the_decision():
    openai = once_refused(POLICY, 2)
    anthropic = once_refused(POLICY, 2, path=MESSAGES)

    assert re.fullmatch("[0-9a-f]{24}", openai.headers["x-request-id"])
    assert anthropic.headers["request-id"] == anthropic.json["request_id"]


def test_only_a_401_asks_for_credentials():
    rule = "  - {id: b, when: always, block: {reason: no, status: %s}}"
    told = {
        status: once_refused(policy_of(rule % status), 0).headers.get("www-authenticate")
        for status in (401, 403, 429)
    }

    assert told == {401: "Bearer", 403: None, 429: None}


def test_a_legal_block_is_a_matter_of_permission_to_clients_of_anthropic():
    rule = "  - {id: b, when: always, block: {reason: geo, status: 451}}"
    call = once_refused(policy_of(rule), 0, path=MESSAGES)

    assert (call.status, call.json["error"]["type"]) == (451, "permission_error")


def test_a_401_is_never_invented():
    for key in (None, "nobody's"):
        assert Guarded(POLICY).ask(key=key).status in (200, 403, 429)


def test_a_legal_block_says_who_blocks_and_only_where_the_rule_says_so():
    rule = "  - {id: b, when: {geo.country: {in: [US]}}, unknown: skip, block: {reason: geo%s}}"
    legal = once_refused(policy_of(rule % ", status: 451"), 0)
    named = once_refused(policy_of(rule % ", status: 451"), 0, blocked_by="https://gw.test/")
    plain = once_refused(policy_of(rule % ""), 0)

    assert legal.status == 451
    assert legal.headers["link"] == '</>; rel="blocked-by"'
    assert named.headers["link"] == '<https://gw.test/>; rel="blocked-by"'
    assert plain.status == 403
    assert "link" not in plain.headers
    assert plain.json["error"]["code"] == "unsupported_country_region_territory"
    assert plain.json["error"]["type"] == "request_forbidden"


def test_a_request_larger_than_its_limit_is_a_400_and_costs_nothing():
    rule = "  - {id: b, when: always, budget: {tokens: 50, per: day, key: account.id}}"
    guarded = Guarded(policy_of(rule))
    call = guarded.ask()

    assert call.status == 400
    assert call.json["error"]["code"] == "request_exceeds_quota"
    assert call.json["error"]["type"] == "invalid_request_error"
    assert "retry-after" not in call.headers
    assert guarded.used("b") == 0


def test_a_client_that_waits_as_told_is_served():
    guarded = Guarded(POLICY)
    for _ in range(2):
        guarded.ask()
    for _ in range(5):
        call = guarded.ask()
        assert call.status == 429
        told = call.headers.get("retry-after-ms") or f"{call.headers['retry-after']}000"
        guarded.clock.advance(int(told) / 1000)
        assert guarded.ask().status == 200


def test_a_budget_of_a_day_is_quota_not_pace():
    call = once_refused(POLICY, 1, directory=Accounts(a="trial"))

    assert call.status == 429
    assert call.json["error"]["code"] == "insufficient_quota"
    assert call.json["error"]["reason"] == "daily_tokens"
    assert call.headers["retry-after"] == str(12 * 3600)
    assert call.headers["x-should-retry"] == "false"


def test_waits_for_a_calendar_reset_are_spread_upwards_and_others_are_not():
    rule = "  - {id: b, when: always, budget: {requests: 1, per: day, key: account.id}}"
    guarded = Guarded(policy_of(rule))
    object.__setattr__(guarded.app.door.settings.style, "jitter", lambda: 1.0)
    guarded.ask()
    call = guarded.ask()

    assert call.headers["retry-after"] == str(12 * 3600 + 30)


def test_too_many_in_flight_is_a_code_of_its_own():
    rule = "  - {id: c, when: always, concurrency: {max: 0, key: account.id}}"
    call = once_refused(policy_of(rule), 0)

    assert call.status == 403
    assert call.json["error"]["code"] == "c"


def test_remedies_come_with_their_address():
    rule = "  - {id: b, when: always, block: {reason: tier, remedy: verify}}"
    call = once_refused(policy_of(rule), 0, remedies={"verify": "https://x.test/verify"})

    assert call.status == 403
    assert call.json["error"]["code"] == "verification_required"
    assert call.json["error"]["message"].endswith(
        "Verify your identity to go on. https://x.test/verify"
    )


def test_an_account_on_hold_is_told_so():
    rule = "  - {id: b, when: {enforcement.status: banned}, block: {reason: closed}}"
    call = once_refused(policy_of(rule), 0)

    assert call.status == 403
    assert call.json["error"]["code"] == "account_on_hold"


def test_a_ban_is_abnormal_usage_with_its_true_wait():
    rule = """
  - id: pace
    when: always
    rate: {requests: 1/hour, key: account.id}
    escalate: {after: 1, within: 10m, block_for: 2h}
"""
    guarded = Guarded(policy_of(rule))
    guarded.ask()
    guarded.ask()
    guarded.clock.advance(1)
    call = guarded.ask()

    assert call.status == 429
    assert call.json["error"]["code"] == "abnormal_usage_detected"
    assert call.headers["retry-after"] == str(2 * 3600 - 1)


def test_the_body_is_valid_json_whatever_a_message_holds():
    rule = '  - {id: b, when: always, block: {reason: no, message: "say \\"no\\" — ünï ☃"}}'
    call = once_refused(policy_of(rule), 0)

    assert json.loads(call.body)["error"]["message"] == 'say "no" — ünï ☃'
    assert int(call.headers["content-length"]) == len(call.body)


def test_a_refusal_of_head_has_no_body():
    rule = "  - {id: b, when: always, block: {reason: no}}"
    call = Guarded(policy_of(rule)).ask(body=None, messages=(), method="HEAD", path="/v1/models")

    assert call.status == 403
    assert call.body == b""

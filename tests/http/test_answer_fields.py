"""The fields that tell a caller how limits stand: their grammar, their truth, whose they are."""

from __future__ import annotations

from typing import Any

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.http.responses.client_view import ShownLimit
from guardrail.http.responses.fields import (
    LARGEST,
    go_duration,
    ratelimit_fields,
    rfc3339,
    sf_string,
)
from tests.http.driving import MESSAGES, Guarded

POLICY = """
guardrail: 1
policy: fields
models: {small: {price: {input: 1, output: 5}, max_output: 200}}
rules:
  - id: pace
    when: always
    rate: {requests: 60/minute, burst: 3, key: account.id}
  - id: tokens-a-day
    when: always
    budget: {tokens: 1000, requests: 50, per: day, key: account.id}
  - id: money
    when: always
    budget: {cost_usd: 2.5, per: month, key: account.org}
  - id: places
    when: always
    concurrency: {max: 2, key: credential.id}
"""


def parsed(text):
    """Return a field as names to parameters, read by an independent parser."""
    found = {}
    members: Any = http_sf.parse(text.encode(), tltype="list")
    for name, parameters in members:
        assert isinstance(name, str)
        assert not isinstance(name, http_sf.Token)
        found[name] = parameters
    return found


def test_fields_are_lists_of_strings_with_integer_parameters():
    headers = Guarded(POLICY).ask().headers
    policies, limits = parsed(headers["ratelimit-policy"]), parsed(headers["ratelimit"])

    assert policies["pace"] == {"q": 3, "w": 3}
    assert policies["tokens-a-day.tokens"] == {"q": 1000, "qu": "tokens", "w": 86400}
    assert policies["tokens-a-day.requests"] == {"q": 50, "w": 86400}
    assert policies["money"] == {"q": 2_500_000, "qu": "micro_usd"}
    assert policies["places"] == {"q": 2, "qu": "concurrent-requests"}
    assert limits.keys() == policies.keys()
    assert limits["pace"] == {"r": 2, "t": 1}
    assert limits["places"] == {"r": 1}


@given(
    st.lists(
        st.builds(
            ShownLimit,
            name=st.text(),
            unit=st.sampled_from(["requests", "tokens", "micro_usd"]),
            quota=st.integers(0, 2**53 - 1),
            left=st.integers(0, 2**53 - 1),
            window=st.none() | st.integers(1, 10**9),
            resets=st.none() | st.integers(0, 10**15),
            wait=st.none() | st.integers(0, 10**15),
            key=st.text(),
        ),
        min_size=1,
        max_size=5,
    ),
    st.none() | st.binary(min_size=16, max_size=16),
)
def test_whatever_stands_makes_fields_that_parse(standings, partition):
    fields = dict(ratelimit_fields(standings, partition))

    for value in fields.values():
        members: Any = http_sf.parse(value, tltype="list")
        for _, parameters in members:
            for name, given_value in parameters.items():
                if name in "qrtw":
                    assert type(given_value) is int
                    assert 0 <= given_value <= LARGEST


def test_waits_are_whole_seconds_from_now():
    guarded = Guarded(POLICY)
    guarded.clock.advance(0.25)
    calls = [guarded.ask() for _ in range(4)]

    for call in calls:
        times = parsed(call.headers["ratelimit"])
        assert all(0 <= times[name].get("t", 0) <= 31 * 86400 for name in times)
    assert calls[-1].status == 429
    assert calls[-1].headers["retry-after"].isdigit()
    assert int(calls[-1].headers["retry-after"]) < 10


def test_what_is_left_is_never_negative_nor_over_the_quota():
    guarded = Guarded(POLICY)
    for _ in range(12):
        headers = guarded.ask().headers
        policies, limits = parsed(headers["ratelimit-policy"]), parsed(headers["ratelimit"])
        for name, limit in limits.items():
            assert 0 <= limit["r"] <= policies[name]["q"]


def test_policy_names_are_printable_ascii():
    assert sf_string('a"b\\c\u00e9\n') == '"a\\"b\\\\c??"'


def test_partition_keys_are_hashes_that_tell_callers_apart():
    guarded = Guarded(POLICY, partition_keys=True)
    one, again, other = guarded.ask(), guarded.ask(), guarded.ask(key="key-b")
    keys = [parsed(call.headers["ratelimit"])["pace"]["pk"] for call in (one, again, other)]

    assert all(isinstance(key, bytes) and len(key) == 9 for key in keys)
    assert keys[0] == keys[1] != keys[2]
    assert b"acct-a" not in one.headers["ratelimit"].encode()


def test_a_success_tells_how_limits_stand():
    headers = Guarded(POLICY).ask().headers

    assert headers["ratelimit"]
    assert headers["x-ratelimit-remaining-requests"] == "2"
    assert headers["x-ratelimit-limit-tokens"] == "1000"


def test_resets_are_go_durations_for_openai_and_times_for_anthropic():
    guarded = Guarded(POLICY)
    openai = guarded.ask().headers
    anthropic = guarded.ask(path=MESSAGES).headers

    assert openai["x-ratelimit-reset-requests"] == "1s"
    assert openai["x-ratelimit-reset-tokens"] == "12h0m0s"
    assert anthropic["anthropic-ratelimit-requests-reset"] == "2026-01-05T12:00:02Z"
    assert anthropic["anthropic-ratelimit-tokens-reset"] == "2026-01-06T00:00:00Z"
    assert not [name for name in anthropic if name.startswith("x-ratelimit")]


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "0s"),
        (1, "1ms"),
        (120_000, "120ms"),
        (120_100, "121ms"),
        (999_001, "1s"),
        (1_000_000, "1s"),
        (59_999_001, "1m0s"),
        (360_000_000, "6m0s"),
        (3_600_000_000, "1h0m0s"),
        (3_723_500_000, "1h2m3.5s"),
        (86_400_000_000, "24h0m0s"),
    ],
)
def test_go_durations_are_what_go_prints(micros, text):
    assert go_duration(micros) == text


def test_times_are_rounded_up():
    assert rfc3339(1767614400_001_000) == "2026-01-05T12:00:01Z"


def test_a_host_may_switch_the_fields_off():
    headers = Guarded(POLICY, ratelimit_fields="none", vendor_headers=False).ask().headers

    assert not [name for name in headers if "ratelimit" in name]


def test_shadow_rules_and_distinct_counts_do_not_show():
    policy = (
        POLICY
        + """
  - id: trial
    when: always
    rate: {requests: 1/day, key: account.id}
    mode: shadow
  - id: networks
    when: always
    distinct: {count: client.network, max: 3, per: 1d, key: account.id}
"""
    )

    names = parsed(Guarded(policy).ask().headers["ratelimit-policy"])

    assert not {"trial", "networks"} & names.keys()

"""What records are called and how they are written: another name would start every counter anew.

The names below are those of the first release. A change of one needs a new layout, not a new line.
"""

from __future__ import annotations

import pytest

from guardrail.engine import Engine
from guardrail.loading import load_text
from guardrail.signals.directory import credential_id
from guardrail.stores.lmdb.records import (
    _EXPIRY,
    expired_before,
    expiry,
    line_bytes,
    set_bytes,
    window_bytes,
)
from guardrail.stores.naming import Naming
from tests.engine.tracing import Numbered

SECRET = b"a hash key for tests"
POLICY = """
guardrail: 1
policy: names
units: [images]
models: {small: {price: {input: 1, output: 5}, max_output: 100}}
rules:
  - id: pace
    when: always
    rate: {requests: 60/minute, key: account.id}
    escalate: {after: 3, within: 1m, block_for: 1h}
  - id: day
    when: always
    budget: {tokens: 10, images: 5, per: day, key: [account.id, request.model]}
  - {id: rolling, when: always, budget: {requests: 10, per: 90m, key: account.org}, was: former}
  - id: life
    when: always
    budget: {cost_usd: 10, per: lifetime, key: global}
    mode: shadow
  - {id: places, when: always, concurrency: {max: 3, key: account.id}}
  - id: few
    when: always
    distinct: {count: account.id, max: 3, per: 90d, key: kyc.subject}
"""
IDENTS = {
    "pace": ("Tlds4XD3",),
    "day": ("0nJMuzJO", "8VP4TcnW"),
    "rolling": ("iWa81kz8",),
    "life": ("3v2HAF8e",),
    "places": ("8mGdZSWe",),
    "few": ("b2PQHAy2",),
}
BANS = ("Rvs8sDv7", "Hc_JePsG")


@pytest.mark.parametrize(
    ("layout", "whose", "member"),
    [
        (1, b"qb0_XVsgEWnf20BZ", b"Hfp7XjwKSQw_"),
        (2, b"XYcG2jV4meHAa3GF", b"Kpke23dedEL9"),
    ],
)
def test_a_hash_key_and_a_layout_name_records_as_they_always_did(layout, whose, member):
    naming = Naming(SECRET, layout)

    assert (naming.epoch.layout, naming.epoch.key) == (layout, "df5c70d6")
    assert naming.whose("counter_=acct-a\x1fb") == whose
    assert naming.member("acct-a") == member


def test_counters_are_called_what_they_always_were():
    engine = Engine(load_text(POLICY), Numbered())

    limits = [limit for limit in engine.limits if limit is not None]
    assert {limit.rule.id: limit.idents for limit in limits} == IDENTS
    assert limits[0].ban_idents == BANS


def test_an_account_without_a_directory_is_called_what_it_always_was():
    assert credential_id("sk-1", SECRET) == CREDENTIAL


CREDENTIAL = "EZry_BllmqXolPyEUdTJ4S6i"


def test_records_in_the_file_are_written_as_they_always_were():
    assert window_bytes(5 << 34 | 7, 9).hex() == "00000009" + "0" * 15 + "7" + "0" * 15 + "5"
    assert window_bytes({1: 2, 3: 4}, 9).hex() == "00000009" + "".join(
        f"{number:016x}" for number in (1, 3, 2, 4)
    )
    assert line_bytes(5, 9).hex() == "00000009" + f"{5:016x}"
    assert line_bytes((5, 6), 9).hex() == "00000009" + f"{5:016x}{6:016x}"
    assert set_bytes({b"abcdefghijkl": 5}, 9).hex() == (
        "00000009" + b"abcdefghijkl".hex() + f"{5:016x}"
    )


def test_a_record_stays_until_after_its_lifetime_however_far_that_is():
    assert expiry(0, 0) == 1
    assert expiry(3_999_999, 1) == 2
    assert expiry(2**53 - 1, 2**53 - 1) == 2**32 - 1
    for now in (0, 1, 3_999_999, 4_000_000, 10**15):
        for ttl in (1, 4_000_000, 10**12):
            gone = expiry(now, ttl)
            assert _EXPIRY.pack(gone) >= expired_before(now + ttl)
            assert _EXPIRY.pack(gone) < expired_before(now + ttl + 8_000_000)

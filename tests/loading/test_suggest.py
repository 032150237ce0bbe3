"""A suggestion is what was meant, or nothing."""

from __future__ import annotations

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.loading import nearest
from tests.effort import lines_of

FACTS = (
    "account.id account.org account.tier account.age account.created client.ip client.agent "
    "client.network geo.country geo.asn request.model request.tools request.capability kyc.subject"
).split()
KEYS = "id when block rate budget concurrency distinct degrade over steps mode unknown key".split()


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("acount.tier", "account.tier"),
        ("account.teir", "account.tier"),
        ("account_tier", "account.tier"),
        ("account-tier", "account.tier"),
        ("Account.Tier", "account.tier"),
        ("accountTier", "account.tier"),
        ("account.tiers", "account.tier"),
        ("requets.modle", "request.model"),
        ("geo.county", "geo.country"),
        ("geo.asm", "geo.asn"),
        ("country", "geo.country"),
        ("tools", "request.tools"),
        ("ip", "client.ip"),
        ("Model", "request.model"),
    ],
)
def test_slips_of_the_pen_are_understood(name, near):
    assert nearest(name, FACTS) == near


@pytest.mark.parametrize(
    ("name", "near"),
    [("wehn", "when"), ("Key", "key"), ("keys", "key"), ("budgets", "budget"), ("step", "steps")],
)
def test_short_names_have_one_slip(name, near):
    assert nearest(name, KEYS) == near


@pytest.mark.parametrize("name", ["", "x", "if", "weather", "device.fingerprint", "a" * 200])
def test_nothing_is_suggested_where_nothing_is_close(name):
    assert nearest(name, [*FACTS, *KEYS, ""]) is None


@pytest.mark.parametrize(("one", "several"), [("policy", "policies"), ("my-proxy", "my_proxies")])
def test_a_word_for_one_is_near_the_word_for_several(one, several):
    assert nearest(one, ["other", several]) == several
    assert nearest(several, ["other", one]) == one
    assert nearest(one, [one]) is None


def test_the_same_group_is_preferred():
    assert nearest("client.idx", ["account.id", "client.ids", "billing.idx"]) == "client.ids"
    assert nearest("geo.asm", ["gel.asm", "geo.asn"]) == "geo.asn"


def test_a_last_part_that_several_names_share_suggests_none():
    assert nearest("subject", ["kyc.subject", "mail.subject"]) is None


def test_the_order_of_the_known_names_does_not_matter():
    names = ["limit-a", "limit-b", "limit-c"]

    assert {nearest("limit-x", order) for order in (names, names[::-1], set(names))} == {"limit-a"}


def test_a_name_is_not_suggested_for_itself():
    assert nearest("rate", ["rate", "date"]) == "date"


@given(st.text(string.ascii_lowercase + "._-", max_size=12), st.lists(st.text(max_size=12)))
def test_a_suggestion_is_a_known_name(name, known):
    assert nearest(name, known) in {None, *known}


def slips(one: str, other: str) -> int:
    """Return the optimal string alignment distance by its definition."""
    if not one or not other:
        return len(one) + len(other)
    counts = [slips(one[1:], other) + 1, slips(one, other[1:]) + 1]
    counts.append(slips(one[1:], other[1:]) + (one[0] != other[0]))
    if one[:2] == other[1::-1] and len(one) > 1 < len(other):
        counts.append(slips(one[2:], other[2:]) + 1)
    return min(counts)


@given(st.text("abc", min_size=1, max_size=6), st.text("abc", min_size=1, max_size=6))
def test_close_is_one_slip_in_three_letters(name, other):
    close = name != other and slips(name, other) <= max(len(name), len(other)) // 3

    assert nearest(name, [other]) == (other if close else None)


def test_the_work_of_a_comparison_grows_as_the_names_do():
    chance = random.Random(7)
    names = ["".join(chance.choices(string.ascii_lowercase, k=20)) for _ in range(400)]

    def lines(many):
        """Return how many lines of ours run to compare a name with so many others."""
        return lines_of(lambda: nearest(names[0][::-1], names[:many]))

    assert lines(400) < 15 * lines(40)
    # Twenty letters against twenty: not more than a few steps for each pair of letters.
    assert lines(400) < 400 * 20 * 20 * 8


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("verified", ["unverified"]),
        ("unverified", ["verified"]),
        ("verifed", ["unverified", "email"]),
        ("unverifed", ["verified"]),
        ("account.verified", ["account.unverified"]),
        ("Verified", ["unverified"]),
        ("not-verified", ["verified"]),
        ("is_verified", ["is_unverified"]),
        ("restricted", ["unrestricted"]),
        ("valid", ["invalid"]),
        ("trusted", ["untrusted", "distrusted"]),
        ("allowed", ["disallowed"]),
        ("possible", ["impossible"]),
        ("internal", ["external"]),
        ("account.external", ["account.internal"]),
        ("import", ["export"]),
        ("include", ["exclude"]),
        ("useful", ["useless"]),
        ("increase", ["decrease"]),
    ],
)
def test_the_opposite_is_never_suggested(name, known):
    assert nearest(name, known) is None


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("unverifed", ["unverified", "verified"], "unverified"),
        ("nverified", ["unverified"], "unverified"),
        ("verfied", ["unverified", "verified"], "verified"),
        ("restriced", ["unrestricted", "restricted"], "restricted"),
        ("inputt", ["input", "output"], "input"),
        ("Unverified", ["unverified"], "unverified"),
        ("unit", ["units"], "units"),
        ("indx", ["index"], "index"),
    ],
)
def test_a_slip_in_a_negation_is_understood(name, known, near):
    assert nearest(name, known) == near

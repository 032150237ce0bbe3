"""The keys of an issuer: when they are fetched, rotated, and what holds while they cannot be."""

from __future__ import annotations

import pytest

from guardrail.signals.directory import Freshness
from tests.signals import servers
from tests.signals.issuing import KEYS, MALLORY, NOW, credential, directory, issuer, jwk, token, who
from tests.signals.servers import always, answer, raw

__all__ = ["issuer", "who"]


def test_keys_are_fetched_once_and_again_when_they_are_old(who, issuer, ask):
    for _ in range(3):
        ask(who, credential(token()), NOW)
    assert len(issuer.heads) == 1
    assert ask(who, credential(token(exp=NOW + 9999)), NOW + 601).known
    assert len(issuer.heads) == 2
    assert all(head.startswith(b"GET ") for head in issuer.heads)


def test_unknown_keys_cause_a_fetch_at_most_once_a_minute(who, issuer, ask):
    for second in range(0, 600, 2):
        invented = token(MALLORY, headers={"kid": f"k{second}"}, exp=NOW + 9999)
        assert ask(who, credential(invented), NOW + second).problem == "the issuer has no such key"

    assert len(issuer.heads) <= 11


def test_a_rotated_key_is_found_within_a_minute(who, issuer, ask):
    ask(who, credential(token()), NOW)
    issuer.respond = always(answer({"keys": [*KEYS, jwk(MALLORY, "new", "RS256")]}))
    rotated = token(MALLORY, headers={"kid": "new"})

    assert ask(who, credential(rotated), NOW + 61).known
    assert ask(who, credential(token()), NOW + 61).known
    assert len(issuer.heads) == 2


NO_KEYS = {
    "dead": None,
    "silent": servers.silent,
    "endless": servers.endless,
    "an error": always(raw(b"", "500 Internal Server Error")),
    "a redirect": always(raw(b"", "302 Found", "location: /keys")),
    "garbage": always(raw(b"<html>")),
    "no set": always(answer({"values": KEYS})),
    "a list": always(answer(KEYS)),
    "keys that are none": always(answer({"keys": [1]})),
    "an empty set": always(answer({"keys": []})),
    "a set of secrets": always(answer({"keys": [KEYS[8]]})),
    "too many": always(answer({"keys": [{"kty": "RSA", "kid": str(n)} for n in range(101)]})),
}


@pytest.mark.parametrize("fault", NO_KEYS.values(), ids=NO_KEYS)
def test_an_issuer_that_fails_turns_no_customer_away(issuer, ask, fault):
    wait = 1.0 if fault in (servers.silent, servers.endless) else 10.0
    who = directory(issuer, freshness=Freshness(ttl=600, stale=86_400, timeout=wait, retry=5))
    valid = token(exp=NOW + 10**6)
    ask(who, credential(valid), NOW)
    if fault is None:
        issuer.close()
    else:
        issuer.respond = fault

    assert ask(who, credential(valid), NOW + 86_400).known
    assert not ask(who, credential(token(MALLORY, exp=NOW + 10**6)), NOW + 86_400).known
    rotated = ask(
        who, credential(token(MALLORY, headers={"kid": "new"}, exp=NOW + 10**6)), NOW + 80_000
    )
    assert (rotated.facts, rotated.unavailable) == ({}, who.provides)
    gone = ask(who, credential(valid), NOW + 86_401)
    assert (gone.facts, gone.unavailable) == ({}, who.provides)
    assert "could not be fetched" in who.warnings(NOW)[0]
    who.close()


@pytest.mark.parametrize("told", [KEYS, {"values": KEYS}, {"keys": {}}, {"keys": [1]}, None])
def test_an_answer_that_is_no_key_set_is_called_that(issuer, ask, told):
    issuer.respond = always(answer(told))
    who = directory(issuer)
    ask(who, credential(token()), NOW)

    assert "1 times in a row: an answer that is no key set" in who.warnings(NOW)[0]
    who.close()

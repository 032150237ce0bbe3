"""A directory in verified tokens: what is accepted, and every known way to be let in without."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import SettingError
from guardrail.http.identity import CallerResolver
from guardrail.signals.directory import Identity
from guardrail.signals.directory.tokens import MOST_BYTES, TokenDirectory
from tests.signals.issuing import (
    AUDIENCE,
    CLAIMED,
    DER,
    EC,
    ED,
    FACTS,
    ISSUER,
    KEYS,
    MALLORY,
    NOW,
    PEM,
    RSA,
    RSA_TOO,
    WEAK,
    by_hmac,
    credential,
    directory,
    forged,
    issuer,
    jwk,
    signed,
    token,
    who,
    with_claims,
)
from tests.signals.servers import Server, always, answer

__all__ = ["issuer", "who"]


@pytest.mark.parametrize(
    ("key", "kid", "algorithm"),
    [
        (RSA, "rsa", "RS256"),
        (RSA_TOO, "any-rsa", "RS256"),
        (RSA, "signs-and-verifies", "RS256"),
        (EC, "ec", "ES256"),
        (ED, "ed", "EdDSA"),
    ],
)
def test_a_verified_token_is_its_issuers_subject(who, ask, key, kid, algorithm):
    found = ask(who, credential(token(key, algorithm, {"kid": kid})), NOW)

    assert found == Identity(
        {"account.id": f"{ISSUER}#user-1", "account.tier": "verified", "account.org": "o1"},
        expires=NOW + 600,
    )


def test_one_of_several_audiences_is_enough(who):
    assert who.look_up(credential(token(aud=["other", AUDIENCE])), NOW).known


def test_a_claim_that_is_none_of_the_values_listed_is_said(who, caplog):
    told: dict[str, Any] = {"https://example.com/tier": "platinum"}
    assert who.look_up(credential(token(**told)), NOW).known

    assert "tells a value of `account.tier` that is none of its values" in caplog.text


def header_with(**more: object) -> dict[str, object]:
    return {"kid": "rsa", **more}


ATTACKS = {
    "no algorithm": forged({"alg": "none", "kid": "rsa"}),
    "no algorithm, capitals": forged({"alg": "NONE", "kid": "rsa"}),
    "no algorithm at all": forged({"kid": "rsa"}),
    "signature cut off": token().rpartition(".")[0] + ".",
    "hmac with the public key, pem": forged({"alg": "HS256", "kid": "rsa"}, by_hmac(PEM)),
    "hmac with the public key, der": forged({"alg": "HS256", "kid": "rsa"}, by_hmac(DER)),
    "hmac with the jwk": forged(
        {"alg": "HS256", "kid": "rsa"}, by_hmac(json.dumps(KEYS[0]).encode())
    ),
    "hmac called rs256": forged({"alg": "RS256", "kid": "rsa"}, by_hmac(PEM)),
    "hmac with the set's secret": forged({"alg": "HS256", "kid": "oct"}, by_hmac(b"s" * 32)),
    "a secret called a key": forged({"alg": "RS256", "kid": "oct"}, by_hmac(b"s" * 32)),
    "another's signature": token(MALLORY),
    "a key in the header": token(MALLORY, headers=header_with(jwk=jwk(MALLORY, "rsa", "RS256"))),
    "a certificate in the header": token(MALLORY, headers=header_with(x5c=["MIIB"])),
    "a broken key": token(MALLORY, headers={"kid": "broken"}),
    "a point off the curve": token(EC, "ES256", {"kid": "off-curve"}),
    "a short key": signed(CLAIMED, WEAK, "weak"),
    "a key for encryption": token(headers={"kid": "enc"}),
    "a key that verifies nothing": token(headers={"kid": "wraps"}),
    "a key whose operations are no list": token(headers={"kid": "verify"}),
    "a key id twice in the set": token(headers={"kid": "twice"}),
    "an algorithm not allowed": token(algorithm="RS512"),
    "an algorithm not the key's": token(algorithm="PS256"),
    "a key of another kind": token(EC, "ES256", {"kid": "rsa"}),
    "a key id that is a path": token(headers={"kid": "../../dev/null"}),
    "a key id that is a number": forged({"alg": "RS256", "kid": 1}),
    "no key id": token(headers={"typ": "JWT"}),
    "a critical extension": token(headers=header_with(crit=["exp"], exp=1)),
    "an unencoded payload": token(headers=header_with(b64=False)),
    "an algorithm that is a list": forged({"alg": ["RS256"], "kid": "rsa"}),
    "a header that is a list": forged([{"alg": "RS256"}]),  # type: ignore[arg-type]
    "changed claims": with_claims(token(), {**CLAIMED, "sub": "admin"}),
    "another issuer": token(iss="https://evil.example"),
    "an issuer that only starts alike": token(iss=ISSUER + ".evil"),
    "issuers": token(iss=[ISSUER]),
    "another audience": token(aud="other-api"),
    "an audience that only starts alike": token(aud=AUDIENCE + "-admin"),
    "no issuer": token(iss=...),
    "no audience": token(aud=...),
    "no end": token(exp=...),
    "no subject": token(sub=...),
    "an empty subject": token(sub=""),
    "a subject that is a number": token(sub=7),
    "a subject that is too long": token(sub="x" * 2000),
    "ended": token(exp=NOW - 61),
    "not begun": token(nbf=NOW + 61),
    "an end that is text": token(exp="never"),
    "an end that is true": token(exp=True),
    "an end that is infinite": signed({**CLAIMED, "exp": math.inf}),
    "an end that is no number": signed({**CLAIMED, "exp": math.nan}),
    "an end beyond floats": signed({**CLAIMED, "exp": 10**400}),
    "two parts": "a.b",
    "four parts": token() + ".x",
    "five parts": "a.b.c.d.e",
    "empty parts": "..",
    "a plain key": "sk-CANARY",
    "deep": base64.urlsafe_b64encode(b'{"alg":' + b"[" * 9000).decode() + ".e30.e30",
    "long": token(pad="x" * MOST_BYTES),
    "not ascii": token().encode() + b"\xff",
    "a byte more": token() + "A",
    "padding": token() + "==",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_what_does_not_verify_is_nobody(who, ask, attack):
    found = ask(who, credential(attack), NOW)

    assert found.facts == {}
    assert found.unavailable == frozenset()
    assert found.problem
    text = attack.decode("latin-1") if isinstance(attack, bytes) else attack
    assert not any(len(part) > 3 and part in found.problem for part in text.split("."))


@pytest.mark.parametrize("name", ["jku", "x5u"])
def test_no_token_says_where_its_key_is(who, ask, name):
    with Server(always(answer({"keys": [jwk(MALLORY, "mine", "RS256")]}))) as evil:
        found = ask(who, credential(token(MALLORY, headers={"kid": "mine", name: evil.url})), NOW)

        assert found.problem == "the issuer has no such key"
        assert not evil.heads


def test_clocks_may_differ_by_the_leeway(who):
    found = who.look_up(credential(token(exp=NOW - 59, nbf=NOW + 59)), NOW)

    assert found.known
    assert not who.look_up(credential(token(exp=NOW - 59)), NOW + 2).known


def claims(named: dict[str, Any]) -> dict[str, Any]:
    """Return claims whose names are no arguments' names."""
    return named


def test_a_claim_becomes_a_fact_only_where_it_is_mapped(issuer):
    bare = directory(issuer, claims=None)

    found = bare.look_up(
        credential(token(**claims({"account.tier": "verified", "tier": "verified"}))), NOW
    )
    assert found.facts == {"account.id": f"{ISSUER}#user-1"}
    assert bare.provides == {"account.id"}
    bare.close()


def test_a_mapped_claim_of_another_type_is_unavailable_not_missing(who):
    odd = who.look_up(credential(token(**claims({"https://example.com/tier": ["verified"]}))), NOW)
    new = who.look_up(credential(token(**claims({"https://example.com/tier": "platinum"}))), NOW)
    none = who.look_up(
        credential(token(**claims({"https://example.com/tier": ..., "org": 3}))), NOW
    )

    assert odd.unavailable == {"account.tier"}
    assert odd.known
    assert new.facts["account.tier"] == "platinum"
    assert none == Identity({"account.id": f"{ISSUER}#user-1"}, expires=NOW + 600)


def test_accounts_of_two_issuers_never_meet():
    with pytest.raises(SettingError, match="cannot be an issuer"):
        TokenDirectory(ISSUER + "#x", AUDIENCE, "https://login.example/keys", FACTS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"algorithms": ["HS256"]}, "`HS256` does not verify tokens with a public key"),
        ({"algorithms": ["none"]}, "`none` does not verify"),
        ({"algorithms": []}, "at least one accepted algorithm"),
        ({"claims": {"account.id": "email"}}, "map no claim to it"),
        ({"claims": {"geo.country": "country"}}, "cannot establish `geo.country`"),
    ],
)
def test_settings_that_would_let_anyone_in_are_refused(issuer, given, message):
    with pytest.raises(SettingError) as caught:
        directory(issuer, **given)

    assert message in str(caught.value)


@given(st.one_of(st.binary(max_size=200), st.text(max_size=80).map(str.encode)))
def test_any_bytes_are_nobody(shared, text):
    found = shared.look_up(credential(text), NOW)

    assert not found.known
    assert found.problem


@given(
    st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit"]),
        st.one_of(
            st.sampled_from(["RS256", "rsa", "ec", "ES256"]),
            st.integers(),
            st.none(),
            st.lists(st.text()),
        ),
    )
)
def test_any_header_without_a_signature_is_nobody(shared, header):
    assert not shared.look_up(credential(forged(header, lambda body: b"x" * 256)), NOW).known


@pytest.fixture(scope="module")
def shared() -> Iterator[TokenDirectory]:
    with Server(always(answer({"keys": KEYS}))) as server:
        found = directory(server)
        yield found
        found.close()


def twins(text: str, order: int | None) -> list[str]:
    """Return a token with its signature written in every other way that verifies or nearly does."""
    head, _, signature = text.rpartition(".")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = letters.index(signature[-1])
    spare = 16 if len(signature) % 4 == 2 else 4
    found = [signature[:-1] + letters[last - last % spare + n] for n in range(spare)]
    if order is not None:
        raw = base64.urlsafe_b64decode(signature + "==")
        size = len(raw) // 2
        other = order - int.from_bytes(raw[size:], "big")
        twin = base64.urlsafe_b64encode(raw[:size] + other.to_bytes(size, "big"))
        found.append(twin.decode().rstrip("="))
    return [f"{head}.{signature}" for signature in found if signature != text.rpartition(".")[2]]


P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.mark.parametrize(
    ("key", "kid", "algorithm", "order"),
    [(EC, "ec", "ES256", P256), (RSA, "rsa", "RS256", None), (ED, "ed", "EdDSA", None)],
)
def test_a_token_is_one_credential_however_its_signature_is_written(
    who, ask, key, kid, algorithm, order
):
    callers = CallerResolver(hash_key=b"k" * 32, directory=who)
    text = token(key, algorithm, {"kid": kid})

    def named(text: str) -> tuple[object, object]:
        asking = callers.read("8.8.8.8", [(b"authorization", f"Bearer {text}".encode())])
        found = ask(callers, asking, NOW)
        return found.facts.get("account.id"), found.facts["credential.id"]

    account, first = named(text)
    known = [named(twin) for twin in twins(text, order)]

    assert account is not None
    assert {name for twin, name in known if twin is not None} <= {first}
    if order is not None:
        assert sum(twin == account for twin, _ in known) >= 1


def test_a_token_with_a_forged_signature_does_not_pass_for_the_real_one(who):
    callers = CallerResolver(hash_key=b"k" * 32, directory=who)
    real = token()
    forged_too = f"{real.rpartition('.')[0]}.{'A' * 342}"

    def named(text: str) -> object:
        asking = callers.read("8.8.8.8", [(b"authorization", f"Bearer {text}".encode())])
        return callers.look_up(asking, NOW).facts["credential.id"]

    assert named(real) != named(forged_too)

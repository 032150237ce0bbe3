"""A directory in verified tokens: what is accepted, and every known way to be let in without."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import math
from collections.abc import Iterator
from dataclasses import replace

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import SettingError
from guardrail.model.facts import STANDARD_FACTS
from guardrail.signals.directory import Credential, Identity, Secret, credential_id
from guardrail.signals.directory.identity import CredentialKind
from guardrail.signals.directory.kept import Freshness
from guardrail.signals.directory.tokens import MOST_BYTES, TokenDirectory
from tests.signals import servers
from tests.signals.servers import Server, always, answer, raw

NOW = 1_780_000_000.0
ISSUER, AUDIENCE = "https://login.example", "model-api"
FACTS = {
    **STANDARD_FACTS,
    "account.tier": replace(STANDARD_FACTS["account.tier"], values=("email", "verified")),
}
CLAIMS = {"account.tier": "https://example.com/tier", "account.org": ["org", "id"]}
RSA = rsa.generate_private_key(65537, 2048)
RSA_TOO = rsa.generate_private_key(65537, 2048)
WEAK = rsa.generate_private_key(65537, 1024)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
MALLORY = rsa.generate_private_key(65537, 2048)


def jwk(key, kid: str, algorithm: str, **more: object) -> dict[str, object]:
    public = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    public.pop("key_ops", None)
    return {**public, "kid": kid, **more}


KEYS = [
    jwk(RSA, "rsa", "RS256", use="sig", alg="RS256"),
    jwk(RSA_TOO, "any-rsa", "RS256"),
    jwk(EC, "ec", "ES256"),
    jwk(ED, "ed", "EdDSA"),
    jwk(WEAK, "weak", "RS256"),
    jwk(RSA, "enc", "RS256", use="enc"),
    jwk(RSA, "twice", "RS256"),
    jwk(MALLORY, "twice", "RS256"),
    {"kty": "oct", "kid": "oct", "k": base64.urlsafe_b64encode(b"s" * 32).decode()},
    {"kty": "RSA", "kid": "broken", "n": "!", "e": 3},
    {"kty": "EC", "kid": "off-curve", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
]
CLAIMED = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "user-1",
    "exp": NOW + 600,
    "https://example.com/tier": "verified",
    "org": {"id": "o1"},
}


def token(key=RSA, algorithm: str = "RS256", headers: object = None, **changed: object) -> str:
    claims = {name: v for name, v in {**CLAIMED, **changed}.items() if v is not ...}
    return jwt.encode(claims, key, algorithm, headers=headers or {"kid": "rsa"})


def forged(header: dict[str, object], signed_with=None, claims: object = CLAIMED) -> str:
    """Return a token made by hand, which no library would make."""

    def part(data: object) -> str:
        text = data if isinstance(data, bytes) else json.dumps(data).encode()
        return base64.urlsafe_b64encode(text).rstrip(b"=").decode()

    body = f"{part(header)}.{part(claims)}"
    return f"{body}.{part(signed_with(body.encode()) if signed_with else b'')}"


def signed(claims: object) -> str:
    """Return a token of any claims at all that does verify."""
    return forged(
        {"alg": "RS256", "kid": "rsa"},
        lambda body: RSA.sign(body, padding.PKCS1v15(), hashes.SHA256()),
        claims,
    )


def with_claims(text: str, claims: object) -> str:
    """Return a token with other claims under the same signature."""
    header, _, signature = text.split(".")
    return f"{header}.{forged({}, claims=claims).split('.')[1]}.{signature}"


def by_hmac(secret: bytes):
    return lambda body: hmac.new(secret, body, hashlib.sha256).digest()


PEM = RSA.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
DER = RSA.public_key().public_bytes(
    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
)


def credential(text: str | bytes) -> Credential:
    secret = text if isinstance(text, bytes) else text.encode()
    return Credential(credential_id(secret, b"k" * 32), CredentialKind.BEARER, Secret(secret))


@pytest.fixture
def issuer() -> Iterator[Server]:
    with Server(always(answer({"keys": KEYS}))) as server:
        yield server


@pytest.fixture
def who(issuer) -> Iterator[TokenDirectory]:
    found = directory(issuer)
    yield found
    found.close()


def directory(issuer: Server, **given: object) -> TokenDirectory:
    given = {"algorithms": ("RS256", "ES256", "EdDSA"), "claims": CLAIMS, **given}
    given.setdefault("freshness", Freshness(ttl=600, stale=86_400, timeout=1.0, retry=5))
    return TokenDirectory(ISSUER, AUDIENCE, issuer.url, FACTS, **given)  # type: ignore[arg-type]


@pytest.fixture(params=["threads", "tasks"])
def ask(request):
    if request.param == "threads":
        return lambda found, text, now=NOW: found.look_up(credential(text), now)
    return lambda found, text, now=NOW: asyncio.run(found.find(credential(text), now))


@pytest.mark.parametrize(
    ("key", "kid", "algorithm"),
    [
        (RSA, "rsa", "RS256"),
        (RSA_TOO, "any-rsa", "RS256"),
        (EC, "ec", "ES256"),
        (ED, "ed", "EdDSA"),
    ],
)
def test_a_verified_token_is_its_issuers_subject(who, ask, key, kid, algorithm):
    found = ask(who, token(key, algorithm, {"kid": kid}))

    assert found == Identity(
        {"account.id": f"{ISSUER}#user-1", "account.tier": "verified", "account.org": "o1"},
        expires=NOW + 600,
    )


def test_one_of_several_audiences_is_enough(who):
    assert who.look_up(credential(token(aud=["other", AUDIENCE])), NOW).known


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
    "a short key": token(WEAK, headers={"kid": "weak"}),
    "a key for encryption": token(headers={"kid": "enc"}),
    "a key id twice in the set": token(headers={"kid": "twice"}),
    "an algorithm not allowed": token(algorithm="RS512"),
    "an algorithm not the key's": token(algorithm="PS256"),
    "a key of another kind": token(EC, "ES256", {"kid": "rsa"}),
    "a key id that is a path": token(headers={"kid": "../../dev/null"}),
    "a key id that is a number": forged({"alg": "RS256", "kid": 1}),
    "no key id": jwt.encode(CLAIMED, RSA, "RS256"),
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
    "a subject that is a number": signed({**CLAIMED, "sub": 7}),
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
    found = ask(who, attack)

    assert found.facts == {}
    assert found.unavailable == frozenset()
    assert found.problem
    text = attack.decode("latin-1") if isinstance(attack, bytes) else attack
    assert not any(len(part) > 3 and part in found.problem for part in text.split("."))


@pytest.mark.parametrize("name", ["jku", "x5u"])
def test_no_token_says_where_its_key_is(who, ask, name):
    with Server(always(answer({"keys": [jwk(MALLORY, "mine", "RS256")]}))) as evil:
        found = ask(who, token(MALLORY, headers={"kid": "mine", name: evil.url}))

        assert found.problem == "the issuer has no such key"
        assert not evil.heads


def test_clocks_may_differ_by_the_leeway(who):
    found = who.look_up(credential(token(exp=NOW - 59, nbf=NOW + 59)), NOW)

    assert found.known
    assert not who.look_up(credential(token(exp=NOW - 59)), NOW + 2).known


def test_a_claim_becomes_a_fact_only_where_it_is_mapped(issuer):
    bare = directory(issuer, claims=None)

    found = bare.look_up(credential(token(**{"account.tier": "verified", "tier": "verified"})), NOW)
    assert found.facts == {"account.id": f"{ISSUER}#user-1"}
    assert bare.provides == {"account.id"}
    bare.close()


def test_a_mapped_claim_of_another_type_is_unavailable_not_missing(who):
    odd = who.look_up(credential(token(**{"https://example.com/tier": ["verified"]})), NOW)
    new = who.look_up(credential(token(**{"https://example.com/tier": "platinum"})), NOW)
    none = who.look_up(credential(token(**{"https://example.com/tier": ..., "org": 3})), NOW)

    assert odd.unavailable == {"account.tier"}
    assert odd.known
    assert new.facts["account.tier"] == "platinum"
    assert none == Identity({"account.id": f"{ISSUER}#user-1"}, expires=NOW + 600)


def test_accounts_of_two_issuers_never_meet():
    with pytest.raises(SettingError, match="cannot be an issuer"):
        TokenDirectory(ISSUER + "#x", AUDIENCE, "https://login.example/keys", FACTS)


def test_keys_are_fetched_once_and_again_when_they_are_old(who, issuer, ask):
    for _ in range(3):
        ask(who, token())
    assert len(issuer.heads) == 1
    assert ask(who, token(exp=NOW + 9999), NOW + 601).known
    assert len(issuer.heads) == 2


def test_unknown_keys_cause_a_fetch_at_most_once_a_minute(who, issuer, ask):
    for second in range(0, 600, 2):
        invented = token(MALLORY, headers={"kid": f"k{second}"}, exp=NOW + 9999)
        assert ask(who, invented, NOW + second).problem == "the issuer has no such key"

    assert len(issuer.heads) <= 11


def test_a_rotated_key_is_found_within_a_minute(who, issuer, ask):
    ask(who, token())
    issuer.respond = always(answer({"keys": [*KEYS, jwk(MALLORY, "new", "RS256")]}))
    rotated = token(MALLORY, headers={"kid": "new"})

    assert ask(who, rotated, NOW + 61).known
    assert ask(who, token(), NOW + 61).known
    assert len(issuer.heads) == 2


NO_KEYS = {
    "dead": None,
    "silent": servers.silent,
    "endless": servers.endless,
    "an error": always(raw(b"", "500 Internal Server Error")),
    "a redirect": always(raw(b"", "302 Found", "location: /keys")),
    "garbage": always(raw(b"<html>")),
    "no set": always(answer({"values": KEYS})),
    "keys that are none": always(answer({"keys": [1]})),
    "an empty set": always(answer({"keys": []})),
    "a set of secrets": always(answer({"keys": [KEYS[8]]})),
    "too many": always(answer({"keys": [{"kty": "RSA", "kid": str(n)} for n in range(101)]})),
}


@pytest.mark.parametrize("fault", NO_KEYS.values(), ids=NO_KEYS)
def test_an_issuer_that_fails_turns_no_customer_away(issuer, ask, fault):
    who = directory(issuer, freshness=Freshness(ttl=600, stale=86_400, timeout=0.3, retry=5))
    valid = token(exp=NOW + 10**6)
    ask(who, valid)
    if fault is None:
        issuer.close()
    else:
        issuer.respond = fault

    assert ask(who, valid, NOW + 86_400).known
    assert not ask(who, token(MALLORY, exp=NOW + 10**6), NOW + 86_400).known
    rotated = ask(who, token(MALLORY, headers={"kid": "new"}, exp=NOW + 10**6), NOW + 80_000)
    assert (rotated.facts, rotated.unavailable) == ({}, who.provides)
    gone = ask(who, valid, NOW + 86_401)
    assert (gone.facts, gone.unavailable) == ({}, who.provides)
    assert "could not be fetched" in who.warnings(NOW)[0]
    who.close()


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

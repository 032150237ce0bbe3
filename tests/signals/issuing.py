"""An issuer of tokens for tests: its keys, tokens it signs, and tokens that others forge."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from guardrail.model.facts import STANDARD_FACTS
from guardrail.signals.directory import Credential, CredentialKind, Freshness, Secret, credential_id
from guardrail.signals.directory.tokens import TokenDirectory
from tests.signals.servers import Server, always, answer

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
    jwk(RSA, "wraps", "RS256", key_ops=["wrapKey"]),
    jwk(RSA, "verify", "RS256", key_ops="verify"),
    jwk(RSA, "signs-and-verifies", "RS256", key_ops=["sign", "verify"]),
]
CLAIMED = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "user-1",
    "exp": NOW + 600,
    "https://example.com/tier": "verified",
    "org": {"id": "o1"},
}


def token(
    key=RSA,
    algorithm: str = "RS256",
    headers: Mapping[str, object] | None = None,
    **changed: Any,
) -> str:
    claims = {name: v for name, v in {**CLAIMED, **changed}.items() if v is not ...}
    text = json.dumps(claims).encode()
    return jwt.PyJWS().encode(text, key, algorithm, dict(headers or {"kid": "rsa"}))


def forged(header: dict[str, object], signed_with=None, claims: object = CLAIMED) -> str:
    """Return a token made by hand, which no library would make."""

    def part(data: object) -> str:
        text = data if isinstance(data, bytes) else json.dumps(data).encode()
        return base64.urlsafe_b64encode(text).rstrip(b"=").decode()

    body = f"{part(header)}.{part(claims)}"
    return f"{body}.{part(signed_with(body.encode()) if signed_with else b'')}"


def signed(claims: object, key=RSA, kid: str = "rsa") -> str:
    """Return a token of any claims at all, with a signature that is right."""
    return forged(
        {"alg": "RS256", "kid": kid},
        lambda body: key.sign(body, padding.PKCS1v15(), hashes.SHA256()),
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


def directory(issuer: Server, **given: object) -> TokenDirectory:
    given = {"algorithms": ("RS256", "ES256", "EdDSA"), "claims": CLAIMS, **given}
    given.setdefault("freshness", Freshness(ttl=600, stale=86_400, timeout=10.0, retry=5))
    return TokenDirectory(ISSUER, AUDIENCE, issuer.url, FACTS, **given)  # type: ignore[arg-type]


@pytest.fixture
def issuer() -> Iterator[Server]:
    """A server of the keys."""
    with Server(always(answer({"keys": KEYS}))) as server:
        yield server


@pytest.fixture
def who(issuer: Server) -> Iterator[TokenDirectory]:
    """A directory that asks it."""
    found = directory(issuer)
    yield found
    found.close()

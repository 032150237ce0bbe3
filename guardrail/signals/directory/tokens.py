"""A directory inside the credential itself: the claims of a JWT, once it is verified (RFC 8725).

The account is the issuer with the subject; what else a token says becomes a fact only where the
settings map a claim to it. Keys come from the one URL in the settings: `jku`, `x5u`, `jwk` and
`x5c` in a token's header are not read, and one that calls an extension critical is not accepted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import jwt

from guardrail.errors import SettingError
from guardrail.model.facts import Fact
from guardrail.signals.directory.cache import Age, Cache, Cached, Freshness
from guardrail.signals.directory.fetching import Background, Fetcher
from guardrail.signals.directory.identity import (
    Credential,
    GarbageError,
    Identity,
    SourceError,
    Vocabulary,
)
from guardrail.signals.directory.reports import Reports, SourceHealth

VERIFYING = tuple("RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA".split())
"""The algorithms that verify with a public key (RFC 7518, RFC 8037)."""

MOST_KEY_SET_BYTES = 1 << 18
MOST_KEYS = 100
UNKNOWN_KEY_EVERY = 60.0
"""Seconds between two fetches that tokens with unknown keys may cause."""

FRESHNESS = Freshness(ttl=600.0, stale=86_400.0, timeout=2.0, retry=5.0)
"""How long keys count, unless told otherwise: fetched every ten minutes, used on for a day."""

_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_PUBLIC = ("kty", "n", "e", "crv", "x", "y")
_LEAST_RSA_BITS = 2048
_KEY = "keys"

Keys = Mapping[str, Mapping[str, Any]]
"""The keys of a set by their ids."""


class KeySource:
    """Fetches an issuer's key set and keeps it; no token says where its key is."""

    __slots__ = ("_background", "_cache", "_fetcher", "reports")

    def __init__(self, url: str, freshness: Freshness | None, plain_http: bool) -> None:
        times = freshness or FRESHNESS
        self._fetcher = Fetcher(
            url, timeout=times.timeout, most_bytes=MOST_KEY_SET_BYTES, plain_http=plain_http
        )
        self._background = Background(self._fetcher.close)
        self.reports = Reports(
            f"the key set of `{self._fetcher.place}`",
            "tokens are refused once the keys known are too old: see that it can be fetched",
        )
        self._cache: Cache[Keys] = Cache(_keys_in, times, reports=self.reports)

    def get(self, key_id: str, now: float) -> Mapping[str, Any] | None:
        """Return a key by its id, None if the issuer has no such key.

        Raises:
            SourceError: whether there is one cannot be told, as the key set cannot be fetched.
        """
        cached = self._cache.get(_KEY, self._ask, now)
        if _lacks(cached, key_id):
            cached = self._cache.get(_KEY, self._ask, now, at_most_every=UNKNOWN_KEY_EVERY)
        return self._found(cached, key_id)

    async def find(self, key_id: str, now: float) -> Mapping[str, Any] | None:
        """Return the same without blocking the event loop.

        Raises:
            SourceError: as `get`.
        """
        cached = await self._cache.find(_KEY, self._ask, now)
        if _lacks(cached, key_id):
            cached = await self._cache.find(_KEY, self._ask, now, at_most_every=UNKNOWN_KEY_EVERY)
        return self._found(cached, key_id)

    def warnings(self) -> tuple[str, ...]:
        """Return that the key set cannot be fetched, while it cannot."""
        failures = self._cache.backoff.failures
        if not failures:
            return ()
        return (
            f"the keys of `{self._fetcher.place}` could not be fetched {failures} times in a row: "
            f"{self._cache.last_failure}; those known are used for up to "
            f"{self._cache.freshness.stale:g} s",
        )

    def close(self) -> None:
        """Let go of the connections."""
        self._background.close()

    def _ask(self) -> Future[object]:
        return self._background.submit(lambda: self._fetcher.fetch(None, frozenset({200})))

    def _found(self, cached: Cached[Keys], key_id: str) -> Mapping[str, Any] | None:
        if cached.value is not None and cached.age is not Age.EXPIRED:
            key = cached.value.get(key_id)
            if key is not None or cached.age is Age.FRESH:
                return key
        raise SourceError(f"the keys of the issuer are not known: {self._cache.last_failure}")


def verifying_key(key: Mapping[str, Any], algorithm: str) -> Any | None:
    """Return what verifies an algorithm's signatures with a key, None if it is not for them."""
    if key.get("use", "sig") != "sig" or key.get("alg", algorithm) != algorithm:
        return None
    operations = key.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations or not _fits(key, algorithm):
        return None
    # What makes a key private has no business in a key set, and is not read.
    public = {name: key[name] for name in _PUBLIC if name in key}
    try:
        found: Any = jwt.get_algorithm_by_name(algorithm).from_jwk(public)
    except Exception:  # whatever three libraries make of numbers that are no key
        return None
    if algorithm.startswith(("RS", "PS")) and found.key_size < _LEAST_RSA_BITS:
        return None
    return found


def _fits(key: Mapping[str, Any], algorithm: str) -> bool:
    if algorithm == "EdDSA":
        return key["kty"] == "OKP" and key.get("crv") in ("Ed25519", "Ed448")
    if algorithm in _CURVES:
        return key["kty"] == "EC" and key.get("crv") == _CURVES[algorithm]
    return bool(key["kty"] == "RSA")


def _lacks(cached: Cached[Keys], key_id: str) -> bool:
    return cached.value is not None and key_id not in cached.value


def _keys_in(told: object) -> Keys:
    """Return the public keys of a set; those without an id, and two of one id, are left out."""
    keys = told.get("keys") if isinstance(told, dict) else None
    if not isinstance(keys, list) or len(keys) > MOST_KEYS:
        raise SourceError("an answer that is no key set")
    found: dict[str, Mapping[str, Any]] = {}
    twice = set()
    for key in keys:
        if not isinstance(key, dict) or not isinstance(key.get("kty"), str):
            raise SourceError("an answer that is no key set")
        key_id = key.get("kid")
        if isinstance(key_id, str) and re.fullmatch("RSA|EC|OKP", key["kty"]):
            if key_id in found:
                twice.add(key_id)
            found[key_id] = key
    for key_id in twice:
        del found[key_id]
    if not found:
        # A set of nothing would turn every customer away: it is taken for a mistake.
        raise SourceError("a key set without a usable key")
    return found


MOST_BYTES = 1 << 14
"""The size of the largest token that is looked at."""

LEEWAY = 60.0
"""Seconds by which the issuer's clock may differ from ours."""

ALGORITHMS = ("RS256", "ES256")
"""The algorithms that are accepted, unless told otherwise."""

_ACCEPTED = frozenset(VERIFYING)
_COMPACT = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_ANY_FAULT = (jwt.PyJWTError, ValueError, TypeError, KeyError, RecursionError, OverflowError)
"""What reading a hostile token may raise in PyJWT, json and cryptography."""


class _RejectedError(Exception):
    """A token is not accepted; the message says why and shows nothing of it."""


class _Header(NamedTuple):
    token: str
    algorithm: str
    key_id: str


class TokenDirectory:
    """Reads facts from the claims of verified tokens."""

    def __init__(
        self,
        issuer: str,
        audience: str | Sequence[str],
        jwks: str,
        facts: Mapping[str, Fact],
        *,
        algorithms: Sequence[str] = ALGORITHMS,
        claims: Mapping[str, str | Sequence[str]] | None = None,
        freshness: Freshness | None = None,
        leeway: float = LEEWAY,
        plain_http: bool = False,
    ) -> None:
        """Take an issuer, the audience that is us, and the URL of the issuer's key set.

        `facts` are a policy set's; `claims` maps facts to claims: `{"account.tier": "tier"}`, or
        to the names that lead to one inside another: `{"account.org": ["org", "id"]}`.

        Raises:
            SettingError: an algorithm does not verify with a public key, a fact cannot be mapped,
                or the issuer, the audience or the URL cannot be used.
        """
        _check(issuer, audience, algorithms)
        mapped = dict(claims or {})
        if "account.id" in mapped:
            raise SettingError("`account.id` is the issuer and the subject: map no claim to it")
        self._vocabulary = Vocabulary(facts, mapped)
        self._claims = {
            name: (path,) if isinstance(path, str) else tuple(path) for name, path in mapped.items()
        }
        self._issuer = issuer
        self._audience = [audience] if isinstance(audience, str) else list(audience)
        self._algorithms = frozenset(algorithms)
        self._leeway = leeway
        self._keys = KeySource(jwks, freshness, plain_http)
        self._claimed = Reports(f"a token of `{issuer}`", "")

    @property
    def provides(self) -> frozenset[str]:
        """The names of the facts that claims are mapped to, and `account.id`."""
        return self._vocabulary.provides

    def look_up(self, credential: Credential, now: float) -> Identity:
        """Return whose a token is at `now` (seconds since the epoch); may wait, bounded."""
        try:
            header = self._header(credential)
            return self._identity(header, self._keys.get(header.key_id, now), now)
        except _RejectedError as problem:
            return Identity(problem=str(problem))
        except SourceError as problem:
            return Identity({}, self.provides, str(problem))

    async def find(self, credential: Credential, now: float) -> Identity:
        """Return the same without blocking the event loop."""
        try:
            header = self._header(credential)
            return self._identity(header, await self._keys.find(header.key_id, now), now)
        except _RejectedError as problem:
            return Identity(problem=str(problem))
        except SourceError as problem:
            return Identity({}, self.provides, str(problem))

    def essence(self, credential: Credential) -> bytes:
        """Return the signed part of a token that was verified: by it, it is the same credential.

        Its signature has twins: (r, n - s) beside (r, s) in ECDSA, and spare bits in the last
        letter of each.
        """
        return credential.secret.reveal().rpartition(b".")[0]

    @property
    def health(self) -> SourceHealth:
        """How the issuer's key set is doing, for metrics."""
        return self._keys.reports.health

    def warnings(self, now: float) -> tuple[str, ...]:
        """Return that the issuer's keys cannot be fetched, while they cannot."""
        return self._keys.warnings()

    def close(self) -> None:
        """Let go of the connections."""
        self._keys.close()

    def _header(self, credential: Credential) -> _Header:
        raw = credential.secret.reveal()
        if len(raw) > MOST_BYTES:
            raise _RejectedError(f"the token is longer than {MOST_BYTES} bytes")
        # Decoders skip what is no base64url: one token would be many credentials.
        if _COMPACT.fullmatch(raw) is None:
            raise _RejectedError("the credential is no token")
        try:
            token = raw.decode("ascii")
            header = jwt.get_unverified_header(token)
        except _ANY_FAULT:
            raise _RejectedError("the credential is no token") from None
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise _RejectedError("the token's algorithm is not accepted")
        if not isinstance(key_id, str):
            raise _RejectedError("the token names no key")
        if "crit" in header or "b64" in header:
            raise _RejectedError("the token needs an extension that is not known")
        return _Header(token, algorithm, key_id)

    def _identity(self, header: _Header, key: Mapping[str, Any] | None, now: float) -> Identity:
        verifies = None if key is None else verifying_key(key, header.algorithm)
        if verifies is None:
            raise _RejectedError("the issuer has no such key")
        claims = self._verified(header, verifies)
        expires = self._checked_times(claims, now)
        subject = claims["sub"]
        if not isinstance(subject, str) or not subject:
            raise _RejectedError("the token has no subject")
        facts, unavailable = self._mapped(claims)
        try:
            facts["account.id"] = self._vocabulary.value("account.id", f"{self._issuer}#{subject}")
        except GarbageError:
            raise _RejectedError("the token's subject is too long") from None
        self._claimed.unlisted(self._vocabulary.unlisted(facts), now)
        return Identity(facts, unavailable, expires=expires)

    def _mapped(self, claims: Mapping[str, Any]) -> tuple[dict[str, object], frozenset[str]]:
        facts: dict[str, object] = {}
        unavailable = set()
        for name, path in self._claims.items():
            try:
                value = self._vocabulary.value(name, _claim(claims, path))
            except GarbageError:
                # Left out, it would be missing, and a default could loosen what it was to tighten.
                unavailable.add(name)
                continue
            if value is not None:
                facts[name] = value
        return facts, frozenset(unavailable)

    def _verified(self, header: _Header, key: Any) -> dict[str, Any]:
        try:
            return jwt.decode(
                header.token,
                key,
                algorithms=[header.algorithm],
                audience=self._audience,
                issuer=self._issuer,
                options={
                    "require": ["exp", "iss", "aud", "sub"],
                    # The clock is the caller's, so times are checked here.
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidAudienceError:
            raise _RejectedError("the token is for another audience") from None
        except jwt.InvalidIssuerError:
            raise _RejectedError("the token is of another issuer") from None
        except jwt.MissingRequiredClaimError as problem:
            raise _RejectedError(f"the token lacks the claim `{problem.claim}`") from None
        except _ANY_FAULT:
            raise _RejectedError("the token does not verify") from None

    def _checked_times(self, claims: Mapping[str, Any], now: float) -> float:
        expires, begins = _time(claims["exp"]), _time(claims.get("nbf", 0))
        if expires is None or begins is None:
            raise _RejectedError("the token's times are not times")
        if now >= expires + self._leeway:
            raise _RejectedError("the token has expired")
        if now < begins - self._leeway:
            raise _RejectedError("the token is not valid yet")
        return expires


def _check(issuer: str, audience: str | Sequence[str], algorithms: Sequence[str]) -> None:
    for algorithm in algorithms:
        if algorithm not in _ACCEPTED:
            raise SettingError(
                f"`{algorithm}` does not verify tokens with a public key; write some of "
                + ", ".join(sorted(_ACCEPTED))
            )
    if not algorithms or not audience:
        raise SettingError("tokens need at least one accepted algorithm and an audience")
    if not issuer or "#" in issuer:
        # An account is `issuer#subject`: the first `#` has to part them.
        raise SettingError("what is given cannot be an issuer: it is empty, or has a `#`")


def _time(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def _claim(claims: Mapping[str, Any], path: tuple[str, ...]) -> object:
    value: object = claims
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value

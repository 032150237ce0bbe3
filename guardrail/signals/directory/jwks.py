"""The public keys of an issuer of tokens: which there are, and which may verify what (RFC 7517)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import jwt

from guardrail.signals.directory.background import Background
from guardrail.signals.directory.fetching import Fetcher
from guardrail.signals.directory.kept import Age, Freshness, Kept, SourceError, Standing
from guardrail.signals.directory.reports import Reports

VERIFYING = tuple("RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA".split())
"""The algorithms that verify with a public key (RFC 7518, RFC 8037)."""

MOST_BYTES = 1 << 18
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

    __slots__ = ("_background", "_fetcher", "_kept", "reports")

    def __init__(self, url: str, freshness: Freshness | None, plain_http: bool) -> None:
        times = freshness or FRESHNESS
        self._fetcher = Fetcher(
            url, timeout=times.timeout, most_bytes=MOST_BYTES, plain_http=plain_http
        )
        self._background = Background(self._fetcher.close)
        self.reports = Reports(
            f"the key set of `{self._fetcher.place}`",
            "tokens are refused once the keys known are too old: see that it can be fetched",
        )
        self._kept: Kept[Keys] = Kept(_keys_in, times, reports=self.reports)

    def get(self, key_id: str, now: float) -> Mapping[str, Any] | None:
        """Return a key by its id, None if the issuer has no such key.

        Raises:
            SourceError: whether there is one cannot be told, as the key set cannot be fetched.
        """
        standing = self._kept.get(_KEY, self._ask, now)
        if _lacks(standing, key_id):
            standing = self._kept.get(_KEY, self._ask, now, at_most_every=UNKNOWN_KEY_EVERY)
        return self._found(standing, key_id)

    async def find(self, key_id: str, now: float) -> Mapping[str, Any] | None:
        """Return the same without blocking the event loop.

        Raises:
            SourceError: as `get`.
        """
        standing = await self._kept.find(_KEY, self._ask, now)
        if _lacks(standing, key_id):
            standing = await self._kept.find(_KEY, self._ask, now, at_most_every=UNKNOWN_KEY_EVERY)
        return self._found(standing, key_id)

    def warnings(self) -> tuple[str, ...]:
        """Return that the key set cannot be fetched, while it cannot."""
        failures = self._kept.breaker.failures
        if not failures:
            return ()
        return (
            f"the keys of `{self._fetcher.place}` could not be fetched {failures} times in a row: "
            f"{self._kept.last_failure}; those known are used for up to "
            f"{self._kept.freshness.stale:g} s",
        )

    def close(self) -> None:
        """Let go of the connections."""
        self._background.close()

    def _ask(self) -> Future[object]:
        return self._background.submit(lambda: self._fetcher.fetch(None, frozenset({200})))

    def _found(self, standing: Standing[Keys], key_id: str) -> Mapping[str, Any] | None:
        if standing.value is not None and standing.age is not Age.EXPIRED:
            key = standing.value.get(key_id)
            if key is not None or standing.age is Age.FRESH:
                return key
        raise SourceError(f"the keys of the issuer are not known: {self._kept.last_failure}")


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


def _lacks(standing: Standing[Keys], key_id: str) -> bool:
    return standing.value is not None and key_id not in standing.value


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

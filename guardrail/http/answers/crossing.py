"""Cross-origin requests: what lets a browser's page read an answer (Fetch standard, §3.2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Field = tuple[bytes, bytes]

EXPOSED = (
    b"retry-after, retry-after-ms, x-should-retry, ratelimit, ratelimit-policy, x-request-id, "
    b"request-id, x-guardrail-decision, x-ratelimit-limit-requests, x-ratelimit-limit-tokens, "
    b"x-ratelimit-remaining-requests, x-ratelimit-remaining-tokens, x-ratelimit-reset-requests, "
    b"x-ratelimit-reset-tokens"
)

_BODY = frozenset({b"transfer-encoding", b"content-encoding"})


@dataclass(frozen=True, slots=True)
class CrossOrigin:
    """The origins whose pages may read answers; `*` is any, without credentials."""

    origins: frozenset[str]

    def fields(self, request: Iterable[Field]) -> list[Field]:
        """Return the fields for the answer to a request; none if its origin is not allowed."""
        origin = value_of(request, b"origin")
        if origin is None:
            return []
        named = origin.decode("latin-1")
        if named in self.origins:
            allowed = [
                (b"access-control-allow-origin", origin),
                (b"access-control-allow-credentials", b"true"),
                (b"vary", b"Origin"),
            ]
        elif "*" in self.origins:
            allowed = [(b"access-control-allow-origin", b"*")]
        else:
            return []
        return [*allowed, (b"access-control-expose-headers", EXPOSED)]


def is_preflight(method: str, request: Iterable[Field]) -> bool:
    """Tell whether a request only asks which cross-origin requests are allowed.

    A browser sends none with a body: with one, it is a request like any other, for a host may not
    look at its method.
    """
    if method != "OPTIONS":
        return False
    fields = {name.lower(): value for name, value in request}
    if fields.get(b"content-length", b"0").strip() != b"0" or not fields.keys().isdisjoint(_BODY):
        return False
    return b"origin" in fields and b"access-control-request-method" in fields


def value_of(request: Iterable[Field], name: bytes) -> bytes | None:
    """Return the first value of a header, None if there is none; `name` is in lower case."""
    for key, value in request:
        if key == name or key.lower() == name:
            return value
    return None

"""Who asks: the credential a request carries, the address it comes from, whose they are."""

from __future__ import annotations

from guardrail.http.identity.caller import (
    AmbiguousCredentialError,
    Caller,
    CallerResolver,
    CredentialSource,
    credential_of,
)

__all__ = [
    "AmbiguousCredentialError",
    "Caller",
    "CallerResolver",
    "CredentialSource",
    "credential_of",
]

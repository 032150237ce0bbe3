"""Who asks: the credential a request carries, the address it comes from, whose they are."""

from __future__ import annotations

from guardrail.http.identity.asking import Asker, Asking
from guardrail.http.identity.credentials import (
    AmbiguousCredentialError,
    CredentialSource,
    credential_of,
)

__all__ = ["AmbiguousCredentialError", "Asker", "Asking", "CredentialSource", "credential_of"]

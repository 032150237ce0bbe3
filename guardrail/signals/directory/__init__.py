"""Whose a credential is: directories turn the keyed hash of a key, or a token, into facts.

`sources` and `tokens` are imported by who uses them: the one needs an HTTP client, the other an
extra.
"""

from __future__ import annotations

from guardrail.signals.directory.cache import Freshness
from guardrail.signals.directory.identity import (
    TRIMMED,
    Credential,
    CredentialKind,
    Directory,
    GarbageError,
    Identity,
    Secret,
    Vocabulary,
    credential_id,
)
from guardrail.signals.directory.reports import REPORT_EVERY, Reports, SourceHealth, place_of

__all__ = [
    "REPORT_EVERY",
    "TRIMMED",
    "Credential",
    "CredentialKind",
    "Directory",
    "Freshness",
    "GarbageError",
    "Identity",
    "Reports",
    "Secret",
    "SourceHealth",
    "Vocabulary",
    "credential_id",
    "place_of",
]

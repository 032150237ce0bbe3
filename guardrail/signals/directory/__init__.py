"""Whose a credential is: directories turn the keyed hash of a key, or a token, into facts."""

from __future__ import annotations

from guardrail.signals.directory.identity import (
    Credential,
    Directory,
    Identity,
    Secret,
    credential_id,
)

__all__ = ["Credential", "Directory", "Identity", "Secret", "credential_id"]

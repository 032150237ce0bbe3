"""Policies that many tests are about, loaded once: a policy set is frozen."""

from __future__ import annotations

from functools import lru_cache

from guardrail.loading import load_text
from guardrail.model.policy import PolicySet


@lru_cache(256)
def loaded(text: str) -> PolicySet:
    """Return the policies of one file's text, as `load_text` does."""
    return load_text(text)

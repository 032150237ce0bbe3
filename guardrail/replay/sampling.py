"""Drawing a sample of traffic by who asks, so that budgets fill as they would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b

from guardrail.replay.ties import token_of

_BYTES = 8


@dataclass(frozen=True, slots=True)
class Sample:
    """A `share` of all who ask, with all their requests; another `key` draws others."""

    share: Fraction
    key: str = ""

    def has(self, facts: Mapping[str, object]) -> bool:
        """Tell whether whoever sent a request with such facts is in the sample."""
        key = blake2b(self.key.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        text = token_of(facts).encode("utf-8", "surrogatepass")
        digest = blake2b(text, key=key, digest_size=_BYTES).digest()
        return int.from_bytes(digest, "big") < int(self.share * 2 ** (8 * _BYTES))

"""The RateLimit fields of draft-ietf-httpapi-ratelimit-headers-11, as RFC 9651 lists.

The draft may still rename its parameters: all that knows them is here, under one version.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
from collections.abc import Sequence

from guardrail.http.answers.standing import Standing

VERSION = "ietf-11"
"""The revision of the draft that these fields follow."""

LARGEST = 10**15 - 1
"""The largest Integer of a structured field (RFC 9651 §3.3.1)."""

PARTITION_BYTES = 9
_MOST_KEPT = 4096

Field = tuple[bytes, bytes]


class Wording:
    """How limits are written, kept: nearly every answer says the same of them again."""

    def __init__(self) -> None:
        self._policies: dict[tuple[str, str, int, int | None], str] = {}

    def policy(self, standing: Standing) -> str:
        """Return a limit's own parameters, without its partition."""
        name, unit, quota, _, window, *_ = standing
        key = name, unit, quota, window
        text = self._policies.get(key)
        if text is None:
            if len(self._policies) >= _MOST_KEPT:
                self._policies.clear()
            text = self._policies[key] = _policy(standing)
        return text


def ratelimit_fields(
    standings: Sequence[Standing],
    partition: bytes | None = None,
    wording: Wording | None = None,
) -> list[Field]:
    """Return `RateLimit-Policy` and `RateLimit`, or nothing where no limit may show.

    The tightest limit comes first in `RateLimit`. A unit that the draft does not register is
    stated all the same: left out, it would mean requests. With a `partition` key, `pk` carries
    a keyed hash that is the same for the requests that share a counter.
    """
    if not standings:
        return []
    policy = _policy if wording is None else wording.policy
    policies = [policy(s) for s in standings]
    tightest = sorted(standings, key=_tightness)
    limits = [_limit(s) for s in tightest]
    if partition is not None:
        policies = [a + _partition(s, partition) for a, s in zip(policies, standings, strict=True)]
        limits = [a + _partition(s, partition) for a, s in zip(limits, tightest, strict=True)]
    return [
        (b"ratelimit-policy", ", ".join(policies).encode("ascii")),
        (b"ratelimit", ", ".join(limits).encode("ascii")),
    ]


def sf_string(text: str) -> str:
    """Return text as a String of RFC 9651; what is not printable ASCII becomes `?`."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(c if " " <= c <= "~" else "?" for c in text)
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _policy(standing: Standing) -> str:
    """Return a limit's own parameters; `requests` is the draft's own unit where none is named."""
    text = f"{sf_string(standing.name)};q={_integer(standing.quota)}"
    if standing.unit != "requests":
        text += f";qu={sf_string(standing.unit)}"
    if standing.window is not None:
        text += f";w={_integer(standing.window)}"
    return text


def _limit(standing: Standing) -> str:
    """Return how a limit stands; `t` is the wait of one that refuses, else the time to full."""
    text = f"{sf_string(standing.name)};r={_integer(standing.left)}"
    seconds = standing.resets if standing.wait is None else standing.wait
    if seconds is not None:
        text += f";t={_integer(math.ceil(seconds))}"
    return text


def _tightness(standing: Standing) -> tuple[bool, float]:
    return standing.wait is None, standing.left / max(1, standing.quota)


def _integer(value: int) -> int:
    return value if 0 <= value <= LARGEST else max(0, min(value, LARGEST))


def _partition(standing: Standing, key: bytes) -> str:
    text = standing.key.encode("utf-8", "surrogatepass")
    digest = hmac.new(key, text, hashlib.sha256).digest()[:PARTITION_BYTES]
    return f";pk=:{base64.b64encode(digest).decode('ascii')}:"

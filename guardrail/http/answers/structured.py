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

Field = tuple[bytes, bytes]


def ratelimit_fields(standings: Sequence[Standing], partition: bytes | None = None) -> list[Field]:
    """Return `RateLimit-Policy` and `RateLimit`, or nothing where no limit may show.

    The tightest limit comes first in `RateLimit`. A unit that the draft does not register is
    stated all the same: left out, it would mean requests. With a `partition` key, `pk` carries
    a keyed hash that is the same for the requests that share a counter.
    """
    if not standings:
        return []
    policies = [_policy(s, partition) for s in standings]
    limits = [_limit(s, partition) for s in sorted(standings, key=_tightness)]
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


def _policy(standing: Standing, key: bytes | None) -> str:
    """Return a limit's own parameters; `requests` is the draft's own unit where none is named."""
    text = f"{sf_string(standing.name)};q={_integer(standing.quota)}"
    if standing.unit != "requests":
        text += f";qu={sf_string(standing.unit)}"
    if standing.window is not None:
        text += f";w={_integer(standing.window)}"
    return text if key is None else text + _partition(standing, key)


def _limit(standing: Standing, key: bytes | None) -> str:
    """Return how a limit stands; `t` is the wait of one that refuses, else the time to full."""
    text = f"{sf_string(standing.name)};r={_integer(standing.left)}"
    seconds = standing.resets if standing.wait is None else standing.wait
    if seconds is not None:
        text += f";t={_integer(math.ceil(seconds))}"
    return text if key is None else text + _partition(standing, key)


def _tightness(standing: Standing) -> tuple[bool, float]:
    return standing.wait is None, standing.left / max(1, standing.quota)


def _integer(value: int) -> int:
    return max(0, min(value, LARGEST))


def _partition(standing: Standing, key: bytes) -> str:
    text = standing.key.encode("utf-8", "surrogatepass")
    digest = hmac.new(key, text, hashlib.sha256).digest()[:PARTITION_BYTES]
    return f";pk=:{base64.b64encode(digest).decode('ascii')}:"

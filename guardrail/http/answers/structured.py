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
    policies = [
        _named(s.name, q=s.quota, qu=_unit(s.unit), w=s.window, pk=_partition(s, partition))
        for s in standings
    ]
    tightest = sorted(standings, key=lambda s: (s.wait is None, s.left / max(1, s.quota)))
    limits = [
        _named(s.name, r=s.left, t=_seconds(s), pk=_partition(s, partition)) for s in tightest
    ]
    return [
        (b"ratelimit-policy", ", ".join(policies).encode("ascii")),
        (b"ratelimit", ", ".join(limits).encode("ascii")),
    ]


def sf_string(text: str) -> str:
    """Return text as a String of RFC 9651; what is not printable ASCII becomes `?`."""
    printable = "".join(c if " " <= c <= "~" else "?" for c in text)
    return '"' + printable.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _named(name: str, **parameters: int | str | bytes | None) -> str:
    return sf_string(name) + "".join(
        f";{key}={_bare(value)}" for key, value in parameters.items() if value is not None
    )


def _bare(value: int | str | bytes) -> str:
    if isinstance(value, bytes):
        return f":{base64.b64encode(value).decode('ascii')}:"
    if isinstance(value, str):
        return sf_string(value)
    return str(max(0, min(value, LARGEST)))


def _unit(unit: str) -> str | None:
    """Return the quota unit; `requests` is the draft's own default."""
    return None if unit == "requests" else unit


def _seconds(standing: Standing) -> int | None:
    """Return the effective window: the wait of a limit that refuses, else the time to full."""
    seconds = standing.resets if standing.wait is None else standing.wait
    return None if seconds is None else math.ceil(seconds)


def _partition(standing: Standing, key: bytes | None) -> bytes | None:
    if key is None:
        return None
    text = standing.key.encode("utf-8", "surrogatepass")
    return hmac.new(key, text, hashlib.sha256).digest()[:PARTITION_BYTES]

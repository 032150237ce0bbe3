"""The fields of an answer: RateLimit, the vendors' own, and what browsers' pages may read.

RateLimit follows draft-ietf-httpapi-ratelimit-headers-11, as RFC 9651 lists. The draft may still
rename its parameters: all that knows them is here, under one version. The vendors' fields are
those that OpenAI's and Anthropic's clients read. What lets a page of another origin read an answer
is in the Fetch standard, §3.2.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter

from guardrail.http.dialects import Dialect
from guardrail.http.responses.client_view import ShownLimit

VERSION = "ietf-11"
"""The revision of the draft that these fields follow."""

LARGEST = 10**15 - 1
"""The largest Integer of a structured field (RFC 9651 §3.3.1)."""

PARTITION_BYTES = 9
_MOST_KEPT = 4096
_TIGHTNESS = itemgetter(0, 1)

Field = tuple[bytes, bytes]


class Wording:
    """How limits are written, kept: nearly every answer says the same of them again."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, int, int | None], tuple[str, str]] = {}

    def of(self, standings: Sequence[ShownLimit]) -> list[tuple[str, str]]:
        """Return the name of each limit, and its own parameters without its partition."""
        every = []
        for standing in standings:
            name, unit, quota, _, window, *_ = standing
            key = name, unit, quota, window
            texts = self._known.get(key)
            if texts is None:
                if len(self._known) >= _MOST_KEPT:
                    self._known.clear()
                texts = self._known[key] = _wording(standing)
            every.append(texts)
        return every


def ratelimit_fields(
    standings: Sequence[ShownLimit],
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
    wordings = (wording or Wording()).of(standings)
    policies, limits = [], []
    for standing, (name, policy) in zip(standings, wordings, strict=True):
        _, _, quota, left, _, resets, wait, _ = standing
        pk = "" if partition is None else _partition(standing, partition)
        policies.append(policy + pk)
        # `t` is the wait of one that refuses, else the time to full.
        seconds = resets if wait is None else wait
        until = "" if seconds is None else f";t={math.ceil(seconds)}"
        stands = f"{name};r={left if left <= LARGEST else LARGEST}{until}{pk}"
        limits.append((wait is None, left / (quota or 1), stands))
    limits.sort(key=_TIGHTNESS)
    return [
        (b"ratelimit-policy", ", ".join(policies).encode("ascii")),
        (b"ratelimit", ", ".join([stands for _, _, stands in limits]).encode("ascii")),
    ]


def sf_string(text: str) -> str:
    """Return text as a String of RFC 9651; what is not printable ASCII becomes `?`."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(c if " " <= c <= "~" else "?" for c in text)
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _wording(standing: ShownLimit) -> tuple[str, str]:
    """Return a limit's name and parameters; `requests` is the draft's unit where none is named."""
    name = sf_string(standing.name)
    text = f"{name};q={_integer(standing.quota)}"
    if standing.unit != "requests":
        text += f";qu={sf_string(standing.unit)}"
    if standing.window is not None:
        text += f";w={_integer(standing.window)}"
    return name, text


def _integer(value: int) -> int:
    return value if 0 <= value <= LARGEST else max(0, min(value, LARGEST))


def _partition(standing: ShownLimit, key: bytes) -> str:
    text = standing.key.encode("utf-8", "surrogatepass")
    digest = hmac.new(key, text, hashlib.sha256).digest()[:PARTITION_BYTES]
    return f";pk=:{base64.b64encode(digest).decode('ascii')}:"


Names = tuple[bytes, bytes, bytes]
"""The fields of one unit: its limit, what remains of it, and when it resets."""

OPENAI_NAMES: Mapping[str, Names] = {
    unit: (
        f"x-ratelimit-limit-{unit}".encode(),
        f"x-ratelimit-remaining-{unit}".encode(),
        f"x-ratelimit-reset-{unit}".encode(),
    )
    for unit in ("requests", "tokens")
}
ANTHROPIC_NAMES: Mapping[str, Names] = {
    unit: (
        f"anthropic-ratelimit-{unit.replace('_', '-')}-limit".encode(),
        f"anthropic-ratelimit-{unit.replace('_', '-')}-remaining".encode(),
        f"anthropic-ratelimit-{unit.replace('_', '-')}-reset".encode(),
    )
    for unit in ("requests", "tokens", "input_tokens", "output_tokens")
}


_NAMES = {Dialect.OPENAI: OPENAI_NAMES, Dialect.ANTHROPIC: ANTHROPIC_NAMES}


def vendor_fields(dialect: Dialect, standings: Sequence[ShownLimit], now: float) -> list[Field]:
    """Return a dialect's own quota headers, by the tightest limit of each unit.

    OpenAI states resets as Go durations; Anthropic as the RFC 3339 time of full replenishment,
    counted from `now` (seconds since the epoch).
    """
    named = _NAMES.get(dialect)
    if named is None or not standings:
        return []
    tightest: dict[str, ShownLimit] = {}
    for standing in standings:
        known = tightest.get(standing.unit)
        if known is None or standing.left < known.left:
            tightest[standing.unit] = standing
    fields: list[Field] = []
    for unit, (limit, remaining, reset) in named.items():
        found = tightest.get(unit)
        if found is None:
            continue
        fields.append((limit, b"%d" % found.quota))
        fields.append((remaining, b"%d" % found.left))
        if found.resets is not None:
            span = found.resets
            until = go_duration(span) if dialect is Dialect.OPENAI else rfc3339(now + span)
            fields.append((reset, until.encode("ascii")))
    return fields


def go_duration(seconds: float) -> str:
    """Return a span of time as Go's `time.Duration` prints it, rounded up to milliseconds."""
    millis = math.ceil(round(seconds * 1000, 3))
    if millis < 1000:
        return f"{millis}ms" if millis else "0s"
    minutes, millis = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    whole, fraction = divmod(millis, 1000)
    tail = f"{whole}" + (f".{fraction:03d}".rstrip("0") if fraction else "")
    if hours:
        return f"{hours}h{minutes}m{tail}s"
    return f"{minutes}m{tail}s" if minutes else f"{tail}s"


def rfc3339(moment: float) -> str:
    """Return a time (seconds since the epoch) in RFC 3339, rounded up to whole seconds."""
    return datetime.fromtimestamp(math.ceil(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


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

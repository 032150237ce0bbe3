"""The quota headers that OpenAI's and Anthropic's clients read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from guardrail.http.answers.standing import Standing
from guardrail.http.dialects import Dialect

Field = tuple[bytes, bytes]

OPENAI_UNITS = ("requests", "tokens")
ANTHROPIC_UNITS = ("requests", "tokens", "input_tokens", "output_tokens")


def vendor_fields(dialect: Dialect, standings: Sequence[Standing], now: float) -> list[Field]:
    """Return a dialect's own quota headers, by the tightest limit of each unit.

    OpenAI states resets as Go durations; Anthropic as the RFC 3339 time of full replenishment,
    counted from `now` (seconds since the epoch).
    """
    if dialect is Dialect.OPENAI:
        return list(_openai(standings))
    if dialect is Dialect.ANTHROPIC:
        return list(_anthropic(standings, now))
    return []


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


def _openai(standings: Sequence[Standing]) -> Iterable[Field]:
    for unit in OPENAI_UNITS:
        standing = _tightest(standings, unit)
        if standing is None:
            continue
        name = unit.encode("ascii")
        yield b"x-ratelimit-limit-" + name, _number(standing.quota)
        yield b"x-ratelimit-remaining-" + name, _number(standing.left)
        if standing.resets is not None:
            yield b"x-ratelimit-reset-" + name, go_duration(standing.resets).encode("ascii")


def _anthropic(standings: Sequence[Standing], now: float) -> Iterable[Field]:
    for unit in ANTHROPIC_UNITS:
        standing = _tightest(standings, unit)
        if standing is None:
            continue
        prefix = b"anthropic-ratelimit-" + unit.replace("_", "-").encode("ascii")
        yield prefix + b"-limit", _number(standing.quota)
        yield prefix + b"-remaining", _number(standing.left)
        if standing.resets is not None:
            yield prefix + b"-reset", rfc3339(now + standing.resets).encode("ascii")


def _tightest(standings: Sequence[Standing], unit: str) -> Standing | None:
    same = [standing for standing in standings if standing.unit == unit]
    return min(same, key=lambda standing: standing.left, default=None)


def _number(value: int) -> bytes:
    return str(value).encode("ascii")

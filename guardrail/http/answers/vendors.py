"""The quota headers that OpenAI's and Anthropic's clients read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from guardrail.http.answers.standing import Standing
from guardrail.http.dialects import Dialect

Field = tuple[bytes, bytes]

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


def vendor_fields(dialect: Dialect, standings: Sequence[Standing], now: float) -> list[Field]:
    """Return a dialect's own quota headers, by the tightest limit of each unit.

    OpenAI states resets as Go durations; Anthropic as the RFC 3339 time of full replenishment,
    counted from `now` (seconds since the epoch).
    """
    if dialect is Dialect.OPENAI:
        return _openai(standings)
    if dialect is Dialect.ANTHROPIC:
        return _anthropic(standings, now)
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


def _openai(standings: Sequence[Standing]) -> list[Field]:
    fields: list[Field] = []
    for (limit, remaining, reset), standing in _by_unit(OPENAI_NAMES, standings):
        fields.append((limit, b"%d" % standing.quota))
        fields.append((remaining, b"%d" % standing.left))
        if standing.resets is not None:
            fields.append((reset, go_duration(standing.resets).encode("ascii")))
    return fields


def _anthropic(standings: Sequence[Standing], now: float) -> list[Field]:
    fields: list[Field] = []
    for (limit, remaining, reset), standing in _by_unit(ANTHROPIC_NAMES, standings):
        fields.append((limit, b"%d" % standing.quota))
        fields.append((remaining, b"%d" % standing.left))
        if standing.resets is not None:
            fields.append((reset, rfc3339(now + standing.resets).encode("ascii")))
    return fields


def _by_unit(
    named: Mapping[str, Names], standings: Sequence[Standing]
) -> Iterator[tuple[Names, Standing]]:
    """Yield the names of each unit's fields with its tightest limit."""
    tightest: dict[str, Standing] = {}
    for standing in standings:
        known = tightest.get(standing.unit)
        if known is None or standing.left < known.left:
            tightest[standing.unit] = standing
    for unit, names in named.items():
        if unit in tightest:
            yield names, tightest[unit]

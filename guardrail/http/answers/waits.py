"""How long a client is told to wait: never less than the truth, and not all at one instant."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from guardrail.http.answers.standing import Reading

Jitter = Callable[[], float]
"""A source of numbers from 0 to 1, such as `random.random`."""

PATIENCE = 60.0
"""The longest wait, in seconds, after which clients are asked to try again by themselves."""

HOUR = 3600
IN_FLIGHT_SPREAD = 1.0
TOLERANCE = 1e-5
"""A decision may add a microsecond to the wait of the rule that has the longest."""


class Wait(NamedTuple):
    """What is told of a wait: whole seconds, and milliseconds where those are finer.

    `seconds` None: waiting will not help, or nothing is known. `retry`: the client may try again
    by itself.
    """

    seconds: int | None
    millis: int | None
    retry: bool


NO_WAIT = Wait(None, None, False)


def wait_of(reading: Reading, retry_after: float | None, jitter: Jitter, spread: float) -> Wait:
    """Return what to tell of a wait of `retry_after` seconds.

    Where it ends at a calendar reset, up to `spread` seconds are added, so that not every client
    returns at midnight sharp; up to one second for a place in flight. A wait for a limit shared
    with strangers is rounded up to hours, which is all that is told of it.
    """
    if retry_after is None:
        return NO_WAIT
    if reading.shared:
        return Wait(max(1, math.ceil(retry_after / HOUR)) * HOUR, None, False)
    waited = retry_after + jitter() * _spread(reading, retry_after, spread)
    if retry_after <= PATIENCE:
        # A wait that clients would wait out stays one, however it is spread.
        waited = min(waited, PATIENCE)
    # Six digits are more than a wait has: without them 1.1 s would round up to 1101 ms.
    seconds = max(1, math.ceil(round(waited, 6)))
    millis = max(1, math.ceil(round(waited * 1000, 3)))
    retry = seconds <= PATIENCE
    return Wait(seconds, millis if retry and millis < seconds * 1000 else None, retry)


def _spread(reading: Reading, retry_after: float, spread: float) -> float:
    """Return over how many seconds to spread the returns of those who wait for the same."""
    longest = [
        r.rule.verb
        for r in reading.refusals
        if r.rule and r.wait is not None and abs(r.wait - retry_after) <= TOLERANCE
    ]
    windows = [verb.covers.kind for verb in longest if verb.covers is not None]
    if any(kind not in ("rolling", "lifetime") for kind in windows):
        return spread
    return IN_FLIGHT_SPREAD if any(verb.in_flight for verb in longest) else 0.0

"""How a guard and its store are getting on, for metrics and health checks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a guard stands to its store.

    `breaker` is closed (the store is asked), open (it is not) or half-open (one call tries).
    Counts are since the guard was made: `failures` calls that failed, `unasked` decisions made
    without asking; `lost` corrections given up, and decisions whose charge may stay though nobody
    was served, as no reply came to undo it by; `repeated` extra charges that were sent again and
    may stand twice. Where both are 0, the store holds what was used. `queued` corrections wait now.
    `problem` is the last failure in words, None before the first; `warnings` are the store's own.
    """

    breaker: str
    failures: int = 0
    unasked: int = 0
    queued: int = 0
    lost: int = 0
    repeated: int = 0
    problem: str | None = None
    warnings: tuple[str, ...] = ()

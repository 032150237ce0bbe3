"""A ledger that is obviously right: a list of events, re-added at every question."""

from __future__ import annotations

from typing import NamedTuple


class Event(NamedTuple):
    """What one request holds: when it was admitted (seconds), how much it counts, until when."""

    at: float
    amount: int
    until: float = float("inf")


class Ledger:
    """All that is held, by key."""

    def __init__(self) -> None:
        self.events: dict[str, list[Event]] = {}

    def add(self, key: str, event: Event) -> None:
        """Write an event down."""
        self.events.setdefault(key, []).append(event)

    def replace(self, key: str, old: Event, new: Event | None) -> None:
        """Correct one event, or strike it out."""
        self.events[key].remove(old)
        if new is not None:
            self.events[key].append(new)

    def between(self, key: str, start: float, end: float) -> int:
        """Return the sum of what was admitted in a stretch of time, end exclusive."""
        return sum(e.amount for e in self.events.get(key, []) if start <= e.at < end)

    def live(self, key: str, now: float) -> int:
        """Return how many are held at a time."""
        return sum(e.at <= now < e.until for e in self.events.get(key, []))

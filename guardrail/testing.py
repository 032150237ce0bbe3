"""For hosts' own tests: a clock that moves only when told to, and a guard from a text of YAML."""

from __future__ import annotations

from guardrail.guard import Guard
from guardrail.loading import load_text
from guardrail.model.facts import epoch_of


class MovableClock:
    """A clock for tests; hand it to a guard as `clock`."""

    def __init__(self, start: float | str = "2026-01-05T12:00:00Z") -> None:
        """Start at seconds since the epoch, or at an RFC 3339 time.

        Raises:
            ValueError: the text is no time.
        """
        self.now = self._seconds(start)

    def __call__(self) -> float:
        """Return the time, in seconds since the epoch."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move on by some seconds, or back by negative ones."""
        self.now += seconds

    def set(self, moment: float | str) -> None:
        """Move to seconds since the epoch, or to an RFC 3339 time.

        Raises:
            ValueError: the text is no time.
        """
        self.now = self._seconds(moment)

    @staticmethod
    def _seconds(moment: float | str) -> float:
        if not isinstance(moment, str):
            return float(moment)
        seconds = epoch_of(moment)
        if seconds is None:
            raise ValueError(f"`{moment}` is not an RFC 3339 time: write `2026-01-05T12:00:00Z`")
        return seconds


def guard_of(text: str, *, clock: MovableClock | None = None) -> Guard:
    """Return a guard for one policy file's text, with empty counters and a movable clock.

    Raises:
        PolicyError: the text cannot be loaded.
    """
    return Guard.from_policies(load_text(text), clock=clock or MovableClock(), environ={})

"""Decisions over time: counted in bins that widen as the traffic turns out to be long."""

from __future__ import annotations

from guardrail.model.effects import Effect

WIDTHS = (1, 5, 15, 60, 300, 900, 3600, 10800, 21600, 43200, 86400, 604800)
"""How wide bins can be, in seconds; each divides the next."""

MOST_BINS = 96
"""How many bins there are at most before they are widened."""


class Series:
    """Requests by effect in bins of one width, at most `MOST_BINS` unless those of a week do.

    `bins` maps a bin's number (its start divided by `width`) to requests by effect.
    """

    def __init__(self) -> None:
        self.bins: dict[int, list[int]] = {}
        self._step = 0
        self._first = self._last = 0

    @property
    def width(self) -> int:
        """The width of a bin, in seconds."""
        return WIDTHS[self._step]

    def add(self, ts: float, effect: Effect) -> None:
        """Count one request decided at `ts` (seconds)."""
        number = int(ts // WIDTHS[self._step])
        found = self.bins.get(number)
        if found is None:
            found = self._open(number)
        found[effect] += 1

    def merge(self, other: Series) -> None:
        """Add what another series counted."""
        for number, counts in other.bins.items():
            # A bin of any width lies within one of every greater width.
            start = number * other.width
            while self._step < other._step:
                self._widen()
            mine = int(start // self.width)
            found = self.bins.get(mine)
            if found is None:
                found = self._open(mine, start)
            for effect in Effect:
                found[effect] += counts[effect]

    def rows(self) -> list[tuple[int, tuple[int, ...]]]:
        """Return each bin's start, in seconds, with its requests by effect; empty ones too."""
        if not self.bins:
            return []
        first, last = min(self.bins), max(self.bins)
        none = (0,) * len(Effect)
        if last - first >= 4 * MOST_BINS:
            # A stray time in another century must not make a plot of empty weeks.
            return [(at * self.width, tuple(self.bins[at])) for at in sorted(self.bins)]
        return [(at * self.width, tuple(self.bins.get(at, none))) for at in range(first, last + 1)]

    def _open(self, number: int, start: float | None = None) -> list[int]:
        at = number * self.width if start is None else start
        while True:
            number = int(at // self.width)
            first = min(self._first, number) if self.bins else number
            last = max(self._last, number) if self.bins else number
            if last - first < MOST_BINS or self._step + 1 == len(WIDTHS):
                self._first, self._last = first, last
                return self.bins.setdefault(number, [0] * len(Effect))
            self._widen()

    def _widen(self) -> None:
        times = WIDTHS[self._step + 1] // WIDTHS[self._step]
        self._step += 1
        wider: dict[int, list[int]] = {}
        for number, counts in self.bins.items():
            found = wider.setdefault(number // times, [0] * len(Effect))
            for effect in Effect:
                found[effect] += counts[effect]
        self.bins = wider
        if wider:
            self._first, self._last = min(wider), max(wider)

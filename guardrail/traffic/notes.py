"""What a map met in a log that a reader must know of, counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

MOST_TEXTS = 1_000
"""How many values that a map does not know are told apart."""
SHOWN = 60
"""How many characters of a value are kept."""


@dataclass(slots=True)
class MapNotes:
    """What was met in the rows that a map read.

    `totals` says that a row stands for all requests of a time, `tells_requests` that it says for
    how many. `unseen` holds the columns that no row has had a value in so far. `unknown` counts by
    fact and text the values that `values` do not list and that have no default, `replaced` those
    that took the default instead. `respelt` counts by listed name and text the models that the log
    names otherwise. `missing` counts by fact the rows that have no value for it; `optional` names
    the facts of which that is no news. A column without a value is no fault if the
    map says what holds then (`dispensable`), or if another had one that the same thing is read from
    (`together`). `doubled` counts local times in an hour that a clock showed twice, `skipped` those
    in one that it never showed, and `undecoded` the lines with bytes that are not of the file's
    encoding; of each an example is kept in `examples`. `early` counts the times before 1980,
    `passed_over` the rows that stand for no request, as they have no value in `rows_with`.
    """

    rows: int = 0
    totals: bool = False
    tells_requests: bool = False
    unseen: set[str] = field(default_factory=set)
    unknown: Counter[tuple[str, str]] = field(default_factory=Counter)
    replaced: Counter[tuple[str, str]] = field(default_factory=Counter)
    respelt: Counter[tuple[str, str]] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    optional: frozenset[str] = frozenset()
    dispensable: frozenset[str] = frozenset()
    together: tuple[frozenset[str], ...] = ()
    doubled: int = 0
    skipped: int = 0
    undecoded: int = 0
    early: int = 0
    rows_with: str | None = None
    passed_over: int = 0
    examples: dict[str, str] = field(default_factory=dict)

    def is_missed(self, column: str) -> bool:
        """Tell whether something is lost because a column had no value in any row."""
        if column in self.dispensable:
            return False
        shared = [names for names in self.together if column in names]
        return not shared or any(names <= self.unseen for names in shared)

    def merge(self, other: MapNotes) -> None:
        """Add what was met in other rows by the same map."""
        self.rows += other.rows
        self.unseen &= other.unseen
        for fact_and_text, count in other.unknown.items():
            self.count(self.unknown, *fact_and_text, by=count)
        for fact_and_text, count in other.replaced.items():
            self.count(self.replaced, *fact_and_text, by=count)
        for name_and_text, count in other.respelt.items():
            self.count(self.respelt, *name_and_text, by=count)
        self.missing.update(other.missing)
        self.doubled += other.doubled
        self.skipped += other.skipped
        self.undecoded += other.undecoded
        self.early += other.early
        self.passed_over += other.passed_over
        for what, text in other.examples.items():
            self.examples.setdefault(what, text)

    def count(self, where: Counter[tuple[str, str]], fact: str, text: str, *, by: int = 1) -> None:
        """Count a value of a fact in `unknown` or `replaced`, if there is room for it."""
        known = (fact, shortened(text))
        if known in where or len(where) < MOST_TEXTS:
            where[known] += by

    def example(self, what: str, text: str) -> None:
        """Keep a text as an example of something that is counted, if it is the first."""
        if what not in self.examples:
            self.examples[what] = shortened(text)


def shortened(text: str) -> str:
    """Return a text from a log cut to what is kept of it."""
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"

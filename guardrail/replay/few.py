"""Counts of names that traffic makes up: of too many, the first in order are kept."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Hashable
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


class FewNames(Counter[Name]):
    """Counts by name, of at most `most` names: those whose texts come first.

    Which names are kept, and what they count, depends neither on the order in which they come nor
    on how they were divided before `merge`: a name that once was left out is never kept again.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self._order: list[tuple[str, Name]] = []

    def add(self, name: Name, count: int = 1) -> None:
        """Count a name."""
        if name in self:
            self[name] += count
            return
        place = (repr(name), name)
        if len(self._order) >= self.most:
            if place[0] > self._order[-1][0]:
                return
            del self[self._order.pop()[1]]
        insort(self._order, place, key=_text)
        self[name] = count

    def merge(self, other: FewNames[Name]) -> None:
        """Add what was counted elsewhere."""
        for name, count in other.items():
            self.add(name, count)

    def __reduce__(self) -> tuple[object, ...]:
        return restored_names, (self.most, dict(self))


def restored_names(most: int, counts: dict[Name, int]) -> FewNames[Name]:
    """Return counts as they were written down."""
    made: FewNames[Name] = FewNames(most)
    for name, count in counts.items():
        made.add(name, count)
    return made


def _text(place: tuple[str, object]) -> str:
    return place[0]

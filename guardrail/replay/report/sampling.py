"""Counting for many keys in bounded memory: by a sample of keys, or the worst of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Generic, Protocol, Self, TypeVar

MOST_KEYS = 8_192
"""How many keys of one counter are followed; from there on a sample of them is."""


class Mergeable(Protocol):
    """What is known of a key, and can be added to what is known of it elsewhere."""

    def merge(self, other: Self) -> None:
        """Add what is known elsewhere."""
        ...


State = TypeVar("State", bound=Mergeable)


class KeySample(Generic[State]):
    """What is known of each key, or of a sample drawn by the key: one key in `every`.

    A key is in the sample or not whatever order the traffic has, and in every process alike.
    """

    def __init__(self, new: Callable[[], State], most: int = MOST_KEYS) -> None:
        self._new = new
        self._most = most
        self._states: dict[str, State] = {}
        self.every = 1

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[State]:
        return iter(self._states.values())

    def state(self, key: str) -> State | None:
        """Return what is known of a key, None where the sample leaves it out."""
        found = self._states.get(key)
        if found is None and (self.every == 1 or self._draws(key)):
            found = self._states[key] = self._new()
            while len(self._states) > self._most:
                self._halve()
            found = self._states.get(key)
        return found

    def merge(self, other: KeySample[State]) -> None:
        """Add what another sample knows."""
        self.every = max(self.every, other.every)
        for key, state in other._states.items():
            mine = self._states.get(key)
            if mine is None:
                self._states[key] = state
            else:
                mine.merge(state)
        self._states = {key: state for key, state in self._states.items() if self._draws(key)}
        while len(self._states) > self._most:
            self._halve()

    def _draws(self, key: str) -> bool:
        return self.every == 1 or not _number(key) % self.every

    def _halve(self) -> None:
        self.every *= 2
        self._states = {key: state for key, state in self._states.items() if self._draws(key)}


def _number(key: str) -> int:
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")

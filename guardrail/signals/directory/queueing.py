"""A queue that is fair between networks: each in turn, and those that guess keys last."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

from cachetools import LRUCache

W = TypeVar("W")

_MOST_NETWORKS = 10_000
_EVERY = 4


class Queue(Generic[W]):
    """What waits for a place, by the network it comes from, "" for those not known.

    Networks whose last key was unknown to the source are doubtful: of four turns they have one,
    unless no others wait. When the queue is full, the network that waits most gives way. It is
    not safe between threads: its owner's lock is held.
    """

    __slots__ = ("_doubtful", "_lines", "_most", "_size", "_turn")

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._turn = 0
        self._doubtful: LRUCache[str, bool] = LRUCache(_MOST_NETWORKS)
        # Those in good cached, and the doubtful.
        self._lines: tuple[OrderedDict[str, deque[W]], ...] = (OrderedDict(), OrderedDict())

    def __len__(self) -> int:
        return self._size

    def note(self, network: str, *, doubtful: bool) -> None:
        """Note whether a key of a network was unknown to the source."""
        if doubtful:
            self._doubtful[network] = True
        else:
            self._doubtful.pop(network, None)
        before, after = self._lines[not doubtful], self._lines[doubtful]
        if network in before:
            after[network] = before.pop(network)

    def add(self, network: str, waiting: W) -> W | None:
        """Let something wait; return what gives way for it, itself perhaps, None if nothing."""
        lines = self._lines[network in self._doubtful]
        lines.setdefault(network, deque()).append(waiting)
        self._size += 1
        if self._size <= self._most:
            return None
        for each in reversed(self._lines):
            if each:
                longest = max(each, key=lambda name: len(each[name]))
                return self._taken(each, longest, last=True)
        return None

    def next(self) -> W | None:
        """Return what has waited longest of the network whose turn it is, None if nothing waits."""
        good, doubtful = self._lines
        self._turn += 1
        lines = doubtful if doubtful and (not good or self._turn % _EVERY == 0) else good
        if not lines:
            return None
        network = next(iter(lines))
        taken = self._taken(lines, network, last=False)
        if network in lines:
            lines.move_to_end(network)
        return taken

    def remove(self, network: str, waiting: W) -> bool:
        """Take out what is tired of waiting; tell whether it was still there."""
        for lines in self._lines:
            line = lines.get(network)
            if line is not None and waiting in line:
                line.remove(waiting)
                self._size -= 1
                if not line:
                    del lines[network]
                return True
        return False

    def _taken(self, lines: OrderedDict[str, deque[W]], network: str, *, last: bool) -> W:
        line = lines[network]
        taken = line.pop() if last else line.popleft()
        self._size -= 1
        if not line:
            del lines[network]
        return taken

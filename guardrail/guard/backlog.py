"""Corrections that the store did not take: kept for a while, delivered with later ones."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from guardrail.model.amounts import HOUR
from guardrail.model.cells import IDENT_LENGTH, Correction, Leave, Renew

MOST_KEPT = 10_000
"""How many corrections are kept."""
MOST_AT_ONCE = 100
"""How many of them one call delivers."""
LONGEST_KEPT = HOUR
"""How long, in microseconds, those are kept that no lease ends."""
MOST_TRIES = 3
"""How often one is sent that the store breaks on, rather than being unable to answer."""


class Kept(NamedTuple):
    """One correction, until when it is worth delivering (microseconds), and how often it broke."""

    correction: Correction
    until: int
    broke: int = 0


class Backlog:
    """A bounded queue of corrections, oldest first; `lost` counts those given up.

    `repeated` counts the extra charges that are sent again though they may have been applied.

    The order among them does not matter: each refund is bounded by its own charge, more usage is
    added wherever it comes, and a lease that has ended is not renewed. Safe to share between
    threads; a forked child starts with none, as its parent delivers them.
    """

    def __init__(self, leases: dict[str, int], most: int = MOST_KEPT) -> None:
        """Keep at most so many; `leases` gives the lease of each counter of requests in flight."""
        self.lost = self.repeated = 0
        self._most = most
        self._leases = leases
        self._lock = threading.Lock()
        self._queue: deque[Kept] = deque()
        self._process = os.getpid()

    def __len__(self) -> int:
        """Return how many corrections wait."""
        return len(self._queue)

    def wrap(self, corrections: Sequence[Correction], now: int) -> list[Kept]:
        """Return corrections made at `now`, each with its end."""
        return [Kept(correction, self._until(correction, now)) for correction in corrections]

    def keep(self, entries: Sequence[Kept], now: int, *, unsure: bool, broke: bool = False) -> int:
        """Keep what a failed call was to deliver; return how many were given up.

        `unsure` calls may have been applied: refunds are not repeated then. `broke` tells that
        the store broke on them.
        """
        lost = 0
        with self._lock:
            self._drop_inherited()
            for entry in entries:
                tries = entry.broke + broke
                given_up = tries >= MOST_TRIES or (unsure and not repeatable(entry.correction))
                if entry.until <= now:
                    lost += matters_late(entry.correction)
                elif given_up or not self._room(now):
                    lost += 1
                else:
                    self._queue.append(entry._replace(broke=tries))
                    self.repeated += unsure and matters_late(entry.correction)
            self.lost += lost
        return lost

    def take(self, now: int, most: int = MOST_AT_ONCE) -> list[Kept]:
        """Take out the oldest that are still worth delivering."""
        if not self._queue:
            return []
        taken: list[Kept] = []
        with self._lock:
            self._drop_inherited()
            while self._queue and len(taken) < most:
                entry = self._queue.popleft()
                if entry.until > now:
                    taken.append(entry)
                else:
                    self.lost += matters_late(entry.correction)
        return taken

    def give_up(self) -> None:
        """Count all that wait as lost."""
        with self._lock:
            self._drop_inherited()
            self.lost += len(self._queue)
            self._queue.clear()

    def _until(self, correction: Correction, now: int) -> int:
        if isinstance(correction, Renew):
            return correction.expires
        if isinstance(correction, Leave):
            return now + self._leases.get(correction.key[:IDENT_LENGTH], LONGEST_KEPT)
        return now + LONGEST_KEPT

    def _room(self, now: int) -> bool:
        if len(self._queue) < self._most:
            return True
        while self._queue and self._queue[0].until <= now:
            self.lost += matters_late(self._queue.popleft().correction)
        return len(self._queue) < self._most

    def _drop_inherited(self) -> None:
        if self._process != os.getpid():
            self._process = os.getpid()
            self._queue.clear()
            self.lost = self.repeated = 0


def repeatable(correction: Correction) -> bool:
    """Tell whether a correction may be applied twice without giving away what is not there.

    A lease ends and is renewed once, however often it is asked for; more usage counted twice errs
    on the safe side; a refund given twice does not.
    """
    return isinstance(correction, (Leave, Renew)) or correction.delta > 0


def matters_late(correction: Correction) -> bool:
    """Tell whether something is lost with a correction whose time is over: leases end anyway."""
    return not isinstance(correction, (Leave, Renew))

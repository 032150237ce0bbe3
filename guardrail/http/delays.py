"""Requests delayed until a throttle is over: so many at once, and few of any one caller."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from weakref import WeakSet

MOST_EACH = 8
"""How many requests of one caller are delayed at once, at most."""

_CALLER = ("account.id", "credential.id", "client.network", "client.ip")


class DelaySlots:
    """Slots for requests that are delayed, shared by the threads or tasks of one process.

    One caller has a quarter of them, at most `MOST_EACH`, at least one.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # A request that is collected as garbage may end within a call of the same thread.
        self._lock = threading.RLock()
        self._held: Counter[str] = Counter()

    def take(self, caller: str, most: int | None = None) -> bool:
        """Take a slot for a caller, of `most` if that is fewer; tell whether there was one."""
        places = self._most if most is None else min(self._most, most)
        each = min(max(places // 4, 1), MOST_EACH)
        with self._lock:
            if self._held.total() >= places or self._held[caller] >= each:
                return False
            self._held[caller] += 1
            return True

    def give(self, caller: str) -> None:
        """Give a slot back."""
        with self._lock:
            self._held[caller] -= 1
            self._held += Counter()  # without those that hold none any more


class Threads:
    """How many threads a server has, as stated, or as seen serving: what delays may not use up."""

    def __init__(self, stated: int) -> None:
        self._stated = stated
        self._lock = threading.RLock()
        self._seen: WeakSet[threading.Thread] = WeakSet()

    def seen(self) -> None:
        """Note the thread that serves a request."""
        if self._stated:
            return
        with self._lock:
            self._seen.add(threading.current_thread())

    @property
    def spare(self) -> int:
        """How many of them may be delayed at once: half, so that others are served meanwhile."""
        if self._stated:
            return self._stated // 2
        with self._lock:
            return sum(thread.is_alive() for thread in self._seen) // 2


def caller_of(facts: Mapping[str, object]) -> str:
    """Return whom a delayed request counts for: its account, else what is known of who asks."""
    return next((f"{name} {facts[name]}" for name in _CALLER if name in facts), "")

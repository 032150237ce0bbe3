"""Work that goes on after its response: its decision waits until a later response tells the end."""

from __future__ import annotations

import threading

from guardrail.engine import Decision

MOST_WAITING = 4_096
"""How many decisions wait at once in a process; the oldest of more stay as reserved."""

_TOLD_BY = ("/v1/responses/", "/v1/threads/")


class Later:
    """The decisions on work in the background, by the id that the host gave the work.

    Nothing tells this process of an end that nobody asks it for, or asks another process for: what
    was reserved then stays charged. Safe between threads.
    """

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._waiting: dict[str, Decision] = {}

    def __bool__(self) -> bool:
        """Whether any decision waits."""
        return bool(self._waiting)

    def keep(self, name: str, decision: Decision) -> Decision | None:
        """Let a decision wait; return the one that waits no longer for it."""
        with self._lock:
            former = self._waiting.pop(name, None)
            if former is None and len(self._waiting) >= self._most:
                former = self._waiting.pop(next(iter(self._waiting)))
            self._waiting[name] = decision
        return former

    def take(self, name: str) -> Decision | None:
        """Return the decision that waits for the end of some work, and forget it."""
        with self._lock:
            return self._waiting.pop(name, None)

    def taken(self) -> list[Decision]:
        """Return all that wait, and forget them."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        return list(waiting.values())


def may_tell_ends(endpoint: object) -> bool:
    """Whether a response of an endpoint may tell the end of work that was begun before."""
    return isinstance(endpoint, str) and endpoint.startswith(_TOLD_BY)

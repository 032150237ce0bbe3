"""Work that goes on after its response: its decision waits until a later response tells the end."""

from __future__ import annotations

import threading

from guardrail.engine import Decision

MOST_WAITING = 4_096
"""How many decisions wait at once in a process; the oldest of more stay as reserved."""

LONGEST_NAME = 256
"""The longest id of such work that is remembered, in characters."""
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

    def keep(self, name: str, decision: Decision) -> None:
        """Let a decision wait that is not settled; of too many, the oldest is forgotten.

        One whose work has an id that is too long stays as reserved.
        """
        if len(name) > LONGEST_NAME:
            return
        with self._lock:
            self._waiting.pop(name, None)
            if len(self._waiting) >= self._most:
                self._waiting.pop(next(iter(self._waiting)))
            self._waiting[name] = decision

    def take(self, name: str) -> Decision | None:
        """Return the decision that waits for the end of some work, and forget it."""
        with self._lock:
            return self._waiting.pop(name, None)


def may_tell_ends(endpoint: object) -> bool:
    """Whether a response of an endpoint may tell the end of work that was begun before."""
    return isinstance(endpoint, str) and endpoint.startswith(_TOLD_BY)

"""Keeps requests from waiting, one after another, for a source that does not answer."""

from __future__ import annotations

from threading import Lock

_SET_BACK = 10.0
"""Seconds by which the times of requests may differ, for those that wait, without more meaning."""


class Breaker:
    """Counts a source's failures in a row; once it is open, one trial a pause is let through.

    It opens after `failures` of them, for `pause` seconds; each trial that brings no answer
    doubles the pause, up to `longest`.
    """

    __slots__ = ("_first", "_lock", "_longest", "_most", "_pause", "_until", "failures")

    def __init__(self, failures: int = 5, pause: float = 1.0, longest: float = 30.0) -> None:
        self._lock = Lock()
        self._most = failures
        self._first = self._pause = pause
        self._longest = longest
        self._until: float | None = None
        self.failures = 0

    def may_call(self, now: float) -> bool:
        """Tell whether the source may be called at `now`; while open, true once a pause."""
        with self._lock:
            if self._until is None:
                return True
            # A clock that was set back by much does not keep the source shut until it is past it.
            if self._until - self._pause - _SET_BACK <= now < self._until:
                return False
            # The next pause is taken now, so that no second trial begins before this one ends.
            self._pause = min(self._pause * 2, self._longest)
            self._until = now + self._pause
            return True

    def succeeded(self) -> None:
        """Note an answer: the source is well."""
        with self._lock:
            self.failures = 0
            self._pause = self._first
            self._until = None

    def failed(self, now: float) -> None:
        """Note a call that ended at `now` without an answer."""
        with self._lock:
            self.failures += 1
            if self.failures >= self._most and self._until is None:
                self._until = now + self._pause

"""What must not be shared over a fork: made at first use in each process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """A value made when it is first asked for, anew in each process that asks."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._owner = 0
        self._value: T | None = None

    def get(self) -> T:
        """Return this process's value."""
        value = self._value
        if value is not None and self._owner == os.getpid():
            return value
        with self._lock:
            if self._value is None or self._owner != os.getpid():
                self._value = self._make()
                self._owner = os.getpid()
            return self._value

    def change(self, successor: Callable[[T | None], T | None]) -> None:
        """Replace this process's value, None where it has made none, by its successor."""
        with self._lock:
            value = self._value if self._owner == os.getpid() else None
            after = successor(value)
            if after is not None:
                self._value, self._owner = after, os.getpid()

    def taken(self) -> T | None:
        """Return the value and forget it, None if this process has made none."""
        with self._lock:
            value = self._value if self._owner == os.getpid() else None
            self._value = None
            return value

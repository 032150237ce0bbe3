"""Keeps the leases of requests alive whose hosts are silent: a thread looks after them all."""

from __future__ import annotations

import logging
import threading
from typing import Protocol
from weakref import WeakSet, finalize, ref

LOG = logging.getLogger("guardrail")
THREAD = "guardrail-leases"


class Renewable(Protocol):
    """A request that is being served."""

    def renew_if_due(self) -> None:
        """Extend its leases if they are due."""
        ...


class Renewals:
    """Looks after the requests of one process that hold leases, until each is dropped.

    Its one thread starts with the first of them and sleeps between rounds; it keeps neither a
    process nor this alive. A request that its server neither ends nor holds any more is
    forgotten, and its leases with it.
    """

    def __init__(self) -> None:
        self._open: WeakSet[Renewable] = WeakSet()
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._pause: float | None = None
        self._closed = False

    def watch(self, served: Renewable, every: float) -> None:
        """Look after a request whose leases are due every so many seconds.

        Raises:
            RuntimeError: the system has no thread to give; the next request asks it again.
        """
        with self._lock:
            if self._pause is None:
                self._start(every)
            elif every < self._pause:
                self._pause = every
                self._woken.set()
            self._open.add(served)

    def _start(self, pause: float) -> None:
        # The thread ends where it finds no pause: it is there before, and gone if none started.
        self._pause = pause
        try:
            threading.Thread(
                target=_rounds, args=(ref(self), self._woken), name=THREAD, daemon=True
            ).start()
        except BaseException:
            self._pause = None
            raise
        finalize(self, self._woken.set).atexit = False

    def drop(self, served: Renewable) -> None:
        """Forget a request that has ended."""
        with self._lock:
            self._open.discard(served)

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._woken.set()

    @property
    def pause(self) -> float | None:
        """How many seconds the thread sleeps between rounds; None once it is to end."""
        return None if self._closed else self._pause

    def renew(self) -> None:
        """Make one round."""
        with self._lock:
            every = list(self._open)
        for served in every:
            try:
                served.renew_if_due()
            except Exception:
                LOG.exception("a lease was not renewed")


def _rounds(of: ref[Renewals], woken: threading.Event) -> None:
    """Make rounds until what they are for is closed, or gone."""
    # A round comes before a lease is two thirds over, whenever in a pause it began.
    while (pause := _pause_of(of)) is not None:
        if woken.wait(pause):
            woken.clear()
        renewals = of()
        if renewals is not None and renewals.pause is not None:
            renewals.renew()
        del renewals


def _pause_of(of: ref[Renewals]) -> float | None:
    renewals = of()
    return None if renewals is None else renewals.pause

"""Keeps the leases of a decision alive while its request is being served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Leases:
    """Calls `renew` every so many seconds of the event loop's time, until it is cancelled."""

    def __init__(self, every: float | None, renew: Callable[[], object]) -> None:
        self._every = every
        self._renew = renew
        self._timer: asyncio.TimerHandle | None = None
        self._arm()

    def cancel(self) -> None:
        """Stop."""
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._every is not None:
            self._timer = asyncio.get_running_loop().call_later(self._every, self._tick)

    def _tick(self) -> None:
        self._renew()
        self._arm()

"""The store of one host for event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from guardrail.model.cells import Cell, Charge, Correction, Outcome
from guardrail.model.forms import Asked
from guardrail.stores.lmdb.store import LmdbStore


class AsyncLmdbStore:
    """The store of one host behind the awaited contract.

    A transaction takes some tens of microseconds and never waits, so it runs on the loop: a thread
    would cost more than it. Only the turn is waited for, and that without blocking the loop.
    """

    def __init__(self, store: LmdbStore) -> None:
        self.store = store

    async def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Evaluate and apply; see `Store.acquire`. Cancelled in time, nothing is applied."""
        await self._turn()
        return self.store.decide(charges, cells, now)

    async def ask(self, asked: Asked, now: int) -> list[int]:
        """Acquire; see `FormStore.ask`. Cancelled in time, nothing is applied."""
        await self._turn()
        return self.store.reply(asked, now)

    async def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Apply corrections; see `Store.settle`."""
        await self._turn()
        self.store.correct(corrections, now)

    async def close(self) -> None:
        """Let go of the file; the last process to do so writes all of it to the disk."""
        await asyncio.to_thread(self.store.close)

    async def _turn(self) -> None:
        for pause in self.store.session.attempts():
            await asyncio.sleep(pause)

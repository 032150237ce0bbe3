"""An async store behind the sync contract."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from guardrail.model.cells import Cell, Charge, Correction, Outcome
from guardrail.stores import AsyncStore


class Awaited:
    """An async store behind the sync contract, for the suite alone: every call runs a loop."""

    def __init__(self, store: AsyncStore) -> None:
        self.store = store
        self.runner = asyncio.Runner()

    def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Charge, awaited."""
        return self.runner.run(self.store.acquire(charges, cells, now))

    def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Correct, awaited."""
        self.runner.run(self.store.settle(corrections, now))

    def close(self) -> None:
        """Close the store and the loop."""
        self.runner.run(self.store.close())
        self.runner.close()

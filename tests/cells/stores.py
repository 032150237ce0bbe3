"""The stores the contract is run over: one entry each, sync and async alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory
from typing import Any

from guardrail.model.cells import Cell, Charge, Correction, Outcome
from guardrail.stores import AsyncStore, Store
from guardrail.stores.lmdb.asynchronous import AsyncLmdbStore
from guardrail.stores.lmdb.store import LmdbStore
from guardrail.stores.memory import AsyncMemoryStore, MemoryStore


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


class Housed(LmdbStore):
    """An LMDB store in a folder of its own, which goes when the store is closed."""

    def __init__(self, **settings: Any) -> None:
        self.folder = TemporaryDirectory(prefix="guardrail-")
        super().__init__(self.folder.name, **settings)

    def close(self) -> None:
        """Close the store and remove its folder."""
        super().close()
        self.folder.cleanup()


STORES: dict[str, Callable[[], Store]] = {
    "memory": MemoryStore,
    "memory, async": lambda: Awaited(AsyncMemoryStore()),
    "lmdb": Housed,
    "lmdb, async": lambda: Awaited(AsyncLmdbStore(Housed())),
}

"""An async store behind the sync contract."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from guardrail.model.cells import Cell, Charge, Correction, Outcome, Pool
from guardrail.stores import AsyncStore
from guardrail.stores.links import Decide, Query

T = TypeVar("T")


class Awaited:
    """An async store behind the sync contract, for the suite alone: every call runs a loop."""

    def __init__(self, store: AsyncStore) -> None:
        self.store = store
        self.runner = asyncio.Runner()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something; unlike the runner, without a handler of interrupts for each call."""
        return self.runner.get_loop().run_until_complete(work)

    def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Charge, awaited."""
        return self.run(self.store.acquire(charges, cells, now))

    def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Correct, awaited."""
        self.run(self.store.settle(corrections, now))

    def linked(self, query: Query, decide: Decide, now: int) -> bool:
        """Read, decide and write about links, awaited."""
        store: Any = self.store
        done: bool = self.run(store.linked(query, decide, now))
        return done

    def every(self) -> Mapping[bytes, bytes]:
        """Return all rows of links, awaited."""
        store: Any = self.store
        rows: Mapping[bytes, bytes] = self.run(store.every())
        return rows

    def share(self, pools: Sequence[Pool]) -> None:
        """Name counters that accounts share."""
        store: Any = self.store
        store.share(pools)

    def close(self) -> None:
        """Close the store and the loop."""
        self.run(self.store.close())
        self.runner.close()

"""Stores on real clusters, which rest once what a refusal left is taken back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from guardrail.model.cells import Cell, Charge, Outcome
from guardrail.stores.redis.protocol import SLOTS
from tests.cells.awaited import Awaited
from tests.cells.redis_stores import Shown
from tests.stores.clusters import Cluster
from tests.stores.servers import Server


class Spread(Shown):
    """A store on a cluster behind the sync contract, and the records it keeps there."""

    def __init__(self, cluster: Cluster, *, is_async: bool = False, **settings: Any) -> None:
        super().__init__(cluster, is_async=is_async, **settings)
        self.cluster = cluster

    def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Charge, and let what a refusal left be taken back."""
        outcome = super().acquire(charges, cells, now)
        self.tidied()
        return outcome

    def tidied(self) -> None:
        """Wait until the async store has taken back what it owes; the sync one has by now."""
        if isinstance(self.store, Awaited):
            maintenance = getattr(self.store.store, "_maintenance", None)
            if maintenance is not None:
                self.store.runner.run(ended(maintenance))

    def slot(self, key: str) -> int:
        """Return the slot of a key's record."""
        return self.state.context().slot(key)

    def owner(self, key: str) -> Server:
        """Return the server that has a key's record."""
        return self.cluster.owner(self.slot(key))


async def ended(task: Any) -> None:
    """Wait for a task."""
    await task


def key_in(store: Spread, ident: str, wanted: Callable[[int], bool], start: int = 0) -> str:
    """Return a key of a counter whose slot is as wanted."""
    for number in range(start, start + 100_000):
        key = f"{ident}=x{number}"
        if wanted(store.slot(key)):
            return key
    raise AssertionError("no key has such a slot")


def three_keys(store: Spread, ident: str) -> list[str]:
    """Return three keys of a counter, one on each primary, in the order of their slots."""
    thirds = [(SLOTS * i // 3, SLOTS * (i + 1) // 3) for i in range(3)]
    return [key_in(store, ident, lambda s, a=a, b=b: a <= s < b) for a, b in thirds]  # type: ignore[misc]

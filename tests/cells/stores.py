"""The stores the contract is run over: one entry each, sync and async alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

from guardrail.model.cells import Cell, Charge, Outcome
from guardrail.stores import Store
from guardrail.stores.cells import form_of, outcome_of
from guardrail.stores.lmdb import AsyncLmdbStore, LmdbStore
from guardrail.stores.memory import AsyncMemoryStore, MemoryStore
from tests.cells.awaited import Awaited
from tests.cells.redis_stores import SERVERS, Shown
from tests.stores.clusters import CLUSTERS
from tests.stores.servers import binaries


class Housed(LmdbStore):
    """An LMDB store in a folder of its own, which goes when the store is closed."""

    def __init__(self, **settings: Any) -> None:
        self.folder = TemporaryDirectory(prefix="guardrail-")
        super().__init__(self.folder.name, **settings)

    def close(self) -> None:
        """Close the store and remove its folder."""
        super().close()
        self.folder.cleanup()


class HousedInNumbers(Housed):
    """An LMDB store that is asked in numbers, whatever is acquired."""

    def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Acquire by a form."""
        return outcome_of(self.ask(form_of(charges, cells), now), len(charges), cells)


def on_server(kind: str, is_async: bool) -> Store:
    """Return a store on the shared server of a kind, emptied."""
    return Shown(SERVERS.empty(kind), is_async=is_async)


STORES: dict[str, Callable[[], Store]] = {
    "memory": MemoryStore,
    "memory, async": lambda: Awaited(AsyncMemoryStore()),
    "lmdb": Housed,
    "lmdb, in numbers": HousedInNumbers,
    "lmdb, async": lambda: Awaited(AsyncLmdbStore(Housed())),
    **{kind: partial(on_server, kind, False) for kind in binaries()},
    **{f"{kind}, async": partial(on_server, kind, True) for kind in binaries()},
    "cluster": lambda: Shown(CLUSTERS.empty("valkey 9")),
    "cluster, async": lambda: Shown(CLUSTERS.empty("valkey 9"), is_async=True),
}

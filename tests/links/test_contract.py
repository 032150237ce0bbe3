"""Links are the same in every store: who acts as one, and what their counters hold."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.cells.awaited import Awaited
from tests.cells.redis_stores import SERVERS, redis_store
from tests.cells.stores import Housed
from tests.links.histories import InMemory, InStore, difference
from tests.stores.clusters import CLUSTERS, Cluster
from tests.stores.servers import Server, binaries


def on_server(server: Server | Cluster, *, is_async: bool = False) -> InStore:
    """Return links on a server."""
    store = redis_store(server.uri, host_clock=True)
    store.open()
    return InStore(Awaited(store.awaited()) if is_async else store)


def on_shared(kind: str, *, is_async: bool = False) -> InStore:
    """Return links on the shared server of a kind, emptied."""
    return on_server(SERVERS.empty(kind), is_async=is_async)


STORES: dict[str, Callable[[], Any]] = {
    "lmdb": lambda: InStore(Housed()),
    "lmdb, async": lambda: InStore(Awaited(Housed().awaited())),
    **{kind: partial(on_shared, kind) for kind in binaries()},
    **{f"{kind}, async": partial(on_shared, kind, is_async=True) for kind in binaries()},
    "cluster": lambda: on_server(CLUSTERS.empty("valkey 9")),
    "cluster, async": lambda: on_server(CLUSTERS.empty("valkey 9"), is_async=True),
}


@pytest.fixture(params=STORES)
def side(request):
    made = STORES[request.param]()
    yield made
    made.close()


@pytest.mark.parametrize("seed", range(20))
def test_a_history_goes_as_it_does_in_memory(side, seed):
    assert difference(InMemory(), side, seed, 120) is None

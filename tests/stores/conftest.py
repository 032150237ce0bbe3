"""What the tests of stores on servers share."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cells.awaited import Awaited
from tests.cells.redis_stores import redis_store
from tests.stores.deciding import warm
from tests.stores.servers import eventually

PATIENCE = 20.0
"""A deadline, in seconds, that a busy machine does not reach."""


@pytest.fixture(params=["sync", "async"])
def opened(request):
    """Open a store of either kind, which waits patiently; those opened are closed at the end."""
    made = []

    def make(uri, **settings):
        store: Any = redis_store(uri, **{"deadline": PATIENCE, **settings})
        store.open()
        if request.param == "async":
            store = Awaited(store.awaited())
            eventually(lambda: warm(store))
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()

"""What the tests of stores on servers share."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cells.awaited import Awaited
from tests.cells.redis_stores import redis_store
from tests.stores.deciding import DEADLINE, warm
from tests.stores.servers import eventually


@pytest.fixture(params=["sync", "async"])
def opened(request):
    """Open a store of either kind; those opened are closed at the end."""
    made = []

    def make(uri, **settings):
        store: Any = redis_store(uri, **{"deadline": DEADLINE, **settings})
        store.open()
        if request.param == "async":
            store = Awaited(store.awaited())
            eventually(lambda: warm(store))
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()

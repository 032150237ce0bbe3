"""Links are the same in every store: who acts as one, and what their counters hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.cells.stores import Housed
from tests.links.histories import InMemory, InStore, difference

STORES: dict[str, Callable[[], Any]] = {"lmdb": lambda: InStore(Housed())}


@pytest.fixture(params=STORES)
def side(request):
    made = STORES[request.param]()
    yield made
    made.close()


@pytest.mark.parametrize("seed", range(120))
def test_a_history_goes_as_it_does_in_memory(side, seed):
    assert difference(InMemory(), side, seed, 120) is None

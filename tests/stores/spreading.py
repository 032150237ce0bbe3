"""Keys of one counter that lie in different slots of a cluster."""

from __future__ import annotations

from typing import Any

from guardrail.model.cells import Charge, Counter
from guardrail.stores.redis.dialogue import slot_of

S = 1_000_000
NOW = 1_700_000_000 * S
TTL = 10**12
BINDING = [Charge(True, None)]
THREE = [Charge(True, None)] * 3


def budget(name, amount=1, ceiling=10, *, charge=0, spill=None):
    return Counter(charge, name, 0, 1, 0, amount, ceiling, TTL, spill)


def in_different_slots(store, count=3):
    """Return keys of one counter, each on another primary."""
    names = store.bearings.speech().names
    found: dict[int, str] = {}
    for number in range(200):
        key = f"budget__=k{number}"
        found.setdefault(slot_of(names.tag(key)) * 3 // 16384, key)
    return [key for _, key in sorted(found.items())][:count]


async def chores(store: Any) -> None:
    while store._chores is not None and not store._chores.done():
        await store._chores

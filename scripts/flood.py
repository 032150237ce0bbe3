"""`python -m scripts.flood FOLDER [COUNT]`: random unknown credentials against a store in a file.

Prints, for each tenth of the flood, the records kept, the file's pages in use, the memory of the
process and what a charge took; then whether a blocked key is still blocked and a customer served.
"""

from __future__ import annotations

import resource
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from guardrail.model.amounts import DAY, SECOND
from guardrail.model.cells import Charge, Counter
from guardrail.stores.lmdb.store import LmdbStore

NOW = 1_700_000_000 * SECOND
BINDING = [Charge(True, None)]
COUNT, MAX_UNKNOWN = 10_000_000, 1_000_000


@dataclass(frozen=True, slots=True)
class Level:
    """How a store stands in a flood: `memory` in bytes at the most, `cost` in µs a charge."""

    sent: int
    records: int
    data: int
    memory: int
    cost: float


def flood(store: LmdbStore, count: int) -> Iterator[Level]:
    """Charge so many random keys of strangers, and yield the level after each tenth."""
    part = count // 10
    for number in range(10):
        began = perf_counter()
        for _ in range(part):
            charge(store, f"flood___={secrets.token_hex(12)}", spill="flood___~1")
        took = (perf_counter() - began) / part * 1e6
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        yield Level((number + 1) * part, len(store), store.session.used_bytes, peak, took)


def charge(store: LmdbStore, key: str, *, ceiling: int = 100, spill: str | None = None) -> bool:
    """Charge a counter by one, and return whether that was admitted."""
    cell = Counter(0, key, 0, 1, 0, 1, ceiling, DAY, spill)
    return store.acquire(BINDING, [cell], NOW).admitted


def main(arguments: list[str]) -> int:
    """Run the flood in the folder that is named, and return 0 if nobody was harmed."""
    count = int(arguments[1]) if len(arguments) > 1 else COUNT
    store = LmdbStore(Path(arguments[0]), max_unknown=min(MAX_UNKNOWN, count // 10))
    while charge(store, "flood___=blocked", spill="flood___~0"):
        pass
    for level in flood(store, count):
        print(
            f"{level.sent:>11,} sent  {level.records:>10,} records  {level.data >> 20:>6} MB data  "
            f"{level.memory >> 20:>5} MB memory  {level.cost:6.1f} µs a charge",
            flush=True,
        )
    blocked = not charge(store, "flood___=blocked", spill="flood___~0")
    served = all(charge(store, "flood___=customer", ceiling=3) for _ in range(3))
    exact = not charge(store, "flood___=customer", ceiling=3)
    store.close()
    print(f"blocked key blocked: {blocked}; new customer served: {served}, exactly: {exact}")
    return 0 if blocked and served and exact else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

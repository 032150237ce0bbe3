"""Processes that share links at once lose no link, and count nothing twice; not even killed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from guardrail.stores.links import NAME, Changes, Decide, Found, Query
from guardrail.stores.lmdb import LmdbStore
from tests.cells.redis_stores import SERVERS, redis_store
from tests.links.sharing import found, requests, serve, tied
from tests.stores.workers import Worker, until

PATIENT = {"deadline": 20_000_000}
COUNT = 150


@pytest.fixture(params=["lmdb", "redis"])
def place(request: Any, tmp_path: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Return where an empty store is, and how it is opened."""
    if request.param == "lmdb":
        yield tmp_path, PATIENT
    else:
        yield SERVERS.empty("valkey 9").uri, {"host_clock": True}


def opened(where: Any, settings: dict[str, Any]) -> Any:
    """Open a store."""
    if "://" in str(where):
        store = redis_store(where, **settings)
        store.open()
        return store
    return LmdbStore(where, **settings)


def test_four_processes_at_once_lose_no_link_and_count_nothing_twice(place):
    where, settings = place
    workers = [Worker(where, **settings) for _ in range(4)]
    for seed, worker in enumerate(workers):
        worker.ask(serve, seed, COUNT)
    served: Counter[str] = Counter()
    for worker in workers:
        served.update(worker.answer())
        worker.end()
    store = opened(where, settings)
    together, used = found(store)
    store.close()
    wanted = tied([requests(seed, COUNT) for seed in range(4)])
    assert {a: together[a] for a in wanted} == wanted
    assert used == {
        account: sum(served[other] for other in group) for account, group in together.items()
    }


@pytest.mark.parametrize("seed", range(4))
def test_a_process_that_is_killed_leaves_links_and_counters_whole(place, seed):
    where, settings = place
    worker = Worker(where, **settings)
    worker.ask(serve, seed, 10_000)
    watched = opened(where, settings)
    until(lambda: len(watched.every()) > 12 * (seed + 1))
    worker.kill()  # wherever it is
    watched.close()
    other = Worker(where, **settings)
    served = other.call(serve, seed, COUNT)
    other.end()
    store = opened(where, settings)
    together, used = found(store)
    again = found(store)
    store.close()
    assert again == (together, used)
    wanted = tied([requests(seed, COUNT)])
    for account, group in wanted.items():
        assert group <= together[account]
        assert used[account] >= sum(served.get(other, 0) for other in group)


def test_what_is_due_of_one_namespace_is_not_due_of_another(tmp_path):
    store = LmdbStore(tmp_path)
    spaces, names = (b"a" * 8, b"b" * 8), (b"1" * NAME, b"2" * NAME)

    def writing(name: bytes) -> Decide:
        return lambda found: Changes({}, {}, {name: (0, 5)}, (), (), {})

    for space, name in zip(spaces, names, strict=True):
        assert store.linked(Query(space), writing(name), 0)
    seen: list[dict[bytes, int]] = []

    def look(found: Found) -> Changes:
        seen.append(dict(found.due))
        return Changes({}, {}, {}, (), (), {})

    for space in spaces:
        assert store.linked(Query(space, before=9, most=8), look, 0)

    assert seen == [{names[0]: 5}, {names[1]: 5}]
    store.close()

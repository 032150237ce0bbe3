"""A server that is killed in the middle of merges has made each of them whole, or not at all."""

from __future__ import annotations

from collections import Counter as Count
from pathlib import Path
from typing import Any

import pytest

from tests.cells.redis_stores import redis_store
from tests.links.histories import START, Facts, InStore
from tests.links.sharing import found, serve_until_it_fails
from tests.links.test_stored import charged
from tests.stores.servers import Server, eventually
from tests.stores.workers import Worker


def writing() -> Server:
    """Return a server that has written down all that it has answered."""
    return Server(appendonly="yes", appendfsync="always")


def opened(server: Server) -> Any:
    store = redis_store(server.uri, host_clock=True)
    store.open()
    return store


def test_what_was_counted_outlives_a_server_that_is_killed_again_and_again() -> None:
    served: Count[str] = Count()
    unsure: Count[str] = Count()
    with writing() as server:
        for seed in range(3):
            workers = [Worker(server.uri, host_clock=True) for _ in range(2)]
            before = server.client.dbsize()
            for number, worker in enumerate(workers):
                worker.ask(serve_until_it_fails, 10 * seed + number)
            eventually(lambda: server.client.info("stats")["total_commands_processed"] > 700)
            server.kill()  # wherever it is
            for worker in workers:
                counted, uncertain = worker.answer()
                served.update(counted)
                unsure.update(uncertain)
                worker.end()
            server.restart()
            assert server.client.dbsize() >= before
        store = opened(server)
        together, used = found(store)
        assert found(store) == (together, used)
        store.close()
    assert served.total() > 60
    assert max(len(group) for group in together.values()) > 2
    for account, group in together.items():
        sure = sum(served[other] for other in group)
        assert sure <= used[account] <= sure + sum(unsure[other] for other in group)


def contents(server: Server) -> dict[bytes, Any]:
    """Return all that a server holds."""
    return {name: server.client.get(name) for name in server.client.scan_iter(_type="string")}


@pytest.mark.parametrize("share", [0.02, 0.2, 0.4, 0.6, 0.8, 0.98])
def test_a_log_that_ends_in_the_middle_of_a_merge_holds_none_of_it(
    share: float, tmp_path: Path
) -> None:
    one: Facts = {"account.id": "a", "payment.fingerprint": "c"}
    other: Facts = {"account.id": "b", "payment.fingerprint": "c"}
    with writing() as server:
        side = InStore(opened(server))
        for name in ("a", "b"):
            charged(side, {"account.id": name}, 5, START)
        side.see(one, START)
        (log,) = Path(server.folder).glob("appendonlydir/*.incr.aof")
        before, start = contents(server), log.stat().st_size
        side.see(other, START)
        after, end = contents(server), log.stat().st_size
        assert len(after) > len(before) + 1
        side.close()
        server.kill()
        with log.open("r+b") as written:
            written.truncate(start + int((end - start) * share))
        server.restart()
        assert contents(server) == before
        side = InStore(opened(server))
        assert side.see(other, START).accounts == 2
        assert charged(side, one, 0, START) == charged(side, other, 0, START) == 10
        side.close()

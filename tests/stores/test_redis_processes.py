"""Several processes on one Redis: never over, whoever is killed, stopped or forked, and when."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from functools import partial

import pytest

from guardrail.guard.context import ProcessIds
from guardrail.model.cells import Adjust, Member
from tests.cells.redis_stores import SERVERS, Shown
from tests.stores.servers import binaries, eventually
from tests.stores.workers import (
    BINDING,
    LEASE,
    NOW,
    TTL,
    Worker,
    charge,
    exhaust,
    exhaust_awaited,
    fork_and_charge,
    live_for_ever,
    tally,
    until,
)

PATIENT = 60.0
"""A deadline, in seconds, that a busy machine does not reach."""
kinds = pytest.mark.parametrize("kind", binaries())


@pytest.fixture
def workers():
    started: list[Worker] = []

    def start(server, **settings):
        started.append(Worker(server.uri, deadline=PATIENT, **settings))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


@kinds
@pytest.mark.parametrize(("work", "at_once"), [(exhaust, 3), (exhaust_awaited, 50)])
def test_four_processes_admit_exactly_the_limit_twenty_times(kind, work, at_once, workers):
    four = [workers(SERVERS.empty(kind)) for _ in range(4)]
    for number in range(20):
        for worker in four:
            worker.ask(work, f"counter_={number}", 300, at_once)
        admitted = [worker.answer() for worker in four]
        assert sum(admitted) == 300


def test_processes_killed_two_hundred_times_leave_nothing_half_done(tmp_path, workers):
    draw, server = random.Random(9), SERVERS.empty("valkey 9")
    others = set(server.held())
    store = Shown(server)
    crew: list[tuple[Worker, memoryview]] = []
    every: list[memoryview] = []

    def join() -> None:
        path = tmp_path / f"tally{len(every)}"
        every.append(tally(path))
        crew.append((workers(server), every[-1]))
        crew[-1][0].ask(live_for_ever, path, 10**9)

    join()
    join()
    for _ in range(200):
        until(lambda: crew[0][1][3] > 2)
        time.sleep(draw.random() / 500)
        worker, counts = crew.pop(0)
        worker.kill()
        assert 0 <= counts[0] - counts[1] <= 1
        join()
        assert charge(store, "another_=a")
    for worker, _ in crew:
        worker.kill()
    # What the dead had sent is still carried out.
    eventually(lambda: len(set(server.held()) - others) == 1, 60)
    begun, done, settling, settled = (sum(counts[i] for counts in every) for i in range(4))
    left = store.members("leases__=a")
    charged = store.slots("acquired=a")[0]

    # A decision charges two and a lease, a settlement takes back one and the lease.
    assert done <= charged - len(left) <= begun
    assert settled <= charged - 2 * len(left) <= settling
    assert 0 < len(left) <= 202
    newcomer = [Member(0, "leases__=a", "new", NOW + 2 * LEASE, 1, TTL)]
    assert not store.acquire(BINDING, newcomer, NOW).admitted
    assert store.acquire(BINDING, newcomer, NOW + LEASE).admitted
    store.close()


def test_killed_processes_never_let_more_in_than_the_limit(tmp_path, workers):
    draw = random.Random(4)
    server = SERVERS.empty("valkey 9")
    others = set(server.held())
    for turn in range(10):
        pair = [workers(server) for _ in range(2)]
        for number, worker in enumerate(pair):
            worker.ask(live_for_ever, tmp_path / f"tally{turn}.{number}", 2000)
        time.sleep(0.05 + draw.random() / 20)
        for worker in pair:
            worker.kill()
    eventually(lambda: not set(server.held()) - others, 60)
    store = Shown(server)
    while charge(store, "acquired=a", ceiling=2000):
        pass

    assert store.slots("acquired=a") == {0: 2000}
    store.close()


def above(store, before: int) -> bool:
    return bool(store.slots("counter_=a").get(0, 0) > before)


def test_processes_stopped_at_any_moment_stop_nobody(workers):
    draw = random.Random(7)
    server = SERVERS.empty("valkey 9")
    crew = [workers(server) for _ in range(3)]
    store = Shown(server)
    for worker in crew:
        worker.ask(exhaust, "counter_=a", 12_000, 2)
    own = 0
    for turn in range(30):
        until(partial(above, store, own))
        time.sleep(draw.random() / 200)
        stopped = crew[turn % 3]
        stopped.signal(signal.SIGSTOP)
        until(stopped.stopped)
        own += sum(charge(store, "counter_=a", ceiling=12_000) for _ in range(20))
        stopped.signal(signal.SIGCONT)

    assert own + sum(worker.answer() for worker in crew) == 12_000
    assert own > 60
    store.close()


@kinds
def test_a_store_that_was_used_before_a_fork_counts_exactly_on_both_sides(kind, workers):
    worker = workers(SERVERS.empty(kind))

    assert worker.call(fork_and_charge, "counter_=a", 60) == 60
    assert worker.call(fork_and_charge, "counter_=b", 200) == 103


def in_a_child(work) -> str:
    """Return what a forked child found, as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, str(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        found = pipe.read()
    os.waitpid(child, 0)
    return found


def clients_after(store, charges: int) -> tuple[str, str]:
    """Return the names of the connections that a child used and that its parent used."""

    def used() -> list[str]:
        assert all(charge(store, "counter_=a") for _ in range(charges))
        (pool,) = store._servers.every()
        return sorted({str(link._connection._sock.getsockname()) for link in pool._idle})

    before = used()
    inside = in_a_child(used)
    assert used() == before
    return inside, str(before)


def test_a_child_shares_no_connection_with_its_parent(workers):
    inside, outside = workers(SERVERS.empty("valkey 9")).call(clients_after, 3)

    assert inside.startswith("[")
    assert inside != outside


def owing(store) -> str:
    """Owe a refund, fork, and have both sides tidy up; return what the child still owed."""
    charge(store, "counter_=a", 10)
    store._owe([Adjust("counter_=a", 0, -3, TTL)])

    def tidied() -> int:
        owed = len(store._owed)
        charge(store, "counter_=b")
        store.close()
        return owed

    inside = in_a_child(lambda: (charge(store, "counter_=b"), len(store._owed))[1])
    tidied()
    return inside


def test_what_is_owed_is_taken_back_by_the_parent_alone(workers):
    server = SERVERS.empty("valkey 9")

    assert workers(server).call(owing) == "0"
    store = Shown(server)
    assert store.slots("counter_=a") == {0: 7}
    store.close()


def test_no_two_decisions_of_forked_processes_and_threads_have_one_id_or_lease():
    ids = ProcessIds()
    ids.name(ids.next())

    def made() -> str:
        found: list[str] = []
        ready = threading.Barrier(8)

        def work() -> None:
            ready.wait()
            for _ in range(200):
                serial = ids.next()
                found.extend((ids.name(serial), f"{ids.mark}{serial}"))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return " ".join(found)

    children = [in_a_child(made).split() for _ in range(20)]
    every = [*made().split(), *(name for names in children for name in names)]
    assert len(every) == 21 * 2 * 1600
    assert len(set(every)) == len(every)

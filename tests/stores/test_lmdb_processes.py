"""Several processes on one LMDB store: never over, whoever is killed or stopped, and when."""

from __future__ import annotations

import random
import signal
import time

import pytest

from guardrail.errors import StoreError
from guardrail.model.cells import Member
from guardrail.stores.lmdb import LmdbStore
from tests.stores.workers import (
    BINDING,
    LEASE,
    NOW,
    TTL,
    StopsWithin,
    Worker,
    charge,
    exhaust,
    fork_and_charge,
    live_for_ever,
    tally,
    until,
)

PATIENT = 10_000_000
"""A deadline that a busy machine does not reach."""


@pytest.fixture
def workers():
    started: list[Worker] = []

    def start(*arguments, **settings):
        started.append(Worker(*arguments, **settings))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


def test_four_processes_with_threads_admit_exactly_the_limit_twenty_times(tmp_path, workers):
    four = [workers(tmp_path, deadline=PATIENT) for _ in range(4)]
    for number in range(20):
        for worker in four:
            worker.ask(exhaust, f"counter_={number}", 200, 2)
        assert sum(worker.answer() for worker in four) == 200


def test_processes_killed_two_hundred_times_leave_no_trace(tmp_path, workers):
    draw = random.Random(9)
    crew: list[tuple[Worker, memoryview]] = []
    store = LmdbStore(tmp_path, deadline=PATIENT)
    every: list[memoryview] = []

    def join() -> None:
        path = tmp_path / f"tally{len(every)}"
        every.append(tally(path))
        worker = Worker(tmp_path, deadline=PATIENT)
        worker.ask(live_for_ever, path, 10**9)
        crew.append((worker, every[-1]))

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
    begun, done, settling, settled = (sum(counts[i] for counts in every) for i in range(4))

    assert 2 * done - settling <= store.slots("acquired=a")[0] <= 2 * begun - settled
    left = store.members("leases__=a")
    assert done - settling <= len(left) <= begun - settled
    assert len(left) > 0
    newcomer = [Member(0, "leases__=a", "new", NOW + 2 * LEASE, 1, TTL)]
    assert not store.acquire(BINDING, newcomer, NOW).admitted
    assert store.acquire(BINDING, newcomer, NOW + LEASE).admitted
    store.close()


def test_killed_processes_never_let_more_in_than_the_limit(tmp_path, workers):
    draw, store = random.Random(4), LmdbStore(tmp_path, deadline=PATIENT)
    for turn in range(12):
        pair = [workers(tmp_path, deadline=PATIENT) for _ in range(2)]
        for number, worker in enumerate(pair):
            worker.ask(live_for_ever, tmp_path / f"tally{turn}.{number}", 700)
        until(lambda: bool(store.slots("acquired=a")))
        time.sleep(0.05 + draw.random() / 20)
        for worker in pair:
            worker.kill()

    assert 0 < store.slots("acquired=a")[0] <= 700
    store.close()


def stopped_within(workers, path):
    worker = workers(path, StopsWithin)
    assert worker.call(charge, "counter_=a")
    worker.ask(charge, "counter_=stop")
    until(worker.stopped)
    return worker


def late(store):
    """Return how long a decision took to say that it had no turn."""
    began = time.perf_counter()
    with pytest.raises(StoreError, match="no turn to write within 50 ms") as caught:
        charge(store, "counter_=a")
    assert not caught.value.unsure
    return time.perf_counter() - began


def test_a_process_stopped_within_a_transaction_stops_the_others_until_their_deadline_only(
    tmp_path, workers
):
    store = LmdbStore(tmp_path)
    charge(store, "counter_=b")
    worker = stopped_within(workers, tmp_path)
    # No longer than that is not for a busy machine to say; nor does anyone wait for ever.
    assert min(late(store) for _ in range(10)) >= 0.05
    worker.signal(signal.SIGCONT)
    assert worker.answer()
    assert charge(store, "counter_=a")
    assert store.slots("counter_=a") == {0: 2}
    store.close()


def test_a_process_killed_while_stopped_within_a_transaction_has_written_nothing(tmp_path, workers):
    store = LmdbStore(tmp_path)
    charge(store, "counter_=b")
    worker = stopped_within(workers, tmp_path)
    late(store)
    worker.kill()

    assert charge(store, "counter_=a")
    assert store.slots("counter_=stop") == {}
    store.close()


def test_a_process_stopped_elsewhere_stops_nobody(tmp_path, workers):
    idle = workers(tmp_path)
    assert idle.call(charge, "counter_=a")
    idle.signal(signal.SIGSTOP)
    until(idle.stopped)
    store = LmdbStore(tmp_path)

    assert all(charge(store, "counter_=a") for _ in range(100))
    store.close()


def test_a_store_that_was_used_before_a_fork_counts_exactly_on_both_sides(tmp_path, workers):
    worker = workers(tmp_path, deadline=PATIENT)

    assert worker.call(fork_and_charge, "counter_=a", 60) == 60
    assert worker.call(fork_and_charge, "counter_=b", 200) == 103

"""What a fork inherits of an LMDB store, and what a call that broke off leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import lmdb
import pytest

from guardrail.errors import SettingError, StoreError
from guardrail.stores.lmdb import LmdbStore, locks
from guardrail.stores.lmdb.locks import FileLock
from tests.stores.workers import NOW, S, charge

ROOT = Path(__file__).parent.parent.parent
COUNTER = "counter_=a"
EVERY = 60 * S

FORKING = """
import json, os, sys
from guardrail.stores.lmdb import locks
from guardrail.stores.lmdb.locks import FileLock
from guardrail.stores.lmdb.store import LmdbStore
from tests.stores.workers import charge

folder = os.path.realpath(sys.argv[1])
store = LmdbStore(folder, deadline=20_000_000)
assert charge(store, "counter_=a")

def inherited():
    files = []
    for name in os.listdir("/proc/self/fd"):
        try:
            files.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            pass
    with open("/proc/self/maps") as lines:
        maps = [line.split()[-1] for line in lines]
    return sorted({each for each in files + maps if each.startswith(folder)})

before = inherited()
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.close(reader)
    found = inherited()
    charged = charge(store, "counter_=a")
    store.close()
    os.write(writer, json.dumps([found, charged]).encode())
    os._exit(0)
os.close(writer)
with os.fdopen(reader) as told:
    found, charged = json.load(told)
_, status = os.waitpid(child, 0)
again = charge(store, "counter_=a")
slots = store.slots("counter_=a")
store.close()
print(json.dumps([before, found, charged, status, again, slots["0"] if "0" in slots else slots[0]]))
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_child_inherits_no_file_and_no_map_of_a_store_and_both_go_on(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FORKING, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    before, found, charged, status, again, counted = json.loads(done.stdout)

    assert any(name.endswith("counters.mdb") for name in before)
    assert found == []
    assert (charged, status, again, counted) == (True, 0, True, 3)
    assert done.stderr == ""


def opened(path: Path, **settings: Any) -> Any:
    return LmdbStore(path, copy_every=EVERY, clock=lambda: NOW / S, **settings)


FAULTS = [
    ("_epochs", "names", StoreError("other names")),
    ("_epochs", "names", KeyboardInterrupt()),
    ("_environment", "begin", lmdb.Error("broken")),
    ("_environment", "begin", MemoryError()),
    ("_environment.writer", "attempt", OSError("no locks")),
]


@pytest.mark.parametrize(("where", "what", "fault"), FAULTS)
def test_a_call_that_broke_off_keeps_no_lock(tmp_path, where, what, fault, monkeypatch):
    store = opened(tmp_path, deadline=200_000)
    assert charge(store, COUNTER)
    path = store.connection._environment.writer.path
    part: Any = store.connection
    for name in where.split("."):
        part = getattr(part, name)

    def broken(*_: object, **__: object) -> Any:
        raise fault

    with monkeypatch.context() as broken_for_now:
        broken_for_now.setattr(part, what, broken, raising=False)
        with pytest.raises((StoreError, type(fault))):
            charge(store, COUNTER)
    assert charge(store, COUNTER)
    assert store.slots(COUNTER) == {0: 2}
    # Nor is the lock between processes kept.
    lock = FileLock(path)
    assert lock.attempt()
    lock.close()
    store.close()


def test_a_store_that_cannot_be_opened_again_keeps_no_lock(tmp_path, monkeypatch):
    store = opened(tmp_path, deadline=200_000)
    assert charge(store, COUNTER)
    store.connection.before_fork()
    store.connection.after_fork(False)

    def broken(*_: object) -> Any:
        raise SettingError("no such folder")

    with monkeypatch.context() as for_now:
        for_now.setattr(store.connection, "_open", broken)
        for _ in range(2):
            with pytest.raises(StoreError, match="no such folder"):
                charge(store, COUNTER)
    assert charge(store, COUNTER)
    store.close()


@pytest.mark.parametrize(("steps", "copies"), [([30, 30], 0), ([61], 1), ([-61], 1), ([-30], 0)])
def test_a_copy_is_due_after_a_while_by_a_clock_that_may_go_back(tmp_path, steps, copies):
    store = opened(tmp_path)
    now = NOW + 10 * EVERY
    charge(store, COUNTER, now=now)
    made = []
    database = store.connection._environment
    database.copier.start = lambda env: made.append(env)
    for step in steps:
        charge(store, COUNTER, now=now + step * S)
    assert len(made) == copies
    store.close()


def test_a_process_that_starts_copies_nothing_that_another_has_just_copied(tmp_path):
    first = opened(tmp_path)
    charge(first, COUNTER, now=NOW)
    first.close()
    store = opened(tmp_path)
    made = []
    with store.connection.read():
        store.connection._environment.copier.start = lambda env: made.append(env)
    charge(store, COUNTER, now=NOW + 30 * S)
    assert not made
    charge(store, COUNTER, now=NOW + 61 * S)
    assert len(made) == 1
    store.close()


@pytest.mark.parametrize("torn", [lmdb.CorruptedError, lmdb.PageNotFoundError])
def test_a_file_that_is_damaged_at_run_time_is_told_and_the_next_start_restores(
    tmp_path, torn, monkeypatch
):
    store = opened(tmp_path, boot="one")
    charge(store, COUNTER)
    charge(store, COUNTER, now=NOW + 2 * EVERY)
    store.connection._environment.copier.wait()
    charge(store, COUNTER, now=NOW + 2 * EVERY + 1)

    def broken() -> Any:
        raise torn("page 7")

    monkeypatch.setattr(store.connection._environment, "begin", broken)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"is damaged .* the first to start again restores"):
            charge(store, COUNTER)
    store.close()

    again = opened(tmp_path, boot="one")
    assert again.slots(COUNTER) == {0: 2}
    again.close()


def test_a_lock_that_is_soon_free_is_had_without_a_sleep(tmp_path, monkeypatch):
    holder, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert holder.attempt()
    yields: list[int] = []
    sleeps: list[float] = []

    def let_go() -> None:
        yields.append(1)
        if len(yields) == 10:
            holder.release()

    monkeypatch.setattr("os.sched_yield", let_go)
    monkeypatch.setattr(locks, "sleep", sleeps.append)
    assert other.acquire(60.0)
    assert (len(yields), sleeps) == (10, [])


def test_a_lock_that_is_held_long_is_slept_on(tmp_path, monkeypatch):
    holder, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert holder.attempt()
    sleeps: list[float] = []

    def slept(seconds: float) -> None:
        sleeps.append(seconds)
        if len(sleeps) == 20:
            holder.release()

    monkeypatch.setattr(locks, "sleep", slept)
    assert other.acquire(60.0)
    assert len(sleeps) == 20
    assert min(sleeps) > 0
    assert max(sleeps) <= 1.5 * locks.LONGEST_PAUSE

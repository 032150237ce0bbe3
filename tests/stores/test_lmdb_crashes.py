"""What an LMDB store loses when a process dies, the host does, or its file is damaged."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import lmdb
import pytest

from guardrail.errors import SettingError, StoreError
from guardrail.stores.lmdb import LmdbStore
from tests.stores.workers import NOW, FailedError, S, Worker, charge

ROOT = Path(__file__).parent.parent.parent
EVERY = 60 * S
COUNTER = "counter_=a"


def opened(path, boot="one", **settings):
    return LmdbStore(path, boot=boot, copy_every=EVERY, clock=lambda: NOW / S, **settings)


def die(store):
    """Close what the kernel closes for a dead process, and do nothing else."""
    store.connection.before_fork()
    store.connection.after_fork(True)


def with_a_copy(path):
    """Return a store that was copied when its counter stood at 2, and stands at 3."""
    store = opened(path)
    charge(store, COUNTER)
    charge(store, COUNTER, now=NOW + 2 * EVERY)
    store.connection._environment.copier.wait()
    charge(store, COUNTER, now=NOW + 2 * EVERY + 1)
    return store


def aside(path):
    return sorted(file.name for file in path.glob("counters.mdb.2*"))


def test_a_process_that_dies_loses_nothing(tmp_path):
    die(with_a_copy(tmp_path))

    assert opened(tmp_path).slots(COUNTER) == {0: 3}
    assert aside(tmp_path) == []


def test_after_a_crash_of_the_host_the_last_copy_is_in_force_and_the_file_is_kept(tmp_path, caplog):
    die(with_a_copy(tmp_path))
    store = opened(tmp_path, "two")

    assert store.slots(COUNTER) == {0: 2}
    assert aside(tmp_path) == ["counters.mdb.2023-11-14T221320"]
    assert "the host crashed" in caplog.text
    assert "the last copy restored" in caplog.text
    with lmdb.open(str(tmp_path / aside(tmp_path)[0]), subdir=False, max_dbs=3, lock=False) as kept:
        known = kept.open_db(b"known", create=False)
        with kept.begin(known) as transaction:
            assert transaction.stat(known)["entries"] == 1
    die(store)
    assert opened(tmp_path, "two").slots(COUNTER) == {0: 2}


def test_a_crash_before_the_first_copy_starts_anew_and_says_so(tmp_path, caplog):
    store = opened(tmp_path)
    charge(store, COUNTER)
    die(store)

    assert opened(tmp_path, "two").slots(COUNTER) == {}
    assert "there was no copy: all counters start anew" in caplog.text
    assert len(aside(tmp_path)) == 1


def test_two_crashes_in_one_second_keep_both_files(tmp_path):
    die(with_a_copy(tmp_path))
    store = opened(tmp_path, "two")
    charge(store, COUNTER)
    die(store)
    opened(tmp_path, "three")

    assert len(aside(tmp_path)) == 2


def test_a_store_that_was_closed_needs_no_copy_in_the_next_boot(tmp_path):
    with_a_copy(tmp_path).close()

    assert json.loads((tmp_path / "state.json").read_text())["clean"]
    store = opened(tmp_path, "two")
    charge(store, COUNTER)
    assert not json.loads((tmp_path / "state.json").read_text())["clean"]
    assert store.slots(COUNTER) == {0: 4}


def test_whoever_lacks_the_key_leaves_a_store_as_closed_as_it_was(tmp_path):
    store = opened(tmp_path, hash_keys=[b"k" * 32])
    assert charge(store, "counter_=a", 7)
    store.close()
    with pytest.raises(SettingError, match="hash key"):
        opened(tmp_path, hash_keys=[b"another" * 5])

    store = opened(tmp_path, "two", hash_keys=[b"k" * 32])
    assert store.slots("counter_=a") == {0: 7}
    store.close()


def test_only_the_last_process_to_close_says_that_all_is_on_the_disk(tmp_path):
    worker = Worker(tmp_path, boot="one")
    worker.call(charge, COUNTER)
    store = opened(tmp_path)
    charge(store, COUNTER)
    store.close()
    assert not json.loads((tmp_path / "state.json").read_text())["clean"]

    worker.end()
    assert json.loads((tmp_path / "state.json").read_text())["clean"]


def test_a_process_that_was_killed_does_not_keep_the_last_one_from_closing(tmp_path):
    worker = Worker(tmp_path, boot="one")
    worker.call(charge, COUNTER)
    store = opened(tmp_path)
    charge(store, COUNTER)
    worker.kill()
    store.close()

    assert json.loads((tmp_path / "state.json").read_text())["clean"]


def overwrite(path):
    with path.open("r+b") as file:
        file.write(b"\xff" * 8192)


def cut(path):
    with path.open("r+b") as file:
        file.truncate(3 * 4096)


def empty(path):
    os.truncate(path, 0)


def zero(path):
    """Put zeros in the place of all that was written, as some file systems do after a crash."""
    os.truncate(path, 0)
    os.truncate(path, 1 << 20)


def zero_beyond_the_heads(path):
    with path.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(bytes(1 << 20))


@pytest.mark.parametrize("damage", [overwrite, cut, empty, zero, zero_beyond_the_heads])
def test_a_damaged_file_is_set_aside_and_the_copy_restored(tmp_path, damage, caplog):
    with_a_copy(tmp_path).close()
    damage(tmp_path / "counters.mdb")

    assert opened(tmp_path).slots(COUNTER) == {0: 2}
    assert len(aside(tmp_path)) == 1
    assert "it is damaged" in caplog.text


def test_damage_that_is_found_while_counting_is_told_and_repaired_by_the_next_start(tmp_path):
    store = with_a_copy(tmp_path)
    store.connection._environment.record_damage()
    worker = Worker(tmp_path, boot="one")
    with pytest.raises(FailedError, match=r"SettingError: .*other processes use it: stop all of"):
        worker.call(charge, COUNTER)
    worker.end()
    store.close()

    assert opened(tmp_path).slots(COUNTER) == {0: 2}


@pytest.mark.parametrize("damage", [zero, zero_beyond_the_heads])
def test_a_file_that_is_zeroed_while_it_counts_is_restored_by_the_next_call(tmp_path, damage):
    store = with_a_copy(tmp_path)
    damage(tmp_path / "counters.mdb")

    with pytest.raises(StoreError):
        charge(store, COUNTER)
    assert charge(store, COUNTER)
    assert len(aside(tmp_path)) == 1


def test_counting_goes_on_while_a_copy_is_made(tmp_path):
    store = opened(tmp_path)
    for number in range(3000):
        charge(store, f"counter_={number}")
    database = store.connection._environment
    copied = threading.Event()

    def copy():
        database.copier._make(database.env)
        copied.set()

    threading.Thread(target=copy).start()
    during = 0
    while not copied.is_set():
        assert charge(store, COUNTER)
        during += 1
    assert during > 1
    store.close()

    with lmdb.open(str(tmp_path / "copy.mdb"), subdir=False, max_dbs=3, readonly=True) as env:
        known = env.open_db(b"known", create=False)
        with env.begin(known) as transaction:
            assert transaction.stat(known)["entries"] in (3000, 3001)


def test_a_copy_that_cannot_be_made_is_told_and_leaves_the_former_one(tmp_path, caplog):
    store = with_a_copy(tmp_path)
    before = (tmp_path / "copy.mdb").read_bytes()
    (tmp_path / ".copy.mdb").mkdir()
    with caplog.at_level(logging.ERROR):
        charge(store, COUNTER, now=NOW + 5 * EVERY)
        store.connection._environment.copier.wait()

    assert "no copy of" in caplog.text
    assert (tmp_path / "copy.mdb").read_bytes() == before
    store.close()


def hold_a_snapshot(store):
    charge(store, COUNTER)
    store.snapshot = store.connection._environment.env.begin()


def test_a_dead_process_holds_no_snapshot(tmp_path):
    worker = Worker(tmp_path)
    worker.call(hold_a_snapshot)
    worker.kill()
    store = LmdbStore(tmp_path)
    charge(store, COUNTER)

    database = store.connection._environment
    assert database is not None
    assert "no active readers" in database.env.readers()
    store.close()


def test_one_process_opens_a_folder_once(tmp_path):
    store = opened(tmp_path)
    charge(store, COUNTER)
    with pytest.raises(SettingError, match="open in this process already: give the same store"):
        opened(tmp_path)
    assert charge(store, COUNTER)
    store.close()


LEAVES = """
import sys
from guardrail.stores.lmdb.store import LmdbStore
from tests.stores.workers import charge
store = LmdbStore(sys.argv[1], boot="one")
charge(store, "counter_=a")
"""


def test_a_process_that_exits_without_closing_its_store_loses_nothing_either(tmp_path):
    subprocess.run([sys.executable, "-c", LEAVES, str(tmp_path)], cwd=ROOT, check=True)

    assert opened(tmp_path, "two").slots(COUNTER) == {0: 1}
    assert aside(tmp_path) == []

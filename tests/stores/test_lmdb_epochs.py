"""Hash keys and layouts are rolled while several processes count: what is spent stays spent."""

from __future__ import annotations

import stat
import threading
from typing import Any

import pytest

from guardrail.errors import SettingError
from guardrail.model.amounts import DAY, HOUR
from guardrail.model.cells import Charge, Member
from guardrail.stores.lmdb import LmdbStore
from guardrail.stores.lmdb.recovery import Files
from guardrail.stores.lmdb.transaction import Epochs
from guardrail.stores.naming import Naming, Timetable
from tests.stores.workers import NOW, FailedError, S, Worker, charge

OLD, NEW = b"the old key, long enough", b"the new key, long enough"
LATER = NOW + 2 * HOUR


def spend(store, now, key="lifetime=a"):
    return charge(store, key, ceiling=4, now=now)


def clock_at(now):
    return Clock(now / S)


class Clock:
    """A clock that stands still, and can be sent to another process."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __call__(self):
        return self.seconds


ROLLS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "hash key": ({"hash_keys": (OLD,)}, {"hash_keys": (NEW, OLD)}),
    "layout": (
        {"hash_keys": (OLD,), "layouts": (1,)},
        {"hash_keys": (OLD,), "layouts": (2, 1)},
    ),
    "both": (
        {"hash_keys": (OLD,), "layouts": (1,)},
        {"hash_keys": (NEW, OLD), "layouts": (2, 1)},
    ),
}


@pytest.mark.parametrize("roll", ROLLS)
def test_four_workers_are_rolled_and_a_spent_lifetime_limit_stays_spent(tmp_path, roll):
    before, after = ROLLS[roll]
    four = [Worker(tmp_path, clock=clock_at(NOW), **before) for _ in range(4)]
    assert [worker.call(spend, NOW) for worker in four] == [True] * 4
    for number in range(4):
        four[number].end()
        four[number] = Worker(tmp_path, clock=clock_at(NOW + number * S), **after)
        assert [worker.call(spend, NOW + number * S) for worker in four] == [False] * 4
        assert [worker.call(spend, NOW, "lifetime=b") for worker in four] == [number == 0] * 4

    # The clocks of workers differ; the first that sees the time come switches for all.
    assert [worker.call(spend, LATER - n * HOUR) for n, worker in enumerate(four)] == [False] * 4
    assert four[3].call(spend, LATER, "lifetime=c")
    assert not four[0].call(spend, NOW)
    assert four[1].call(len_of) == 3
    for worker in four:
        worker.end()


def len_of(store):
    return len(store)


def test_a_record_that_was_taken_over_stands_under_one_name(tmp_path):
    store = LmdbStore(tmp_path, hash_keys=(OLD,), clock=clock_at(NOW))
    spend(store, NOW)
    store.close()
    rolled = LmdbStore(tmp_path, hash_keys=(NEW, OLD), clock=clock_at(NOW))
    spend(rolled, NOW + 1)
    assert len(rolled) == 1
    spend(rolled, LATER)

    assert len(rolled) == 1
    rolled.close()
    forgotten = LmdbStore(tmp_path, hash_keys=(NEW,), clock=clock_at(LATER + 500 * DAY))
    assert forgotten.slots("lifetime=a") == {0: 3}
    forgotten.close()


def test_a_worker_without_the_new_key_goes_on_until_the_switch_and_then_says_why_not(tmp_path):
    worker = Worker(tmp_path, hash_keys=(OLD,), clock=clock_at(NOW))
    assert worker.call(spend, NOW)
    rolled = LmdbStore(tmp_path, hash_keys=(NEW, OLD), clock=clock_at(NOW))
    assert worker.call(spend, NOW)
    assert spend(rolled, LATER)

    with pytest.raises(FailedError, match=r"StoreError: .* has gone on to the hash key"):
        worker.call(spend, NOW)
    worker.end()
    rolled.close()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"hash_keys": (NEW,)}, "give that key, or, to change keys, give it as the previous one"),
        ({"hash_keys": (OLD,), "layouts": (3, 2)}, "is written in layout 1, and this release kno"),
    ],
)
def test_a_store_of_another_key_or_layout_is_not_opened(tmp_path, settings, complaint):
    LmdbStore(tmp_path, hash_keys=(OLD,)).close()

    with pytest.raises(SettingError, match=complaint):
        LmdbStore(tmp_path, **settings)
    LmdbStore(tmp_path, hash_keys=(OLD,)).close()


def test_without_a_key_one_is_made_that_only_its_owner_reads(tmp_path):
    store = LmdbStore(tmp_path)
    spend(store, NOW)
    store.close()
    key = tmp_path / "hash.key"

    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_bytes()) == 64
    again = LmdbStore(tmp_path)
    assert again.slots("lifetime=a") == {0: 1}
    again.close()
    key.chmod(0o644)
    with pytest.raises(SettingError, match="others can read the hash key file"):
        LmdbStore(tmp_path)


def test_processes_that_start_at_once_agree_on_the_key(tmp_path):
    found, ready = [], threading.Barrier(8)

    def start():
        ready.wait()
        found.append(Files(tmp_path).hash_key())

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len(set(found)) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["hash.key"]


def test_no_identifier_is_in_the_files(tmp_path):
    store = LmdbStore(tmp_path)
    spend(store, NOW, "lifetime=visible-account")
    member = Member(0, "distinct=visible-account", "visible-member", NOW + S, None, HOUR)
    store.acquire([Charge(True, None)], [member], NOW)
    store.close()

    with (tmp_path / "counters.mdb").open("rb") as file:
        assert b"visible" not in file.read(1 << 22)


def test_records_under_former_names_are_looked_for_as_long_as_they_may_be_needed(tmp_path):
    new, old = (Naming(secret, 1).epoch for secret in (b"n" * 32, b"o" * 32))
    epochs = Epochs((b"n" * 32, b"o" * 32), (1,), 60 * S, tmp_path)
    alone = Timetable(new).text().encode()
    rolled = Timetable(new, former=old, until=NOW + 9 * S).text().encode()
    ahead = Timetable(old, upcoming=new, at=NOW + 5 * S).text().encode()

    def epochs_at(text: bytes, seconds: int) -> tuple[object, object]:
        names = epochs.names(text, NOW + seconds * S)
        former = None if names.former is None else names.former.naming.epoch
        return names.current.naming.epoch, former

    for _ in range(2):
        assert epochs_at(alone, 0) == (new, None)
        assert [epochs_at(rolled, at) for at in (0, 1, 8)] == [(new, old)] * 3
        assert [epochs_at(rolled, at) for at in (9, 10)] == [(new, None)] * 2
        assert [epochs_at(ahead, at) for at in (0, 4)] == [(old, None)] * 2
        assert [epochs_at(ahead, at) for at in (5, 6)] == [(new, old)] * 2

"""What bounds an LMDB store: expiry, the partition of unknown keys, its size, the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from guardrail import Guard
from guardrail.errors import SettingError, StoreError
from guardrail.loading import load_text
from guardrail.model.amounts import DAY, MINUTE
from guardrail.model.cells import LEFT_OUT, Adjust, Cell, Charge, Counter, Member
from guardrail.stores.lmdb import LmdbStore
from guardrail.stores.lmdb.space import CHECK_EVERY, CHUNK, SLACK, USUAL_PAGES, Expiry, Space
from guardrail.stores.opening import count, duration, open_store, size
from guardrail.testing import MovableClock
from tests.stores.workers import NOW, S, Worker, charge

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def store(tmp_path):
    # Without copies: the file grows while one is made.
    opened = LmdbStore(tmp_path, max_unknown=500, copy_every=DAY)
    yield opened
    opened.close()


def used_pages(store):
    return store.connection._environment.env.info()["last_pgno"]


def test_records_go_as_fast_as_they_come(store):
    most, pages = 0, []
    for turn in range(12):
        for number in range(1500):
            charge(store, f"counter_=t{turn}.{number}", now=NOW + turn * 2 * MINUTE, ttl=MINUTE)
        most = max(most, len(store))
        pages.append(used_pages(store))

    assert most < 2 * 1500
    assert pages[-1] <= pages[5] * 1.1


def test_records_of_the_past_also_go_when_no_new_ones_come(store):
    for number in range(500):
        charge(store, f"counter_={number}", ttl=MINUTE)
    for number in range(2000):
        charge(store, "counter_=known", now=NOW + 5 * MINUTE + number, ttl=MINUTE)

    assert len(store) == 1
    assert store.slots("counter_=known") == {0: 2000}


def test_processes_that_end_soon_remove_records_of_the_past_too(tmp_path):
    later = NOW + 5 * MINUTE
    store = LmdbStore(tmp_path, copy_every=DAY)
    for number in range(400):
        charge(store, f"counter_={number}", ttl=DAY if number % 2 else MINUTE)
    store.close()
    for number in range(50):
        store = LmdbStore(tmp_path, copy_every=DAY)
        charge(store, f"counter_=later.{number}", now=later, ttl=DAY)
        kept = len(store)
        store.close()

    assert 250 <= kept < 350, "of 200 that may go most are gone, and no others"


class Jumping:
    """The clock of a store, and what never jumps, in seconds."""

    def __init__(self, monkeypatch):
        self.told, self.passed = NOW / S, 0.0
        monkeypatch.setattr("guardrail.stores.lmdb.connection.monotonic", lambda: self.passed)

    def __call__(self):
        return self.told


@pytest.mark.parametrize("whose", ["a call's", "the host's"])
def test_a_clock_that_jumps_ahead_ends_no_counters_of_others(tmp_path, monkeypatch, whose):
    clock = Jumping(monkeypatch)
    store = LmdbStore(tmp_path, clock=clock)
    for number in range(50):
        charge(store, f"counter_={number}", ttl=30 * DAY)
    later = NOW + 400 * DAY
    for number in range(200):
        clock.told = later / S if whose == "the host's" else clock.told
        charge(store, f"counter_=ahead.{number}", now=later, ttl=MINUTE)
        clock.told = NOW / S
        charge(store, "counter_=usual")

    assert all(store.slots(f"counter_={number}") == {0: 1} for number in range(50))
    store.close()


@pytest.mark.parametrize(
    "limit",
    [
        "rate: {requests: 1/minute, burst: 2, key: account.id}",
        "budget: {requests: 2, per: day, key: account.id}",
        "budget: {requests: 2, per: 6h, key: account.id}",
        "concurrency: {max: 2, lease: 1m, key: account.id}",
    ],
)
def test_what_a_wrong_clock_wrote_refuses_nobody(tmp_path, limit):
    policies = load_text(f"guardrail: 1\npolicy: p\nrules: [{{id: r, when: always, {limit}}}]\n")
    facts = {"account.id": "a"}
    with Guard.from_policies(policies, store=LmdbStore(tmp_path), environ={}) as guard:
        assert guard.decide(facts, now=NOW / S + 400 * 86_400).allowed
        allowed = [guard.decide(facts, now=NOW / S).allowed for _ in range(3)]
        assert allowed == [True, True, False]


@pytest.mark.parametrize(("minutes", "kept"), [(55, False), (100, True)])
def test_a_clock_is_believed_at_once_up_to_an_hour_ahead(tmp_path, monkeypatch, minutes, kept):
    clock = Jumping(monkeypatch)
    store = LmdbStore(tmp_path, clock=clock)
    for number in range(50):
        charge(store, f"counter_={number}", ttl=(minutes - 20) * MINUTE)
    later = NOW + minutes * MINUTE
    clock.told = later / S
    for number in range(200):
        charge(store, f"counter_=ahead.{number}", now=later)

    assert any(store.slots(f"counter_={number}") for number in range(50)) is kept
    store.close()


def test_a_clock_that_stays_ahead_is_believed_after_an_hour(tmp_path, monkeypatch):
    clock = Jumping(monkeypatch)
    store = LmdbStore(tmp_path, clock=clock)
    for number in range(50):
        charge(store, f"counter_={number}", ttl=30 * DAY)
    later = NOW + 400 * DAY
    clock.told = later / S
    for number in range(200):
        clock.passed += 60
        charge(store, f"counter_=ahead.{number}", now=later, ttl=MINUTE)

    assert len(store) <= 200
    assert not store.slots("counter_=0")
    store.close()


def test_a_record_stays_until_its_time_has_come(store):
    charge(store, "counter_=kept", ttl=10 * MINUTE)
    for number in range(3000):
        charge(store, f"counter_={number % 50}", now=NOW + 9 * MINUTE, ttl=MINUTE)

    assert store.slots("counter_=kept") == {0: 1}


def test_under_a_flood_of_guests_what_is_blocked_stays_blocked_and_customers_stay_exact(store):
    charge(store, "counter_=blocked", 10, ceiling=10, spill="counter_~0")
    for number in range(5000):
        charge(store, f"counter_=guest{number}", spill="counter_~1")

    assert len(store) <= 502
    assert not charge(store, "counter_=blocked", ceiling=10, spill="counter_~0")
    assert charge(store, "counter_=customer", ceiling=1)
    assert not charge(store, "counter_=customer", ceiling=1)
    assert store.slots("counter_~1")[0] > 4400


def test_who_becomes_known_keeps_the_record(store):
    assert charge(store, "counter_=a", ceiling=2, spill="counter_~0")
    assert charge(store, "counter_=a", ceiling=2)
    assert not charge(store, "counter_=a", ceiling=2, spill="counter_~0")
    assert not charge(store, "counter_=a", ceiling=2)


def test_a_device_keeps_its_count_when_its_caller_becomes_known(tmp_path):
    policies = load_text(
        "guardrail: 1\npolicy: p\nrules:\n"
        "  - {id: r, when: always, budget: {requests: 2, per: day, key: device.fingerprint}}\n"
    )
    store, clock = LmdbStore(tmp_path), MovableClock(NOW / S)
    with Guard.from_policies(policies, store=store, clock=clock, environ={}) as guard:
        stranger = {"device.fingerprint": "d"}
        known = {**stranger, "account.id": "a"}

        assert [guard.decide(facts).allowed for facts in (stranger, known, known, stranger)] == [
            *(True,) * 2,
            *(False,) * 2,
        ]


def test_a_full_partition_leaves_out_what_strangers_must_not_share(tmp_path):
    store = LmdbStore(tmp_path, max_unknown=1)
    charge(store, "counter_=other", spill="counter_~0")
    charge(store, "counter_=full")
    charges = [Charge(True, None), Charge(False, 0), Charge(False, 1)]
    cells: list[Cell] = [
        Counter(0, "counter_=full", 0, 1, 0, 1, 1, MINUTE),
        Member(1, "strikes_=guest", "1", NOW + MINUTE, 0, MINUTE, LEFT_OUT),
        Counter(2, "ban_____=guest", 0, 1, NOW, MINUTE, NOW + MINUTE, MINUTE),
    ]
    outcome = store.acquire(charges, cells, NOW)

    assert outcome.refused == [True, False, False]
    assert outcome.replies[1].spilled
    assert store.members("strikes_=guest") == {}
    assert store.drained("ban_____=guest") == (0, 0)
    store.close()


def fill(store, name, most, now=NOW):
    """Charge new keys until the store is full, or `most` of them; return how many."""
    for number in range(most):
        try:
            charge(store, f"counter_={name}{number}", ttl=MINUTE, now=now)
        except StoreError as problem:
            if problem.unsure or "reached its `max_size`: raise it" not in str(problem):
                raise
            return number
    return most


def test_a_store_at_its_size_says_so_keeps_what_it_has_and_recovers_by_expiry(tmp_path):
    store = LmdbStore(tmp_path, max_size=1 << 20, clock=lambda: (NOW + 9 * MINUTE) / S)
    charge(store, "counter_=kept", 3)
    count = fill(store, "a", 20_000)
    assert 2000 < count < 20_000
    assert store.slots("counter_=kept") == {0: 3}
    assert (tmp_path / "counters.mdb").stat().st_size == 1 << 20

    for _ in range(50):
        fill(store, "b", 100, NOW + 10 * MINUTE)
    assert charge(store, "counter_=new", now=NOW + 10 * MINUTE)
    assert store.slots("counter_=kept") == {0: 3}
    store.close()


def test_two_processes_make_the_file_grow_beyond_what_one_of_them_first_allowed(tmp_path):
    small, large = (Worker(tmp_path, max_size=size << 20, deadline=10_000_000) for size in (1, 16))
    assert small.call(charge, "counter_=a")
    assert large.call(fill, "x", 14_000) == 14_000
    assert (tmp_path / "counters.mdb").stat().st_size > 1 << 20
    for _ in range(3):
        assert small.call(charge, "counter_=a")
        assert large.call(charge, "counter_=a")
    small.ask(fill, "s", 2000)
    large.ask(fill, "l", 2000)

    assert [small.answer(), large.answer()] == [2000, 2000]
    small.end()
    large.end()
    store = LmdbStore(tmp_path)
    assert store.slots("counter_=a") == {0: 7}
    store.close()


FULL_DISK = """
import os, sys
from contextlib import suppress
from guardrail.errors import StoreError
from guardrail.model.cells import Counter
from guardrail.stores.lmdb.store import LmdbStore
from tests.stores.workers import BINDING, NOW, TTL, charge

def fifty(number):
    keys = (f"counter_={number}.{each}" for each in range(50))
    store.acquire(BINDING, [Counter(0, key, 0, 1, 0, 1, None, TTL) for key in keys], NOW)

folder, way = sys.argv[1:]
if way == "by writing":
    del os.posix_fallocate  # as on macOS
store = LmdbStore(folder)
charge(store, "counter_=kept", 3)
open(folder + "/ballast", "wb").write(bytes(1 << 18))
served = 0
try:
    for served in range(2000):
        fifty(served)
except StoreError as problem:
    assert "No space left" in str(problem), problem
    assert not problem.unsure
assert 20 < served < 1999, served
kept = [store.slots(f"counter_={number}.9") for number in (0, served // 2, served - 1)]
assert kept == [{0: 1}] * 3, kept
assert all(store.slots(f"counter_={served}.{each}") == {} for each in range(50))
with suppress(OSError), open(folder + "/ballast", "ab", 0) as ballast:
    while ballast.write(bytes(4096)):
        pass
store.close()
os.unlink(folder + "/ballast")
store = LmdbStore(folder)
assert all(charge(store, f"counter_=more{number}") for number in range(500))
assert store.slots("counter_=kept") == {0: 3}
print("recovered")
"""


@pytest.mark.parametrize("way", ["allocated", "by writing"])
def test_a_full_disk_is_an_error_loses_nothing_and_passes(tmp_path, way):
    mount = f"mount -t tmpfs -o size=3m none {tmp_path}"
    command = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    if os.geteuid() != 0 or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("only root, with a mount namespace of its own, can make a small disk")
    ran = subprocess.run(
        [*command, sys.executable, "-c", FULL_DISK, str(tmp_path), way],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )

    assert ran.stdout == "recovered\n", ran.stderr
    assert "closed without a sync: [Errno 28] No space left on device" in ran.stderr


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("lmdb://var/lib/guardrail", "write it with three slashes, `lmdb:///var/lib/guardrail`"),
        ("lmdb:///", "names no folder"),
        ("lmbd:///tmp", "did you mean `lmdb:///var/lib/guardrail`?"),
        ("lmdb:///tmp?dead_line=50ms", "`dead_line` means nothing .*: did you mean `deadline`?"),
        ("lmdb:///tmp?deadline=50", "`deadline` is `50` in .*: it must be a duration such as `50m"),
        ("lmdb:///tmp?max_size=8X", "`max_size` is `8X` in .*: it must be a size such as"),
        ("lmdb:///tmp?max_unknown=", "it must be a whole number such as"),
        ("lmdb:///tmp?deadline=1s&deadline=2s", "`deadline` is given twice"),
        ("lmdb:///tmp?max_unknown=0", "`max_unknown` is 0: it must be at least 1"),
        ("lmdb:///nowhere/at/all", "is no folder: run `mkdir -p /nowhere/at/all`"),
        ("lmdb:///proc", "`/proc` cannot be written to"),
    ],
)
def test_a_wrong_uri_is_explained(uri, complaint):
    with pytest.raises(SettingError, match=complaint.replace("?", r"\?")):
        open_store(uri)


def test_a_uri_sets_every_option(tmp_path):
    options = "deadline=20ms&max_size=64M&max_unknown=2k&copy_every=30s&overlap=2h"
    store = open_store(f"lmdb://{tmp_path}?{options}", (b"a hash key of our own",))

    assert isinstance(store, LmdbStore)
    stated = store.connection.options
    assert (stated.seconds, stated.max_unknown, stated.copy_every) == (0.02, 2000, 30 * S)
    assert stated.max_size == 64 << 20
    assert not (tmp_path / "hash.key").exists()
    store.close()


@pytest.mark.parametrize(
    ("read", "text", "amount"),
    [
        (duration, "7us", 7),
        (duration, "7ms", 7000),
        (duration, "7s", 7 * S),
        (duration, "7m", 7 * MINUTE),
        (duration, "7h", 420 * MINUTE),
        (duration, "7d", 7 * DAY),
        (size, "7", 7),
        (size, "7k", 7 << 10),
        (size, "7M", 7 << 20),
        (size, "7G", 7 << 30),
        (size, "7T", 7 << 40),
        (count, "7", 7),
        (count, "7k", 7000),
        (count, "7M", 7_000_000),
        (count, "7G", 7_000_000_000),
    ],
)
def test_an_option_is_in_the_unit_that_it_names(read, text, amount):
    assert read(text) == amount


def test_a_settlement_that_fails_halfway_changes_nothing(store):
    charge(store, "counter_=a", 10)
    wrong: Any = None

    with pytest.raises((AttributeError, TypeError)):
        store.settle([Adjust("counter_=a", 0, -3, MINUTE), wrong], NOW)
    assert store.slots("counter_=a") == {0: 10}
    store.settle([Adjust("counter_=a", 0, -3, MINUTE)], NOW)
    assert store.slots("counter_=a") == {0: 7}


def test_another_thread_that_holds_the_turn_is_waited_for_no_longer_than_the_deadline(tmp_path):
    store = open_store(f"lmdb://{tmp_path}?deadline=20ms", (b"a hash key of our own",))
    charge(store, "counter_=a")

    with (
        store.connection._threads,  # type: ignore[attr-defined]
        pytest.raises(StoreError, match="no turn to write within 20 ms"),
    ):
        charge(store, "counter_=a")
    assert [charge(store, "counter_=a", ceiling=2) for _ in range(2)] == [True, False]
    store.close()


def test_a_closed_store_says_so(tmp_path):
    store = LmdbStore(tmp_path)
    store.close()
    store.close()

    with pytest.raises(StoreError, match="the store is closed"):
        charge(store, "counter_=a")


def test_making_space_removes_nothing_that_the_store_says_of_itself(tmp_path):
    store = LmdbStore(tmp_path)
    assert charge(store, "counter_=a")
    environment: Any = store.connection._environment
    with environment.env.begin(write=True) as transaction:
        Expiry().remove_many(transaction, environment.tables, 2**53 - 1)

    assert len(store) == 0
    assert charge(store, "counter_=a")
    store.close()


class Watched:
    """An environment of LMDB that counts how often it is asked what it holds."""

    def __init__(self, environment):
        self.environment = environment
        self.asked = 0

    def info(self):
        self.asked += 1
        return self.environment.info()

    def stat(self):
        return self.environment.stat()


def test_room_is_looked_for_now_and_then_and_always_where_much_is_needed(
    store, tmp_path, monkeypatch
):
    allocated, allocate = [], os.posix_fallocate

    def noting(file, start, size):
        allocated.append(start + size)
        allocate(file, start, size)

    monkeypatch.setattr(os, "posix_fallocate", noting)
    charge(store, "counter_=a")
    environment: Any = Watched(store.connection._environment.env)
    space = Space(environment, tmp_path / "counters.mdb")
    asked = environment.asked

    def look(need):
        charge(store, "counter_=a")
        with environment.environment.begin() as transaction:
            space.allocate(transaction, need)
        return environment.asked - asked

    assert [look(USUAL_PAGES) for _ in range(CHECK_EVERY)] == [1] * CHECK_EVERY
    assert look(USUAL_PAGES) == 2
    used = environment.environment.info()["last_pgno"] + 1
    assert look(5000) == 3
    assert allocated[-1] == (used + 5000 + SLACK + CHUNK) * environment.stat()["psize"]

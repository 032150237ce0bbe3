"""What the memory store promises beyond the contract: forgetting, bounds, threads."""

from __future__ import annotations

import gc
import sys

import pytest

from guardrail.errors import SettingError
from guardrail.model.cells import LEFT_OUT, Cell, Charge, Counter, Member
from guardrail.stores.memory import FEW_KEYS, SHARDS, MemoryStore
from guardrail.stores.opening import open_store
from tests.threads import by_threads

S = 1_000_000
NOW = 1_700_000_000 * S
MINUTE = 60 * S
BINDING = [Charge(True, None)]


def charge(store, key, amount=1, *, ceiling=None, now=NOW, ttl=MINUTE, spill=None):
    cell = Counter(0, key, 0, 1, 0, amount, ceiling, ttl, spill)
    return store.acquire(BINDING, [cell], now)


def test_a_record_is_forgotten_after_one_lifetime_and_before_many_new_keys_passed():
    store = MemoryStore()
    charge(store, "counter_=old")
    for number in range(4000):
        charge(store, f"counter_=early{number}", now=NOW + MINUTE // 2)
    assert store.slots("counter_=old") == {0: 1}

    for turn in range(1, 4):
        for number in range(2500):
            charge(store, f"counter_=late{turn}.{number}", now=NOW + 3 * turn * MINUTE)
    assert store.slots("counter_=old") == {}


@pytest.mark.parametrize("ttl", [MINUTE, 60 * MINUTE])
@pytest.mark.parametrize("age", [0, 1, 29, 59])
@pytest.mark.parametrize("keys", [20, 1100])
def test_a_record_lives_at_least_its_lifetime_however_many_keys_pass(keys, age, ttl):
    store = MemoryStore()

    def passing(moment, turn):
        for number in range(keys):
            charge(store, f"counter_=p{turn}.{number}", now=moment, ttl=ttl)

    passing(NOW, "first")
    # Written when its generation has lived so long, in sixtieths of a lifetime.
    written = NOW + age * (ttl // 60)
    charge(store, "counter_=kept", now=written, ttl=ttl)
    for turn in range(1, 9):
        passing(written + turn * (ttl - 1) // 8, turn)
        assert store.slots("counter_=kept") == {0: 1}, f"gone after {turn} eighths of its lifetime"


def test_the_number_of_records_is_counted_and_stays_flat_under_passing_keys():
    store = MemoryStore()
    most = 0
    for turn in range(30):
        for number in range(3000):
            charge(store, f"counter_={turn}.{number}", now=NOW + turn * 2 * MINUTE)
        most = max(most, len(store))
        kept = sum(len(table.records()) for table in store._tables.values())
        assert len(store) == kept

    assert most < 4 * 3000


def test_what_was_counted_stays_when_a_table_takes_more_shards():
    store = MemoryStore()
    for number in range(FEW_KEYS + 2):
        charge(store, f"counter_={number}", now=NOW + number)
    for number in range(FEW_KEYS + 2):
        charge(store, f"counter_={number}", now=NOW + MINUTE // 2)

    (table,) = store._tables.values()
    assert len({id(shard) for shard in table.current}) == SHARDS
    assert len(store) == FEW_KEYS + 2
    assert all(store.slots(f"counter_={n}") == {0: 2} for n in range(FEW_KEYS + 2))


def test_a_longer_lifetime_keeps_what_was_counted():
    store = MemoryStore()
    charge(store, "counter_=a", 5)
    charge(store, "counter_=a", 5, ttl=600 * MINUTE)

    assert store.slots("counter_=a") == {0: 10}


def test_under_a_flood_of_guests_what_is_blocked_stays_blocked_and_customers_stay_exact():
    store = MemoryStore(max_keys=1000)
    charge(store, "counter_=blocked", 10, ceiling=10, spill="counter_~0")
    for number in range(20_000):
        charge(store, f"counter_=guest{number}", spill="counter_~1")

    assert len(store) <= 1002
    assert not charge(store, "counter_=blocked", ceiling=10, spill="counter_~0").admitted
    assert charge(store, "counter_=customer", ceiling=1).admitted
    assert store.slots("counter_=customer") == {0: 1}
    assert store.slots("counter_~1")[0] > 18_000


def test_threads_admit_exactly_the_limit():
    store, admitted = MemoryStore(), []

    def work():
        for _ in range(200):
            if charge(store, "counter_=shared", ceiling=500).admitted:
                admitted.append(1)

    by_threads(8, work)

    assert len(admitted) == 500
    assert store.slots("counter_=shared") == {0: 500}


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python 3.14 follows every dict")
def test_the_garbage_collector_has_no_records_to_follow():
    store = MemoryStore()
    for number in range(2000):
        charge(store, f"counter_={number}")
    tables = list(store._tables.values())

    assert not any(gc.is_tracked(shard) for table in tables for shard in table.current if shard)


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("http://localhost", "no store is known for `http://localhost`"),
        ("memory://host", "`host` means nothing"),
        ("memory://?max_key=5", "`max_key` means nothing"),
        ("memory://?max_keys=many", "`max_keys` is `many`"),
        ("memory://?max_keys=0", "`max_keys` is 0"),
    ],
)
def test_a_wrong_uri_is_explained(uri, complaint):
    with pytest.raises(SettingError, match=complaint.replace("?", r"\?")):
        open_store(uri)


def test_a_uri_sets_the_bound():
    store = open_store("memory://?max_keys=7")

    assert isinstance(store, MemoryStore)
    assert store.max_keys == 7


def test_a_full_store_leaves_out_what_strangers_must_not_share():
    store = MemoryStore(max_keys=1)
    charge(store, "counter_=known")
    charges = [Charge(True, None), Charge(False, 0), Charge(False, 1)]
    cells: list[Cell] = [
        Counter(0, "counter_=known", 0, 1, 0, 1, 1, MINUTE),
        Member(1, "strikes_=guest", "1", NOW + MINUTE, 0, MINUTE, LEFT_OUT),
        Counter(2, "ban_____=guest", 0, 1, NOW, MINUTE, NOW + MINUTE, MINUTE),
    ]
    outcome = store.acquire(charges, cells, NOW)

    assert outcome.refused == [True, False, False]
    assert outcome.replies[1].spilled
    assert store.members("strikes_=guest") == {}
    assert store.drained("ban_____=guest") == (0, 0)

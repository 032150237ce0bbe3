"""Hash keys and layouts on Redis are rolled while several processes count: what is spent stays."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from guardrail.errors import SettingError
from guardrail.model.cells import Adjust, Counter
from guardrail.stores.naming import SHORTEST_OVERLAP, Timetable
from tests.cells.redis_stores import SERVERS, Shown, redis_store
from tests.stores.servers import binaries, eventually
from tests.stores.workers import BINDING, NOW, TTL, FailedError, S, Worker, charge

OLD, NEW = b"the old key, long enough", b"the new key, long enough"
META = "gr:{meta}"
ROLLS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "hash key": ({"keys": (OLD,)}, {"keys": (NEW, OLD)}),
    "layout": ({"keys": (OLD,), "layouts": (1,)}, {"keys": (OLD,), "layouts": (2, 1)}),
    "both": ({"keys": (OLD,), "layouts": (1,)}, {"keys": (NEW, OLD), "layouts": (2, 1)}),
}
RACES = [("valkey 9", "hash key"), ("valkey 9", "layout"), *((kind, "both") for kind in binaries())]
kinds = pytest.mark.parametrize("kind", binaries())
rolls = pytest.mark.parametrize("roll", ROLLS)


@pytest.fixture
def workers():
    started: list[Worker] = []

    def start(server, **settings):
        started.append(Worker(server.uri, deadline=20.0, **settings))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


def spend(store, key="lifetime=a"):
    return charge(store, key, ceiling=4)


def look(store):
    """Ask the server anew, and tell whether it has gone on to the new names."""
    store.state.invalidate()
    charge(store, "another_=a")
    return store.state.context().former is not None


def bring_forward(server, seconds):
    """Have the overlap end in so many seconds of the server's clock."""
    table = Timetable.read(server.client.get(META))
    assert table.upcoming is not None
    whole, micros = server.client.time()
    at = whole * S + micros + int(seconds * S)
    server.client.set(META, replace(table, at=at).text())


@rolls
def test_four_workers_are_rolled_and_a_spent_lifetime_limit_stays_spent(roll, workers):
    before, after = ROLLS[roll]
    server = SERVERS.empty("valkey 9")
    four = [workers(server, **before) for _ in range(4)]
    assert [worker.call(spend) for worker in four] == [True] * 4
    for number in range(4):
        four[number].end()
        four[number] = workers(server, **after)
        assert [worker.call(spend) for worker in four] == [False] * 4
        assert [worker.call(spend, f"lifetime={number}") for worker in four] == [True] * 4

    bring_forward(server, 0.3)
    for worker in four:
        worker.call(look)
    for number, worker in enumerate(four):
        eventually(partial(worker.call, look))
        assert [each.call(spend, "lifetime=b") for each in four] == [number == 0] * 4
        for spent in ("a", "b", *range(4)):
            assert not worker.call(spend, f"lifetime={spent}")


def count_over_the_switch(store, key):
    """Charge a key until it has other names, and a little longer; return how often."""
    store.state.invalidate()
    counted = left = 0
    until = time.monotonic() + 15
    while left < 100:
        assert charge(store, key)
        counted += 1
        left += store.state.context().former is not None
        assert time.monotonic() < until
    return counted


@pytest.mark.parametrize(("kind", "roll"), RACES)
def test_no_charge_is_lost_while_four_processes_go_on_to_other_names(kind, roll, workers):
    before, after = ROLLS[roll]
    server = SERVERS.empty(kind)
    first = workers(server, **before)
    first.call(spend)
    four = [workers(server, **after) for _ in range(4)]
    for worker in four:
        worker.call(spend)
    for _ in range(4):
        bring_forward(server, 0.3)
        for worker in four:
            worker.ask(count_over_the_switch, "counter_=a")
        counted = sum(worker.answer() for worker in four)
        assert four[0].call(total, "counter_=a") == counted
        rewind(server)


def total(store, key):
    """Return what a counter stands at."""
    cell = Counter(0, key, 0, 1, 0, 0, None, TTL)
    return store.acquire(BINDING, [cell], NOW).replies[0].used


def rewind(server):
    """Start anew in the names of old, as if nothing was ever switched."""
    table = Timetable.read(server.client.get(META))
    server.client.flushall()
    fresh = Timetable(table.former or table.current, table.current, 1 << 60)
    server.client.set(META, fresh.text())


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@kinds
def test_names_that_were_looked_up_too_long_ago_are_looked_up_anew(kind, is_async):
    server = SERVERS.empty(kind)
    shown = Shown(server, is_async=is_async)
    charge(shown, "counter_=a")
    context = shown.state.context()
    whole, _ = server.client.time()
    assert 25 * S < context.preconditions.before - whole * S <= SHORTEST_OVERLAP // 2 + S

    outdated = context._replace(preconditions=context.preconditions._replace(before=whole * S))
    shown.state._context = outdated
    charge(shown, "counter_=a")
    assert shown.state.context() is not outdated
    shown.state._context = outdated
    shown.settle([Adjust("counter_=a", 0, 5, TTL)], NOW)
    assert shown.state.context() is not outdated
    assert shown.slots("counter_=a") == {0: 7}
    shown.close()


def test_a_worker_without_the_new_key_goes_on_until_the_switch_and_then_says_why_not(workers):
    server = SERVERS.empty("valkey 9")
    old = workers(server, keys=(OLD,))
    assert old.call(spend)
    rolled = workers(server, keys=(NEW, OLD))
    assert rolled.call(spend)
    assert old.call(spend)
    bring_forward(server, 0.3)
    old.call(look)
    eventually(lambda: rolled.call(look))
    with pytest.raises(FailedError, match=r"StoreError: .* has gone over to hash key .* restart"):
        old.call(spend)
    with pytest.raises(FailedError, match="StoreError: the store's names are made with the hash"):
        old.call(look)
    assert rolled.call(spend)
    assert not rolled.call(spend)


def test_the_new_key_alone_is_refused_before_the_switch_and_after_it_with_the_date(workers):
    server = SERVERS.empty("valkey 9")
    redis_store(server.uri, keys=(OLD,)).open()
    with pytest.raises(SettingError, match="give that key, or, to change keys, give it as the pre"):
        redis_store(server.uri, keys=(NEW,)).open()
    rolled = workers(server, keys=(NEW, OLD))
    rolled.call(spend)
    bring_forward(server, 0.0)
    assert rolled.call(look)

    until = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 400 * 86400))
    with pytest.raises(SettingError, match=f"are needed until {until}: give it as the previous"):
        redis_store(server.uri, keys=(NEW,)).open()
    redis_store(server.uri, keys=(NEW, OLD)).open()
    with pytest.raises(SettingError, match="are made with the hash key"):
        redis_store(server.uri, keys=(OLD,)).open()
    with pytest.raises(SettingError, match="is written in layout 1, and this release knows 2, 3"):
        redis_store(server.uri, keys=(NEW, OLD), layouts=(3, 2)).open()

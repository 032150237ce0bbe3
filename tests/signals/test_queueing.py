"""Look-ups that wait for a place: customers get theirs, however many keys others invent."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.signals.directory import Freshness
from guardrail.signals.directory.cache import Age, Cache
from guardrail.signals.directory.queueing import Queue

NOW = 1_000.0
PATIENT = Freshness(timeout=60.0, calls=4)
GUESSER, CUSTOMER, OFFICE = "192.0.2.1", "198.51.100.7", "2001:db8::1"


class Source:
    """A source whose calls end when the test says so; it knows keys that begin with `sk`."""

    def __init__(self) -> None:
        self.asked: dict[str, Future] = {}

    def ask(self, key: str):
        def begin() -> Future:
            self.asked[key] = Future()
            return self.asked[key]

        return begin

    def answer(self, key: str) -> None:
        self.asked.pop(key).set_result(key if key.startswith("sk") else None)

    def answer_first(self) -> str:
        key = next(iter(self.asked))
        self.answer(key)
        return key


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def cache():
    return Cache(lambda told: told, PATIENT)


async def asking(cache, source, key, origin):
    return await cache.find(key, source.ask(key), NOW, origin=origin)


async def settled(rounds: int = 10) -> None:
    for _ in range(rounds):
        await asyncio.sleep(0)


def begin(cache, source, keys, origin):
    return [asyncio.ensure_future(asking(cache, source, key, origin)) for key in keys]


async def until_all_are_answered(source, tasks):
    order = []
    while not all(task.done() for task in tasks):
        if source.asked:
            order.append(source.answer_first())
        await settled()
    return order


def test_a_customer_not_seen_before_is_asked_for_next_whoever_waits(cache, source):
    async def run():
        guesses = begin(cache, source, [f"no{n}" for n in range(36)], GUESSER)
        await settled()
        customers = begin(cache, source, ["sk1", "sk2", "sk3"], CUSTOMER)
        order = await until_all_are_answered(source, guesses + customers)
        return order, [task.result() for task in customers]

    order, standings = asyncio.run(run())

    assert [each.value for each in standings] == ["sk1", "sk2", "sk3"]
    # Four were under way, and then they take turns, the guesser's being fewer.
    assert max(order.index(key) for key in ("sk1", "sk2", "sk3")) < PATIENT.calls + 5
    assert cache.rejected == 0


def test_no_more_calls_are_under_way_than_there_are_places(cache, source):
    async def run():
        tasks = begin(cache, source, [f"no{n}" for n in range(20)], GUESSER)
        await settled()
        most = len(source.asked)
        while not all(task.done() for task in tasks):
            source.answer_first()
            await settled()
            most = max(most, len(source.asked))
        return most

    assert asyncio.run(run()) == PATIENT.calls


def test_those_known_have_places_that_no_guesser_takes(cache, source):
    async def run():
        begun = begin(cache, source, ["sk1"], CUSTOMER)
        await settled()
        source.answer("sk1")
        guesses = begin(cache, source, [f"no{n}" for n in range(20)], GUESSER)
        await settled()
        again = asyncio.ensure_future(
            cache.find("sk1", source.ask("sk1"), NOW + PATIENT.ttl + 1, origin=CUSTOMER)
        )
        await settled()
        asked = "sk1" in source.asked
        source.answer("sk1")
        found = await again
        await until_all_are_answered(source, guesses + begun)
        return asked, found

    asked, found = asyncio.run(run())

    assert asked
    assert found.age is Age.FRESH


def test_when_the_queue_is_full_the_network_that_waits_most_gives_way(cache, source):
    async def run():
        guesses = begin(cache, source, [f"no{n}" for n in range(60)], GUESSER)
        await settled()
        customer = begin(cache, source, ["sk1"], CUSTOMER)
        await settled()
        await until_all_are_answered(source, guesses + customer)
        return customer[0].result(), [task.result().age for task in guesses]

    found, ages = asyncio.run(run())

    assert found.value == "sk1"
    # Four under way, forty wait; one of those gave way to the customer.
    assert ages.count(Age.NONE) == cache.rejected == 60 - 4 - 40 + 1


def test_who_waits_too_long_is_told_and_the_source_is_not_blamed(source):
    cache = Cache(lambda told: told, Freshness(timeout=0.05, calls=1))
    held: Future = Future()
    found = []

    async def run():
        first = asyncio.ensure_future(cache.find("a", lambda: held, NOW, origin=GUESSER))
        await settled()
        found.append(await cache.find("b", source.ask("b"), NOW, origin=GUESSER))
        found.append(await first)

    asyncio.run(run())

    assert [each.age for each in found] == [Age.NONE, Age.NONE]
    assert not source.asked
    # The one call that was made is late; the one that was not is no failure.
    assert cache.backoff.failures == 1
    assert cache.rejected == 1


def test_threads_wait_for_their_place_as_tasks_do(cache, source):
    def at_once(key):
        future: Future = Future()
        future.set_result(key)
        return lambda: future

    async def run():
        guesses = begin(cache, source, [f"no{n}" for n in range(4)], GUESSER)
        await settled()
        waiting = asyncio.ensure_future(
            asyncio.to_thread(cache.get, "sk1", at_once("sk1"), NOW, origin=CUSTOMER)
        )
        while not len(cache._waiting):
            await asyncio.sleep(0)
        source.answer_first()
        found = await waiting
        await until_all_are_answered(source, guesses)
        return found

    assert asyncio.run(run()).value == "sk1"


def test_a_source_that_ends_at_once_does_not_nest_its_calls(source):
    cache = Cache(lambda told: told, Freshness(timeout=60.0, calls=1))

    def unknown():
        told: Future = Future()
        told.set_result(None)
        return told

    async def run():
        first = begin(cache, source, ["no"], GUESSER)
        await settled()
        rest = [
            asyncio.ensure_future(cache.find(f"k{n}", unknown, NOW, origin=GUESSER))
            for n in range(10)
        ]
        await settled()
        source.answer("no")
        return await asyncio.gather(*first, *rest)

    assert {each.age for each in asyncio.run(run())} == {Age.FRESH}


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60),
    st.sets(st.sampled_from("abc")),
)
def test_nothing_is_lost_in_the_queue_and_no_network_waits_behind_another(steps, doubtful):
    queue = Queue[str](10)
    for network in doubtful:
        queue.note(network, doubtful=True)
    inside: list[str] = []
    for number, (network, takes) in enumerate(steps):
        if takes:
            taken = queue.next()
            assert (taken is None) == (not inside)
            if taken is not None:
                # First come, first served within a network.
                own = [each for each in inside if each[0] == taken[0]]
                assert own[0] == taken
                inside.remove(taken)
        else:
            one = f"{network}{number}"
            inside.append(one)
            dropped = queue.add(network, one)
            assert (dropped is None) == (len(inside) <= 10)
            if dropped is not None:
                inside.remove(dropped)
        assert len(queue) == len(inside)
    for one in list(inside):
        assert queue.remove(one[0], one)
        inside.remove(one)
        assert len(queue) == len(inside)
    assert queue.next() is None

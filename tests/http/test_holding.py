"""Holding a throttled request takes neither the last threads nor all places of one caller."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.http.delays import MOST_EACH, DelaySlots, Threads, caller_of
from tests.http.driving import completion
from tests.http.wsgi_driving import POLICY, Hosted, answering

RATE = "  - {id: r, when: always, rate: {requests: 1/second, burst: 1, key: account.id}}"


def keyed(name: str) -> dict[str, str]:
    return {"HTTP_AUTHORIZATION": f"Bearer key-{name}"}


@pytest.mark.parametrize(("threads", "held"), [(1, 0), (2, 1), (8, 1), (32, 4)])
def test_one_account_holds_few_of_a_servers_threads(threads, held):
    deepest = 0

    def sleep(seconds):
        # While one request is held, the next of the same account comes, and so on.
        nonlocal deepest
        deepest += 1
        inner.append(hosted.ask()[0])
        hosted.clock.advance(seconds)

    inner: list[int] = []
    hosted = Hosted(
        answering([completion()]), POLICY + RATE, max_delay=2, sleep=sleep, threads=threads
    )
    assert hosted.ask()[0] == 200

    outcome = hosted.ask()[0]

    assert deepest == held
    assert outcome == (200 if held else 429)
    assert inner.count(429) == min(held, 1)


def test_half_of_the_threads_stay_free_whoever_is_held():
    places, threads = DelaySlots(1000), Threads(8)

    assert [places.take(caller, threads.spare) for caller in "abcdef"] == [True] * 4 + [False] * 2
    places.give("b")
    assert places.take("g", threads.spare)


def test_threads_are_counted_as_they_are_seen_to_serve():
    threads = Threads(0)
    go_on = threading.Event()
    seen = threading.Barrier(7)

    def serve():
        threads.seen()
        seen.wait()
        go_on.wait()

    running = [threading.Thread(target=serve) for _ in range(6)]
    for each in running:
        each.start()
    seen.wait()
    threads.seen()
    threads.seen()
    assert threads.spare == 3
    go_on.set()
    for each in running:
        each.join()
    assert threads.spare == 0
    assert Threads(9).spare == 4


@given(st.integers(0, 40), st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=80))
def test_places_are_never_more_than_there_are(most, steps):
    places, held = DelaySlots(most), list[str]()
    for caller, takes in steps:
        if takes:
            each = min(max(most // 4, 1), MOST_EACH)
            free = len(held) < most and held.count(caller) < each
            assert places.take(caller) == free
            held += [caller] if free else []
        elif caller in held:
            held.remove(caller)
            places.give(caller)


def test_a_held_request_counts_for_whom_is_known_of_it():
    known = {"client.ip": "192.0.2.1", "credential.id": "c", "account.id": "a"}

    assert caller_of(known) == "account.id a"
    assert caller_of({"client.ip": "192.0.2.1"}) == "client.ip 192.0.2.1"
    assert caller_of({}) == ""

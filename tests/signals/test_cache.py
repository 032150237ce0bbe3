"""Cache answers: one call at a time for a key, ages by a moved clock, bounds, the backoff."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest

from guardrail.signals.directory import Freshness
from guardrail.signals.directory.cache import Age, Backoff, Cache, Cached
from guardrail.signals.directory.identity import SourceError
from tests.signals.servers import eventually

NOW = 1_780_000_000.0
QUICK = Freshness(ttl=30, unknown_ttl=10, stale=3600, timeout=5.0)


class Source:
    """A source whose calls are ended by the test, or at once if it has `tells`."""

    def __init__(self, tells: object = None, *, at_once: bool = True) -> None:
        self.tells = tells
        self.at_once = at_once
        self.calls: list[Future[object]] = []

    def ask(self) -> Future[object]:
        call: Future[object] = Future()
        self.calls.append(call)
        if self.at_once:
            self.end(call)
        return call

    def end(self, call: Future[object]) -> None:
        if isinstance(self.tells, Exception):
            call.set_exception(self.tells)
        else:
            call.set_result(self.tells)


def cache(freshness: Freshness = QUICK, backoff: Backoff | None = None) -> Cache[object]:
    return Cache(lambda told: told, freshness, backoff)


def test_a_hundred_threads_and_a_hundred_tasks_share_one_call():
    answers, source = cache(), Source("a", at_once=False)

    waiting: list[None] = []

    def get() -> Cached[object]:
        waiting.append(None)
        return answers.get("k", source.ask, NOW)

    async def find() -> Cached[object]:
        waiting.append(None)
        return await answers.find("k", source.ask, NOW)

    async def tasks() -> list[Cached[object]]:
        return await asyncio.gather(*(find() for _ in range(100)))

    with ThreadPoolExecutor(102) as pool:
        got = [pool.submit(get) for _ in range(100)]
        loop = pool.submit(asyncio.run, tasks())
        assert eventually(lambda: bool(source.calls) and len(waiting) == 200)
        source.end(source.calls[0])
        results = [each.result() for each in got] + loop.result()

    assert len(source.calls) == 1
    assert results == [Cached("a", Age.FRESH, NOW)] * 200


def test_the_end_of_who_began_a_call_does_not_end_it():
    answers, source = cache(), Source("a", at_once=False)

    async def scene() -> Cached[object]:
        first = asyncio.create_task(answers.find("k", source.ask, NOW))
        second = asyncio.create_task(answers.find("k", source.ask, NOW))
        while not source.calls:
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        source.end(source.calls[0])
        return await second

    assert asyncio.run(scene()) == Cached("a", Age.FRESH, NOW)
    assert len(source.calls) == 1


def test_answers_age_by_the_clock_of_the_request():
    answers, source = cache(), Source("a")

    def age(seconds: float) -> Age:
        return answers.get("k", source.ask, NOW + seconds).age

    assert [age(0), age(30)] == [Age.FRESH] * 2
    assert len(source.calls) == 1
    assert age(31) is Age.FRESH
    assert len(source.calls) == 2
    source.tells = SourceError("down")
    assert age(31 + 30) is Age.FRESH
    assert [age(31 + 31), age(31 + 3600)] == [Age.STALE] * 2
    assert age(31 + 3601) is Age.EXPIRED


def test_a_clock_set_back_does_not_keep_answers_fresh():
    answers, source = cache(), Source("a")
    answers.get("k", source.ask, NOW)
    source.tells = "b"

    assert answers.get("k", source.ask, NOW - 20).value == "a"
    assert answers.get("k", source.ask, NOW - 40).value == "b"


def test_that_a_key_is_unknown_is_kept_for_a_shorter_time_and_never_over_a_failure():
    answers, source = cache(), Source(None)

    assert [answers.get("k", source.ask, NOW + t).age for t in (0, 10)] == [Age.FRESH] * 2
    assert len(source.calls) == 1
    source.tells = SourceError("down")
    assert answers.get("k", source.ask, NOW + 11) == Cached(None, Age.NONE)


def test_a_known_key_that_became_unknown_is_unknown_at_once_and_the_other_way_round():
    answers, source = cache(), Source("a")
    answers.get("k", source.ask, NOW)
    source.tells = None
    assert answers.get("k", source.ask, NOW + 31) == Cached(None, Age.FRESH, NOW + 31)
    source.tells = "b"
    assert answers.get("k", source.ask, NOW + 42) == Cached("b", Age.FRESH, NOW + 42)


def test_a_flood_of_invented_keys_displaces_no_known_one_and_is_bounded():
    answers = cache(Freshness(most_known=10, most_unknown=20))
    source = Source("a")
    for number in range(10):
        answers.get(f"known {number}", source.ask, NOW)
    nobody = Source(None)
    for number in range(10_000):
        answers.get(f"invented {number}", nobody.ask, NOW)
    failing = cache(Freshness(most_unknown=20), Backoff(failures=10**9))
    broken = Source(SourceError("down"))
    for number in range(1000):
        failing.get(f"invented {number}", broken.ask, NOW)

    assert len(answers._unknown) == 20
    assert len(failing._failed) == 20
    assert not answers._calls
    assert [answers.get(f"known {n}", nobody.ask, NOW).value for n in range(10)] == ["a"] * 10


def test_a_key_that_failed_is_not_asked_for_again_at_once():
    answers = cache(backoff=Backoff(failures=100))
    source = Source(SourceError("down"))
    for _ in range(10):
        assert answers.get("k", source.ask, NOW).age is Age.NONE
    assert len(source.calls) == 1

    answers.get("other", source.ask, NOW)
    answers.get("k", source.ask, NOW + 1.5)
    assert len(source.calls) == 3


def test_more_calls_than_may_be_under_way_are_not_begun():
    answers = cache(Freshness(calls=2, timeout=0.01))
    source = Source("a", at_once=False)
    ages = [answers.get(f"k{number}", source.ask, NOW).age for number in range(9)]

    assert ages == [Age.NONE] * 9
    assert len(source.calls) == 2


def test_nobody_waits_longer_than_told_and_later_ones_not_at_all():
    answers = cache(Freshness(timeout=0.05, calls=5), Backoff(failures=3))
    source = Source("late", at_once=False)

    assert answers.get("k", source.ask, NOW).age is Age.NONE
    assert answers.backoff.failures == 1
    assert answers.last_failure == "no answer within 0.05 s"
    for _ in range(100):
        assert answers.get("k", source.ask, NOW + 60).age is Age.NONE
    assert len(source.calls) == 1
    assert answers.backoff.failures == 1
    source.end(source.calls[0])
    assert answers.get("k", source.ask, NOW).value == "late"
    assert answers.backoff.failures == 0


def test_forgetting_a_key_drops_its_answer_and_the_one_under_way():
    answers, source = cache(Freshness(timeout=0.01)), Source("before", at_once=False)
    answers.get("k", source.ask, NOW)
    answers.forget("k")
    source.end(source.calls[0])
    after = Source("after")

    assert answers.get("k", after.ask, NOW) == Cached("after", Age.FRESH, NOW)
    answers.forget("k")
    after.tells = SourceError("down")
    assert answers.get("k", after.ask, NOW).age is Age.NONE


def test_a_reader_that_chokes_and_a_call_that_cannot_begin_are_failures():
    def chokes(told: object) -> object:
        raise ValueError("CANARY")

    answers: Cache[object] = Cache(chokes, QUICK)
    assert answers.get("k", Source("a").ask, NOW).age is Age.NONE
    assert answers.last_failure == "ValueError"

    def cannot() -> Future[object]:
        raise OSError("CANARY")

    assert answers.get("other", cannot, NOW).age is Age.NONE
    assert answers.last_failure == "OSError"
    cancelled: Future[object] = Future()
    cancelled.cancel()
    assert answers.get("third", lambda: cancelled, NOW).age is Age.NONE
    assert answers.backoff.failures == 3


def test_the_breaker_opens_after_failures_in_a_row_and_tries_with_longer_pauses():
    backoff = Backoff(failures=3, pause=1.0, longest=3.0)
    for _ in range(2):
        backoff.failed(NOW)
    backoff.succeeded()
    for _ in range(2):
        assert backoff.may_call(NOW)
        backoff.failed(NOW)
    assert backoff.may_call(NOW)
    backoff.failed(NOW)

    assert not backoff.may_call(NOW + 0.9)
    trials = []
    for step in range(120):
        if backoff.may_call(NOW + 1 + step / 10):
            trials.append(step / 10)
            backoff.failed(NOW + 1 + step / 10)
    assert trials == [0, 2, 5, 8, 11]
    backoff.succeeded()
    assert backoff.may_call(NOW + 13)


def test_an_open_breaker_survives_a_clock_that_is_set_back():
    backoff = Backoff(failures=1, pause=1.0)
    backoff.failed(NOW)

    assert not backoff.may_call(NOW)
    assert backoff.may_call(NOW - 3600)


def test_a_dead_source_holds_few_requests():
    answers = cache(backoff=Backoff(failures=5))
    source = Source(SourceError("down"))
    for number in range(1000):
        answers.get(f"k{number}", source.ask, NOW)

    assert len(source.calls) == 5


@pytest.mark.parametrize("seed", range(3))
def test_no_key_is_ever_asked_for_twice_at_once(seed):
    answers = cache(Freshness(ttl=0.5, retry=0.1, timeout=5.0), Backoff(failures=10**9))
    running: dict[str, int] = {}
    most = []
    lock = threading.Lock()

    def ask(key: str) -> Future[object]:
        call: Future[object] = Future()
        with lock:
            running[key] = running.get(key, 0) + 1
            most.append(running[key])

        def end() -> None:
            with lock:
                running[key] -= 1
            if (len(most) + seed) % 3:
                call.set_result(key)
            else:
                call.set_exception(SourceError("down"))

        threading.Timer(0.001, end).start()
        return call

    def work(worker: int) -> None:
        for step in range(40):
            key = f"k{(worker * 7 + step * 3 + seed) % 4}"
            answers.get(key, partial(ask, key), NOW + step / 4)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))

    assert len(most) > 40
    assert set(most) == {1}

"""Requests that are silent for longer than their lease: they keep their places, or say so."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from guardrail.http.leases import THREAD
from tests.http.driving import ASK, JSON, Guarded, Host, completion
from tests.http.wsgi_driving import Hosted, Response, answering

SHORT = """
guardrail: 1
policy: silent
models: {small: {max_output: 200}}
rules:
  - {id: calls, when: always, budget: {requests: 9, per: day, key: account.id}}
  - {id: places, when: always, concurrency: {max: 5, lease: 1s, key: account.id}}
"""
LEASE = 1.0
ONE_PLACE = SHORT.replace("max: 5, lease: 1s", "max: 1, lease: 9s")


def noted_renewals(hosted):
    """Return a semaphore that each renewal of a lease releases."""
    renewed, renew = threading.Semaphore(0), hosted.guard.renew

    def noted(decision, **more):
        renew(decision, **more)
        renewed.release()

    hosted.guard.renew = noted
    return renewed


class Silence:
    """A host's response that says nothing until its lease was renewed a few times."""

    def __init__(self, hosted):
        self.renewed = noted_renewals(hosted)
        self.hosted = hosted

    def __iter__(self):
        for _ in range(3):
            self.hosted.clock.advance(LEASE / 2)
            assert self.renewed.acquire(timeout=30)
        assert self.hosted.used("places") == 1
        yield completion()


def test_a_silent_response_over_wsgi_keeps_its_place():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        return Silence(hosted)

    hosted = Hosted(app, SHORT)
    status, _, _ = hosted.ask()

    assert status == 200
    assert (hosted.used("calls"), hosted.used("places")) == (1, 0)
    hosted.app.close()


@pytest.mark.parametrize("ends", ["closed", "forgotten"])
def test_the_thread_starts_with_the_first_lease_and_ends_with_the_door(ends):
    def alive():
        return {t for t in threading.enumerate() if t.name == THREAD}

    before = alive()
    hosted = Hosted(answering([completion()]), SHORT.replace("lease: 1s", "lease: 1h"))
    assert not alive() - before
    for _ in range(3):
        hosted.ask()
    (thread,) = alive() - before
    if ends == "closed":
        hosted.app.close()
    del hosted
    gc.collect()
    thread.join(30)

    assert not thread.is_alive()


def test_a_response_that_its_server_forgets_is_renewed_no_more():
    hosted = Hosted(answering(Response([b"x"] * 9)), SHORT)
    renewed = noted_renewals(hosted)
    response = hosted.app(hosted.environ(), hosted.start)
    next(iter(response))
    assert hosted.used("places") == 1
    renewals = hosted.app.door.leases
    assert len(renewals._open) == 1
    # A whole round: one that still looked at it would go on to.
    for _ in range(2):
        hosted.clock.advance(LEASE / 2)
        assert renewed.acquire(timeout=30)
    del response
    gc.collect()

    assert len(renewals._open) == 0
    hosted.clock.advance(LEASE)
    assert hosted.used("places") == 0
    hosted.app.close()


def test_a_request_for_which_no_thread_can_start_gives_all_back_and_the_next_one_has_it(
    monkeypatch,
):
    def none_left(self):
        raise RuntimeError("can't start new thread")

    hosted = Hosted(answering([completion()]), SHORT)
    with monkeypatch.context() as system:
        system.setattr(threading.Thread, "start", none_left)
        with pytest.raises(RuntimeError, match="new thread"):
            hosted.ask()
    assert (hosted.used("calls"), hosted.used("places")) == (0, 0)
    hosted.app.app = answering(Silence(hosted))

    assert hosted.ask()[0] == 200
    assert (hosted.used("calls"), hosted.used("places")) == (1, 0)
    hosted.app.close()


@pytest.mark.parametrize("taken", [False, True])
def test_a_place_whose_lease_ran_out_is_taken_anew_if_there_is_one(taken, caplog):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        for number in range(2):
            # Meanwhile the process was suspended: nothing was renewed.
            hosted.clock.advance(10)
            if taken and number == 0:
                others.append(hosted.guard.decide({"account.id": "acct-a"}, {"requests": 0}))
            yield completion() if number else b" "
            probe = hosted.guard.decide({"account.id": "acct-a"}, {"requests": 0})
            free.append(probe.allowed)

    free: list[bool] = []
    others: list = []
    hosted = Hosted(app, ONE_PLACE)
    hosted.ask()

    assert free == [False, False]
    assert ("taken" in caplog.text) is taken
    for other in others:
        hosted.guard.release(other)
    assert hosted.used("places") == 0
    assert hosted.used("calls") == 1
    hosted.app.close()


@pytest.mark.parametrize("taken", [False, True])
def test_a_place_is_taken_anew_over_asgi_too(taken):
    async def host(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": JSON})
        guarded.clock.advance(10)
        other = await guarded.guard.decide({"account.id": "acct-a"}, {}) if taken else None
        await send({"type": "http.response.body", "body": b" ", "more_body": True})
        while guarded.app.door._tasks:
            await asyncio.sleep(0)
        seen.append(await guarded.guard.decide({"account.id": "acct-a"}, {"requests": 0}))
        if other is not None:
            await guarded.guard.release(other)
        await send({"type": "http.response.body", "body": completion()})

    seen: list = []
    guarded = Guarded(ONE_PLACE, host)
    guarded.ask(ASK)

    assert [decision.allowed for decision in seen] == [False]
    assert (guarded.used("calls"), guarded.used("places")) == (1, 0)


def test_a_short_throttle_is_not_held_unless_the_settings_say_so():
    policy = SHORT + "  - {id: r, when: always, rate: {requests: 1/second, key: account.id}}"
    slept: list[float] = []

    async def sleep(seconds):
        slept.append(seconds)

    guarded = Guarded(policy, Host([completion()], headers=JSON), sleep=sleep)

    assert [guarded.ask().status for _ in range(2)] == [200, 429]
    assert slept == []

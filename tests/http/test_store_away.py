"""The store is away: whoever is served from this process's share gets a whole answer."""

from __future__ import annotations

import pytest

from guardrail.guard import Guard
from guardrail.guard.breaker import IN_A_ROW
from guardrail.loading import load_text
from guardrail.testing import MovableClock
from guardrail.wsgi import GuardrailMiddleware
from tests.guard.failing import DOWN, ScriptedStore
from tests.http.accounts import HASH_KEY, Accounts
from tests.http.documented import Dead
from tests.http.driving import Guarded, completion
from tests.http.wsgi_driving import Hosted, answering

POLICY = """
guardrail: 1
policy: away
facts: {account.tier: {type: level, values: [email, verified]}}
rules:
  - {id: calls, when: always, budget: {requests: 8, per: day, key: account.id}}
  - {id: pace, when: always, rate: {requests: 60/minute, burst: 8, key: account.id}}
  - {id: places, when: always, concurrency: {max: 8, key: account.id}}
"""


def asgi():
    guarded = Guarded(POLICY, store=Dead())
    return lambda key: (lambda call: (call.status, call.headers))(guarded.ask(key=key))


def wsgi():
    hosted = Hosted(answering([completion()]), POLICY)
    clock = MovableClock()
    guard = Guard.from_policies(load_text(POLICY), clock=clock, environ={}, store=Dead())
    hosted.app = GuardrailMiddleware(
        answering([completion()]),
        guard=guard,
        clock=clock,
        environ={},
        jitter=lambda: 1.0,
        hash_key=HASH_KEY,
        directory=Accounts(),
    )
    return lambda key: hosted.ask(HTTP_AUTHORIZATION=f"Bearer {key}")[:2]


@pytest.mark.parametrize("way", [asgi, wsgi])
def test_a_share_is_served_and_more_waits_until_the_store_may_be_back(way):
    ask = way()
    answers = [ask("key-a") for _ in range(3)]

    assert [status for status, _ in answers] == [200, 200, 429]
    assert answers[0][1]["ratelimit"].startswith('"calls";r=1')
    assert 1 <= int(answers[2][1]["retry-after"]) <= 60
    # However the returns are spread, clients wait this one out by themselves.
    assert "x-should-retry" not in answers[2][1]
    assert ask("key-nobody")[0] == 503


def test_scrapes_tell_that_the_store_is_away_and_how_much_waits_for_it():
    store = ScriptedStore()
    guarded = Guarded(POLICY, store=store)

    def told() -> list[str]:
        names = ("guardrail_store_away ", "guardrail_corrections_waiting ")
        return [line for line in guarded.app.metrics().splitlines() if line.startswith(names)]

    guarded.ask()
    assert told() == ["guardrail_corrections_waiting 0", "guardrail_store_away 0"]
    store.settles = False
    guarded.ask()
    assert told() == ["guardrail_corrections_waiting 1", "guardrail_store_away 0"]
    store.fault = DOWN
    for _ in range(IN_A_ROW):
        guarded.ask()
    assert told() == ["guardrail_corrections_waiting 1", "guardrail_store_away 1"]

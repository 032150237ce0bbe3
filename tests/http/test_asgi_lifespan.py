"""Start and end over ASGI: opened once, closed once, and never in the host's way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import guardrail
from guardrail.asgi import GuardrailMiddleware
from tests.http.driving import ASK, Call, Host, body_messages, scope_of

POLICY = """
guardrail: 1
policy: life
rules:
  - {id: r, when: always, rate: {requests: 1/day, key: client.network}}
"""
MESSAGES = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]


@pytest.fixture
def policies(tmp_path):
    (tmp_path / "p.yaml").write_text(POLICY)
    return tmp_path


def host(*answers, seen=None):
    """Return a host that answers each lifespan message in turn."""

    async def app(scope, receive, send):
        if scope["type"] != "lifespan":
            await Host()(scope, receive, send)
            return
        for answer in answers:
            message = await receive()
            if seen is not None:
                seen.append(message["type"])
            await send({"type": answer})

    return app


def live(app, *more):
    async def run():
        call = Call({"type": "lifespan"}, MESSAGES)
        await call.run(app)
        for other in more:
            await other.run(app)
        return call

    return asyncio.run(run())


def counted(app):
    """Count how often the guard is made and closed."""
    counts = {"made": 0, "closed": 0}
    kept = app.door.in_force
    make = kept._make

    def made():
        counts["made"] += 1
        guard = make()
        close = guard.close

        async def closed():
            counts["closed"] += 1
            await close()

        guard.close = closed
        return guard

    kept._make = made
    return counts


def test_opened_once_and_closed_once(policies):
    seen: list[str] = []
    app = GuardrailMiddleware(
        host("lifespan.startup.complete", "lifespan.shutdown.complete", seen=seen),
        policies=policies,
        environ={},
    )
    counts = counted(app)
    call = live(app)

    assert seen == ["lifespan.startup", "lifespan.shutdown"]
    assert [m["type"] for m in call.sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert counts == {"made": 1, "closed": 1}


def test_a_failed_start_goes_through(policies):
    app = GuardrailMiddleware(host("lifespan.startup.failed"), policies=policies, environ={})
    counts = counted(app)
    call = live(app)

    assert [m["type"] for m in call.sent] == ["lifespan.startup.failed"]
    assert counts == {"made": 1, "closed": 1}


def test_our_own_failure_to_open_fails_the_start(policies):
    app = GuardrailMiddleware(
        host("lifespan.startup.complete"),
        policies=policies,
        store="memory://?max_keys=none",
        environ={},
    )
    call = live(app)

    assert call.sent[0]["type"] == "lifespan.startup.failed"
    assert "max_keys" in call.sent[0]["message"]


def test_without_a_lifespan_the_first_request_opens(policies):
    app = GuardrailMiddleware(Host(), policies=policies, environ={})
    counts = counted(app)
    calls = [Call(scope_of(body=ASK), body_messages(ASK)) for _ in range(2)]

    async def run():
        return [(await call.run(app)).status for call in calls]

    assert asyncio.run(run()) == [200, 429]
    assert counts == {"made": 1, "closed": 0}


def test_a_host_that_knows_no_lifespan_raises_as_without_us(policies):
    async def plain(scope, receive, send):
        assert scope["type"] == "http"

    app = GuardrailMiddleware(plain, policies=policies, environ={})
    with pytest.raises(AssertionError):
        live(app)


def test_a_guard_of_the_hosts_own_is_not_closed(policies):
    closed: list[int] = []

    async def run():
        guard: Any = guardrail.AsyncGuard.load(policies, environ={})
        guard.close = lambda: closed.append(1)
        app = GuardrailMiddleware(
            host("lifespan.startup.complete", "lifespan.shutdown.complete"),
            guard=guard,
            environ={},
        )
        await Call({"type": "lifespan"}, MESSAGES).run(app)

    asyncio.run(run())

    assert closed == []


def test_a_second_start_opens_what_the_first_end_closed(policies, tmp_path):
    log = tmp_path / "log.jsonl"
    app = GuardrailMiddleware(
        host("lifespan.startup.complete", "lifespan.shutdown.complete"),
        policies=policies,
        decision_log=log,
        environ={},
    )
    for _ in range(2):
        live(app)
        call = Call(scope_of(body=ASK), body_messages(ASK))
        asyncio.run(call.run(app))
        asyncio.run(app.door.close())

    assert len(log.read_text().splitlines()) == 2


def test_a_server_without_asyncio_does_not_start(policies):
    app = GuardrailMiddleware(host(), policies=policies, environ={})
    call = Call({"type": "lifespan"}, MESSAGES)
    with pytest.raises(StopIteration):
        call.run(app).send(None)  # no loop is there, as on trio

    (failed,) = call.sent
    assert failed["type"] == "lifespan.startup.failed"
    assert "`hypercorn --worker-class asyncio`" in failed["message"]

"""Which policies are in force: over reloads at once, a new start, and what cannot be served."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from typing import Any

import httpx
import pytest

from guardrail.asgi import GuardrailMiddleware
from guardrail.asgi.authorizer import Authorizer
from guardrail.http.authorizing import EVALUATION
from guardrail.http.settings import reload
from guardrail.loading import load_policies
from guardrail.wsgi import GuardrailMiddleware as WsgiMiddleware
from tests.http.driving import Call
from tests.http.test_asgi_lifespan import MESSAGES, host
from tests.http.test_asgi_realtime import CREATE, frame, voice
from tests.http.test_asgi_websockets import CONNECT, socket_scope
from tests.http.test_reloading import asgi, folder, options, statuses, written
from tests.http.wsgi_driving import Hosted, answering

__all__ = ["folder"]

QUESTION = {
    "subject": {"type": "user", "id": "a"},
    "action": {"name": "chat"},
    "resource": {"type": "page", "id": "p"},
}


def in_force(app):
    """Return the revision that decides, once it is the one that is told."""
    revision = app.door.guard.policies.revision
    assert revision == app.door.configured.reloading.reloads.revision
    return revision


class Slow:
    """Reads the files, and at the first time says so only when it is let go."""

    def __init__(self, monkeypatch):
        self.begun, self.gate = threading.Event(), threading.Event()
        monkeypatch.setattr(reload, "load_policies", self._loaded)

    def _loaded(self, paths):
        found = load_policies(paths)
        if not self.begun.is_set():
            self.begun.set()
            self.gate.wait(0.5)
        return found


def test_a_forked_process_makes_a_value_of_its_own_whatever_its_parent_was_doing():
    begun, gate = threading.Event(), threading.Event()

    def make():
        begun.set()
        gate.wait(20)
        return object()

    value = reload.PerProcess(make)
    making = threading.Thread(target=value.get)
    making.start()
    begun.wait(20)
    child = os.fork()
    if not child:
        signal.alarm(20)
        gate.set()
        os._exit(value.get() is not value.get())
    _, ended = os.waitpid(child, 0)
    gate.set()
    making.join()

    assert ended == 0
    before = value.get()
    child = os.fork()
    if not child:
        os._exit(value.get() is before)
    assert os.waitpid(child, 0)[1] == 0
    assert value.get() is before


def test_of_two_reloads_at_once_the_newer_set_is_in_force(folder, monkeypatch):
    app = asgi(folder)
    app.door.open()
    slow = Slow(monkeypatch)

    async def run():
        written(folder, 3)
        first = asyncio.ensure_future(app.reload())
        await asyncio.to_thread(slow.begun.wait, 5)
        written(folder, 1)
        await app.reload()
        slow.gate.set()
        await first

    asyncio.run(run())
    assert in_force(app) == load_policies([folder / "policies"]).revision


def test_of_two_reloads_at_once_the_newer_set_is_in_force_between_threads(folder, monkeypatch):
    app = WsgiMiddleware(answering([]), **options(folder))
    assert app.door.guard is not None
    slow = Slow(monkeypatch)
    written(folder, 3)
    first = threading.Thread(target=app.reload)
    first.start()
    slow.begun.wait(5)
    written(folder, 1)
    app.reload()
    slow.gate.set()
    first.join()

    assert in_force(app) == load_policies([folder / "policies"]).revision
    app.close()


def test_policies_that_cannot_be_taken_stop_no_request_and_are_told(folder):
    environ: dict[str, str] = {}
    given = options(folder, reload=10, environ=environ)
    app: Any = WsgiMiddleware(answering([b"{}"]), **given)
    hosted = Hosted(answering([]))
    hosted.app = app
    before = in_force(app)
    written(folder, 9)
    environ["GUARDRAIL_MODE"] = "nonsense"
    for _ in range(3):
        given["clock"].advance(11)
        assert hosted.ask()[0] in (200, 429)

    found = app.door.configured.reloading.reloads
    assert (found.loaded, found.failed) == (0, 1)
    assert "GUARDRAIL_MODE" in found.problem
    assert in_force(app) == before
    assert "guardrail_policy_stale 1\n" in app.metrics()
    app.close()


def test_a_reader_that_breaks_stops_no_request(folder, monkeypatch):
    def broken(paths):
        raise RecursionError("too deep")

    app = asgi(folder)
    before = in_force(app)
    monkeypatch.setattr(reload, "load_policies", broken)
    found = asyncio.run(app.reload())

    assert (found.loaded, found.failed, in_force(app)) == (0, 1, before)
    assert "too deep" in str(found.problem)


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_second_start_has_the_policies_that_were_loaded_last(folder, kind):
    app = asgi(folder) if kind == "asgi" else WsgiMiddleware(answering([]), **options(folder))
    before = in_force(app)
    written(folder, 3)
    if isinstance(app, GuardrailMiddleware):
        app.app = host("lifespan.startup.complete", "lifespan.shutdown.complete")

        async def run():
            await app.reload()
            await Call({"type": "lifespan"}, MESSAGES).run(app)

        asyncio.run(run())
    else:
        app.reload()
        app.close()

    assert in_force(app) != before


def test_a_reload_while_no_guard_is_open_makes_none(folder):
    app = asgi(folder)
    written(folder, 1)
    asyncio.run(app.reload())

    assert app.door.in_force.taken() is None
    assert statuses(app, 2) == [200, 429]


def test_what_changes_while_policies_are_loaded_at_the_start_is_loaded_again(folder, monkeypatch):
    def loaded(paths):
        found = load_policies(paths)
        written(folder, 12345)
        return found

    monkeypatch.setattr(reload, "load_policies", loaded)
    app = asgi(folder, reload=1)
    monkeypatch.setattr(reload, "load_policies", load_policies)
    before = in_force(app)
    app.door.in_force.look()

    assert in_force(app) != before


SPEAKS = (
    "rules:\n  - {id: calls, when: always, budget: {requests: 50, per: day, key: account.id}}\n"
)
CLOSED = SPEAKS + "  - {id: closed, when: always, block: {reason: closed}}\n"


def rewrite(folder, rules):
    (folder / "policies" / "p.yaml").write_text(f"guardrail: 1\npolicy: changing\n{rules}")


async def looked(door, ask):
    """Ask once a look is due."""
    door.clock.advance(11)
    await ask()


def test_an_evaluation_looks_for_changed_policies(folder):
    rewrite(folder, SPEAKS)
    app = Authorizer("authzen", **options(folder, reload=10))

    async def asked():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            return (await client.post(EVALUATION, json=QUESTION)).json()["decision"]

    async def run():
        assert await asked()
        rewrite(folder, CLOSED)
        await looked(app.door, asked)
        return await asked()

    assert asyncio.run(run()) is False


def test_a_turn_of_a_session_looks_for_changed_policies(folder):
    rewrite(folder, SPEAKS)
    app = asgi(folder, voice, reload=10)
    call = Call(socket_scope(path="/v1/realtime", query_string=b"model=voice"))
    frames = [CONNECT, *[frame(**CREATE)] * 4]

    async def receive():
        if len(frames) == 3:
            rewrite(folder, CLOSED)
        while app.door._tasks:
            await asyncio.gather(*app.door._tasks)
        app.door.clock.advance(11)
        return frames.pop(0) if frames else {"type": "websocket.disconnect", "code": 1000}

    call.receive = receive  # type: ignore[method-assign]
    asyncio.run(call.run(app))
    events = [json.loads(m["text"]) for m in call.sent if m["type"] == "websocket.send"]

    assert events[1]["type"] == "response.done"
    assert events[-1]["error"]["code"] == "closed"

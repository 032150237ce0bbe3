"""However a request ends, the store holds no place of it and exactly what was served."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

from guardrail import AsyncGuard, Guard
from guardrail.asgi import GuardrailMiddleware as AsgiMiddleware
from guardrail.errors import StoreError
from guardrail.http.fastapi import limited
from guardrail.http.leases import THREAD, LeaseThread
from guardrail.http.parsing.values import RewriteError
from guardrail.http.request import Request
from guardrail.http.response import ResponseTracker
from guardrail.stores.cells import windowed_slots
from guardrail.testing import MovableClock
from guardrail.wsgi import GuardrailMiddleware as WsgiMiddleware
from tests.engine.tracing import records
from tests.guard.failing import AwaitedStore, ScriptedStore
from tests.http.accounts import HASH_KEY, Accounts
from tests.http.driving import ASK, CHAT, Call, body_messages, chat_stream, completion, scope_of
from tests.http.wsgi_driving import Hosted as WsgiServer
from tests.loaded import loaded
from tests.stores.timed import Hand, HandLoop

LEASE = 9.0
POLICY = """
guardrail: 1
policy: endings
models: {large: {max_output: 200, weaker: small}, small: {max_output: 200}}
rules:
  - {id: calls, when: always, budget: {requests: 100, per: day, key: account.id}}
  - {id: tokens, when: always, budget: {tokens: 100k, per: day, key: account.id}}
  - {id: places, when: always, concurrency: {max: 2, lease: 9s, key: account.id}}
"""
LESS = "  - {id: less, when: always, degrade: {model: small, max_output_tokens: 50}}\n"
PACE = "  - {id: pace, when: always, rate: {requests: 60/minute, burst: 1, key: account.id}}\n"
STREAM = json.dumps({**json.loads(ASK), "stream": True}).encode()
GEMINI = "/v1beta/models/large:generateContent"
GEMINI_ASK = json.dumps(
    {"contents": [{"role": "user", "parts": [{"text": "hi"}]}],
     "generationConfig": {"maxOutputTokens": 100}}
).encode()  # fmt: skip
GEMINI_SAYS = json.dumps(
    {"candidates": [{"content": {"role": "model", "parts": [{"text": "ok"}]}}],
     "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 20, "totalTokenCount": 30},
     "modelVersion": "small"}
).encode()  # fmt: skip


class Way:
    """A host behind one of the middlewares, over a store that fails when told to.

    `script` is a function that yields the pieces of the host's response, and may do anything
    meanwhile; `kind` its content type.
    """

    def __init__(self, policy: str = POLICY, **options: Any) -> None:
        self.clock = MovableClock()
        self.status, self.kind = 200, "application/json"
        self.script: Any = lambda: iter([completion()])
        self.paths: list[str] = []
        self.credentials = ["Bearer key-a"]
        self.slept: list[float] = []
        self.open(loaded(policy), options)

    def open(self, policies: Any, options: dict[str, Any]) -> None:
        raise NotImplementedError

    def ask(self, body: bytes = ASK, path: str = CHAT) -> int:
        raise NotImplementedError

    @property
    def held(self) -> dict[str, int]:
        """What the store holds by rule: requests, tokens, and places that have not ended."""
        found = {}
        every: dict[str, Any] = dict(records(self.script_store.inner))
        now = self.clock() * 1e6
        limits = [limit for limit in self.guard._context.engine.limits if limit is not None]
        for limit in limits:
            mine = [record for key, record in every.items() if key[:8] == limit.idents[0]]
            if limit.rule.id == "places":
                found["places"] = sum(end > now for record in mine for end in record.values())
            elif limit.rule.id != "pace":
                values = [value for record in mine for value in windowed_slots(record).values()]
                found[limit.rule.id] = sum(values)
        return found

    decisions = 1
    """How often a request is decided on."""
    reserved = 112
    """The tokens that `ASK` reserves."""
    guard: Any
    script_store: ScriptedStore
    settings: dict[str, Any] = {  # noqa: RUF012 - the same for both
        "environ": {}, "jitter": lambda: 0.0, "hash_key": HASH_KEY,
    }  # fmt: skip


class Asgi(Way):
    def open(self, policies: Any, options: dict[str, Any]) -> None:
        store = AwaitedStore()
        self.store, self.script_store = store, store.script
        self.guard = AsyncGuard.from_policies(policies, store=store, clock=self.clock, environ={})

        self.app: Any = AsgiMiddleware(
            self._host,
            guard=self.guard,
            clock=self.clock,
            directory=Accounts(),
            **{"sleep": self.sleep, **self.settings, **options},
        )

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)
        await self.on_sleep()

    async def on_sleep(self) -> None:
        """Do nothing more while a request is held."""

    async def _host(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        headers = [(b"content-type", self.kind.encode())]
        started = False
        for piece in self.script():
            if not started:
                start = {"type": "http.response.start", "status": self.status, "headers": headers}
                await send(start)
                started = True
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            for _ in range(20):
                await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def asked(self, body: bytes = ASK, path: str = CHAT) -> int:
        """Ask within a running loop."""
        fields = [(b"authorization", each.encode()) for each in self.credentials]
        scope = scope_of(path, body=body, key=None, headers=fields)
        call = Call(scope, body_messages(body))
        return int((await call.run(self.app)).status)

    def ask(self, body: bytes = ASK, path: str = CHAT) -> int:
        async def whole() -> int:
            status = await self.asked(body, path)
            await self.app.door.close()
            return status

        return asyncio.run(whole())


class Wsgi(Way):
    def open(self, policies: Any, options: dict[str, Any]) -> None:
        self.script_store = ScriptedStore()
        store: Any = self.script_store
        self.guard = Guard.from_policies(policies, store=store, clock=self.clock, environ={})

        def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            self.clock.advance(seconds)

        self.app: Any = WsgiMiddleware(
            self._host,
            guard=self.guard,
            clock=self.clock,
            directory=Accounts(),
            # Of one thread seen serving, none may be held.
            **{"sleep": sleep, "threads": 4, **self.settings, **options},
        )

    def _host(self, environ: Any, start_response: Any) -> Any:
        self.paths.append(environ["PATH_INFO"])

        def pieces() -> Any:
            started = False
            for piece in self.script():
                if not started:
                    start_response(f"{self.status} Status", [("Content-Type", self.kind)])
                    started = True
                yield piece

        return pieces()

    def ask(self, body: bytes = ASK, path: str = CHAT) -> int:
        statuses: list[int] = []

        def start(status: str, headers: Any, exc_info: Any = None) -> Any:
            statuses.append(int(status[:3]))

        environ = WsgiServer.environ(self, body, path)  # type: ignore[arg-type]
        environ["HTTP_AUTHORIZATION"] = ", ".join(self.credentials)
        response = self.app(environ, start)
        try:
            for _ in response:
                pass
        finally:
            getattr(response, "close", lambda: None)()
        return statuses[-1]


class FastApi(Asgi):
    """An endpoint that states limits of its own, behind the middleware: it decides once more."""

    decisions = 2

    def open(self, policies: Any, options: dict[str, Any]) -> None:
        super().open(policies, options)
        app = FastAPI()

        @app.post("/{path:path}", dependencies=[Depends(limited(None, {"images": 0}))])
        async def serve(path: str) -> StreamingResponse:
            self.paths.append(f"/{path}")

            async def pieces() -> AsyncIterator[bytes]:
                for piece in self.script():
                    yield piece
                    for _ in range(20):
                        await asyncio.sleep(0)

            return StreamingResponse(pieces(), self.status, media_type=self.kind)

        self.app.app = app


class Socket(Asgi):
    """A host that answers the turns of a session, each of which ends as a response would."""

    reserved = 109
    decisions = 2

    async def _host(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            for piece in self.script():
                for event in events_of(piece):
                    await send({"type": "websocket.send", "text": json.dumps(event)})
                for _ in range(20):
                    await asyncio.sleep(0)

    async def asked(self, body: bytes = ASK, path: str = CHAT) -> int:
        """Open a session for one turn, within a running loop; return how the turn was answered."""
        fields = [(b"host", b"api.test")]
        fields += [(b"authorization", each.encode()) for each in self.credentials]
        turn = {"type": "response.create", "model": "small", "input": "hi"}
        frame = json.dumps({**turn, "max_output_tokens": 100})
        messages = [
            {"type": "websocket.connect"},
            {"type": "websocket.receive", "text": frame},
            {"type": "websocket.disconnect", "code": 1000},
        ]
        scope = {
            "type": "websocket",
            "path": "/v1/responses",
            "query_string": b"",
            "headers": fields,
            "client": ("8.8.8.8", 1),
            "extensions": {"websocket.http.response": {}},
        }
        call = await Call(scope, messages).run(self.app)
        for message in call.sent:
            if message["type"].endswith("response.start"):
                return int(message["status"])
        said = [json.loads(m["text"]) for m in call.sent if m["type"] == "websocket.send"]
        refused = [event["status"] for event in said if event["type"] == "error"]
        return int(refused[0]) if refused else 200


def events_of(piece: bytes) -> Iterator[dict[str, Any]]:
    """Yield the events of the Responses API that say what a piece of a chat completion does."""
    text = piece.removeprefix(b"data: ").strip()
    said = {} if text == b"[DONE]" else json.loads(text)
    for choice in said.get("choices", ()):
        if "delta" in choice:
            yield {"type": "response.output_text.delta", "delta": choice["delta"]["content"]}
    if usage := said.get("usage"):
        used = {
            "input_tokens": usage["prompt_tokens"],
            "output_tokens": usage["completion_tokens"],
            "total_tokens": usage["total_tokens"],
        }
        yield {"type": "response.completed", "response": {"id": "r", "usage": used}}


def made_of(kinds: list[type[Way]]) -> Any:
    @pytest.fixture(params=kinds)
    def way(request):
        made = []

        def make(policy: str = POLICY, **options: Any) -> Any:
            made.append(request.param(policy, **options))
            return made[-1]

        yield make
        for each in made:
            if isinstance(each, Wsgi):
                each.app.close()

    return way


RESPONSES: list[type[Way]] = [Asgi, Wsgi, FastApi]
way = made_of(RESPONSES)
any_way = made_of([*RESPONSES, Socket])


SERVED = {"calls": 1, "tokens": 30, "places": 0}
NOTHING = {"calls": 0, "tokens": 0, "places": 0}


def raising(*pieces: bytes) -> Any:
    def script() -> Any:
        yield from pieces
        raise RuntimeError("the model broke")

    return script


def test_what_is_served_is_charged_and_what_is_not_is_given_back(way):
    served = way()
    assert (served.ask(), served.held) == (200, SERVED)
    for status, held in (
        (500, NOTHING),
        (429, NOTHING),
        (302, NOTHING),
        (400, {**SERVED, "tokens": 0}),
    ):
        other = way()
        other.status = status
        assert (other.ask(), other.held) == (status, held)
    broken = way()
    broken.script = raising()
    with pytest.raises(RuntimeError):
        broken.ask()
    assert broken.held == NOTHING


def test_a_stream_that_breaks_is_charged_for_what_passed(way):
    one = way()
    one.kind, one.script = "text/event-stream", raising(*chat_stream(3, done=False))
    with pytest.raises(RuntimeError):
        one.ask(STREAM)
    assert one.held == {"calls": 1, "tokens": 13, "places": 0}


def test_a_degrade_that_is_not_possible_gives_everything_back(way, monkeypatch):
    def impossible(*_: object) -> Any:
        raise RewriteError("its body is not one that can be changed")

    monkeypatch.setattr("guardrail.http.request.rewritten", impossible)
    records: list[Any] = []
    one = way(POLICY + LESS, decision_sink=Sink(records))
    assert (one.ask(), one.held, one.paths) == (403, NOTHING, [])
    assert counted(one) == {
        'door_refusals_total{reason="degrade_not_possible"} 1',
        'endings_total{ending="refused"} 1',
    }
    for _ in range(2):
        assert (one.ask(), one.held, one.paths) == (403, NOTHING, [])
    endings = [(record["ending"], record["reason"]) for record in records]
    assert endings == [("refused", "degrade_not_possible")] * 3


class Sink:
    """Keeps the records of decisions."""

    def __init__(self, records: list[Any]) -> None:
        self.records = records

    def write(self, record: Any) -> None:
        self.records.append(record)

    def close(self) -> None:
        """Do nothing."""


def counted(one: Any) -> set[str]:
    """Return what was counted of requests and how they ended."""
    lines = one.app.metrics().splitlines()
    kinds = ("decisions_total{", "door_refusals_total{", "endings_total{", "failures_total")
    found = {line.removeprefix("guardrail_") for line in lines}
    return {line for line in found if line.startswith(kinds) and not line.endswith(" 0")}


def test_a_turn_that_cannot_be_degraded_is_one_refusal_and_gives_everything_back(monkeypatch):
    def impossible(*_: object) -> Any:
        raise RewriteError("its frame is not one that can be changed")

    records: list[Any] = []
    one = Socket(POLICY + LESS, decision_sink=Sink(records))
    monkeypatch.setattr("guardrail.http.metering.sessions.ResponsesMeter.changed", impossible)
    assert (one.ask(), one.held) == (403, NOTHING)
    assert counted(one) == {
        # The handshake, which holds nothing between turns.
        'decisions_total{decision="degrade",rule="less",reason="less",'
        'mode="normal",dialect="openai"} 1',
        'door_refusals_total{reason="degrade_not_possible"} 1',
        'endings_total{ending="refused"} 1',
        'endings_total{ending="released"} 1',
    }


def test_a_model_degraded_in_the_path_is_served_and_settled(way):
    one = way(POLICY + LESS)
    one.script = lambda: iter([GEMINI_SAYS])
    assert (one.ask(GEMINI_ASK, GEMINI), one.held) == (200, SERVED)
    assert one.paths == ["/v1beta/models/small:generateContent"]


def test_a_request_that_is_held_is_served_after_its_wait_and_leaves_its_place_among_those_held(way):
    one = way(POLICY + PACE, max_delay=1, max_held=1)
    for turn in range(1, 5):
        assert one.ask() == 200
        assert one.held == {"calls": turn, "tokens": 30 * turn, "places": 0}
    assert one.slept == [1.0, 1.0, 1.0]


def test_where_no_more_are_to_be_held_a_request_is_refused_at_once(way):
    one = way(POLICY + PACE, max_delay=1, max_held=0)
    assert [one.ask(), one.ask()] == [200, 429]
    assert (one.slept, one.held) == ([], SERVED)


@pytest.mark.parametrize(("most", "slept"), [(2.0, 2), (2.9, 2), (3.0, 3)])
def test_waits_are_summed_and_end_where_they_would_be_longer_than_allowed(way, most, slept):
    one = way(POLICY.replace("max: 2", "max: 1").replace("9s", "1h"), max_delay=most)
    other = decided(one)
    assert one.ask() == 429
    assert one.slept == [1.0] * slept
    assert one.held == {"calls": 1, "tokens": 110, "places": 1}
    released(one, other)
    assert (one.ask(), one.held) == (200, SERVED)


def decided(one: Way) -> Any:
    """Return the decision on another request of the account that is being served."""
    amounts = {"input_tokens": 10, "output_tokens": 100}
    found = one.guard.decide({"account.id": "acct-a", "request.model": "small"}, amounts)
    return asyncio.run(found) if asyncio.iscoroutine(found) else found


def released(one: Way, decision: Any) -> None:
    found = one.guard.release(decision)
    if asyncio.iscoroutine(found):
        asyncio.run(found)


def test_a_request_whose_wait_is_broken_off_leaves_its_place_among_those_held():
    one = Asgi(POLICY + PACE, max_delay=1, max_held=1)

    async def hang() -> None:
        await asyncio.get_running_loop().create_future()

    async def run() -> None:
        one.on_sleep = hang  # type: ignore[method-assign]
        assert await one.asked() == 200
        asking = asyncio.ensure_future(one.asked())
        while not one.slept:
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        one.on_sleep = lambda: asyncio.sleep(0)  # type: ignore[method-assign]
        one.clock.advance(-1)
        assert await one.asked() == 200

    asyncio.run(run())
    assert one.held == {"calls": 2, "tokens": 60, "places": 0}


def lapsing(one: Way, *acts: Any, then: Any = lambda: None) -> Any:
    """Return a script whose second piece comes when the lease has run out; `then` follows it."""

    def script() -> Any:
        first, second, *rest = chat_stream(2)
        yield first
        one.clock.advance(LEASE + 1)
        for act in acts:
            act()
        yield second
        then()
        yield from rest

    return script


STREAMED = {"calls": 1, "tokens": 12, "places": 0}


def test_a_place_that_was_regained_is_given_back_at_the_end(any_way):
    one = any_way()
    held = []

    one.kind = "text/event-stream"
    one.script = lapsing(one, then=lambda: held.append(one.held["places"]))
    assert (one.ask(STREAM), one.held, held) == (200, STREAMED, [1])


def test_a_place_is_regained_though_what_the_request_counts_is_all_used(way):
    counts = "  - {id: images, when: always, budget: {images: 1, per: day, key: account.id}}\n"
    one = way("units: [images]\n" + POLICY + counts)
    held = []

    def script() -> Any:
        yield from lapsing(one)()
        held.append(one.held["places"])

    one.kind, one.script = "text/event-stream", script
    asked = json.dumps({"model": "small", "prompt": "a cat", "stream": True}).encode()
    assert one.ask(asked, "/v1/images/generations") == 200
    assert held == [1]


def test_a_place_that_others_took_meanwhile_stays_theirs(any_way):
    one = any_way(POLICY.replace("max: 2", "max: 1").replace("9s", "10s"))
    taken = []

    def take() -> None:
        store = one.script_store.inner
        limit = next(each for each in one.guard._context.engine.limits if each.rule.id == "places")
        key = next(key for key in records(store) if key[:8] == limit.idents[0])
        store._known(key)["another"] = int((one.clock() + 60) * 1e6)
        taken.append(key)

    one.kind, one.script = "text/event-stream", lapsing(one, take)
    assert (one.ask(STREAM), len(taken)) == (200, 1)
    assert one.held == {**STREAMED, "places": 1}


@pytest.mark.parametrize("fault", [StoreError("down"), StoreError("late", unsure=True), KeyError()])
def test_a_store_that_fails_at_a_regain_lets_the_request_go_on(any_way, fault):
    one = any_way()

    def fail() -> None:
        one.script_store.fault = fault

    def answer() -> None:
        one.script_store.fault = None

    one.kind, one.script = "text/event-stream", lapsing(one, fail, then=answer)
    assert (one.ask(STREAM), one.held) == (200, STREAMED)


@pytest.mark.parametrize("fault", [StoreError("down"), StoreError("late", unsure=True), KeyError()])
def test_a_store_that_fails_at_a_renewal_costs_the_request_nothing(any_way, fault):
    one = any_way()

    def script() -> Any:
        first, *rest = chat_stream(2)
        yield first
        one.clock.advance(LEASE / 2)
        one.script_store.fault = fault
        yield rest.pop(0)
        one.script_store.fault = None
        yield from rest

    one.kind, one.script = "text/event-stream", script
    assert (one.ask(STREAM), one.held) == (200, STREAMED)


def test_a_store_that_fails_at_the_settlement_has_it_once_it_answers(any_way):
    one = any_way()

    def script() -> Any:
        one.script_store.fault = StoreError("down")
        yield completion()

    one.script = script
    assert one.ask() == 200
    assert one.held == {"calls": 1, "tokens": one.reserved, "places": 1}
    one.script_store.fault = None
    one.script = lambda: iter([completion()])
    assert one.ask() == 200
    assert one.held == {"calls": 2, "tokens": 60, "places": 0}


@pytest.mark.parametrize("fault", [StoreError("down"), KeyError("x")])
def test_a_store_that_is_away_from_the_start_charges_nothing_there(any_way, fault):
    one = any_way(POLICY)
    one.script_store.fault = fault
    one.ask()
    one.script_store.fault = None
    assert one.held == NOTHING


def test_two_different_credentials_are_refused_and_nothing_is_charged(any_way):
    one = any_way()
    one.credentials = ["Bearer key-a", "Bearer key-b"]
    assert (one.ask(), one.held, one.paths) == (400, NOTHING, [])
    one.credentials = ["Bearer key-a", "Bearer key-a"]
    assert (one.ask(), one.held) == (200, SERVED)


@pytest.mark.parametrize("part", ["opened", "identified", "received", "decided"])
def test_a_fault_of_ours_before_the_host_is_asked_refuses_and_gives_back(way, part, monkeypatch):
    one = way()

    def broken(*_: object) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(Request, part, broken)
    assert (one.ask(), one.held, one.paths) == (503, NOTHING, [])


def test_a_fault_of_ours_on_the_way_to_the_host_gives_back(way, monkeypatch):
    one = way()

    def broken(*_: object, **__: object) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(ResponseTracker, "__init__", broken)
    with pytest.raises(ZeroDivisionError):
        one.ask()
    assert (one.held, one.paths) == (NOTHING, [])


def test_a_request_for_which_the_system_has_no_thread_is_given_back(monkeypatch):
    one = Wsgi()

    def no_thread(*_: object) -> Any:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(LeaseThread, "watch", no_thread)
    with pytest.raises(RuntimeError):
        one.ask()
    assert (one.held, one.paths) == (NOTHING, [])


def test_a_response_that_its_server_drops_is_given_back_what_it_did_not_serve():
    one = Wsgi()
    environ = WsgiServer.environ(one, ASK, CHAT)  # type: ignore[arg-type]
    response = one.app(environ, lambda status, headers, exc_info=None: None)
    response.close()
    response.close()
    assert one.held == NOTHING
    one.app.close()


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 30])
def test_a_request_cancelled_while_it_is_settled_gives_back_the_place_it_regained(turns):
    one = Asgi()
    settling = asyncio.Event()

    def script() -> Any:
        yield from lapsing(one)()
        one.store.gate = asyncio.Event()
        settling.set()

    async def run() -> None:
        one.kind, one.script = "text/event-stream", script
        asking = asyncio.ensure_future(one.asked(STREAM))
        await settling.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert one.store.gate is not None
        one.store.gate.set()
        await asyncio.gather(asking, return_exceptions=True)
        await one.app.door.close()
        await one.guard.close()

    asyncio.run(run())
    assert one.held == STREAMED


def test_a_regain_that_comes_when_the_request_is_over_is_given_back():
    one = Asgi()
    gate = None

    def script() -> Any:
        nonlocal gate
        first, *rest = chat_stream(2)
        yield first
        one.clock.advance(LEASE + 1)
        gate = one.store.gate = asyncio.Event()
        yield rest.pop(0)
        # The place is asked for by now, and the answer is still to come.
        one.store.gate = None
        yield from rest

    async def run() -> None:
        one.kind, one.script = "text/event-stream", script
        assert await one.asked(STREAM) == 200
        assert len(one.script_store.asked) == 1
        assert gate is not None
        gate.set()
        await one.app.door.close()
        assert len(one.script_store.asked) == 2
        await one.guard.close()

    asyncio.run(run())
    assert one.held == STREAMED


def test_a_place_that_was_regained_is_renewed_from_then_on(any_way):
    one = any_way()

    def script() -> Any:
        first, second, *rest = chat_stream(2)
        yield first
        one.clock.advance(LEASE + 1)
        yield second
        for piece in rest:
            one.clock.advance(LEASE / 2)
            yield piece

    one.kind, one.script = "text/event-stream", script
    assert (one.ask(STREAM), one.held) == (200, STREAMED)
    assert len(one.script_store.asked) == one.decisions + 1


def test_a_door_that_closes_waits_for_what_it_has_begun():
    one = Asgi()

    def script() -> Any:
        first, *rest = chat_stream(2)
        yield first
        one.clock.advance(LEASE / 2)
        one.store.gate = asyncio.Event()
        yield from rest

    async def run() -> None:
        one.kind, one.script = "text/event-stream", script
        asking = asyncio.ensure_future(one.asked(STREAM))
        for _ in range(300):
            await asyncio.sleep(0)
        closing = asyncio.ensure_future(one.app.door.close())
        for _ in range(50):
            await asyncio.sleep(0)
        assert one.app.door._tasks
        assert not closing.done()
        assert one.store.gate is not None
        one.store.gate.set()
        await closing
        assert not one.app.door._tasks
        await asking
        await one.guard.close()

    asyncio.run(run())
    assert one.held == STREAMED


def test_leases_are_renewed_while_a_host_is_silent_and_no_longer():
    hand = Hand()
    one = Asgi()

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(10):
            one.clock.advance(LEASE / 2)
            await asyncio.sleep(LEASE / 2)
        assert one.held["places"] == 1
        start = {"type": "http.response.start", "status": 200, "headers": []}
        await send({**start, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": completion(), "more_body": False})

    async def run() -> int:
        status = await one.asked()
        loop: Any = asyncio.get_running_loop()
        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []
        sent = len(one.script_store.sent)
        one.clock.advance(10 * LEASE)
        await asyncio.sleep(10 * LEASE)
        assert len(one.script_store.sent) == sent
        return status

    one.app.app = silent
    with asyncio.Runner(loop_factory=lambda: HandLoop(hand)) as runner:
        assert runner.run(run()) == 200
    assert one.held == SERVED


def test_a_door_that_closes_ends_its_thread_though_the_door_is_kept():
    def alive() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == THREAD}

    before = alive()
    one = Wsgi(POLICY.replace("lease: 9s", "lease: 1h"))
    assert one.ask() == 200
    (thread,) = alive() - before
    one.app.close()
    thread.join(30)
    assert not thread.is_alive()
    assert one.app.door is not None

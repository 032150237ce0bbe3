"""FastAPI: the middleware around an app, and limits that an endpoint states itself."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import ANY

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.requests import HTTPConnection
from fastapi.responses import Response, StreamingResponse

from guardrail.errors import SettingError
from guardrail.guard import AsyncGuard
from guardrail.http.fastapi import Allowance, limited
from guardrail.signals.directory import Identity
from guardrail.testing import MovableClock
from tests.engine.tracing import records as records_in
from tests.http.accounts import Accounts
from tests.http.driving import ASK, CHAT, Guarded, chat_stream, completion
from tests.loaded import loaded
from tests.stores.timed import Hand, HandLoop

POLICY = """
guardrail: 1
policy: images
units: [images]
rules:
  - {id: calls, when: always, budget: {requests: 100, per: day, key: account.id}}
  - id: images
    when: {request.capability: image}
    unknown: skip
    budget: {images: 10, per: day, key: account.id}
"""
IMAGES = {"request.capability": "image"}


def built(facts=IMAGES, **options):
    app = FastAPI()
    allowed = Depends(limited(facts, {"images": 4}, **options))

    @app.post("/draw")
    async def draw(allowance: Allowance = allowed, fail: bool = False) -> dict:
        if fail:
            raise RuntimeError("no ink")
        allowance.usage["images"] = 3
        return {"drawn": 3}

    return app


def post(app, *paths):
    async def run():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("8.8.8.8", 1))
        headers = {"authorization": "Bearer key-a"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://api.test", headers=headers
        ) as client:
            return [await client.post(path) for path in paths]

    return asyncio.run(run())


def test_an_endpoint_asks_for_what_only_it_knows_and_settles_what_it_used():
    guarded = Guarded(POLICY, built())
    answers = post(guarded.app, *["/draw"] * 4)

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert guarded.used("images", **IMAGES) == 9


def test_its_refusal_is_answered_as_the_doors_own():
    guarded = Guarded(POLICY, built())
    refused = post(guarded.app, *["/draw"] * 4)[-1]

    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["violated-policies"] == ["images"]
    assert refused.headers["retry-after"] == "43200"
    assert guarded.used("calls") == 3


def test_what_an_endpoint_sends_after_its_refusal_is_not_passed_on():
    async def app(scope, receive, send):
        connection = HTTPConnection(scope)
        with pytest.raises(HTTPException):
            await anext(limited(IMAGES, {"images": 11})(connection))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"drawn", "more_body": True})
        await send({"type": "http.response.body", "body": b"!", "more_body": False})

    call = Guarded(POLICY, app).ask()

    assert [message["type"] for message in call.sent] == [
        "http.response.start",
        "http.response.body",
    ]
    assert call.status == 400
    assert call.json["error"]["code"] == "request_exceeds_quota"


def test_an_endpoint_that_raises_is_charged_nothing():
    guarded = Guarded(POLICY, built())
    answers = post(guarded.app, "/draw?fail=1")

    assert answers[0].status_code == 500
    assert guarded.used("images", **IMAGES) == 0


def test_a_guard_of_its_own_needs_no_middleware():
    guard = AsyncGuard.from_policies(loaded(POLICY), clock=MovableClock(), environ={})
    answers = post(built(lambda _: {**IMAGES, "account.id": "a"}, guard=guard), *["/draw"] * 4)

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert "retry-after" in answers[-1].headers
    assert answers[-1].json()["detail"]


def test_without_any_guard_it_says_what_to_do():
    dependency: Any = limited()
    connection = HTTPConnection({"type": "http", "headers": []})

    with pytest.raises(SettingError, match=r"add `guardrail\.asgi\.GuardrailMiddleware`"):
        asyncio.run(anext(dependency(connection)))


ONE = """
guardrail: 1
policy: one
units: [images]
rules:
  - {id: places, when: always, concurrency: {max: 1, key: account.id}}
  - {id: calls, when: always, budget: {requests: 2, per: day, key: account.id}}
  - {id: pace, when: always, rate: {requests: 2/day, key: account.id}}
  - id: pictures
    when: {request.capability: image}
    unknown: skip
    budget: {requests: 1, images: 10, per: day, key: account.id}
"""


def records_of(app, policy, *paths):
    """Return the answers to some posts, and what the decision log says of them."""
    records: list[dict] = []

    class Sink:
        def write(self, record):
            records.append(record)

        def close(self):
            pass

    guarded = Guarded(policy, app, decision_sink=Sink())
    return post(guarded.app, *paths), records, guarded


def test_a_limit_with_one_place_and_limits_of_requests_count_a_call_once():
    answers, _, guarded = records_of(built({"request.capability": "other"}), ONE, *["/draw"] * 3)

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert guarded.used("calls") == 2
    assert guarded.used("places") == 0


def test_a_rule_that_applies_by_what_the_endpoint_says_counts_the_whole_request():
    answers, _, guarded = records_of(built(), ONE, *["/draw"] * 2)

    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[1].json()["reason"] == "pictures"
    assert guarded.used("calls") == 1
    assert guarded.used("places") == 0


def test_what_an_endpoint_adds_is_in_the_log_and_the_metrics():
    answers, records, guarded = records_of(built(), POLICY, *["/draw"] * 4)
    metrics = guarded.app.metrics()

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    endings = [(record["effect"], record["ending"], record["usage"]) for record in records]
    assert endings[:2] == [("allow", "released", None), ("allow", "settled", ANY)]
    assert endings[1][2]["images"] == 3
    assert endings[-2:] == [("allow", "released", None), ("throttle", "refused", None)]
    assert 'effect="throttle"' in metrics or 'decision="throttle"' in metrics


def test_an_endpoint_that_refuses_by_itself_is_charged_its_request_alone():
    app = FastAPI()
    allowed = Depends(limited(IMAGES, {"images": 4}))

    @app.post("/draw")
    async def draw(allowance: Allowance = allowed) -> dict:
        allowance.usage["images"] = 2
        raise HTTPException(422, "no such style")

    answers, _, guarded = records_of(app, POLICY, "/draw")

    assert answers[0].status_code == 422
    assert guarded.used("images", **IMAGES) == 0
    assert guarded.used("calls") == 1


def test_what_is_not_said_of_an_addition_stays_as_reserved():
    app = FastAPI()
    allowed = [Depends(limited(IMAGES, {"images": 4})), Depends(limited(None, {"images": 2}))]

    @app.post("/draw", dependencies=allowed)
    async def draw() -> dict:
        return {}

    answers, _, guarded = records_of(app, POLICY, "/draw")

    assert answers[0].status_code == 200
    assert guarded.used("images", **IMAGES) == 6
    assert guarded.used("calls") == 1


@pytest.mark.parametrize("amount", [-1, float("nan"), "4"])
def test_an_amount_that_is_none_does_not_lower_what_the_request_counts(amount):
    app = FastAPI()

    @app.post("/draw", dependencies=[Depends(limited(None, {"requests": amount}))])
    async def draw() -> dict:
        return {}

    answers, _, guarded = records_of(app, POLICY, "/draw")

    assert answers[0].status_code != 200 or guarded.used("calls") >= 1


def test_a_request_that_is_decided_anew_is_renewed_and_ends_once():
    app = FastAPI()
    seen: list[object] = []

    @app.post("/draw", dependencies=[Depends(limited(IMAGES, {"images": 1}))])
    async def draw() -> StreamingResponse:
        async def pieces():
            for _ in range(3):
                guarded.clock.advance(400)
                yield b"piece"
                for task in list(guarded.app.door._tasks):
                    await task
                other = await guarded.guard.decide({"account.id": "acct-a"}, {"requests": 0})
                seen.append(other.allowed)
                await guarded.guard.release(other)

        return StreamingResponse(pieces())

    guarded = Guarded(ONE, app)
    answers = post(guarded.app, "/draw")

    assert answers[0].status_code == 200
    assert seen == [False, False, False]
    assert guarded.used("places") == 0


def test_a_decision_beside_the_middlewares_is_logged_too():
    other = AsyncGuard.from_policies(loaded(POLICY), clock=MovableClock(), environ={})
    answers, records, guarded = records_of(built(guard=other), ONE, *["/draw"] * 2)

    assert [answer.status_code for answer in answers] == [200, 200]
    assert [record["ending"] for record in records] == ["settled"] * 4
    assert guarded.used("calls") == 2


def test_a_settlement_that_fails_does_not_reach_the_client(caplog):
    clock = MovableClock()
    guard = AsyncGuard.from_policies(loaded(POLICY), clock=clock, environ={})
    app = FastAPI()
    allowed = Depends(limited({"account.id": "a"}, guard=guard))

    @app.post("/draw", dependencies=[allowed])
    async def draw() -> dict:
        clock.now = float("nan")
        return {"drawn": 1}

    answers = post(app, "/draw")

    assert answers[0].json() == {"drawn": 1}
    assert "stays as reserved" in caplog.text


def test_facts_whose_source_failed_are_unavailable_to_another_guard_too():
    class Away(Accounts):
        async def find(self, credential, now):
            return Identity(unavailable=frozenset({"account.tier"}))

    tiers = """
guardrail: 1
policy: tiers
facts: {account.tier: {type: level, values: [free, paid], default: free}}
rules:
  - {id: paid, when: {account.tier: paid}, unknown: skip, block: {reason: paid}}
"""
    other = AsyncGuard.from_policies(loaded(tiers), clock=MovableClock(), environ={})
    guarded = Guarded(POLICY, built(guard=other), directory=Away())
    answers = post(guarded.app, "/draw")

    assert answers[0].status_code == 503
    assert answers[0].json()["code"] == "facts_unavailable"


def test_the_leases_of_a_request_that_is_decided_anew_count_from_then():
    app = FastAPI()
    before: list[Any] = []

    def waits(connection: HTTPConnection) -> dict[str, object]:
        # Meanwhile the process was suspended: the first decision's place may be another's by now.
        guarded.clock.advance(4_000)
        return dict(IMAGES)

    @app.post("/draw", dependencies=[Depends(limited(waits, {"images": 1}))])
    async def draw(connection: HTTPConnection) -> StreamingResponse:
        async def pieces():
            before.append(connection.scope["guardrail.passage"].decision.id)
            yield b"piece"
            yield b"piece"

        return StreamingResponse(pieces())

    guarded = Guarded(ONE, app)
    asked: list[Any] = []
    decide = guarded.guard.decide

    async def counted(facts, estimate, **more):
        asked.append(estimate)
        return await decide(facts, estimate, **more)

    guarded.guard.decide = counted
    answers = post(guarded.app, "/draw")

    assert answers[0].status_code == 200
    assert len(before) == 1
    # The request, and the request with what the endpoint adds: no place was taken anew.
    assert [estimate.get("images", 0) for estimate in asked] == [0, 1]
    assert guarded.used("places") == 0


def test_a_request_that_is_refused_anew_twice_is_recorded_once_each():
    app = FastAPI()

    @app.post("/draw")
    async def draw(connection: HTTPConnection) -> dict:
        passage = connection.scope["guardrail.passage"]
        for _ in range(2):
            refused = await passage.anew(IMAGES, {"images": 11})
            assert not refused.allowed
        return {}

    _, records, _ = records_of(app, POLICY, "/draw")

    assert [record["ending"] for record in records] == ["released", "refused", "refused"]
    assert len({record["id"] for record in records}) == 3


METERED = """
guardrail: 1
policy: metered
units: [images]
models: {small: {max_output: 200}}
rules:
  - {id: calls, when: always, budget: {requests: 100, per: day, key: account.id}}
  - {id: tokens, when: always, budget: {tokens: 100k, per: day, key: account.id}}
  - {id: places, when: always, concurrency: {max: 1, lease: 9s, key: account.id}}
  - id: images
    when: {request.capability: image}
    unknown: skip
    budget: {images: 10, per: day, key: account.id}
  - {id: never, when: {request.model: never}, unknown: skip, block: {reason: never}}
"""


def chats(app, policy, **options):
    """Return what came of one chat, how it is recorded, and the guarded app."""
    records: list[dict] = []

    class Sink:
        def write(self, record):
            records.append(record)

        def close(self):
            pass

    guarded = Guarded(policy, app, decision_sink=Sink(), **options)

    async def run():
        transport = httpx.ASGITransport(app=guarded.app, client=("8.8.8.8", 1))
        headers = {"authorization": "Bearer key-a", "content-type": "application/json"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://api.test", headers=headers
        ) as client:
            return await client.post(CHAT, content=ASK)

    return asyncio.run(run()), records, guarded


@pytest.mark.parametrize(
    ("facts", "added"), [(IMAGES, {"images": 11}), ({"request.model": "never"}, {})]
)
@pytest.mark.parametrize("others", [False, True], ids=["free", "taken"])
def test_what_is_served_after_a_refusal_in_its_course_is_charged(facts, added, others):
    app = FastAPI()
    seen: list[object] = []

    @app.post(CHAT)
    async def chat(connection: HTTPConnection) -> StreamingResponse:
        passage = connection.scope["guardrail.passage"]

        async def pieces():
            first, *rest = chat_stream(2)
            yield first
            decide = passage.guard.decide

            async def taking(*given, **more):
                # Another request takes the only place between two decisions.
                found = await decide(*given, **more)
                if others:
                    seen.append(await decide({"account.id": "acct-a"}, {"requests": 0}))
                return found

            passage.guard.decide = taking
            refused = await passage.anew(facts, added)
            passage.guard.decide = decide
            assert not refused.allowed
            for piece in rest:
                yield piece
            for other in seen:
                await passage.guard.release(other)

        return StreamingResponse(pieces(), media_type="text/event-stream")

    answer, records, guarded = chats(app, METERED)

    assert answer.status_code == 200
    assert (guarded.used("calls"), guarded.used("tokens"), guarded.used("places")) == (1, 12, 0)
    endings = [record["ending"] for record in records]
    assert endings == ["released", "refused", "refused" if others else "settled"]


def test_what_is_decided_on_after_a_response_is_charged_by_itself():
    app = FastAPI()

    @app.post(CHAT)
    async def chat(connection: HTTPConnection, tasks: BackgroundTasks) -> Response:
        passage = connection.scope["guardrail.passage"]
        passage.exchange.added.append(({}, lambda: {"images": 1}))

        async def draw() -> None:
            assert (await passage.anew(IMAGES, {"images": 3})).allowed
            assert guarded_places() == 1
            assert (await passage.anew(IMAGES, {"images": 4})).allowed
            assert not (await passage.anew(IMAGES, {"images": 40})).allowed

        def guarded_places() -> int:
            tables: dict[str, Any] = dict(records_in(passage.guard._store))
            return sum(len(r) for k, r in tables.items() if k[:8] == places(passage.guard))

        tasks.add_task(draw)
        return Response(completion(), media_type="application/json")

    def places(guard: Any) -> Any:
        limits = guard._context.engine.limits
        return next(each for each in limits if each and each.rule.id == "places").idents[0]

    answer, records, guarded = chats(app, METERED)

    assert answer.status_code == 200
    assert (guarded.used("calls"), guarded.used("tokens"), guarded.used("places")) == (1, 30, 0)
    # What the refusal added is not; that it was decided on the rest once more is a line too.
    assert guarded.used("images", **IMAGES) == 7
    endings = [record["ending"] for record in records]
    assert endings == ["settled", "released", "released", "refused", "settled"]


def test_a_place_that_a_decision_beside_took_is_kept_while_its_endpoint_runs():
    hand, clock = Hand(), MovableClock()
    policy = loaded(METERED)
    guard = AsyncGuard.from_policies(policy, clock=clock, environ={})
    asks = {"account.id": "a"}

    async def run() -> None:
        dependency: Any = limited(asks, {"requests": 1}, guard=guard)
        running = dependency(HTTPConnection({"type": "http", "headers": []}))
        await anext(running)
        for _ in range(10):
            clock.advance(4)
            await asyncio.sleep(4)
            assert not (await guard.decide(asks, {"requests": 0})).allowed
        with pytest.raises(StopAsyncIteration):
            await anext(running)
        assert (await guard.decide(asks, {"requests": 0})).allowed
        loop: Any = asyncio.get_running_loop()
        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []

    with asyncio.Runner(loop_factory=lambda: HandLoop(hand)) as runner:
        runner.run(run())

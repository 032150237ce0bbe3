"""FastAPI: the middleware around an app, and limits that an endpoint states itself."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.requests import HTTPConnection

from guardrail.errors import SettingError
from guardrail.guard import AsyncGuard
from guardrail.http.fastapi import Allowance, limited
from guardrail.loading import load_text
from guardrail.testing import MovableClock
from tests.http.driving import Guarded

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
    allowed = Depends(limited(facts, {"images": 4, "requests": 0}, **options))

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


def test_an_endpoint_that_raises_is_charged_nothing():
    guarded = Guarded(POLICY, built())
    answers = post(guarded.app, "/draw?fail=1")

    assert answers[0].status_code == 500
    assert guarded.used("images", **IMAGES) == 0


def test_a_guard_of_its_own_needs_no_middleware():
    guard = AsyncGuard.from_policies(load_text(POLICY), clock=MovableClock(), environ={})
    answers = post(built(lambda _: {**IMAGES, "account.id": "a"}, guard=guard), *["/draw"] * 4)

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert "retry-after" in answers[-1].headers
    assert answers[-1].json()["detail"]


def test_without_any_guard_it_says_what_to_do():
    dependency: Any = limited()
    connection = HTTPConnection({"type": "http", "headers": []})

    with pytest.raises(SettingError, match=r"add `guardrail\.asgi\.GuardrailMiddleware`"):
        asyncio.run(anext(dependency(connection)))

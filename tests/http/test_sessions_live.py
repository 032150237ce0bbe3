"""Sessions through a real server, with the clients that people use."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.http.driving import Guarded
from tests.http.test_asgi_sessions import (
    CONTENT,
    LIVE,
    POLICY,
    SETUP,
    Host,
    live,
    responses,
    transcribe,
)

KEY = {"authorization": "Bearer key-a"}


def talking(event):
    """Answer as the host that its frames are for."""
    if event.get("type") != "response.create":
        yield from transcribe(event) if "type" in event else live(event)
        return
    yield from responses(event)
    done = {"id": "r", "status": "completed", "usage": {"input_tokens": 7, "output_tokens": 5}}
    if "model" not in event:
        yield {"type": "response.done", "event_id": "d", "response": done}


@asynccontextmanager
async def served(guarded):
    """Serve a guarded host until the block ends; give its port."""
    config = uvicorn.Config(guarded.app, port=0, lifespan="off", log_level="warning")
    server = uvicorn.Server(config)
    task = asyncio.ensure_future(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
            assert not task.done()
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task
        await guarded.app.door.close()


def visit(guarded, scenario):
    """Run a scenario with the port of a real server."""

    async def run():
        async with served(guarded) as port:
            await scenario(port)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "frames", "closes"),
    [
        ("/v1/responses", [{"type": "response.create", "model": "m", "input": "x"}] * 3, False),
        ("/v1/realtime?model=m", [{"type": "response.create"}] * 3, False),
        (
            "/v1/realtime?intent=transcription",
            [{"type": "input_audio_buffer.commit"}] * 3,
            False,
        ),
        (LIVE, [SETUP, CONTENT, CONTENT, CONTENT], True),
    ],
)
def test_two_turns_a_day_are_two_turns_a_day(path, frames, closes):
    guarded = Guarded(POLICY, Host(talking))

    async def scenario(port):
        url = f"ws://127.0.0.1:{port}{path}"
        async with connect(url, additional_headers=KEY, compression=None) as client:
            for one in frames:
                await client.send(json.dumps(one))
            with suppress(ConnectionClosed):
                async for text in client:
                    if json.loads(text).get("type") == "error":
                        break
            assert client.close_code == (1013 if closes else None)

    visit(guarded, scenario)

    used = [guarded.used(rule) for rule in ("turns", "tokens", "places")]
    assert used == [2, 24, 0]
    assert len(guarded.host.heard) == 2 + closes


def test_a_client_that_vanishes_in_a_turn_pays_for_it_and_leaves_no_place():
    guarded = Guarded(POLICY, Host(lambda event: [{"type": "response.created"}]))

    async def scenario(port):
        url = f"ws://127.0.0.1:{port}/v1/realtime?model=m"
        client = await connect(url, additional_headers=KEY)
        await client.send(json.dumps({"type": "response.create"}))
        await client.recv()
        client.transport.abort()
        while not guarded.host.codes:
            await asyncio.sleep(0.01)

    visit(guarded, scenario)

    assert (guarded.used("turns"), guarded.used("places")) == (1, 0)


def sdk(openai, port):
    return openai.AsyncOpenAI(
        api_key="key-a",
        base_url=f"http://127.0.0.1:{port}/v1",
        http_client=openai.DefaultAsyncHttpxClient(verify=False),
    )


def test_the_openai_sdk_is_told_of_a_refused_turn_and_goes_on(openai):
    guarded = Guarded(POLICY, Host(talking))
    kinds = []

    async def scenario(port):
        async with sdk(openai, port) as client, client.realtime.connect(model="m") as session:
            for number in range(3):
                await session.response.create(event_id=f"e{number}")
            async for event in session:
                kinds.append(event.type)
                if event.type == "error":
                    assert event.error.code == "insufficient_quota"
                    assert event.error.event_id == "e2"
                    break

    visit(guarded, scenario)

    assert kinds.count("response.done") == 2
    assert guarded.used("turns") == 2


def test_the_openai_sdk_is_told_of_a_refused_request_over_a_websocket(openai):
    guarded = Guarded(
        POLICY + "  - {id: tools, when: {request.tools: {gt: 0}}, block: {reason: no_tools}}\n",
        Host(talking),
    )
    events = []

    async def scenario(port):
        async with sdk(openai, port) as client, client.responses.connect() as session:
            tool = {"type": "function", "name": "f", "parameters": {}, "strict": False}
            await session.response.create(model="m", input="hi", tools=[tool])
            await session.response.create(model="m", input="hi")
            async for event in session:
                events.append(event)
                if event.type == "response.completed":
                    break

    visit(guarded, scenario)

    assert (events[0].type, events[0].code) == ("error", "no_tools")
    assert [event.get("tools") for event in guarded.host.heard] == [None]

"""Connections of a real server that break at any point: settled by what was served of them."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from contextlib import suppress

import pytest

from tests.http.servers import serving, until
from tests.http.visits import PLAIN, POLICY, PROMPT, STREAM, reserved_input

REQUESTS, AT_ONCE = 300, 15
RESET = struct.pack("ii", 1, 0)
"""Makes `close` reset a connection, instead of ending it in order."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("aborts")
    with serving("uvicorn", folder, POLICY, host="witness") as running:
        yield running


def request_of(wanted, body):
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key-a\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nX-Do: {wanted}\r\n"
    )
    return head.encode() + b"\r\n" + body


async def visit(server, ending, draw):
    """Make one request, and break it off as its ending says."""
    slow = server.state()["slow"] if ending == "slow" else 0
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    wanted = ending if ending in ("plain", "stream", "slow", "endless") else "plain"
    body = STREAM if wanted in ("stream", "endless") else PLAIN
    request = request_of(wanted, body)
    sent = len(request)
    if ending == "in the head":
        sent = draw.randrange(1, len(request) - len(body) - 1)
    elif ending == "in the body":
        sent = draw.randrange(len(request) - len(body), len(request))
    writer.write(request[:sent])
    try:
        await writer.drain()
        if ending == "plain":
            await reader.readuntil(b'"total_tokens": 30}}')
        elif ending == "stream":
            await reader.readuntil(b"[DONE]")
        elif ending == "endless":
            await reader.readexactly(draw.randrange(1, 3000))
        elif ending == "slow" and draw.random() < 0.5:
            # One is with the host by then; others leave on their way to it.
            await asyncio.to_thread(until, lambda: server.state()["slow"] > slow)
    finally:
        if draw.random() < 0.5:
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


def cost(wanted, sent):
    """Return the tokens of one request that the host has served."""
    if wanted == "plain":
        return PROMPT + 20
    if wanted == "stream" and sent > 5:
        return PROMPT + 5
    if wanted == "slow":
        return reserved_input(PLAIN)
    return reserved_input(STREAM) + min(100, max(1, -(-sent * len("word ") // 4)))


def test_connections_that_break_anywhere_are_settled_by_what_was_served(server):
    draw = random.Random(7)
    whole = ["plain", "stream"]
    broken = ["in the head", "in the body", "slow", "endless"]
    left = iter(range(REQUESTS))

    async def keep_visiting():
        for number in left:
            await visit(server, draw.choice(whole if number % 3 else broken), draw)

    async def run():
        await asyncio.gather(*(keep_visiting() for _ in range(AT_ONCE)))

    asyncio.run(run())

    until(lambda: server.used()["places"] == 0)
    served = server.state()["served"]
    assert {wanted for wanted, _ in served} == {"plain", "stream", "slow", "endless"}
    assert len(served) >= REQUESTS * 2 // 3
    assert server.used() == {
        "calls": len(served),
        "tokens": sum(cost(*one) for one in served),
        "places": 0,
    }

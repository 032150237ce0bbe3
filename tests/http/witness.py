"""A host for tests that keeps what reached it, and what it was told of who asked.

`app` speaks ASGI, `application` WSGI. A request's header `x-do` tells how it is answered: `slow`
waits for its client to leave, `stream` ends by itself, `endless` does not. On `/state` stands what
was served, and on `/used` what the limits have counted.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress

from guardrail.asgi import GuardrailMiddleware
from guardrail.http.flow import STATE_KEY
from guardrail.wsgi import GuardrailMiddleware as WsgiMiddleware
from tests.http.accounts import Accounts
from tests.http.driving import SSE, chat_stream, completion

STATE = {"visits": 0, "unguarded": 0, "slow": 0}
SERVED: list[tuple[str, int]] = []
"""How each request was answered, and how many pieces of its stream were sent."""
NOTHING = {"requests": 0, "input_tokens": 0, "output_tokens": 0}
FACTS = {"account.id": "acct-a", "account.org": "org-a"}


def told(passage):
    """Return who asks, by the guard's word; a request that it has not seen is counted apart."""
    STATE["visits"] += 1
    if passage is None:
        STATE["unguarded"] += 1
        return b"{}"
    facts = passage.decision.facts
    names = ("account.id", "credential.id", "client.ip")
    return json.dumps({name: facts.get(name) for name in names}).encode()


def counted(decision):
    """Return what the limits have counted, the place of the question itself left out."""
    return {s.rule: s.used - (s.unit == "concurrent-requests") for s in decision.limits}


async def host(scope, receive, send):
    """Answer one request as its header asks."""
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
    elif scope["path"] == "/state":
        await answer(send, json.dumps({**STATE, "served": SERVED}).encode())
    elif scope["path"] == "/used":
        decision = await app.door.guard.decide(FACTS, NOTHING)
        await app.door.guard.release(decision)
        await answer(send, json.dumps(counted(decision)).encode())
    else:
        wanted = dict(scope["headers"]).get(b"x-do", b"").decode("latin-1")
        await serve(wanted, scope, receive, send)


async def serve(wanted, scope, receive, send):
    """Answer one guarded request."""
    more = True
    while more:
        message = await receive()
        more = message["type"] == "http.request" and message.get("more_body", False)
    if wanted == "slow":
        STATE["slow"] += 1
        await receive()
        SERVED.append((wanted, 0))
    elif wanted in ("stream", "endless"):
        await stream(wanted, receive, send)
    elif wanted == "plain":
        SERVED.append((wanted, 0))
        await answer(send, completion())
    else:
        # A tunnel that is agreed to is no HTTP from there on.
        status = 405 if scope["method"] == "CONNECT" else 200
        await answer(send, told(scope.get(STATE_KEY)), status)


async def stream(wanted, receive, send):
    """Stream words: five, or as many as the client stays for."""
    sent = 0
    await send({"type": "http.response.start", "status": 200, "headers": SSE})
    left = asyncio.ensure_future(receive())
    pieces = chat_stream(5)
    try:
        while not left.done() and sent < (len(pieces) if wanted == "stream" else 10_000):
            piece = pieces[sent] if wanted == "stream" else pieces[0]
            sent += 1
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            if wanted == "endless":
                await asyncio.wait({left}, timeout=0.002)
        with suppress(OSError):
            await send({"type": "http.response.body", "body": b""})
    finally:
        left.cancel()
        SERVED.append((wanted, sent))


async def answer(send, body, status=200):
    """Send one JSON body."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def wsgi_host(environ, start_response):
    """Answer one request with who asks."""
    if environ["PATH_INFO"] == "/state":
        body = json.dumps(STATE).encode()
    elif environ["PATH_INFO"] == "/used":
        guard = application.door.guard
        decision = guard.decide(FACTS, NOTHING)
        guard.release(decision)
        body = json.dumps(counted(decision)).encode()
    else:
        environ["wsgi.input"].read()
        body = told(environ.get(STATE_KEY))
    headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


DIRECTORY = Accounts(hash_key=os.environ["GUARDRAIL_HASH_KEY"].encode())
app = GuardrailMiddleware(host, directory=DIRECTORY)
application = WsgiMiddleware(wsgi_host, directory=DIRECTORY)

"""A model API for tests, to be served by real servers: guarded as `GUARDRAIL_CONFIG` says.

`app` speaks ASGI, `application` WSGI. Both stream words on `/v1/chat/completions`, and tell on
`/state` what they saw, on `/used` what a limit has counted and on `/whoami` who asks.
"""

from __future__ import annotations

import asyncio
import json
import os
import time

from guardrail.asgi import GuardrailMiddleware
from guardrail.http.flow import STATE_KEY
from guardrail.wsgi import GuardrailMiddleware as WsgiMiddleware
from tests.http.accounts import Accounts
from tests.http.driving import chat_stream, completion

NOTHING = {"requests": 0, "input_tokens": 0, "output_tokens": 0}
STATE = {"disconnects": 0, "finished": 0}
FACTS = {"account.id": "acct-a", "account.org": "org-a", "client.network": "127.0.0.1"}


async def host(scope, receive, send):
    """Answer one request as its path and body ask."""
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
    elif scope["path"] == "/state":
        await answer(send, json.dumps({**STATE, "process": os.getpid()}).encode())
    elif scope["path"] == "/used":
        await answer(send, json.dumps(await used(scope)).encode())
    elif scope["path"] == "/whoami":
        await answer(send, whoami(scope))
    else:
        await chat(receive, send)


def whoami(scope):
    """Return what was established of who asks."""
    facts = scope[STATE_KEY].decision.facts
    names = ("client.ip", "geo.country", "account.id", "account.tier")
    return json.dumps({name: facts[name] for name in names if name in facts}).encode()


async def chat(receive, send):
    """Complete a chat, at once or as a stream that goes on until its client leaves."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    asked = json.loads(body or b"{}")
    if not asked.get("stream"):
        await answer(send, completion())
        return
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/event-stream")],
        }
    )
    if asked.get("user") == "endless":
        await stream_until_left(receive, send)
        return
    for chunk in chat_stream(30):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b""})
    STATE["finished"] += 1


async def stream_until_left(receive, send):
    """Stream words until the server says that the client has left."""
    left = asyncio.ensure_future(receive())
    word = chat_stream(1, usage=False, done=False)[0]
    while not left.done():
        await send({"type": "http.response.body", "body": word, "more_body": True})
        await asyncio.wait({left}, timeout=0.005)
    STATE["disconnects"] += left.result()["type"] == "http.disconnect"


async def answer(send, body):
    """Send one JSON body."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def used(scope):
    """Return what each limit of `acct-a` has counted."""
    guard = app.door.guard
    decision = await guard.decide(FACTS, NOTHING)
    await guard.release(decision)
    return counted(decision)


def counted(decision):
    """Return the counts of a decision, its own place in flight left out."""
    return {s.rule: s.used - (s.unit == "concurrent-requests") for s in decision.limits}


def wsgi_host(environ, start_response):
    """Answer one request as its path and body ask."""
    path = environ["PATH_INFO"]
    if path == "/state":
        body = json.dumps({**STATE, "process": os.getpid()}).encode()
    elif path == "/used":
        guard = application.door.guard
        decision = guard.decide(FACTS, NOTHING)
        guard.release(decision)
        body = json.dumps(counted(decision)).encode()
    elif path == "/whoami":
        body = whoami(environ)
    else:
        asked = json.loads(environ["wsgi.input"].read() or b"{}")
        if asked.get("stream"):
            start_response("200 OK", [("content-type", "text/event-stream")])
            return words(asked.get("user") == "endless")
        body = completion()
    start_response("200 OK", [("content-type", "application/json")])
    return [body]


def words(endless):
    """Stream words, for ever if asked to: the server ends it when a write fails."""
    try:
        if endless:
            while True:
                yield chat_stream(1, usage=False, done=False)[0]
                time.sleep(0.005)
        yield from chat_stream(30)
    except GeneratorExit:
        STATE["disconnects"] += 1
        raise


DIRECTORY = Accounts(hash_key=os.environ["GUARDRAIL_HASH_KEY"].encode())
app = GuardrailMiddleware(host, directory=DIRECTORY)
application = WsgiMiddleware(wsgi_host, directory=DIRECTORY)

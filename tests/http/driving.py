"""Drives an ASGI application by hand, message by message, and keeps what it did."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from guardrail.asgi import GuardrailMiddleware
from guardrail.guard import AsyncGuard
from guardrail.testing import MovableClock
from tests.http.accounts import Accounts
from tests.loaded import loaded

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
ASK = json.dumps(
    {"model": "small", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}
).encode()


def scope_of(path=CHAT, method="POST", headers=(), key="key-a", body=None, **more):
    """Return the scope of a request, with a credential, and the length and type of a body."""
    fields = [(b"host", b"api.test"), *headers]
    if body is not None and not any(name.lower() == b"content-type" for name, _ in headers):
        fields.append((b"content-type", b"application/json"))
    if key is not None:
        fields.append((b"authorization", f"Bearer {key}".encode()))
    if body is not None:
        fields.append((b"content-length", str(len(body)).encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": fields,
        "client": ("8.8.8.8", 50000),
        "server": ("127.0.0.1", 80),
        **more,
    }


class Call:
    """One call of an application: what it is given, what it asked for, what it sent."""

    def __init__(self, scope, messages=()):
        self.scope = scope
        self.sent = []
        self.received = self.received_first = 0
        self._messages = list(messages)
        self.left = asyncio.Event()

    async def receive(self):
        self.received += 1
        if self._messages:
            return self._messages.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        if not self.sent:
            self.received_first = self.received
        self.sent.append(message)

    async def run(self, app):
        await app(self.scope, self.receive, self.send)
        return self

    @property
    def status(self):
        return next(m["status"] for m in self.sent if m["type"].endswith("response.start"))

    @property
    def headers(self):
        start = next(m for m in self.sent if m["type"].endswith("response.start"))
        return {name.decode(): value.decode() for name, value in start["headers"]}

    @property
    def body(self):
        return b"".join(m.get("body", b"") for m in self.sent if m["type"].endswith(".body"))

    @property
    def json(self):
        return json.loads(self.body)


def body_messages(*chunks):
    """Return the messages of a body that comes in pieces."""
    return [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks) - 1}
        for number, chunk in enumerate(chunks)
    ]


def ask(app, body=ASK, messages=None, **scope):
    """Run one request to its end and return the call."""
    if messages is None:
        messages = body_messages(b"" if body is None else body)
    return asyncio.run(Call(scope_of(body=body, **scope), messages).run(app))


class Host:
    """An application that answers as told and keeps what it was asked."""

    def __init__(self, chunks=(b"{}",), status=200, headers=(), fails=None):
        self.chunks = chunks
        self.status = status
        self.headers = list(headers)
        self.fails = fails
        self.bodies = []
        self.scopes = []

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.bodies.append(body)
        if self.fails == "before":
            raise RuntimeError("no model")
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        for chunk in self.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if self.fails == "after":
            raise RuntimeError("the model broke")
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def completion(model="small", prompt=10, output=20):
    """Return a chat completion that tells its usage."""
    usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    choice = {"index": 0, "message": {"role": "assistant", "content": "ok"}}
    return json.dumps({"id": "c", "model": model, "choices": [choice], "usage": usage}).encode()


def chat_stream(pieces=3, usage=True, done=True, model="small") -> list[bytes]:
    """Return the events of a streamed chat completion, each a chunk."""
    events: Iterable[dict] = [
        {"id": "c", "model": model, "choices": [{"index": 0, "delta": {"content": "word "}}]}
    ] * pieces
    chunks = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    if usage:
        told = {"prompt_tokens": 10, "completion_tokens": pieces, "total_tokens": 10 + pieces}
        last = {"id": "c", "model": model, "choices": [], "usage": told}
        chunks.append(b"data: " + json.dumps(last).encode() + b"\n\n")
    return [*chunks, b"data: [DONE]\n\n"] if done else chunks


SSE = [(b"content-type", b"text/event-stream")]
JSON = [(b"content-type", b"application/json")]


class Guarded:
    """A host behind the middleware, on a clock that moves when told to."""

    def __init__(self, policy, host=None, store=None, **options):
        self.clock = MovableClock()
        more = {} if store is None else {"store": store}
        self.guard: Any = AsyncGuard.from_policies(
            loaded(policy), clock=self.clock, environ={}, **more
        )
        self.host: Any = host or Host([completion()], headers=JSON)
        self.directory = options.setdefault("directory", Accounts())
        self.app = GuardrailMiddleware(
            self.host,
            guard=self.guard,
            clock=self.clock,
            jitter=lambda: 0.0,
            **{"hash_key": b"k" * 32, "environ": {}, **options},
        )

    def ask(self, body=ASK, **scope):
        return ask(self.app, body, **scope)

    def used(self, rule, **facts):
        """Return what one limit has counted, without charging it."""
        stated = {"account.id": "acct-a", "account.org": "org-a", **facts}
        estimate = {"requests": 0, "input_tokens": 0, "output_tokens": 0, "images": 0}
        decision = asyncio.run(self.guard.decide(stated, estimate))
        status = next(limit for limit in decision.limits if limit.rule == rule)
        own = decision.allowed and status.unit == "concurrent-requests"
        used = status.used - own
        asyncio.run(self.guard.release(decision))
        return used

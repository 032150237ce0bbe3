"""Requests that end in every way there is, and what each of them must cost."""

from __future__ import annotations

import asyncio
import json

from tests.http.driving import JSON, SSE, Call, body_messages, chat_stream, completion, scope_of
from tests.http.requests import asked

POLICY = """
guardrail: 1
policy: visits
models: {small: {max_output: 200}}
rules:
  - {id: calls, when: always, budget: {requests: 1M, per: day, key: account.id}}
  - {id: tokens, when: always, budget: {tokens: 1G, per: day, key: account.id}}
  - {id: places, when: always, concurrency: {max: 1000, lease: 10m, key: account.id}}
"""
CAP, PROMPT, LENGTH = 100, 10, 4
MESSAGES = [{"role": "user", "content": "hi"}]
PLAIN = json.dumps({"model": "small", "messages": MESSAGES, "max_tokens": CAP}).encode()
STREAM = PLAIN[:-1] + b', "stream": true}'
WORD = len("word ")

WHOLE = ("plain", "stream")
ABORTED = (
    "leaves before the body",
    "leaves in the body",
    "leaves before the response",
    "leaves in the stream",
    "cut off by the server",
    "fails before the response",
    "fails in the stream",
    "is cancelled",
)


def reserved_input(body):
    """Return the tokens of input that are reserved for a body."""
    return asked("/v1/chat/completions", body).estimate["input_tokens"]


INPUT = {False: reserved_input(PLAIN), True: reserved_input(STREAM)}


class Visit(Call):
    """One request, and how it ends: after `when` pieces of the stream, or `when` steps."""

    def __init__(self, account, ending, when, streams):
        streams = streams or "stream" in ending or "cut off" in ending
        body = STREAM if streams else PLAIN
        messages = body_messages(body)
        if ending == "leaves before the body":
            messages = []
        elif ending == "leaves in the body":
            messages = body_messages(body[:20], body[20:])[:1]
        super().__init__(scope_of(body=body, key=f"key-{account}", visit=self), messages)
        self.account = account
        self.ending = ending
        self.when = when
        self.streams = streams
        self.pieces = chat_stream(LENGTH) if streams else [completion("small", PROMPT, LENGTH)]
        self.started = self.failed = self.asked = False
        self.passed = 0
        self._steps = 0
        if ending.startswith("leaves"):
            self.left.set()

    async def receive(self):
        await self._step()
        return await super().receive()

    async def send(self, message):
        # The response counts as served once the guard has passed it on.
        if message["type"] == "http.response.start":
            self.started = True
        elif message.get("body") in self.pieces:
            self.passed += 1
        await self._step()
        if self.ending == "cut off by the server" and self.passed > self.when:
            raise ConnectionResetError

    async def _step(self):
        self._steps += 1
        if self.ending == "is cancelled" and self._steps == self.when:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        await asyncio.sleep(0)

    async def run(self, app):
        try:
            await super().run(app)
        except (RuntimeError, ConnectionResetError):
            self.failed = True
        except asyncio.CancelledError:
            self.failed = True
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
        return self

    @property
    def cost(self):
        """What it must cost, in requests and tokens, by what was served of it."""
        if not self.asked or (self.failed and not self.passed):
            return 0, 0
        if self.passed > LENGTH or (self.passed and not self.streams):
            return 1, PROMPT + LENGTH
        reserved = INPUT[self.streams]
        return 1, reserved if not self.started else reserved + max(1, -(-self.passed * WORD // 4))


async def model(scope, receive, send):
    """Serve a visit as its ending says."""
    visit = scope["visit"]
    message = await receive()
    assert message["body"] in (PLAIN, STREAM)
    visit.asked = True
    if visit.ending == "leaves before the response":
        assert (await receive())["type"] == "http.disconnect"
        return
    if visit.ending == "fails before the response":
        raise RuntimeError("no model")
    headers = SSE if visit.streams else JSON
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number, piece in enumerate(visit.pieces):
        if number == visit.when and visit.ending == "leaves in the stream":
            assert (await receive())["type"] == "http.disconnect"
            return
        if number == visit.when and visit.ending == "fails in the stream":
            raise RuntimeError("the model broke")
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})

"""Drives a WSGI application by hand, as a server does."""

from __future__ import annotations

import io
import json
from typing import Any

from guardrail.guard import Guard
from guardrail.testing import MovableClock
from guardrail.wsgi import GuardrailMiddleware
from tests.http.accounts import Accounts
from tests.http.driving import ASK
from tests.loaded import loaded

POLICY = """
guardrail: 1
policy: wsgi
models: {small: {max_output: 200}}
rules:
  - {id: calls, when: always, budget: {requests: 5, per: day, key: account.id}}
  - {id: tokens, when: always, budget: {tokens: 10k, per: day, key: account.id}}
  - {id: places, when: always, concurrency: {max: 5, lease: 10m, key: account.id}}
"""
SSE = [("Content-Type", "text/event-stream")]
JSON = [("Content-Type", "application/json")]
STREAM = json.dumps({"model": "small", "messages": [], "max_tokens": 100, "stream": True}).encode()


class Response:
    """The iterable of a host: counts how often it was closed."""

    def __init__(self, chunks):
        self._chunks = iter(chunks)
        self.closed = 0

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._chunks)

    def close(self):
        self.closed += 1


class Hosted:
    """A WSGI host behind the middleware, on a clock that moves when told to."""

    def __init__(self, app, policy=POLICY, **options):
        self.clock = MovableClock()
        self.guard = Guard.from_policies(loaded(policy), clock=self.clock, environ={})
        self.app: Any = GuardrailMiddleware(
            app,
            guard=self.guard,
            clock=self.clock,
            environ={},
            jitter=lambda: 0.0,
            hash_key=b"k" * 32,
            directory=Accounts(),
            **options,
        )
        self.started = []

    def environ(self, body=ASK, path="/v1/chat/completions", method="POST", **more):
        return {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SERVER_NAME": "api.test",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "8.8.8.8",
            "HTTP_AUTHORIZATION": "Bearer key-a",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body + b"the next request"),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            **more,
        }

    def start(self, status, headers, exc_info=None):
        self.started.append((int(status[:3]), dict(headers)))
        return lambda piece: self.written.append(piece)

    written: list[bytes] = []  # noqa: RUF012 - one list for the write callable of a test

    def ask(self, **more):
        response = self.app(self.environ(**more), self.start)
        try:
            body = b"".join(response)
        finally:
            close = getattr(response, "close", None)
            if close:
                close()
        return self.started[-1][0], self.started[-1][1], body

    def used(self, rule):
        facts = {"account.id": "acct-a"}
        nothing = {"requests": 0, "input_tokens": 0, "output_tokens": 0}
        decision = self.guard.decide(facts, nothing)
        status = next(limit for limit in decision.limits if limit.rule == rule)
        self.guard.release(decision)
        return status.used - (status.unit == "concurrent-requests")


def answering(chunks, headers=JSON, status="200 OK", seen=None):
    def app(environ, start_response):
        if seen is not None:
            seen.append(environ["wsgi.input"].read())
        start_response(status, list(headers))
        return chunks

    return app

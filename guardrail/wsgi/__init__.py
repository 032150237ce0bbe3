"""The guard as WSGI middleware: Flask, Django and whatever else speaks WSGI."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from io import BytesIO
from typing import Unpack

from guardrail.errors import GuardrailError
from guardrail.http.enforcer import SyncEnforcer
from guardrail.http.flow import RELEASED, settled
from guardrail.http.request import (
    LINGER,
    Request,
    counts_answer,
    head_of_environ,
    is_let_through,
    is_scrape,
)
from guardrail.http.responses import Answer
from guardrail.http.settings.build import configure
from guardrail.http.settings.read import Options
from guardrail.http.settings.reload import Reloads
from guardrail.wsgi.http import App, Environ, ServedIterable, StartResponse, discard_body, read_body

__all__ = ["GuardrailMiddleware"]

LOG = logging.getLogger("guardrail")

NOT_LOADED = 4
"""The exit code for an application that cannot be loaded, at which gunicorn starts no worker anew.

3 would start the development servers of Flask and Django anew, for ever.
"""


class SyncOptions(Options, total=False):
    """The options of the WSGI middleware: `sleep` waits while a request is held."""

    sleep: Callable[[float], object]


class GuardrailMiddleware:
    """Guards every request to an application but those to exempt paths.

    `app.wsgi_app = GuardrailMiddleware(app.wsgi_app)` in Flask; in Django around
    `get_wsgi_application()`. Settings are those of `guardrail.asgi`, `guard=` a
    `guardrail.Guard`. After `close` everything is opened anew with the next request.

    Raises:
        SystemExit: settings, policies or the store cannot be used; the reason is logged. A server
            that loads its application ends with it. `Guard.load` and `guard=` are for those who
            would rather catch a `GuardrailError`.
    """

    def __init__(self, app: App, **options: Unpack[SyncOptions]) -> None:
        self.app = app
        self._sleep = options.pop("sleep", time.sleep)
        self._options = options
        self._reopening = threading.Lock()
        try:
            self.door = self._made()
            self.door.check()
        except GuardrailError as problem:
            LOG.critical("there is no guard to serve with: %s", problem)
            raise SystemExit(NOT_LOADED) from problem

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        if self.door.closed:
            with self._reopening:
                if self.door.closed:
                    self.door = self._made()
        head = head_of_environ(environ)
        settings = self.door.settings
        if is_scrape(head, settings):
            return _send(counts_answer(self.metrics()), start_response, head.method)
        if is_let_through(head, settings):
            if head.method == "OPTIONS" and not head.is_one_of(settings.exempt):
                # HTTP/2 need not state that a body follows: a preflight has none.
                environ = {**environ, "wsgi.input": BytesIO()}
            return self.app(environ, start_response)
        request = Request(head, settings)
        self.door.seen()

        def read(most: int) -> bytes:
            return read_body(environ, most, settings.body_timeout)

        outcome = self.door.run(self.door.admit(request), read)
        if isinstance(outcome, Answer):
            said = _send(outcome, start_response, head.method)
            return _lingering(said, environ) if request.body is None and head.sends_body else said
        try:
            served = ServedIterable(self.door, request, outcome, start_response)
        except BaseException:
            recorder = self.door.recorder
            self.door.run(settled(request.guard, outcome.decision, RELEASED, recorder))
            raise
        return served.begin(self.app, environ)

    def metrics(self) -> str:
        """Return what this process counted, in the text format of Prometheus."""
        return self.door.metrics()

    def reload(self) -> Reloads | None:
        """Load the policies anew, whole or not at all; None where the guard is the host's own."""
        return self.door.reload()

    def close(self) -> None:
        """Let go of the guard, unless it is the host's own."""
        self.door.close()

    def _made(self) -> SyncEnforcer:
        return SyncEnforcer(configure(self._options), self._sleep)


def _lingering(said: Iterable[bytes], environ: Environ) -> Iterator[bytes]:
    """Answer, then take what the client still sends, where that cannot hold the worker."""
    yield from said
    discard_body(environ, LINGER)


def _send(answer: Answer, start_response: StartResponse, method: str) -> Iterable[bytes]:
    try:
        phrase = HTTPStatus(answer.status).phrase
    except ValueError:
        phrase = "Refused"
    # A server speaks of the connection itself; an application must not (PEP 3333).
    headers = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in answer.headers
        if name != b"connection"
    ]
    start_response(f"{answer.status} {phrase}", headers)
    return [] if method == "HEAD" else [answer.body]

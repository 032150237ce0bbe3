"""The guard as ASGI middleware: FastAPI, Starlette, vLLM and whatever else speaks ASGI."""

from __future__ import annotations

import asyncio
from typing import Unpack

from guardrail.asgi.http import (
    App,
    Bodiless,
    NotStarted,
    Receive,
    Scope,
    Send,
    send_answer,
    serve_http,
    serve_lifespan,
)
from guardrail.asgi.websocket import serve_websocket
from guardrail.errors import GuardrailError
from guardrail.http.enforcer import AsyncEnforcer, Sleep
from guardrail.http.request import counts_answer, head_of_scope, is_let_through, is_scrape
from guardrail.http.settings.build import configure
from guardrail.http.settings.read import Options
from guardrail.http.settings.reload import Reloads

__all__ = ["GuardrailMiddleware"]


class AsyncOptions(Options, total=False):
    """The options of the ASGI middleware: `sleep` waits while a request is held."""

    sleep: Sleep


class GuardrailMiddleware:
    """Guards every request to an application but those to exempt paths.

    `GuardrailMiddleware(app)` takes its settings from `GUARDRAIL_CONFIG` or `pyproject.toml`;
    any may be given as an argument instead, and `guard=` hands over a guard of the host's own.

    Settings or policies that cannot be used raise nothing here, as frameworks make a middleware
    while a server starts, where raising is not heard: the server's start fails, with the reason
    (`NotStarted`). After a shutdown everything is opened anew by what is served next.
    """

    def __init__(self, app: App, **options: Unpack[AsyncOptions]) -> None:
        self.app = app
        self._sleep = options.pop("sleep", asyncio.sleep)
        self._options = options
        self._door: AsyncEnforcer | NotStarted = self._made()

    @property
    def door(self) -> AsyncEnforcer:
        """What the requests share.

        Raises:
            SettingError: a setting is not usable.
            PolicyError: the policies cannot be loaded.
        """
        if isinstance(self._door, NotStarted):
            raise self._door.problem
        return self._door

    def metrics(self) -> str:
        """Return what this process counted, in the text format of Prometheus."""
        return self.door.metrics()

    async def reload(self) -> Reloads | None:
        """Load the policies anew, whole or not at all; None where the guard is the host's own."""
        return await self.door.reload()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        enforcer = self._door
        again = kind == "lifespan" if isinstance(enforcer, NotStarted) else enforcer.closed
        if again:
            enforcer = self._door = self._made()
        if isinstance(enforcer, NotStarted):
            await enforcer(scope, receive, send)
            return
        if kind == "lifespan":
            await serve_lifespan(enforcer, self.app, scope, receive, send)
            return
        if kind not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        head = head_of_scope(scope)
        if kind == "websocket":
            await serve_websocket(enforcer, self.app, head, scope, receive, send)
        elif is_scrape(head, enforcer.settings):
            await send_answer(counts_answer(self.metrics()), send, head.method)
        elif is_let_through(head, enforcer.settings):
            # HTTP/2 need not state that a body follows: a preflight has none.
            bare = head.method == "OPTIONS" and not head.is_one_of(enforcer.settings.exempt)
            await self.app(scope, Bodiless(receive) if bare else receive, send)
        else:
            await serve_http(enforcer, self.app, head, scope, receive, send)

    def _made(self) -> AsyncEnforcer | NotStarted:
        try:
            return AsyncEnforcer(configure(self._options), self._sleep)
        except GuardrailError as problem:
            return NotStarted(problem)

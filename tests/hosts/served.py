"""Two tiny applications for servers to run: they ask the guard that the query names first.

After a slash it names the account to ask about.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from guardrail import AsyncGuard, Guard

POLICIES, STORES = "SERVED_POLICIES", "SERVED_STORES"
"""The environment's names for where the policies are, and the counters of each guard (JSON)."""

Message = MutableMapping[str, Any]


def wsgi() -> Callable[..., Iterable[bytes]]:
    """Return the WSGI application; its guards have decided before any server forks."""
    guards = {name: Guard.load(os.environ[POLICIES], store=uri) for name, uri in _stores()}
    for guard in guards.values():
        guard.decide({"account.id": "nobody"})

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        name, _, account = environ["QUERY_STRING"].partition("/")
        decision = guards[name].decide({"account.id": account})
        start("200 OK", [("content-type", "text/plain")])
        return [_told(decision)]

    return application


def asgi() -> Callable[..., Awaitable[None]]:
    """Return the ASGI application."""
    guards = {name: AsyncGuard.load(os.environ[POLICIES], store=uri) for name, uri in _stores()}

    async def application(
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        name, _, account = scope["query_string"].decode().partition("/")
        decision = await guards[name].decide({"account.id": account})
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": _told(decision)})

    return application


def _stores() -> Iterable[tuple[str, str]]:
    stores: dict[str, str] = json.loads(os.environ[STORES])
    return stores.items()


def _told(decision: Any) -> bytes:
    return f"{decision.effect} {decision.mode} {os.getpid()}".encode()

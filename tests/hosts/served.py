"""Two tiny applications that ask a guard about the account in the query, for servers to run."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from guardrail import AsyncGuard, Guard

POLICIES, STORE = "SERVED_POLICIES", "SERVED_STORE"
"""The environment's names for where the policies and the counters are."""

Message = MutableMapping[str, Any]


def wsgi() -> Callable[..., Iterable[bytes]]:
    """Return the WSGI application; its guard has decided before any server forks."""
    guard = Guard.load(os.environ[POLICIES], store=os.environ[STORE])
    guard.decide({"account.id": "nobody"})

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        decision = guard.decide({"account.id": environ["QUERY_STRING"]})
        start("200 OK", [("content-type", "text/plain")])
        return [_told(decision)]

    return application


def asgi() -> Callable[..., Awaitable[None]]:
    """Return the ASGI application."""
    guard = AsyncGuard.load(os.environ[POLICIES], store=os.environ[STORE])

    async def application(
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        decision = await guard.decide({"account.id": scope["query_string"].decode()})
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": _told(decision)})

    return application


def _told(decision: Any) -> bytes:
    return f"{decision.effect} {decision.mode} {os.getpid()}".encode()

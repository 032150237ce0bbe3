"""How an application behind the guard starts and ends."""

from __future__ import annotations

import asyncio
import logging

from guardrail.asgi.types import App, Message, Receive, Scope, Send
from guardrail.errors import GuardrailError, SettingError
from guardrail.http.enforcer import AsyncEnforcer

LOG = logging.getLogger("guardrail")

_ENDS = ("lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed")


async def serve_lifespan(
    enforcer: AsyncEnforcer, app: App, scope: Scope, receive: Receive, send: Send
) -> None:
    """Open the guard before the host starts, and close it after the host has ended.

    Every message of the host's passes. A host without a lifespan of its own raises as it would
    without us; the guard then opens with the first request.
    """
    first: Message | None = await receive()
    try:
        _on_asyncio()
        enforcer.open()
    except GuardrailError as problem:
        await send({"type": "lifespan.startup.failed", "message": str(problem)})
        return

    async def receiving() -> Message:
        nonlocal first
        message, first = first, None
        return await receive() if message is None else message

    async def sending(message: Message) -> None:
        if message["type"] in _ENDS:
            await enforcer.close()
        await send(message)

    await app(scope, receiving, sending)


def _on_asyncio() -> None:
    """Make sure that what the guard waits for can be waited for here.

    Raises:
        SettingError: the server runs its application on another event loop.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise SettingError(
            "the server runs its application without asyncio, which the guard needs: start it with "
            "a worker on asyncio or uvloop, as `hypercorn --worker-class asyncio` does"
        ) from None


class NotStarted:
    """Stands in for an application whose policies or settings cannot be used, and serves nothing.

    A start-up fails with the reason, which ends a server. Raising instead would not: servers take
    that for an application without a start-up, and serve. A server that announces no start-up
    gets 503 for every request, and the reason is logged with the first.
    """

    def __init__(self, problem: GuardrailError) -> None:
        self.problem = problem
        self._logged = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse one connection, or the start."""
        kind = scope["type"]
        if kind == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(self.problem)})
            return
        if not self._logged:
            self._logged = True
            LOG.critical("every request is refused, as there is no guard: %s", self.problem)
        if kind == "http":
            length = [(b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 503, "headers": length})
            await send({"type": "http.response.body", "body": b""})
        elif kind == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1011, "reason": ""})

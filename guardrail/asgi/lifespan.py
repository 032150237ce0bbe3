"""The start and the end of an application over ASGI."""

from __future__ import annotations

from guardrail.asgi.types import App, Message, Receive, Scope, Send
from guardrail.errors import GuardrailError
from guardrail.http.exchange.async_door import AsyncDoor

_ENDS = ("lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed")


async def serve_lifespan(
    door: AsyncDoor, app: App, scope: Scope, receive: Receive, send: Send
) -> None:
    """Open the guard before the host starts, and close it after the host has ended.

    Every message of the host's passes. A host without a lifespan of its own raises as it would
    without us; the guard then opens with the first request.
    """
    first: Message | None = await receive()
    try:
        door.open()
    except GuardrailError as problem:
        await send({"type": "lifespan.startup.failed", "message": str(problem)})
        return

    async def receiving() -> Message:
        nonlocal first
        message, first = first, None
        return await receive() if message is None else message

    async def sending(message: Message) -> None:
        if message["type"] in _ENDS:
            await door.close()
        await send(message)

    await app(scope, receiving, sending)

"""The start and the end of an application over ASGI."""

from __future__ import annotations

from guardrail.asgi.door import AsyncDoor
from guardrail.asgi.types import App, Message, Receive, Scope, Send
from guardrail.errors import GuardrailError


async def serve_lifespan(
    door: AsyncDoor, app: App, scope: Scope, receive: Receive, send: Send
) -> None:
    """Open the guard before the host starts, and close it after the host has ended.

    Every message of the host's passes. A host without a lifespan of its own raises as it would
    without us; the guard then opens with the first request.
    """

    async def receiving() -> Message:
        message = await receive()
        if message["type"] == "lifespan.startup":
            door.open()
        return message

    async def sending(message: Message) -> None:
        if message["type"].startswith(("lifespan.shutdown.", "lifespan.startup.failed")):
            await door.close()
        await send(message)

    try:
        await app(scope, receiving, sending)
    except GuardrailError as problem:
        await send({"type": "lifespan.startup.failed", "message": str(problem)})

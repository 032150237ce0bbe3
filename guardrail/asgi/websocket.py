"""One WebSocket connection over ASGI: decided before it is accepted, and turn by turn."""

from __future__ import annotations

from collections.abc import Mapping

from guardrail.asgi.realtime import Session
from guardrail.asgi.types import App, Message, Receive, Scope, Send
from guardrail.engine import Decision
from guardrail.http.answers import Answer, admitted_fields
from guardrail.http.exchange.async_door import AsyncDoor
from guardrail.http.exchange.before import Exchange, Pass
from guardrail.http.exchange.head import Head
from guardrail.http.exchange.leases import Leases
from guardrail.http.exchange.passage import PASSAGE, Passage, plus
from guardrail.http.exchange.serving import Settlement, interval_of

POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013
"""Close codes of RFC 6455 and its registry."""

EXTENSION = "websocket.http.response"
REALTIME = "/v1/realtime"


async def serve_websocket(
    door: AsyncDoor, app: App, head: Head, scope: Scope, receive: Receive, send: Send
) -> None:
    """Guard one connection; what the host raises goes through unchanged."""
    exchange = Exchange(head, door.settings)
    first = await receive()
    if first["type"] != "websocket.connect":
        return

    async def no_body() -> bytes | None:
        return None

    outcome = await door.admit(exchange, no_body)
    if isinstance(outcome, Answer):
        await _deny(outcome, scope, send)
        return
    if str(exchange.facts.get("request.endpoint", "")).startswith(REALTIME):
        session = Session(door, exchange, outcome.decision, receive, send)
        await session.run(app, scope, first)
        return
    await _Connection(door, exchange, outcome, receive, send).run(app, scope, first)


async def _deny(answer: Answer, scope: Scope, send: Send) -> None:
    """Refuse a handshake: with the whole answer where the server can send it."""
    if EXTENSION in (scope.get("extensions") or {}):
        await send(
            {
                "type": f"{EXTENSION}.start",
                "status": answer.status,
                "headers": answer.headers,
            }
        )
        await send({"type": f"{EXTENSION}.body", "body": answer.body})
        return
    later = not any(name == b"x-should-retry" for name, _ in answer.headers)
    code = TRY_AGAIN_LATER if later else POLICY_VIOLATION
    await send({"type": "websocket.close", "code": code, "reason": "refused by policy"})


class _Connection:
    """A connection that was admitted: it holds its place in flight until it ends."""

    def __init__(
        self, door: AsyncDoor, exchange: Exchange, outcome: Pass, receive: Receive, send: Send
    ) -> None:
        self._door = door
        self._exchange = exchange
        self._decision = outcome.decision
        self._estimate = dict(exchange.estimate)
        self._receive = receive
        self._send = send
        self._first: Message | None = None
        self._accepted = False

    async def run(self, app: App, scope: Scope, first: Message) -> None:
        self._first = first
        leases = Leases(
            interval_of(self._door.configured.lease(self._door.guard.policies)), self._renew
        )
        addressee, style = self._exchange.addressee, self._door.settings.style
        passage = Passage(
            self._door.guard,
            self._decision,
            addressee,
            style,
            anew=self._decide_anew,
            journal=self._door.configured.journal,
            unavailable=self._exchange.unavailable,
        )
        try:
            await app({**scope, PASSAGE: passage}, self._receiving, self._sending)
        finally:
            leases.cancel()
            if self._decision.allowed:
                used = passage.used({}, self._exchange.estimate) if self._accepted else None
                await self._door.settle(self._decision, Settlement(used))

    async def _decide_anew(self, facts: Mapping[str, object], added: Mapping[str, int]) -> Decision:
        """Decide on the connection once more, with what the host's own code adds to it."""
        for unit, amount in added.items():
            self._estimate[unit] = plus(self._estimate.get(unit, 0), amount)
        self._decision = await self._door.decide_anew(
            self._exchange, self._decision, facts, self._estimate
        )
        return self._decision

    def _renew(self) -> None:
        self._door.start(self._door.renew(self._decision))

    async def _receiving(self) -> Message:
        first = self._first
        if first is not None:
            self._first = None
            return first
        return await self._receive()

    async def _sending(self, message: Message) -> None:
        if message["type"] == "websocket.accept":
            self._accepted = True
            ours = admitted_fields(
                self._decision, self._exchange.addressee, self._door.settings.style
            )
            message = {**message, "headers": [*message.get("headers", ()), *ours]}
        await self._send(message)

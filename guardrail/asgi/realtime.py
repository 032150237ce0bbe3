"""A realtime session over a WebSocket: every turn is admitted, metered and settled by itself."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

from guardrail.asgi.types import App, Message, Receive, Scope, Send
from guardrail.engine import Decision
from guardrail.http.answers import admitted_fields, refused_turn, unreadable_turn
from guardrail.http.exchange.async_door import AsyncDoor
from guardrail.http.exchange.before import Exchange
from guardrail.http.exchange.leases import Leases
from guardrail.http.exchange.passage import PASSAGE, Passage
from guardrail.http.exchange.serving import Settlement, interval_of
from guardrail.http.meter import RealtimeMeter, Turn, TurnUsage

CANCEL = {"type": "websocket.receive", "text": json.dumps({"type": "response.cancel"})}
"""What ends a turn that the host started by itself and the guard refused."""


class Session:
    """A session that was let in: its turns are decided one by one.

    Who asks, and by which policies, is established anew for each turn. A turn that is refused
    does not reach the host; the client gets an error event, and the session goes on.
    """

    def __init__(
        self, door: AsyncDoor, exchange: Exchange, decision: Decision, receive: Receive, send: Send
    ) -> None:
        self._door = door
        self._exchange = exchange
        self._decision = decision
        self._receive = receive
        self._send = send
        model = exchange.facts.get("request.model")
        self._meter = RealtimeMeter(
            hash_key=door.settings.hash_key,
            model=model if isinstance(model, str) else None,
            limits=door.settings.reading,
        )
        self._open: deque[Decision] = deque()
        self._first: Message | None = None
        self._pending: asyncio.Future[Message] | None = None
        self._cancels = asyncio.Event()

    async def run(self, app: App, scope: Scope, first: Message) -> None:
        """Serve the session to its end, and settle what is left open then."""
        # The handshake only showed that turns are welcome: nothing is reserved between them.
        await self._door.settle(self._decision, Settlement(None))
        self._first = first
        leases = Leases(
            interval_of(self._door.configured.lease(self._door.guard.policies)), self._renew
        )
        addressee, style = self._exchange.addressee, self._door.settings.style
        passage = Passage(self._door.guard, self._decision, addressee, style)
        try:
            await app({**scope, PASSAGE: passage}, self._receiving, self._sending)
        finally:
            leases.cancel()
            if self._pending is not None:
                self._pending.cancel()
            cut = self._meter.cut()
            while self._open:
                usage = None if cut is None else {"requests": 1, **cut.usage}
                cut = None
                await self._door.settle(self._open.popleft(), Settlement(usage))

    async def _receiving(self) -> Message:
        first, self._first = self._first, None
        if first is not None:
            return first
        while True:
            message = await self._next()
            if message is CANCEL or message["type"] != "websocket.receive":
                return message
            frame = message.get("text") or message.get("bytes") or b""
            turn = self._meter.sent(frame)
            if turn is None or await self._admitted(turn, frame):
                return message
            self._meter.refused()

    async def _next(self) -> Message:
        """Return the client's next message, or the end of a turn that the guard refused."""
        if self._pending is None:
            self._pending = asyncio.ensure_future(self._receive())
        cancels = asyncio.ensure_future(self._cancels.wait())
        try:
            waited: set[asyncio.Future[Any]] = {self._pending, cancels}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            cancels.cancel()
        if self._cancels.is_set():
            self._cancels.clear()
            return CANCEL
        message, self._pending = self._pending.result(), None
        return message

    async def _sending(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            style = self._door.settings.style
            ours = admitted_fields(self._decision, self._exchange.addressee, style)
            message = {**message, "headers": [*message.get("headers", ()), *ours]}
        elif kind == "websocket.send":
            found = self._meter.received(message.get("text") or message.get("bytes") or b"")
            if isinstance(found, TurnUsage):
                await self._settle(found)
            elif isinstance(found, Turn) and not await self._admitted(found, b""):
                self._cancels.set()
        await self._send(message)

    async def _admitted(self, turn: Turn, frame: str | bytes) -> bool:
        style = self._door.settings.style
        if turn.problem is not None:
            await self._say(unreadable_turn(turn.problem, _event_id(frame)))
            return False
        decision = await self._door.decide_turn(self._exchange, turn.facts, turn.estimate)
        if decision.allowed:
            self._open.append(decision)
            return True
        if turn.automatic:
            # It runs until the host hears of it: what it uses is charged all the same.
            self._open.append(decision.case.engine.owing(decision))
        await self._say(refused_turn(decision, style, _event_id(frame)))
        return False

    async def _settle(self, used: TurnUsage) -> None:
        if self._open:
            nothing = used.failed and not used.usage.get("output_tokens")
            settlement = Settlement(None if nothing else {"requests": 1, **used.usage})
            await self._door.settle(self._open.popleft(), settlement)

    async def _say(self, event: str) -> None:
        await self._send({"type": "websocket.send", "text": event})

    def _renew(self) -> None:
        for decision in self._open:
            self._door.start(self._door.renew(decision))


def _event_id(frame: str | bytes) -> str | None:
    try:
        event = json.loads(frame)
    except (ValueError, RecursionError):
        return None
    found = event.get("event_id") if isinstance(event, dict) else None
    return found if isinstance(found, str) else None

"""One HTTP request over ASGI: read, decided, passed on, metered, settled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

from guardrail.asgi.body import (
    ClientLeftError,
    Replay,
    TooLargeError,
    TooSlowError,
    discard_body,
    read_body,
)
from guardrail.asgi.types import App, Message, Receive, Scope, Send
from guardrail.engine import Decision
from guardrail.http.answers import Answer
from guardrail.http.asked import UsageFormat
from guardrail.http.exchange.async_door import AsyncDoor
from guardrail.http.exchange.before import LINGER, Exchange, Pass
from guardrail.http.exchange.head import Field, Head
from guardrail.http.exchange.leases import Leases
from guardrail.http.exchange.passage import PASSAGE, Passage, plus
from guardrail.http.exchange.serving import Renewal, Serving, Settlement
from guardrail.http.meter import readable

_UNSEEN = frozenset({"http.response.pathsend", "http.response.zerocopysend"})
_FRAMING = frozenset({b"content-length", b"content-encoding", b"transfer-encoding"})


async def serve_http(
    door: AsyncDoor, app: App, head: Head, scope: Scope, receive: Receive, send: Send
) -> None:
    """Guard one request; what the host raises goes through unchanged."""
    exchange = Exchange(head, door.settings)
    body: bytes | None = None

    async def read() -> bytes | None:
        nonlocal body
        if head.announces_body:
            body = await read_body(receive, exchange.max_body, door.settings.body_timeout)
        return body

    try:
        outcome = await door.admit(exchange, read)
    except ClientLeftError:
        return
    except TooLargeError:
        outcome = exchange.too_large()
    except TooSlowError:
        outcome = exchange.too_slow()
    if isinstance(outcome, Answer):
        unread = body is None and head.sends_body
        await send_answer(outcome, send, head.method, ends=not unread)
        if unread:
            await discard_body(receive, min(LINGER, door.settings.body_timeout))
            await send({"type": "http.response.body"})
        return
    passed = body if outcome.body is None else outcome.body
    try:
        served = _Served(door, exchange, outcome, send)
    except BaseException:
        await door.settle(outcome.decision, Settlement(None))
        raise
    await served.run(app, scope, Replay(receive, passed))


async def send_answer(answer: Answer, send: Send, method: str, *, ends: bool = True) -> None:
    """Send an answer of ours; unless it `ends`, an empty last piece is still to follow."""
    body = b"" if method == "HEAD" else answer.body
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": body, "more_body": not ends})


class _Served:
    """A request with the host: its messages pass, and at its end the decision is settled."""

    def __init__(self, door: AsyncDoor, exchange: Exchange, outcome: Pass, send: Send) -> None:
        self._door = door
        self._exchange = exchange
        self._pass = outcome
        self._holding = outcome.decision
        self._send = send
        self._over = self._replaced = False
        self._leases: Leases | None = None
        self._metered = exchange.asked.usage_format is not UsageFormat.NONE
        guard, addressee, style = door.guard, exchange.addressee, door.settings.style
        self._estimate = exchange.estimate
        self._passage = Passage(
            guard,
            outcome.decision,
            addressee,
            style,
            anew=self._decide_anew,
            journal=door.configured.journal,
            unavailable=exchange.unavailable,
        )
        self._serving = Serving(
            outcome.decision,
            exchange.asked,
            addressee,
            style,
            strips_usage=outcome.strips_usage,
            lease=door.configured.lease(guard.policies),
            now=door.clock(),
            later=door.later,
        )

    async def run(self, app: App, scope: Scope, replay: Replay) -> None:
        failed = True
        self._leases = Leases(self._serving.renews_every, self._renew_if_due)
        try:
            await app(self._scope(scope), replay, self._forward)
            failed = False
        except Exception:
            await self._break_off()
            raise
        finally:
            await self._finish(failed=failed, left=replay.left)

    async def _finish(self, *, failed: bool, left: bool) -> None:
        """Settle once the response is over: a host may work on for a while after it."""
        if self._leases is not None:
            self._leases.cancel()
        if self._serving.over:
            return
        held, self._holding = self._holding, self._pass.decision
        endings = iter(self._serving.endings(failed=failed, left=left))
        try:
            await self._settle_each(endings)
        finally:
            # Also where this task was cancelled meanwhile.
            await self._settle_each(endings)
            if held is not self._pass.decision:
                await self._door.settle(held, Settlement(None), recorded=False)

    async def _settle_each(self, endings: Iterator[tuple[Decision, Settlement]]) -> None:
        for decision, settlement in endings:
            own = decision is self._pass.decision
            await self._door.settle(decision, self._with_added(settlement) if own else settlement)

    async def _decide_anew(self, facts: Mapping[str, object], added: Mapping[str, int]) -> Decision:
        """Decide on the whole request once more, with what the host's own code adds to it."""
        if self._holding is not self._pass.decision:
            await self._door.settle(self._holding, Settlement(None), recorded=False)
        before = self._holding = self._pass.decision
        estimate = dict(self._estimate)
        for unit, amount in added.items():
            estimate[unit] = plus(estimate.get(unit, 0), amount)
        held = not self._serving.over
        self._serving.given_back()
        decision = await self._door.decide_anew(self._exchange, before, facts, estimate, held=held)
        self._pass = self._pass._replace(decision=decision)
        self._passage.decision = self._holding = decision
        if decision.allowed:
            self._estimate = estimate
            self._exchange.facts = {**self._exchange.facts, **facts}
            self._serving.admitted_anew(decision, self._door.clock())
        return decision

    def _with_added(self, settlement: Settlement) -> Settlement:
        usage = settlement.usage
        if usage is None or not self._passage.added:
            return settlement
        return settlement._replace(usage=self._passage.used(usage, self._exchange.estimate))

    async def _forward(self, message: Message) -> None:
        kind = message["type"]
        refusal = self._passage.refusal
        if self._replaced:
            return
        if kind == "http.response.start" and refusal is not None:
            self._replaced = self._over = True
            self._serving.started(refusal.status, refusal.headers)
            await send_answer(refusal, self._send, self._exchange.head.method)
            await self._finish(failed=False, left=False)
            return
        if kind == "http.response.start":
            fields = self._serving.started(message["status"], message.get("headers", ()))
            message = {**message, "headers": fields}
        elif kind == "http.response.body":
            chunk, last = message.get("body", b""), not message.get("more_body", False)
            passed = self._serving.sent(chunk, last=last)
            self._over = self._over or last
            if passed is not chunk:
                message = {**message, "body": passed}
                if not passed and not last:
                    return
            self._renew_if_due()
        await self._send(message)
        if self._over:
            await self._finish(failed=False, left=False)

    async def _break_off(self) -> None:
        """Tell the client of a stream that it ends early, if it can still be told."""
        frame = b"" if self._over else self._serving.broken_off()
        if frame:
            with suppress(Exception):
                await self._send({"type": "http.response.body", "body": frame, "more_body": True})

    def _scope(self, scope: Scope) -> Scope:
        """Return the host's own copy of the scope, with what was changed in the request."""
        changed = {**scope, PASSAGE: self._passage}
        extensions = scope.get("extensions")
        if self._metered and extensions and not _UNSEEN.isdisjoint(extensions):
            # What a server sends out of a file by itself is not seen here.
            changed["extensions"] = {k: v for k, v in extensions.items() if k not in _UNSEEN}
        if self._metered:
            changed["headers"] = _readable(scope["headers"])
        if self._pass.body is not None:
            length = str(len(self._pass.body)).encode("ascii")
            # The usage we asked for cannot be taken out of a compressed stream.
            dropped = _FRAMING | {b"accept-encoding"} if self._pass.strips_usage else _FRAMING
            kept = _without(changed["headers"], dropped)
            changed["headers"] = [*kept, (b"content-length", length)]
        if self._pass.path is not None:
            prefix = scope["path"].removesuffix(self._exchange.head.path)
            changed["path"] = prefix + self._pass.path
            changed["raw_path"] = changed["path"].encode("utf-8")
        return changed

    def _renew_if_due(self) -> None:
        renewal = self._serving.renewal_due(self._door.clock())
        if renewal is Renewal.EXTEND:
            self._door.start(self._door.renew(self._holding))
        elif renewal is Renewal.REGAIN:
            self._door.start(self._regain())

    async def _regain(self) -> None:
        before = self._holding
        again = await self._door.regain(self._exchange, estimate=self._estimate)
        if again is None:
            return
        if self._serving.over or self._holding is not before:
            # It ended meanwhile, or another decision holds its places by now.
            await self._door.settle(again, Settlement(None), recorded=False)
            return
        self._serving.regained()
        self._holding = again


def _readable(headers: list[Field]) -> list[Field]:
    """Return the fields, asking for no coding in which a response could not be metered."""
    asked = headers
    for at, (name, value) in enumerate(headers):
        if name == b"accept-encoding" and (kept := readable(bytes(value))) is not None:
            asked = list(asked) if asked is headers else asked
            asked[at] = (name, kept)
    return asked


def _without(headers: list[Field], names: frozenset[bytes]) -> list[Field]:
    return [(name, value) for name, value in headers if bytes(name).lower() not in names]

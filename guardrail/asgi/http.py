"""One HTTP request over ASGI: read, decided, passed on, metered, settled."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from guardrail.asgi.body import (
    ClientLeftError,
    Replay,
    discard_body,
    read_body,
)
from guardrail.asgi.types import App, Message, Receive, Scope, Send
from guardrail.engine import Decision
from guardrail.http.answers import Answer
from guardrail.http.asked import UsageFormat
from guardrail.http.enforcer import AsyncEnforcer
from guardrail.http.flow import PASSAGE, RELEASED, Served, settled
from guardrail.http.leases import LeaseTimer
from guardrail.http.meter import readable
from guardrail.http.request import LINGER, Exchange, Field, Forward, Head

_UNSEEN = frozenset({"http.response.pathsend", "http.response.zerocopysend"})
_FRAMING = frozenset({b"content-length", b"content-encoding", b"transfer-encoding"})


async def serve_http(
    enforcer: AsyncEnforcer, app: App, head: Head, scope: Scope, receive: Receive, send: Send
) -> None:
    """Guard one request; what the host raises goes through unchanged."""
    request = Exchange(head, enforcer.settings)
    timeout = enforcer.settings.body_timeout

    async def read(most: int) -> bytes:
        return await read_body(receive, most, timeout)

    try:
        outcome = await enforcer.run(enforcer.admit(request), read)
    except ClientLeftError:
        return
    if isinstance(outcome, Answer):
        unread = request.body is None and head.sends_body
        await send_answer(outcome, send, head.method, ends=not unread)
        if unread:
            await discard_body(receive, min(LINGER, timeout))
            await send({"type": "http.response.body"})
        return
    try:
        served = _Served(enforcer, request, outcome, send)
    except BaseException:
        await enforcer.run(settled(request.guard, outcome.decision, RELEASED, enforcer.journal))
        raise
    await served.run(app, scope, receive)


async def send_answer(answer: Answer, send: Send, method: str, *, ends: bool = True) -> None:
    """Send an answer of ours; unless it `ends`, an empty last piece is still to follow."""
    body = b"" if method == "HEAD" else answer.body
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": body, "more_body": not ends})


class _Served(Served):
    """A request with the host: its messages pass, and at its end the decision is settled."""

    def __init__(
        self, enforcer: AsyncEnforcer, request: Exchange, forward: Forward, send: Send
    ) -> None:
        super().__init__(enforcer, request, forward)
        self._enforcer = enforcer
        self._forward = forward
        self._send = send
        self._ended = self._replaced = False
        self._renews = self.reservation.renews_every is not None
        self._timer: LeaseTimer | None = None
        self._metered = request.asked.usage_format is not UsageFormat.NONE
        self.passage.anew = self._decide_anew

    async def run(self, app: App, scope: Scope, receive: Receive) -> None:
        """Have the host serve it, to its end."""
        forward = self._forward
        body = self._request.body if forward.body is None else forward.body
        replay = Replay(receive, body)
        failed = True
        if self._renews:
            self._timer = LeaseTimer(self.reservation.renews_every, self._renew_if_due)
        try:
            await app(self._scope(scope), replay, self._pass_on)
            failed = False
        except Exception:
            await self._break_off()
            raise
        finally:
            await self._finish(failed=failed, left=replay.left)

    async def _finish(self, *, failed: bool, left: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.reservation.held:
            await self._enforcer.run(self.finish(failed=failed, left=left))

    async def _decide_anew(self, facts: Mapping[str, object], added: Mapping[str, int]) -> Decision:
        decision = await self._enforcer.run(self.decide_again(facts, added))
        if self._timer is not None and self.reservation.held:
            self._timer.start()
        return decision

    async def _pass_on(self, message: Message) -> None:
        kind = message["type"]
        if self._replaced:
            return
        if kind == "http.response.body":
            chunk, last = message.get("body", b""), not message.get("more_body", False)
            passed = self.response.sent(chunk, last=last)
            self._ended = self._ended or last
            if self._renews:
                self._renew_if_due()
            if passed is not chunk:
                message = {**message, "body": passed}
                if not passed and not last:
                    return
        elif kind == "http.response.start":
            refusal = self.passage.refusal
            if refusal is not None:
                self._replaced = self._ended = True
                self.response.started(refusal.status, refusal.headers)
                await send_answer(refusal, self._send, self._request.head.method)
                await self._finish(failed=False, left=False)
                return
            fields = self.response.started(message["status"], message.get("headers", ()))
            message = {**message, "headers": fields}
        await self._send(message)
        if self._ended:
            await self._finish(failed=False, left=False)

    async def _break_off(self) -> None:
        """Tell the client of a stream that it ends early, if it can still be told."""
        frame = b"" if self._ended else self.response.broken_off()
        if frame:
            with suppress(Exception):
                await self._send({"type": "http.response.body", "body": frame, "more_body": True})

    def _scope(self, scope: Scope) -> Scope:
        """Return the host's own copy of the scope, with what was changed in the request."""
        changed = {**scope, PASSAGE: self.passage}
        extensions = scope.get("extensions")
        if self._metered and extensions and not _UNSEEN.isdisjoint(extensions):
            # What a server sends out of a file by itself is not seen here.
            changed["extensions"] = {k: v for k, v in extensions.items() if k not in _UNSEEN}
        if self._metered:
            changed["headers"] = _readable(scope["headers"])
        if self._forward.body is not None:
            length = str(len(self._forward.body)).encode("ascii")
            # The usage we asked for cannot be taken out of a compressed stream.
            dropped = _FRAMING | {b"accept-encoding"} if self._forward.strips_usage else _FRAMING
            kept = _without(changed["headers"], dropped)
            changed["headers"] = [*kept, (b"content-length", length)]
        if self._forward.path is not None:
            prefix = scope["path"].removesuffix(self._request.head.path)
            changed["path"] = prefix + self._forward.path
            changed["raw_path"] = changed["path"].encode("utf-8")
        return changed

    def _renew_if_due(self) -> None:
        self._enforcer.renew(self.reservation, self._enforcer.clock())


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

"""The middleware, and how it serves HTTP: one request read, passed on to the host, and settled."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Unpack, cast

from guardrail.asgi.lifespan import NotStarted, serve_lifespan
from guardrail.asgi.types import App, Message, Receive, Scope, Send
from guardrail.asgi.websocket import serve_websocket
from guardrail.engine import Decision
from guardrail.errors import GuardrailError
from guardrail.http.enforcer import AsyncEnforcer, Sleep
from guardrail.http.flow import RELEASED, STATE_KEY, Served, TooLargeError, TooSlowError, settled
from guardrail.http.leases import LeaseTimer
from guardrail.http.metering import readable
from guardrail.http.parsing import UsageFormat
from guardrail.http.request import (
    LINGER,
    Field,
    Forward,
    Head,
    Request,
    counts_answer,
    head_of_scope,
    is_let_through,
    is_scrape,
)
from guardrail.http.responses import Answer
from guardrail.http.settings.build import configure
from guardrail.http.settings.read import Options
from guardrail.http.settings.reload import Reloads

_NONE = UsageFormat.NONE


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


class ClientLeftError(Exception):
    """The client disconnected before its body was complete."""


async def read_body(receive: Receive, most: int, timeout: float) -> bytes:
    """Return the whole body: at most `most` bytes within `timeout` seconds.

    Raises:
        ClientLeftError: the client disconnected.
        TooLargeError: there is more.
        TooSlowError: it takes longer.
    """
    pieces: list[bytes] = []
    # What is there already needs no timer, which would cost more than all the rest.
    more = True
    while more:
        steps = receive().__await__()
        try:
            waited = next(steps)
        except StopIteration as end:
            more = _takes(end.value, pieces, most)
            continue
        try:
            async with asyncio.timeout(timeout):
                more = _takes(await _resumed(steps, waited), pieces, most)
                while more:
                    more = _takes(await receive(), pieces, most)
        except TimeoutError:
            raise TooSlowError from None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _takes(message: Message, pieces: list[bytes], most: int) -> bool:
    """Take in a message of a body, and tell whether more of it comes."""
    if message["type"] != "http.request":
        raise ClientLeftError
    pieces.append(message.get("body", b""))
    if sum(map(len, pieces)) > most:
        raise TooLargeError
    more: bool = message.get("more_body", False)
    return more


@types.coroutine
def _resumed(
    steps: Generator[Any, Any, Message], waited: object
) -> Generator[object, object, Message]:
    """Go on with an awaitable that was started, and waits for something.

    As with `await`, its steps need be no more than an iterator: those of granian are none more.
    """
    try:
        while True:
            try:
                sent = yield waited
            except BaseException as problem:
                throw = getattr(steps, "throw", None)
                if throw is None:
                    raise
                waited = throw(problem)
            else:
                waited = next(steps) if sent is None else steps.send(sent)
    except StopIteration as end:
        return cast(Message, end.value)


async def discard_body(receive: Receive, timeout: float) -> None:
    """Take what a client still sends until it ends, leaves, or `timeout` seconds are over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            message = await receive()
            while message["type"] == "http.request" and message.get("more_body", False):
                message = await receive()


class Replay:
    """The `receive` of a host whose request was read before: the body once, then what comes.

    What comes after it is awaited from the server itself: a host that waits for a disconnect
    gets it when it happens, and not before.
    """

    def __init__(self, receive: Receive, body: bytes | None) -> None:
        self._receive = receive
        self._body = body
        self.left = False

    async def __call__(self) -> Message:
        """Return the body if it was read and not given yet, else the server's next message."""
        body = self._body
        if body is not None:
            self._body = None
            return {"type": "http.request", "body": body, "more_body": False}
        message = await self._receive()
        self.left = self.left or message["type"] == "http.disconnect"
        return message


class Bodiless:
    """The `receive` of a host whose request has no body, whatever its client sends."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._told = False

    async def __call__(self) -> Message:
        """Return that the body is empty, then what comes after it."""
        if not self._told:
            self._told = True
            return {"type": "http.request", "body": b"", "more_body": False}
        message = await self._receive()
        while message["type"] == "http.request":
            message = await self._receive()
        return message


_UNSEEN = frozenset({"http.response.pathsend", "http.response.zerocopysend"})
_FRAMING = frozenset({b"content-length", b"content-encoding", b"transfer-encoding"})


async def serve_http(
    enforcer: AsyncEnforcer, app: App, head: Head, scope: Scope, receive: Receive, send: Send
) -> None:
    """Guard one request; what the host raises goes through unchanged."""
    settings = enforcer.settings
    request = Request(head, settings)
    read = partial(read_body, receive, timeout=settings.body_timeout)
    try:
        outcome = await enforcer.run(enforcer.admit(request), read)
    except ClientLeftError:
        return
    if isinstance(outcome, Answer):
        unread = request.body is None and head.sends_body
        await send_answer(outcome, send, head.method, ends=not unread)
        if unread:
            await discard_body(receive, min(LINGER, settings.body_timeout))
            await send({"type": "http.response.body"})
        return
    try:
        served = _Served(enforcer, request, outcome, send)
    except BaseException:
        await enforcer.run(settled(request.guard, outcome.decision, RELEASED, enforcer.recorder))
        raise
    await served.run(app, scope, receive)


async def send_answer(answer: Answer, send: Send, method: str, *, ends: bool = True) -> None:
    """Send an answer of ours; unless it `ends`, an empty last piece is still to follow."""
    body = b"" if method == "HEAD" else answer.body
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": body, "more_body": not ends})


class _Served(Served):
    """A request with the host: its messages pass, and at its end the decision is settled."""

    _ended = _replaced = False
    _only_taken = False
    """Whether pieces of the response are followed, and nothing else is done with them."""
    _renew: Callable[[], None] | None = None
    _timer: LeaseTimer | None = None

    def __init__(
        self, enforcer: AsyncEnforcer, request: Request, forward: Forward, send: Send
    ) -> None:
        super().__init__(enforcer, request, forward)
        self._enforcer = enforcer
        self._forward = forward
        self._send = send
        self._metered = request.asked.usage_format is not _NONE

    async def run(self, app: App, scope: Scope, receive: Receive) -> None:
        """Have the host serve it, to its end."""
        forward = self._forward
        body = self._request.body if forward.body is None else forward.body
        replay = Replay(receive, body)
        failed = True
        if (every := self.reservation.renews_every) is not None:
            # Of this request it knows what is renewed alone: a timer is no reason to keep it.
            self._renew = partial(self._enforcer.renew_if_due, self.reservation)
            self._timer = LeaseTimer(every, self._renew)
        try:
            await app(self._scope(scope), replay, self._pass_on)
            failed = False
        except Exception:
            await self._break_off()
            raise
        finally:
            if self.reservation.held or self._timer is not None:
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
        if self._only_taken and kind == "http.response.body" and message.get("more_body", False):
            chunk = message.get("body", b"")
            if chunk:
                self.response.take(chunk)
            await self._send(message)
            return
        if self._replaced:
            return
        if kind == "http.response.body":
            chunk, last = message.get("body", b""), not message.get("more_body", False)
            passed, response = chunk, self.response
            if response.stripper is not None:
                passed = response.sent(chunk, last=last)
            elif chunk:
                response.take(chunk)
            self._ended = self._ended or last
            if self._renew is not None:
                self._renew()
            if passed is not chunk:
                message = {**message, "body": passed}
                if not passed and not last:
                    return
        elif kind == "http.response.start":
            refusal = self.exchange.refusal
            if refusal is not None:
                self._replaced = self._ended = True
                self.response.started(refusal.status, refusal.headers)
                await send_answer(refusal, self._send, self._request.head.method)
                await self._finish(failed=False, left=False)
                return
            fields = self.response.started(message["status"], message.get("headers", ()))
            self._only_taken = self.response.stripper is None and self._renew is None
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
        changed = {**scope, STATE_KEY: self.state(self._decide_anew)}
        extensions = scope.get("extensions")
        if self._metered and extensions and not _UNSEEN.isdisjoint(extensions):
            # What a server sends out of a file by itself is not seen here.
            changed["extensions"] = {k: v for k, v in extensions.items() if k not in _UNSEEN}
        head = self._request.head
        accepted = head.named.get(b"accept-encoding") if self._metered else None
        if accepted is not None and head.repeats:
            changed["headers"] = _readable(scope["headers"], head.headers)
        elif accepted is not None and (wanted := readable(accepted)) is not None:
            fields = changed["headers"] = list(scope["headers"])
            fields[head.headers.index((b"accept-encoding", accepted))] = b"accept-encoding", wanted
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


def _readable(given: list[Field], headers: Sequence[Field]) -> list[Field]:
    """Return the fields, asking for no coding in which a response could not be metered.

    `headers` are the same with their names in lower case.
    """
    asked = list(given)
    for at, (name, value) in enumerate(headers):
        if name == b"accept-encoding" and (kept := readable(value)) is not None:
            asked[at] = name, kept
    return asked


def _without(headers: list[Field], names: frozenset[bytes]) -> list[Field]:
    return [(name, value) for name, value in headers if bytes(name).lower() not in names]

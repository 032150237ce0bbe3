"""WebSockets over ASGI: decided before they are accepted, then turn by turn."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, cast
from urllib.parse import quote_plus, unquote_plus

from guardrail.asgi.types import App, Message, Receive, Scope, Send
from guardrail.engine import Decision, merge_obligations
from guardrail.http.enforcer import AsyncEnforcer
from guardrail.http.flow import (
    RELEASED,
    STATE_KEY,
    Amounts,
    Exchange,
    RequestState,
    Reservation,
    plus,
    settled,
)
from guardrail.http.leases import LeaseTimer
from guardrail.http.metering import Frame, SessionMeter, Turn, TurnUsage, session_meter
from guardrail.http.parsing import RequestParts, RewriteError, read_parts, rewritten_path
from guardrail.http.parsing.folding import AT_ONCE
from guardrail.http.parsing.reading import REALTIME_NAMES
from guardrail.http.parsing.rewriting import CHANGES
from guardrail.http.request import (
    MODEL_LEFT_OPEN,
    Delay,
    Forward,
    Head,
    Request,
    leaves_model_open,
    wants_known_model,
)
from guardrail.http.response import Settlement
from guardrail.http.responses import (
    Answer,
    TurnRefusal,
    admitted_fields,
    degraded_turn,
    own_refused_turn,
    refused_turn,
)
from guardrail.http.responses.refusals import TurnCaller
from guardrail.model.effects import Effect, Mode
from guardrail.model.rules import Obligations

LOG = logging.getLogger("guardrail")

POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013
"""Close codes of RFC 6455 and its registry."""

_LANES = "/v1/responses"


class Session:
    """A session that was let in: its turns are decided one by one.

    Who asks, and by which policies, is established anew for each turn. A turn that is refused
    does not reach the host; the client gets an error event, and the session goes on. Where a
    client could not be told, or a turn that runs could not be ended, the connection is closed.
    """

    def __init__(
        self,
        enforcer: AsyncEnforcer,
        request: Request,
        decision: Decision,
        meter: SessionMeter,
        receive: Receive,
        send: Send,
        *,
        obliged: Mapping[str, object],
    ) -> None:
        """Take the connection, and what the decision on it obliges each of its turns to."""
        self._obliged = obliged
        self._enforcer = enforcer
        self._request = request
        self._decision = decision
        self._meter = meter
        self._receive = receive
        self._send = send
        self._held: dict[int, _Held] = {}
        self._estimate = dict(request.asked.estimate)
        self._exchange: Exchange | None = None
        self._first: Message | None = None
        self._accepted = False
        self._closed: int | None = None
        self._pending: asyncio.Future[Message] | None = None
        self._ours: deque[Message] = deque()
        self._own: Message | None = None
        self._woken = asyncio.Event()

    async def run(self, app: App, scope: Scope, first: Message) -> None:
        """Serve the session to its end, and settle what is left open then."""
        decision = self._decision
        if self._meter.opens:
            self._hold(0, decision)
        elif decision.allowed:
            # The handshake only showed that turns are welcome: nothing is reserved between them.
            guard, recorder = self._request.guard, self._enforcer.recorder
            await self._enforcer.run(settled(guard, decision, RELEASED, recorder))
        self._first = first
        addressee, style = self._request.addressee, self._enforcer.settings.style
        self._exchange = Exchange(decision)
        state = RequestState(
            self._exchange,
            self._request.guard,
            addressee,
            style,
            anew=self._decide_anew if self._meter.opens else None,
            recorder=self._enforcer.recorder,
            clock=self._enforcer.clock,
            unavailable=self._request.unavailable,
        )
        try:
            await app({**scope, STATE_KEY: state}, self._receiving, self._sending)
        finally:
            if self._pending is not None:
                self._pending.cancel()
            await self._end()

    async def _end(self) -> None:
        """Settle what is open, each by what it used; a cancelled caller takes none of it along."""
        tasks = []
        for event in self._meter.cut():
            if isinstance(event, TurnUsage) and (held := self._held.pop(event.number, None)):
                opened = event.number > 0 or self._accepted
                usage: Amounts | None = {"requests": 1, **event.usage} if opened else None
                if usage is not None and event.number == 0 and self._exchange is not None:
                    usage = self._exchange.used(usage, self._request.asked.estimate)
                tasks.append(self._enforcer.start(held.settle(Settlement(usage))))
        for held in self._held.values():
            tasks.append(self._enforcer.start(held.settle(RELEASED)))
        self._held.clear()
        if tasks:
            await asyncio.wait(tasks)

    async def _decide_anew(self, facts: Mapping[str, object], added: Amounts) -> Decision:
        """Decide on the connection once more, with what the host's own code adds to it."""
        estimate = dict(self._estimate)
        for unit, amount in added.items():
            estimate[unit] = plus(estimate.get(unit, 0), amount)
        decision = await self._held[0].decide_again(facts, estimate, served=self._accepted)
        self._decision = decision
        if decision.allowed:
            self._estimate = estimate
        return decision

    async def _receiving(self) -> Message:
        first, self._first = self._first, None
        if first is not None:
            return first
        while True:
            message = await self._next()
            if message["type"] != "websocket.receive":
                return message
            if self._closed is not None:
                continue
            if message is self._own:
                return message
            given = message.get("text")
            given = (message.get("bytes") or b"") if given is None else given
            frame = await self._read(given)
            passed, changed = await self._taken(frame)
            if passed and changed is None:
                return message
            if passed and changed is not None:
                if isinstance(given, str):
                    return {"type": "websocket.receive", "text": changed.decode()}
                return {"type": "websocket.receive", "bytes": changed}

    async def _read(self, given: str | bytes) -> Frame:
        if len(given) > AT_ONCE:
            return await asyncio.to_thread(self._meter.read, given)
        return self._meter.read(given)

    async def _taken(self, frame: Frame) -> tuple[bool, bytes | None]:
        """Return whether a frame may pass, and what it is changed to, None if it stays."""
        changed: bytes | None = None
        for event in self._meter.sent(frame):
            if isinstance(event, TurnUsage):
                await self._settle(event)
                continue
            admitted, changed = await self._admitted(event, frame)
            if not admitted:
                return False, None
        return True, changed

    async def _next(self) -> Message:
        """Return the client's next message, or one of ours that goes before it."""
        if self._pending is None:
            self._pending = asyncio.ensure_future(self._receive())
        while not self._pending.done() and not self._ours:
            self._woken.clear()
            woken = asyncio.ensure_future(self._woken.wait())
            try:
                waited: set[asyncio.Future[Any]] = {self._pending, woken}
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            finally:
                woken.cancel()
        if self._ours:
            self._own = self._ours.popleft()
            return self._own
        message, self._pending = self._pending.result(), None
        return message

    async def _sending(self, message: Message) -> None:
        if self._closed is not None:
            return
        kind = message["type"]
        for held in self._held.values():
            held.renew()
        if kind == "websocket.accept":
            self._accepted = True
            if self._decision.allowed:
                style = self._enforcer.settings.style
                ours = admitted_fields(self._decision, self._request.addressee, style)
                message = {**message, "headers": [*message.get("headers", ()), *ours]}
        elif kind == "websocket.send":
            given = message.get("text")
            given = (message.get("bytes") or b"") if given is None else given
            for event in self._meter.received(given):
                if isinstance(event, TurnUsage):
                    await self._settle(event)
                else:
                    await self._admitted(event, None)
        if self._closed is None:
            await self._send(message)

    async def _admitted(self, turn: Turn, frame: Frame | None) -> tuple[bool, bytes | None]:
        """Return whether a turn may run, and what its frame is changed to, None if it stays."""
        caller = TurnCaller(turn.event_id, self._lanes, turn.lane)
        if turn.problem is not None:
            refusal = self._own_refusal(400, "invalid_request", turn.problem, caller)
            await self._refuse(turn, refusal)
            return False, None
        try:
            decision = await self._enforcer.run(
                self._enforcer.decide_turn(self._request, turn.facts, turn.estimate)
            )
        except Exception:
            self._enforcer.note_failure()
            message = "Limits cannot be checked right now; nothing was charged. Try again shortly."
            await self._refuse(turn, self._own_refusal(503, "guard_failed", message, caller))
            return False, None
        recorder, dialect = self._enforcer.recorder, self._request.dialect
        if not decision.allowed:
            recorder.decided(decision, dialect, owes=turn.automatic)
            if turn.automatic:
                # It runs until the host hears of it: what it uses is charged all the same.
                self._hold(turn.number, decision.case.engine.owing(decision))
            refusal = refused_turn(decision, self._enforcer.settings.style, caller)
            await self._refuse(turn, refusal, later=decision.retry_after is not None)
            return False, None
        self._hold(turn.number, decision)
        changed: bytes | None = None
        obligations: Mapping[str, object] = decision.obligations
        if self._obliged:
            own = _obligations(obligations)
            chain = () if own.model is None else (own.model,)
            obligations = merge_obligations((own, _obligations(self._obliged)), chain)
        asked = None if frame is None else frame.asked
        if asked is None:
            left_open = wants_known_model(decision)
        else:
            left_open = leaves_model_open(decision, asked)
        if CHANGES & obligations.keys() or left_open:
            try:
                if left_open:
                    raise RewriteError(MODEL_LEFT_OPEN)
                changed = self._meter.changed(
                    frame or Frame(text=b"", event={}, tokens=0), turn, obligations
                )
            except RewriteError as problem:
                if turn.automatic:
                    # It runs with all it asks for, until the host hears of it.
                    recorder.decided(decision, dialect)
                else:
                    await self._held.pop(turn.number).settle(RELEASED, recorded=False)
                message = f"It could only be served with less than it asks for, and {problem}."
                refusal = self._own_refusal(403, "degrade_not_possible", message, caller)
                await self._refuse(turn, refusal)
                return False, None
            recorder.decided(decision, dialect)
            if self._meter.speaks_errors and CHANGES & decision.obligations.keys():
                await self._say(degraded_turn(decision, caller))
        else:
            recorder.decided(decision, dialect)
        if turn.brief:
            incoming = turn.estimate.get("input_tokens", 0)
            usage = {"input_tokens": incoming, "output_tokens": 0}
            await self._settle(TurnUsage(turn.number, usage))
        elif not turn.automatic:
            self._meter.passed(turn)
        return True, changed

    @property
    def _lanes(self) -> bool:
        return self._request.facts.get("request.endpoint") == _LANES

    def _own_refusal(self, status: int, code: str, message: str, caller: TurnCaller) -> TurnRefusal:
        """Log a refusal that no decision stands behind, and return how it is told."""
        request_id = self._request.logged(status, code)
        return own_refused_turn(request_id, status, code, message, caller)

    async def _refuse(self, turn: Turn, refusal: TurnRefusal, *, later: bool = False) -> None:
        """Tell the client that a turn is refused, and end it where it runs already."""
        if self._meter.speaks_errors:
            await self._say(refusal.event)
        cancel = self._meter.cancel(turn) if turn.automatic else None
        if cancel is not None:
            self._ours.append({"type": "websocket.receive", "text": cancel})
            self._woken.set()
        elif turn.automatic or not self._meter.speaks_errors:
            await self._close(TRY_AGAIN_LATER if later else POLICY_VIOLATION, refusal.reason)

    async def _close(self, code: int, reason: str) -> None:
        """Close the connection on both sides."""
        if self._closed is None and self._accepted:
            self._closed = code
            await self._send({"type": "websocket.close", "code": code, "reason": reason})
            self._ours.clear()
            self._ours.append({"type": "websocket.disconnect", "code": code, "reason": reason})
            self._woken.set()

    def _hold(self, number: int, decision: Decision) -> None:
        self._held[number] = _Held(self._enforcer, self._enforcer.held(self._request, decision))

    async def _settle(self, used: TurnUsage) -> None:
        held = self._held.pop(used.number, None)
        if held is not None:
            nothing = used.failed and not used.usage.get("output_tokens")
            usage = {"requests": 1, **used.fed, **used.usage}
            await held.settle(Settlement(None if nothing else usage))

    async def _say(self, event: str) -> None:
        if self._closed is None:
            await self._send({"type": "websocket.send", "text": event})


def _obligations(told: Mapping[str, object]) -> Obligations:
    """Return what of told obligations changes a request."""
    return Obligations(
        model=cast("str | None", told.get("model")),
        max_output_tokens=cast("int | None", told.get("max_output_tokens")),
        disable=tuple(cast(Iterable[str], told.get("disable", ()))),
    )


class _Held:
    """What a turn that runs holds: a reservation whose places in flight are kept alive."""

    def __init__(self, enforcer: AsyncEnforcer, reservation: Reservation) -> None:
        self._enforcer = enforcer
        self._reservation = reservation
        self.renew = partial(enforcer.renew_if_due, reservation)
        """Renews its places in flight, if that is due."""
        self._timer = LeaseTimer(reservation.renews_every, self.renew)

    async def settle(self, settlement: Settlement, *, recorded: bool = True) -> None:
        """Settle it, once."""
        self._timer.cancel()
        await self._enforcer.run(self._reservation.settle(settlement, recorded=recorded))

    async def decide_again(
        self, facts: Mapping[str, object], estimate: Amounts, *, served: bool
    ) -> Decision:
        """Decide in its place once more, as `Reservation.decide_again` does."""
        flow = self._reservation.decide_again(facts, estimate, served=served)
        decision = await self._enforcer.run(flow)
        if self._reservation.held:
            self._reservation.taken(self._enforcer.clock())
            self._timer.start()
        return decision


EXTENSION = "websocket.http.response"

TOLD_BY_TURNS = frozenset(
    "request.tools request.toolset request.template request.stream request.reasoning "
    "request.capability".split()
)
"""Facts that a handshake says nothing of: each turn has its own."""

_EPHEMERAL = (b"bearer ek_", b"token auth_tokens/")


async def serve_websocket(
    enforcer: AsyncEnforcer, app: App, head: Head, scope: Scope, receive: Receive, send: Send
) -> None:
    """Guard one connection; what the host raises goes through unchanged."""
    if head.is_one_of(enforcer.settings.exempt):
        await app(scope, receive, send)
        return
    request = _Handshake(head, enforcer)
    first = await receive()
    if first["type"] != "websocket.connect":
        return

    outcome = await enforcer.run(enforcer.admit(request))
    if isinstance(outcome, Answer):
        await _deny(outcome, scope, send)
        return
    session = Session(
        enforcer, request, outcome.decision, request.meter, receive, send, obliged=request.obliged
    )
    await session.run(app, {**scope, **request.address(scope["path"])}, first)


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


class _Handshake(Request):
    """The request that opens a connection. What its turns will ask for is not known from it.

    Where turns tell that themselves, the connection is let in although it would be refused if it
    were known to ask for the worst: each turn is decided by what it does ask for.
    """

    def __init__(self, head: Head, enforcer: AsyncEnforcer) -> None:
        super().__init__(head, enforcer.settings)
        self.has_body = False
        self._enforcer = enforcer
        self.meter: SessionMeter = self._follow(None)
        self._weaker: RequestParts | None = None
        self.obliged: Mapping[str, object] = {}

    def address(self, path: str) -> Scope:
        """Return what of the scope is changed, given its path: the address, if it is degraded."""
        weaker = self._weaker
        if weaker is None:
            return {}
        whole = path.removesuffix(self.head.path) + weaker.path
        raw = {"path": whole, "raw_path": whole.encode()} if whole != path else {}
        return {"query_string": weaker.query, **raw}

    def _follow(self, model: str | None) -> SessionMeter:
        settings, query = self._enforcer.settings, self.head.query
        return session_meter(
            self.head.path,
            query,
            hash_key=settings.hash_key,
            limits=settings.reading,
            model=model,
            ephemeral=_is_ephemeral(self.head),
            classifiers=settings.classifiers,
        )

    def received(self, body: bytes | None) -> Answer | None:
        """Take that there is no body, and that its absence says nothing."""
        answer = super().received(body)
        for name in self._told_by_turns:
            self.facts.pop(name, None)
        model = self.facts.get("request.model")
        self.meter = self._follow(model if isinstance(model, str) else None)
        return answer

    def decided(self, decision: Decision, waited: float = 0.0) -> Answer | Delay | Forward:
        """Return what follows a decision on the connection itself."""
        if not decision.allowed:
            if self.meter.opens or self._is_certain(decision, Effect.THROTTLE):
                return super().decided(decision, waited)
            return Forward(decision, None, None, False)
        try:
            self._degrade(decision)
        except RewriteError as problem:
            message = f"This connection could only be served with less, and {problem}."
            return self.refused(403, "degrade_not_possible", message)
        return Forward(decision, None, None, False)

    def _degrade(self, decision: Decision) -> None:
        """Change the address as a decision obliges; what turns ask for is changed in them.

        Raises:
            RewriteError: it cannot be changed so.
        """
        obligations, parts = decision.obligations, self._parts
        if self.meter.opens and CHANGES & obligations.keys():
            raise RewriteError("nothing of what it says is known")
        model = obligations.get("model")
        if not isinstance(model, str) or self.facts.get("request.model") in (None, model):
            return
        if not self._is_certain(decision, Effect.DEGRADE):
            return
        path = rewritten_path(self.asked, {"model": model}) or parts.path
        weaker = parts._replace(path=path, query=_with_model(parts.query, model))
        if read_parts(weaker).facts.get("request.model") != model:
            raise RewriteError("its model cannot be changed")
        self._weaker = weaker
        # The rule may look at the model, which its turns are now asked for with another.
        self.obliged = {n: v for n, v in obligations.items() if n in CHANGES and n != "model"}
        self.meter = self._follow(model)

    @property
    def _told_by_turns(self) -> frozenset[str]:
        return TOLD_BY_TURNS | {"request.model"} if self.meter.names_model else TOLD_BY_TURNS

    def _is_certain(self, decision: Decision, least: Effect) -> bool:
        """Whether a decision stands whatever the turns ask for."""
        asking = [
            rule
            for rule in decision.explain().rules
            if rule.effect is not None and rule.effect >= least and rule.mode is Mode.ENFORCE
        ]
        if decision.rule not in {rule.rule for rule in asking}:
            return True
        told = self._told_by_turns
        return any(
            not rule.unknown
            or any(test.answer is None and test.fact not in told for test in rule.condition.tests)
            for rule in asking
        )


def _is_ephemeral(head: Head) -> bool:
    """Whether a credential was made for one session, which it may have set up."""
    for name, value in head.headers:
        if name == b"authorization" and value.lower().startswith(_EPHEMERAL):
            return True
    return b"access_token=" in head.query or any(".ek_" in name for name in head.subprotocols)


def _with_model(query: bytes, model: str) -> bytes:
    """Return a query with another model in the place of every one it names."""
    changed = []
    for pair in query.split(b"&"):
        name = unquote_plus(pair.partition(b"=")[0].decode("latin-1"))
        changed.append(f"{name}={quote_plus(model)}".encode() if name in REALTIME_NAMES else pair)
    return b"&".join(changed)

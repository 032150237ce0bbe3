"""One WebSocket connection over ASGI: decided before it is accepted, and turn by turn."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote_plus, unquote_plus

from guardrail.asgi.http import App, Receive, Scope, Send
from guardrail.asgi.realtime import POLICY_VIOLATION, TRY_AGAIN_LATER, Session
from guardrail.engine import Decision
from guardrail.http.answers import Answer
from guardrail.http.asked import RequestParts, RewriteError, read_parts, rewritten_path
from guardrail.http.enforcer import AsyncEnforcer
from guardrail.http.meter import SessionMeter, session_meter
from guardrail.http.request import CHANGES, Delay, Exchange, Forward, Head
from guardrail.model.effects import Effect, Mode

EXTENSION = "websocket.http.response"

TOLD_BY_TURNS = frozenset(
    "request.tools request.toolset request.template request.stream request.reasoning "
    "request.capability".split()
)
"""Facts that a handshake says nothing of: each turn has its own."""

_EPHEMERAL = (b"bearer ek_", b"token auth_tokens/")


async def serve_websocket(
    door: AsyncEnforcer, app: App, head: Head, scope: Scope, receive: Receive, send: Send
) -> None:
    """Guard one connection; what the host raises goes through unchanged."""
    if head.is_one_of(door.settings.exempt):
        await app(scope, receive, send)
        return
    exchange = _Handshake(head, door)
    first = await receive()
    if first["type"] != "websocket.connect":
        return

    outcome = await door.run(door.admit(exchange))
    if isinstance(outcome, Answer):
        await _deny(outcome, scope, send)
        return
    session = Session(
        door, exchange, outcome.decision, exchange.meter, receive, send, obliged=exchange.obliged
    )
    await session.run(app, {**scope, **exchange.address(scope["path"])}, first)


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


class _Handshake(Exchange):
    """The request that opens a connection. What its turns will ask for is not known from it.

    Where turns tell that themselves, the connection is let in although it would be refused if it
    were known to ask for the worst: each turn is decided by what it does ask for.
    """

    def __init__(self, head: Head, door: AsyncEnforcer) -> None:
        super().__init__(head, door.settings)
        self.has_body = False
        self._door = door
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
        settings, query = self._door.settings, self.head.query
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
        for name in TOLD_BY_TURNS:
            self.facts.pop(name, None)
        model = self.facts.get("request.model")
        self.meter = self._follow(model if isinstance(model, str) else None)
        return answer

    def decided(self, decision: Decision, waited: float = 0.0) -> Answer | Delay | Forward:
        """Return what follows a decision on the connection itself."""
        if not decision.allowed:
            if self.meter.opens or _is_certain(decision, Effect.THROTTLE):
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
        if parts is None or not _is_certain(decision, Effect.DEGRADE):
            return
        path = rewritten_path(self.asked, {"model": model}) or parts.path
        weaker = parts._replace(path=path, query=_with_model(parts.query, model))
        if read_parts(weaker).facts.get("request.model") != model:
            raise RewriteError("its model cannot be changed")
        self._weaker = weaker
        # The rule may look at the model, which its turns are now asked for with another.
        self.obliged = {n: v for n, v in obligations.items() if n in CHANGES and n != "model"}
        self.meter = self._follow(model)


def _is_certain(decision: Decision, least: Effect) -> bool:
    """Whether a decision stands whatever the turns ask for."""
    asking = [
        rule
        for rule in decision.explain().rules
        if rule.effect is not None and rule.effect >= least and rule.mode is Mode.ENFORCE
    ]
    if decision.rule not in {rule.rule for rule in asking}:
        return True
    return any(
        not rule.unknown
        or any(test.answer is None and test.fact not in TOLD_BY_TURNS for test in rule.tests)
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
    pairs = query.split(b"&")
    named = f"model={quote_plus(model)}".encode()
    return b"&".join(
        named if unquote_plus(pair.partition(b"=")[0].decode("latin-1")) == "model" else pair
        for pair in pairs
    )

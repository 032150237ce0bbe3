"""The guard as a service that proxies ask: Envoy, nginx, Traefik, Caddy, or AuthZEN clients.

A proxy asks before it passes a request on, and shows its head alone: requests and who asks can be
limited, tokens, what a body holds and places in flight cannot: rules that rest on those are named
in the log, and never told to clients. `uvicorn --factory guardrail.asgi.authorizer:serve`
runs it, with settings as `GUARDRAIL_CONFIG` says and the profile from `GUARDRAIL_AUTHORIZER`.
"""

from __future__ import annotations

import hmac
import logging
import os
from dataclasses import replace
from typing import Any

from guardrail.asgi.lifespan import NotStarted, serve_lifespan
from guardrail.asgi.middleware import ClientLeftError, read_body, send_answer
from guardrail.asgi.types import Receive, Scope, Send
from guardrail.errors import GuardrailError, SettingError
from guardrail.http.authorizing import (
    EVALUATION,
    ORIGINAL,
    Profile,
    evaluated,
    framing_of,
    is_bare,
    not_asked,
    original,
    question_of,
    refusal_for,
)
from guardrail.http.doors import DOORS, unfed
from guardrail.http.enforcer import AsyncEnforcer
from guardrail.http.flow import TooLargeError, TooSlowError, settled
from guardrail.http.parsing.values import FREE
from guardrail.http.request import Request, head_of_scope, is_let_through
from guardrail.http.response import Settlement
from guardrail.http.responses import Answer, admitted_fields
from guardrail.http.settings.build import configure
from guardrail.loading import nearest
from guardrail.model.policy import PolicySet
from guardrail.signals import is_proxy

LOG = logging.getLogger("guardrail")
PROFILE, TOKEN = "GUARDRAIL_AUTHORIZER", "GUARDRAIL_AUTHORIZER_TOKEN"
LONGEST_QUESTION = 1 << 16
ANSWER_WITHIN = 10.0

BELIEVES_ALL = (
    "whoever reaches this port is believed, account and tier included, as "
    "`GUARDRAIL_AUTHORIZER_TOKEN` is not set: set it, or let only your own services reach the port"
)

NOT_BELIEVED = (
    "a question about another request was refused, as none of `proxies` asked it: name the proxy "
    "there, and let the server not read `X-Forwarded-For` itself, which puts the client in the "
    "proxy's place (`uvicorn --no-proxy-headers`)"
)
NOT_TOLD = (
    "a proxy asked without `{}` and `{}`, and was refused: let it send both, the method and the "
    "target of the request that it holds"
)


class Authorizer:
    """Answers whether a request may pass; `profile` is one of `Profile`, options the middleware's.

    The original method and target are read from a declared proxy alone, and so is the client's
    address. With a `token`, AuthZEN callers have to send it as their bearer token.

    Raises:
        SettingError: a setting is not usable.
        PolicyError: the policies cannot be loaded.
    """

    def __init__(self, profile: str, *, token: str | None = None, **options: Any) -> None:
        known = [each.value for each in Profile]
        if profile not in known:
            near = nearest(profile, known)
            meant = f"did you mean `{near}`?" if near else f"it can be {', '.join(known)}"
            raise SettingError(f"`{profile}` is no profile of an authorizer: {meant}")
        self.profile = Profile(profile)
        self.door = AsyncEnforcer(configure(options))
        self._token = None if token is None else f"Bearer {token}".encode()
        self.door.configured.states_callers = self.profile is Profile.AUTHZEN
        if token is None and self.profile is Profile.AUTHZEN:
            self.door.configured.note((BELIEVES_ALL,))
        self._kind = "authzen" if self.profile is Profile.AUTHZEN else "authorizer"
        # What is never counted must not be told to clients as if it were.
        settings = self.door.settings
        style = replace(settings.style, units=DOORS[self._kind].units)
        self.door.settings = replace(settings, style=style)
        self._told: PolicySet | None = None
        self._say_unfed()

    def _say_unfed(self) -> None:
        """Log which rules of the policies in force cannot be enforced from here, each once."""
        policies = self.door.configured.policies
        if policies is self._told:
            return
        self._told = policies
        self.door.configured.note(
            f"rule `{found.rule.id}` cannot be enforced by an authorizer: {found.why}"
            for found in unfed(policies, self._kind)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one question."""
        if scope["type"] == "lifespan":
            await serve_lifespan(self.door, _idle, scope, receive, send)
        elif scope["type"] == "http" and self.profile is Profile.AUTHZEN:
            await send_answer(await self._evaluated(scope, receive), send, scope["method"])
        elif scope["type"] == "http":
            await send_answer(await self._checked(scope), send, scope["method"])

    async def _checked(self, scope: Scope) -> Answer:
        settings = self.door.settings
        self._say_unfed()
        asked = head_of_scope(scope)
        names = ORIGINAL.get(self.profile, ())
        believed = not names or is_proxy(asked.peer, settings.callers.proxies)
        if not believed:
            self.door.configured.note((NOT_BELIEVED,))
        elif not all(name in asked.named for name in names):
            self.door.configured.note((NOT_TOLD.format(*(n.decode("ascii") for n in names)),))
        head = original(asked, self.profile) if believed else None
        if head is None:
            return Answer(403, [(b"content-length", b"0")], b"")
        # Whether a preflight has a body only the proxy's own question tells, if at all.
        told = head.changed(headers=(*head.headers, *framing_of(asked)))
        if is_let_through(told, settings) and (is_bare(told) or told.is_one_of(settings.exempt)):
            return Answer(200, [(b"content-length", b"0")], b"")
        request = Request(head, settings, is_seen=False)
        outcome = await self.door.run(self.door.admit(request))
        if isinstance(outcome, Answer):
            return refusal_for(self.profile, outcome, request.addressee, settings.style)
        # Nobody tells when it ends: it is settled now, and holds no place.
        decision, recorder = outcome.decision, self.door.recorder
        await self.door.run(settled(request.guard, decision, Settlement(FREE), recorder))
        fields = admitted_fields(outcome.decision, request.addressee, settings.style)
        return Answer(200, [(b"content-length", b"0"), *fields], b"")

    async def _evaluated(self, scope: Scope, receive: Receive) -> Answer:
        sent = dict(scope["headers"]).get(b"authorization", b"")
        if self._token is not None and not hmac.compare_digest(sent, self._token):
            refused = not_asked("unauthorized")
            return refused._replace(
                status=401, headers=[*refused.headers, (b"www-authenticate", b"Bearer")]
            )
        if scope["method"] != "POST" or scope["path"] != EVALUATION:
            return not_asked(f"POST an evaluation to {EVALUATION}")._replace(status=404)
        try:
            body = await read_body(receive, LONGEST_QUESTION, ANSWER_WITHIN)
        except (ClientLeftError, TooLargeError, TooSlowError):
            return not_asked("the evaluation is too long, or late")
        await self.door.look()
        self._say_unfed()
        question = question_of(body, self.door.guard.policies.facts)
        if question is None:
            return not_asked("an evaluation names a subject, an action and a resource")
        decision = await self.door.run(self.door.evaluate(question.facts, question.estimate))
        return evaluated(decision)


def serve() -> Authorizer | NotStarted:
    """Return the authorizer that the environment asks for, or what fails the start in its place."""
    profile = os.environ.get(PROFILE)
    try:
        if not profile:
            names = ", ".join(each.value for each in Profile)
            raise SettingError(f"`{PROFILE}` names no profile: set it to one of {names}")
        return Authorizer(profile, token=os.environ.get(TOKEN))
    except GuardrailError as problem:
        return NotStarted(problem)


async def _idle(scope: Scope, receive: Receive, send: Send) -> None:
    for step in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{step}.complete"})

"""The guard in LiteLLM's proxy: `callbacks: [guardrail.http.litellm.guard]` puts it there.

Which of LiteLLM's hooks run differs from one kind of call to the next and from version to version;
none runs after a moderation or a transcription. So no hook is used: the entry adds the middleware
to the proxy's own app, where every call passes once on its way in and its response on its way out.
The proxy stays the one that authenticates, and is asked who a key belongs to.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Unpack, cast

from fastapi import FastAPI, Request, WebSocket
from fastapi.middleware import Middleware
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import LiteLLMRoutes

from guardrail.asgi.middleware import AsyncOptions, ClientLeftError, read_body, serve_http
from guardrail.asgi.types import App, Message, Receive, Scope, Send
from guardrail.asgi.websocket import serve_websocket
from guardrail.errors import SettingError
from guardrail.guard import AsyncGuard
from guardrail.http.enforcer import AsyncEnforcer
from guardrail.http.flow import TooLargeError, TooSlowError
from guardrail.http.identity import Caller, CallerResolver
from guardrail.http.parsing import Classifier, ParsedRequest, RequestParts, read_parts
from guardrail.http.parsing.endpoints import Kind, endpoint_of
from guardrail.http.request import Head, head_of_scope, is_let_through
from guardrail.http.settings.build import configure
from guardrail.http.settings.reload import Reloads
from guardrail.http.settings.values import HttpSettings
from guardrail.signals.directory import Identity, credential_id

FactsOf = Callable[[Any], Mapping[str, object]]
Established = Callable[[], Awaitable[Identity]]

PROXY = "litellm.proxy.proxy_server"
DEFAULTS: Mapping[str, object] = {"dialect": "openai", "stream_usage": True}
"""What settings are without a word of the operator's: LiteLLM tells the use of any stream."""

FALLBACKS = tuple(
    "fallbacks context_window_fallbacks content_policy_fallbacks router_settings_override "
    "user_config".split()
)
"""Members by which a request lets LiteLLM choose another model, or brings models of its own."""
ADMINISTRATION = tuple(
    "management_routes info_routes spend_tracking_routes global_spend_tracking_routes "
    "public_routes master_key_only_routes self_managed_routes ui_routes".split()
)
"""The lists of LiteLLM's that name what is no call to a model, as far as a version has them."""

KEYS = frozenset(
    {
        b"api-key",
        b"authorization",
        b"ocp-apim-subscription-key",
        b"sec-websocket-protocol",
        b"x-api-key",
        b"x-goog-api-key",
        b"x-litellm-api-key",
    }
)
"""The fields that LiteLLM looks for keys in."""

WHO = ("account.id", "account.org")
"""What is unknown while LiteLLM cannot tell whose a key is."""

_ESTABLISHED: contextvars.ContextVar[Established | None] = contextvars.ContextVar(
    "guardrail.litellm", default=None
)


def facts_of_key(key: Any) -> dict[str, object]:
    """Return what a virtual key establishes: its user, and its organisation or team."""
    account = getattr(key, "user_id", None) or getattr(key, "token", None)
    org = getattr(key, "org_id", None) or getattr(key, "team_id", None)
    stated = {"account.id": account, "account.org": org}
    return {name: value for name, value in stated.items() if value}


class GuardrailCallback(CustomLogger):  # type: ignore[misc]
    """Puts the guard into the proxy's app; none of LiteLLM's hooks is used.

    `facts` turns the proxy's `UserAPIKeyAuth` into server facts, a tier say. `app` is the proxy's
    app where it is not the one that runs here. Options are those of the middleware.

    Raises:
        SettingError: a setting is not usable, or there is no proxy here.
        PolicyError: the policies cannot be loaded.
    """

    def __init__(
        self,
        *,
        facts: FactsOf = facts_of_key,
        app: FastAPI | None = None,
        **options: Unpack[AsyncOptions],
    ) -> None:
        super().__init__()
        proxy = _proxy() if app is None else app
        self._sleep = options.pop("sleep", asyncio.sleep)
        options["classifiers"] = (_reading(options.get("classifiers") or ()),)
        self._options = options
        self._door = self._made()
        if _serves():
            # The proxy is starting: what cannot be opened ends it.
            self._door.open()
        _add(proxy, Middleware(ProxyMiddleware, entry=self, facts=facts))

    @property
    def door(self) -> AsyncEnforcer:
        """What the calls share; made anew once it was closed with an event loop that ended."""
        if self._door.closed:
            self._door = self._made()
        return self._door

    @property
    def guard(self) -> AsyncGuard:
        """This process's guard."""
        return self.door.guard

    def metrics(self) -> str:
        """Return what this process counted, in the text format of Prometheus."""
        return self.door.metrics()

    async def reload(self) -> Reloads | None:
        """Load the policies anew, whole or not at all; None where the guard is the host's own."""
        return await self.door.reload()

    def _made(self) -> AsyncEnforcer:
        configured = configure(self._options, defaults=DEFAULTS)
        configured.callers = _KeyResolver(hash_key=configured.http.hash_key)
        return AsyncEnforcer(configured, self._sleep)


class ProxyMiddleware:
    """Guards every call to a model that passes through LiteLLM's app; the rest passes as it is.

    It stands innermost among the proxy's middleware: below what bounds, unpacks and compresses,
    right before the router.
    """

    def __init__(self, app: App, *, entry: GuardrailCallback, facts: FactsOf) -> None:
        self.app = app
        self._entry = entry
        self._facts = facts
        self._closing: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        door, head = self._entry.door, head_of_scope(scope)
        exempt = kind == "http" and is_let_through(head, door.settings)
        if exempt or not is_guarded(head.path):
            await self.app(scope, receive, send)
            return
        if self._closing is None:
            self._closing = asyncio.create_task(self._close_at_the_end(door))
        hash_key = door.settings.hash_key
        if kind == "websocket":
            _ESTABLISHED.set(lambda: self._who(scope, b"", hash_key))
            await serve_websocket(door, self.app, head, scope, receive, send)
            return
        body, receive = await self._read(door.settings, head, receive)
        _ESTABLISHED.set(lambda: self._who(scope, body, hash_key))
        await serve_http(door, self.app, head, scope, receive, send)

    async def _read(
        self, settings: HttpSettings, head: Head, receive: Receive
    ) -> tuple[bytes, Receive]:
        """Return the body, which LiteLLM authenticates with, and a `receive` that gives it again.

        A body that cannot be read is not; who reads from `receive` then meets the reason.
        """
        most, length = settings.reading.max_body, head.stated_length
        if not head.announces_body or (length is not None and length > most):
            return b"", receive
        try:
            body = await read_body(receive, most, settings.body_timeout)
        except (ClientLeftError, TooLargeError, TooSlowError) as problem:
            return b"", _Again(receive, problem)
        return body, _Again(receive, body)

    async def _who(self, scope: Scope, body: bytes, hash_key: bytes) -> Identity:
        """Return whom LiteLLM takes a request to be from, nobody if it does not accept its key.

        LiteLLM is asked with a copy of the request, and authenticates once more when it serves it:
        what it changes then (another model over a budget of its own) stays its own affair.
        """
        asked = {**scope, "state": dict(scope.get("state") or {})}
        asked.pop("parsed_body", None)
        try:
            # In a task, as LiteLLM notes who asks in variables of the context.
            key = await asyncio.create_task(_authenticated(asked, body))
        except Exception as problem:
            failed = presents_key(scope["headers"]) and not _refuses(problem)
            return Identity(unavailable=frozenset(WHO if failed else ()))
        await _give_back(key)
        facts = dict(self._facts(key))
        token = getattr(key, "token", None)
        if token:
            facts["credential.id"] = credential_id(token, hash_key)
        return Identity(facts)

    async def _close_at_the_end(self, door: AsyncEnforcer) -> None:
        """Close the guard when the event loop ends: the proxy's shutdown asks no one."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._closing = None
            await door.close()


class _KeyResolver(CallerResolver):
    """Stands in for the directory: whose a credential is, LiteLLM says."""

    __slots__ = ()

    async def find(self, caller: Caller, now: float) -> Identity:
        """Return who asks, established anew each time."""
        established = _ESTABLISHED.get()
        return Identity() if established is None else await established()


class _Again:
    """The `receive` of a request whose body was read before: the body, or why it was not."""

    def __init__(self, receive: Receive, outcome: bytes | Exception) -> None:
        self._receive = receive
        self._outcome: bytes | Exception | None = outcome

    async def __call__(self) -> Message:
        """Return the body once, then what comes."""
        outcome, self._outcome = self._outcome, None
        if outcome is None:
            return await self._receive()
        if isinstance(outcome, Exception):
            raise outcome
        return {"type": "http.request", "body": outcome, "more_body": False}


def _serves() -> bool:
    """Tell whether an event loop runs here: the proxy's, which is starting."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def is_guarded(path: str) -> bool:
    """Tell whether a path leads to a model: by LiteLLM's own lists, or by what we know of paths.

    LiteLLM lets keys that are no administrator's onto no other paths than those in its lists.
    """
    from litellm.proxy.auth.route_checks import RouteChecks
    from litellm.proxy.pass_through_endpoints.pass_through_endpoints import (
        InitPassThroughEndpointHelpers,
    )

    if RouteChecks.is_llm_api_route(path):
        return True
    if InitPassThroughEndpointHelpers.is_registered_pass_through_route(path):
        return True
    for name in ADMINISTRATION:
        routes = getattr(LiteLLMRoutes, name, None)
        if routes is not None and RouteChecks.check_route_access(path, list(routes.value)):
            return False
    return endpoint_of(path).kind is not Kind.UNKNOWN


def presents_key(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Tell whether a request holds anything that LiteLLM may take for a key."""
    return any(name.lower() in KEYS and value for name, value in headers)


def _refuses(problem: Exception) -> bool:
    """Tell whether LiteLLM raised to say that a key is not accepted, and not because it failed."""
    status = getattr(problem, "status_code", None) or getattr(problem, "code", None)
    return str(status).isdigit() and 400 <= int(str(status)) < 500


def _proxy() -> FastAPI:
    proxy = sys.modules.get(PROXY)
    if proxy is None:
        raise SettingError(
            "there is no LiteLLM proxy in this process: name `guardrail.http.litellm.guard` under "
            "`litellm_settings: callbacks` in the proxy's configuration"
        )
    return cast(FastAPI, proxy.app)


def _add(app: FastAPI, middleware: Middleware) -> None:
    """Add a middleware below all others, also to an app that is about to start.

    The proxy reads its configuration while it starts: its middleware is in place by then, and is
    built once more from the same list. No request was served yet.
    """
    app.user_middleware.append(middleware)
    if app.middleware_stack is not None:
        app.middleware_stack = app.build_middleware_stack()


async def _authenticated(scope: Scope, body: bytes) -> Any:
    """Return what LiteLLM makes of a request's credentials, a `UserAPIKeyAuth`; or raise."""
    from litellm.proxy.auth import user_api_key_auth as auth

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        """Swallow the end of a handshake that is not accepted: LiteLLM itself is to say it."""

    if scope["type"] == "websocket":
        return await auth.user_api_key_auth_websocket(WebSocket(scope, receive, send))
    request = Request(scope, receive)
    # With the body at hand a form can be read from it as well.
    await request.body()
    stated: dict[str, Any] = {"request": request}
    for name, parameter in inspect.signature(auth.user_api_key_auth).parameters.items():
        read = getattr(parameter.default, "dependency", None)
        if read is not None:
            stated[name] = await read(request)
    try:
        return await auth.user_api_key_auth(**stated)
    finally:
        await request.close()


async def _give_back(key: Any) -> None:
    """Let go of the part of a budget that LiteLLM set aside as it authenticated a copy."""
    reserved = getattr(key, "budget_reservation", None)
    if reserved is None:
        return
    from litellm.proxy.spend_tracking.budget_reservation import release_unbound_budget_reservation

    await release_unbound_budget_reservation(reserved)


def _reading(others: Sequence[Classifier]) -> Classifier:
    """Return what reads requests to the proxy: it takes models in ways that no API has."""

    def read(parts: RequestParts) -> ParsedRequest:
        asked = read_parts(parts, others)
        if asked.problem is not None or not isinstance(asked.document, dict):
            return asked
        for name in FALLBACKS:
            if asked.document.get(name) is not None:
                return _several(asked, name)
        model = asked.document.get("model")
        return _several(asked, "model") if isinstance(model, str) and "," in model else asked

    return read


def _several(asked: ParsedRequest, param: str) -> ParsedRequest:
    """Return a request that leaves it to LiteLLM which of several models answers, as unreadable."""
    facts = {name: value for name, value in asked.facts.items() if name != "request.model"}
    problem = f"`{param}` names several models: ask one model in each request"
    return asked._replace(facts=facts, problem=problem, status=400, param=param)


def __getattr__(name: str) -> Any:
    """Make the entry that a proxy's configuration names: `guardrail.http.litellm.guard`."""
    if name == "guard":
        return globals().setdefault("guard", GuardrailCallback())
    raise AttributeError(f"module `{__name__}` has no `{name}`")

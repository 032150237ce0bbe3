"""A callback for the LiteLLM proxy: its hooks ask the guard, and settle what was used.

`callbacks: guardrail.http.litellm.guard` in `litellm_settings` makes it from `GUARDRAIL_CONFIG`.
The proxy authenticates before its hooks run: who asks is what it says of the virtual key.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple, Unpack

from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import ProxyException

from guardrail.engine import Decision
from guardrail.guard import AsyncGuard
from guardrail.http.answers import Addressee, admitted_fields, refuse
from guardrail.http.asked import Asked, Dialect, RewriteError, read_request, rewritten
from guardrail.http.exchange.async_door import AsyncDoor
from guardrail.http.exchange.leases import Leases
from guardrail.http.exchange.serving import Serving, Settlement
from guardrail.http.settings.opening import configure
from guardrail.http.settings.options import Options
from guardrail.signals.directory import credential_id

FactsOf = Callable[[Any], Mapping[str, object]]

PATHS = {
    "completion": "/v1/chat/completions",
    "text_completion": "/v1/completions",
    "embedding": "/v1/embeddings",
    "responses": "/v1/responses",
    "anthropic_messages": "/v1/messages",
    "image_generation": "/v1/images/generations",
    "transcription": "/v1/audio/transcriptions",
    "speech": "/v1/audio/speech",
    "rerank": "/rerank",
    "create_batch": "/v1/batches",
}
"""The endpoint that each of LiteLLM's call types stands for, without the `a` of its async twin."""

# What the proxy adds to a request for its own purposes.
_OWN = {"litellm_call_id", "litellm_logging_obj", "litellm_metadata", "metadata"}
_OWN |= {"proxy_server_request", "secret_fields", "user_api_key_dict"}
_MOST_OPEN = 100_000
LONGEST_CALL = 3600.0
"""Seconds after which the leases of a call are no longer renewed: no hook may end it."""


class _Call(NamedTuple):
    serving: Serving
    leases: Leases


def facts_of_key(key: Any) -> dict[str, object]:
    """Return what a virtual key establishes: its user, and its organisation or team."""
    account = getattr(key, "user_id", None) or getattr(key, "token", None)
    org = getattr(key, "org_id", None) or getattr(key, "team_id", None)
    stated = {"account.id": account, "account.org": org}
    return {name: value for name, value in stated.items() if value}


class GuardrailCallback(CustomLogger):  # type: ignore[misc]
    """Decides before a model is called, and settles after it, over LiteLLM's hooks.

    `facts` turns the proxy's `UserAPIKeyAuth` into server facts, a tier say. Options are those
    of the middleware. The hooks do not run on every pass-through route: guard those by the
    middleware around the proxy's app.
    """

    def __init__(self, *, facts: FactsOf = facts_of_key, **options: Unpack[Options]) -> None:
        super().__init__()
        self.door = AsyncDoor(configure(options))
        self.configured = self.door.configured
        self._facts = facts
        self._open: dict[str, list[_Call]] = {}
        self._answered: dict[str, Decision] = {}

    @property
    def guard(self) -> AsyncGuard:
        """This process's guard."""
        return self.door.guard

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """Decide; raise the refusal, or return the request as the decision obliges.

        Raises:
            ProxyException: the request is refused.
        """
        await self.door.look()
        settings = self.configured.http
        asked = _asked(data, call_type, settings.hash_key)
        facts = {**asked.facts, **self._facts(user_api_key_dict)}
        token = getattr(user_api_key_dict, "token", None)
        if token:
            facts["credential.id"] = credential_id(token, settings.hash_key)
        now = self.configured.clock()
        decision = await self.guard.decide(facts, asked.estimate, now=now)
        self.configured.journal.decided(decision, Dialect.OPENAI)
        addressee = Addressee(Dialect.OPENAI, ())
        if not decision.allowed:
            raise self._refusal(decision, addressee)
        lease = self.configured.lease(self.guard.policies)
        serving = Serving(
            decision, asked, addressee, settings.style, strips_usage=False, lease=lease, now=now
        )
        try:
            body = rewritten(asked, decision.obligations)
        except RewriteError as problem:
            await self.door.settle(decision, Settlement(None))
            raise _not_served(problem) from None
        await self._keep(_call_of(data, user_api_key_dict), serving)
        if body is not None:
            changed = json.loads(body)
            for name in set(_members(data)) - changed.keys():
                del data[name]
            data.update(changed)
        return data

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any
    ) -> Any:
        """Settle by the usage that a whole response tells."""
        serving = self._ended(data, user_api_key_dict)
        if serving is not None:
            if len(self._answered) >= _MOST_OPEN:
                self._answered.pop(next(iter(self._answered)))
            self._answered[_call_of(data, user_api_key_dict)] = serving.decision
            serving.started(200, [(b"content-type", b"application/json")])
            serving.sent(_encoded(response), last=True)
            await self._settle(serving.decision, serving.ended(failed=False))
        return response

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncIterator[Any]:
        """Pass a stream on, metered; settle at its end, whatever ends it."""
        serving = self._ended(request_data, user_api_key_dict)
        if serving is None:
            async for chunk in response:
                yield chunk
            return
        leases = Leases(serving.renews_every, lambda: self._renew(serving, math.inf))
        serving.started(200, [(b"content-type", b"text/event-stream")])
        failed = True
        try:
            async for chunk in response:
                serving.sent(_event(chunk), last=False)
                self._renew(serving, math.inf)
                yield chunk
            failed = False
        finally:
            leases.cancel()
            await self._settle(serving.decision, serving.ended(failed=failed))

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """Give back what a failed call had reserved; a client's own fault costs the request."""
        serving = self._ended(request_data, user_api_key_dict)
        if serving is None:
            return
        status = getattr(original_exception, "status_code", 500)
        serving.started(status if isinstance(status, int) else 500, [])
        await self._settle(serving.decision, serving.ended(failed=False))

    async def async_post_call_response_headers_hook(
        self,
        data: dict[str, Any],
        user_api_key_dict: Any,
        response: Any,
        request_headers: dict[str, str] | None = None,
        litellm_call_info: dict[str, object] | None = None,
    ) -> dict[str, str] | None:
        """Return the fields that tell how the caller's own limits stand."""
        call = _call_of(data, user_api_key_dict)
        kept = self._open.get(call)
        decision = kept[0].serving.decision if kept else self._answered.pop(call, None)
        if decision is None:
            return None
        style = self.configured.http.style
        fields = admitted_fields(decision, Addressee(Dialect.OPENAI, ()), style)
        return {name.decode("ascii"): value.decode("latin-1") for name, value in fields}

    async def _keep(self, call: str, serving: Serving) -> None:
        """Remember a call until a hook ends it; of too many, the oldest stay as reserved."""
        if len(self._open) >= _MOST_OPEN:
            for oldest in self._open.pop(next(iter(self._open))):
                oldest.leases.cancel()
                await self._settle(oldest.serving.decision, Settlement({}))
        until = self.configured.clock() + LONGEST_CALL
        leases = Leases(serving.renews_every, lambda: self._renew(serving, until))
        self._open.setdefault(call, []).append(_Call(serving, leases))

    def _ended(self, data: dict[str, Any], key: Any) -> Serving | None:
        """Return the call that is answered now, and forget it."""
        call = _call_of(data, key)
        kept = self._open.get(call)
        if not kept:
            return None
        serving, leases = kept.pop(0)
        leases.cancel()
        if not kept:
            del self._open[call]
        return serving

    def _renew(self, serving: Serving, until: float) -> None:
        """Extend the leases of a call if they are due."""
        now = self.configured.clock()
        if now < until and serving.renewal_due(now):
            self.door.start(self.door.renew(serving.decision))

    async def _settle(self, decision: Decision, settlement: Settlement | None) -> None:
        now = self.configured.clock()
        if settlement is None:
            return
        self.configured.journal.settled(decision, settlement)
        if settlement.usage is None:
            await self.guard.release(decision, now=now)
        else:
            await self.guard.settle(decision, settlement.usage, model=settlement.model, now=now)

    def _refusal(self, decision: Decision, addressee: Addressee) -> ProxyException:
        answer = refuse(decision, addressee, self.configured.http.style)
        error = json.loads(answer.body)["error"]
        headers = {
            name.decode("ascii"): value.decode("latin-1")
            for name, value in answer.headers
            if not name.startswith(b"content-")
        }
        return ProxyException(
            message=error["message"],
            type=error["type"],
            param=error["param"],
            code=answer.status,
            openai_code=error["code"],
            headers=headers,
            provider_specific_fields={"code": error["code"], "reason": error.get("reason")},
        )


def __getattr__(name: str) -> Any:
    """Make the callback that a proxy's configuration names: `guardrail.http.litellm.guard`."""
    if name == "guard":
        return globals().setdefault("guard", GuardrailCallback())
    raise AttributeError(f"module `{__name__}` has no `{name}`")


def _asked(data: dict[str, Any], call_type: str, hash_key: bytes) -> Asked:
    kind = str(getattr(call_type, "value", call_type)).removeprefix("_")
    path = PATHS.get(kind) or PATHS.get(kind.removeprefix("a")) or f"/{kind}"
    body = json.dumps(_members(data), default=str).encode()
    return read_request("POST", path, b"", (), body, hash_key=hash_key)


def _members(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in _OWN}


def _call_of(data: dict[str, Any], key: Any) -> str:
    """Return what tells a call from those of others: clients may choose its id."""
    return f"{data.get('litellm_call_id')} {getattr(key, 'token', None)}"


def _not_served(problem: RewriteError) -> ProxyException:
    return ProxyException(
        message=f"This request could only be served with less than it asks for, and {problem}.",
        type="permission_error",
        param=None,
        code=403,
    )


def _encoded(response: Any) -> bytes:
    dump = getattr(response, "model_dump_json", None)
    text = json.dumps(response, default=str) if dump is None else dump()
    return str(text).encode("utf-8", "replace")


def _event(chunk: Any) -> bytes:
    if isinstance(chunk, bytes):
        return chunk
    if isinstance(chunk, str):
        return chunk.encode("utf-8", "replace")
    return b"data: " + _encoded(chunk) + b"\n\n"

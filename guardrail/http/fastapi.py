"""A dependency of FastAPI for limits that only the code of an endpoint knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from fastapi import HTTPException
from fastapi.requests import HTTPConnection

from guardrail.engine import Decision
from guardrail.errors import SettingError
from guardrail.guard import AsyncGuard
from guardrail.http.dialects import Dialect
from guardrail.http.enforcer import AsyncSteps
from guardrail.http.flow import RELEASED, STATE_KEY, RequestState, Reservation, reserved
from guardrail.http.leases import LeaseTimer, lease_of
from guardrail.http.response import Settlement
from guardrail.http.responses import Addressee, Answer, Style, refuse

Facts = Mapping[str, object]
FactsOf = Callable[[HTTPConnection], Facts]


@dataclass(slots=True)
class Allowance:
    """What an endpoint was allowed: it honours `decision.obligations`, and states its `usage`.

    Units that `usage` leaves out stay as reserved.
    """

    decision: Decision
    usage: dict[str, int] = field(default_factory=dict)


Dependency = Callable[[HTTPConnection], AsyncIterator[Allowance]]


def limited(
    facts: Facts | FactsOf | None = None,
    estimate: Mapping[str, int] | None = None,
    *,
    guard: AsyncGuard | None = None,
) -> Dependency:
    """Return a dependency that decides by what only an endpoint knows of its request.

    `Depends(limited({"request.capability": "image"}, {"images": 4}))`: the endpoint runs if the
    guard allows it, and gets an `Allowance`. Behind the middleware its decision is made once more,
    with these facts over those of the request and these amounts on top of its own: it counts once,
    as a whole, and is settled with the response. Another `guard` decides beside it. Refusals are
    answered as the middleware's are. An endpoint that raises is charged nothing of what it added.
    """
    added = dict(estimate or {})
    steps = AsyncSteps()

    async def dependency(connection: HTTPConnection) -> AsyncIterator[Allowance]:
        found = connection.scope.get(STATE_KEY)
        state = found if isinstance(found, RequestState) else None
        stated = dict((facts(connection) if callable(facts) else facts) or {})
        anew = None if state is None else state.anew
        beside: _Beside | None = None
        if state is None or anew is None or (guard is not None and guard is not state.guard):
            beside = _Beside(steps, _guard(guard, state), state)
            decision = await beside.decide(stated, estimate)
        else:
            decision = await anew(stated, added)
        if not decision.allowed:
            raise _refusal(decision, state, connection)
        allowance = Allowance(decision)
        if state is not None and beside is None:
            state.exchange.added.append((added, lambda: allowance.usage))
        try:
            yield allowance
        except BaseException:
            allowance.usage = {**allowance.usage, **dict.fromkeys(added, 0)}
            if beside is not None:
                await beside.settle(RELEASED)
            raise
        if beside is not None:
            await beside.settle(Settlement(allowance.usage))

    return dependency


class _Beside:
    """A decision that is not the middleware's: made, recorded, renewed and settled here."""

    def __init__(self, steps: AsyncSteps, guard: AsyncGuard, state: RequestState | None) -> None:
        self._steps = steps
        self._guard = guard
        self._state = state
        self._clock = None if state is None else state.clock
        self._timer: LeaseTimer | None = None
        self._reservation: Reservation | None = None

    async def decide(self, stated: Facts, estimate: Mapping[str, int] | None) -> Decision:
        """Decide, and hold what is allowed until it is settled."""
        state = self._state
        before: Facts = {} if state is None else state.decision.facts
        failed = frozenset() if state is None else state.unavailable
        self._reservation = await self._steps.run(
            reserved(
                self._guard,
                {**before, **stated},
                estimate,
                unavailable=failed - stated.keys(),
                recorder=None if state is None else state.recorder,
                dialect=Dialect.OTHER if state is None else state.addressee.dialect,
                lease=lease_of(self._guard.policies),
                clock=self._now,
            )
        )
        if self._reservation.held:
            self._timer = LeaseTimer(self._reservation.renews_every, self._renew_if_due)
        return self._reservation.decision

    async def settle(self, settlement: Settlement) -> None:
        """Settle it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._reservation is not None:
            await self._steps.run(self._reservation.settle(settlement))

    def _renew_if_due(self) -> None:
        if self._reservation is not None:
            self._steps.renew(self._reservation, self._now())

    def _now(self) -> float:
        """Return the time that leases are counted by."""
        return asyncio.get_running_loop().time() if self._clock is None else self._clock()


def _guard(guard: AsyncGuard | None, state: RequestState | None) -> AsyncGuard:
    if guard is not None:
        return guard
    if state is not None and isinstance(state.guard, AsyncGuard):
        return state.guard
    raise SettingError(
        "no guard is known here: add `guardrail.asgi.GuardrailMiddleware` to the app, "
        "or give `limited` a `guard`"
    )


def _refusal(
    decision: Decision, state: RequestState | None, connection: HTTPConnection
) -> HTTPException:
    if state is not None:
        answer: Answer = refuse(decision, state.addressee, state.style)
        state.exchange.refusal = answer
    else:
        headers = tuple(connection.scope["headers"])
        answer = refuse(decision, Addressee(Dialect.OTHER, headers), Style())
    shown = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in answer.headers
        if name not in (b"content-type", b"content-length")
    }
    return HTTPException(answer.status, detail=decision.message, headers=shown)

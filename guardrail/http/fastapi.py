"""A dependency of FastAPI for limits that only the code of an endpoint knows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from fastapi import HTTPException
from fastapi.requests import HTTPConnection

from guardrail.engine import Decision
from guardrail.errors import SettingError
from guardrail.guard import AsyncGuard
from guardrail.http.answers import Addressee, Answer, Style, refuse
from guardrail.http.dialects import Dialect
from guardrail.http.exchange.async_door import settle
from guardrail.http.exchange.journal import Journal
from guardrail.http.exchange.passage import PASSAGE, Passage
from guardrail.http.exchange.serving import Settlement

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

    async def dependency(connection: HTTPConnection) -> AsyncIterator[Allowance]:
        found = connection.scope.get(PASSAGE)
        passage = found if isinstance(found, Passage) else None
        stated = dict((facts(connection) if callable(facts) else facts) or {})
        anew = None if passage is None else passage.anew
        if passage is None or anew is None or (guard is not None and guard is not passage.guard):
            asked = _guard(guard, passage)
            before = {} if passage is None else passage.decision.facts
            failed = frozenset() if passage is None else passage.unavailable
            decision = await asked.decide(
                {**before, **stated}, estimate, unavailable=failed - stated.keys()
            )
            beside = _Beside(asked, decision, None if passage is None else passage.journal)
            beside.decided(Dialect.OTHER if passage is None else passage.addressee.dialect)
        else:
            beside = None
            decision = await anew(stated, added)
        if not decision.allowed:
            raise _refusal(decision, passage, connection)
        allowance = Allowance(decision)
        if passage is not None and beside is None:
            passage.added.append((added, lambda: allowance.usage))
        try:
            yield allowance
        except BaseException:
            allowance.usage = {**allowance.usage, **dict.fromkeys(added, 0)}
            if beside is not None:
                await beside.settle(Settlement(None))
            raise
        if beside is not None:
            await beside.settle(Settlement(allowance.usage))

    return dependency


class _Beside:
    """A decision that is not the middleware's: made, recorded and settled here."""

    def __init__(self, guard: AsyncGuard, decision: Decision, journal: Journal | None) -> None:
        self._guard = guard
        self._decision = decision
        self._journal = journal

    def decided(self, dialect: Dialect) -> None:
        if self._journal is not None:
            self._journal.decided(self._decision, dialect)

    async def settle(self, settlement: Settlement) -> None:
        if self._journal is not None:
            self._journal.settled(self._decision, settlement)
        await settle(self._guard, self._decision, settlement)


def _guard(guard: AsyncGuard | None, passage: Passage | None) -> AsyncGuard:
    if guard is not None:
        return guard
    if passage is not None and isinstance(passage.guard, AsyncGuard):
        return passage.guard
    raise SettingError(
        "no guard is known here: add `guardrail.asgi.GuardrailMiddleware` to the app, "
        "or give `limited` a `guard`"
    )


def _refusal(
    decision: Decision, passage: Passage | None, connection: HTTPConnection
) -> HTTPException:
    if passage is not None:
        answer: Answer = refuse(decision, passage.addressee, passage.style)
        passage.refusal = answer
    else:
        headers = tuple(connection.scope["headers"])
        answer = refuse(decision, Addressee(Dialect.OTHER, headers), Style())
    shown = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in answer.headers
        if name not in (b"content-type", b"content-length")
    }
    return HTTPException(answer.status, detail=decision.message, headers=shown)

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
from guardrail.http.exchange.passage import PASSAGE, Passage

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
    """Return a dependency that asks the guard once more, with `facts` over those of the request.

    `Depends(limited({"request.capability": "image"}, {"images": 4}))`: the endpoint runs if the
    guard allows it, and gets an `Allowance`. Refusals are answered as the middleware's are; its
    guard is asked unless another is given. An endpoint that raises is charged nothing.
    """

    async def dependency(connection: HTTPConnection) -> AsyncIterator[Allowance]:
        passage = connection.scope.get(PASSAGE)
        asked = _guard(guard, passage)
        stated = facts(connection) if callable(facts) else facts
        before = passage.decision.facts if isinstance(passage, Passage) else {}
        decision = await asked.decide({**before, **(stated or {})}, estimate)
        if not decision.allowed:
            raise _refusal(decision, passage, connection)
        allowance = Allowance(decision)
        try:
            yield allowance
        except BaseException:
            await asked.release(decision)
            raise
        await asked.settle(decision, allowance.usage)

    return dependency


def _guard(guard: AsyncGuard | None, passage: object) -> AsyncGuard:
    if guard is not None:
        return guard
    if isinstance(passage, Passage) and isinstance(passage.guard, AsyncGuard):
        return passage.guard
    raise SettingError(
        "no guard is known here: add `guardrail.asgi.GuardrailMiddleware` to the app, "
        "or give `limited` a `guard`"
    )


def _refusal(decision: Decision, passage: object, connection: HTTPConnection) -> HTTPException:
    if isinstance(passage, Passage):
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

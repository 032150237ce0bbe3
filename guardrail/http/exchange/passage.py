"""What a host may know of a request that was admitted, and ask in its course."""

from __future__ import annotations

from dataclasses import dataclass

from guardrail.engine import Decision
from guardrail.guard import AsyncGuard, Guard
from guardrail.http.answers import Addressee, Answer, Style

PASSAGE = "guardrail.passage"
"""Where a host finds the passage: this key of the ASGI scope, or of the WSGI environ."""


@dataclass(slots=True)
class Passage:
    """The decision on the request being served, and the guard that made it.

    A host that asks the guard again, and is refused, may leave the `refusal` here: it is then
    sent in the place of the host's response, if that has not started.
    """

    guard: AsyncGuard | Guard
    decision: Decision
    addressee: Addressee
    style: Style
    refusal: Answer | None = None

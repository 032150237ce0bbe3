"""What a host may know of a request that was admitted, and ask in its course."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from guardrail.engine import Decision
from guardrail.guard import AsyncGuard, Guard


class Passage(NamedTuple):
    """The decision on the request being served, and the guard that made it.

    A host finds it under `KEY` in the ASGI scope, or in the WSGI environ.
    """

    guard: AsyncGuard | Guard
    decision: Decision

    KEY: ClassVar[str] = "guardrail"

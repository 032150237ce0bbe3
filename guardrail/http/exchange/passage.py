"""What a host may know of a request that was admitted, and ask in its course."""

from __future__ import annotations

from typing import NamedTuple

from guardrail.engine import Decision
from guardrail.guard import AsyncGuard, Guard

PASSAGE = "guardrail.passage"
"""Where a host finds the passage: this key of the ASGI scope, or of the WSGI environ."""


class Passage(NamedTuple):
    """The decision on the request being served, and the guard that made it."""

    guard: AsyncGuard | Guard
    decision: Decision

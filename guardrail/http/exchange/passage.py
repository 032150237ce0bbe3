"""What a host may know of a request that was admitted, and ask in its course."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from guardrail.engine import Decision
from guardrail.guard import AsyncGuard, Guard
from guardrail.http.answers import Addressee, Answer, Style
from guardrail.http.recorder import Journal

PASSAGE = "guardrail.passage"
"""Where a host finds the passage: this key of the ASGI scope, or of the WSGI environ."""

Amounts = Mapping[str, int]
Anew = Callable[[Mapping[str, object], Amounts], Awaitable[Decision]]


@dataclass(slots=True)
class Passage:
    """The decision on the request being served, and the guard that made it.

    A host that asks the guard again, and is refused, may leave the `refusal` here: it is then
    sent in the place of the host's response, if that has not started.

    `anew` decides on the whole request once more, with further facts and amounts, in the place of
    `decision`, which is given back before; None where that cannot be: over WSGI, and in sessions
    whose turns are decided one by one. `added` holds what was so added, each with what the
    host says in the end that it used of it. `journal` and `clock` are for decisions that a host
    makes beside, and `unavailable` names the facts whose source failed.
    """

    guard: AsyncGuard | Guard
    decision: Decision
    addressee: Addressee
    style: Style
    refusal: Answer | None = None
    anew: Anew | None = None
    journal: Journal | None = None
    clock: Callable[[], float] | None = None
    unavailable: frozenset[str] = frozenset()
    added: list[tuple[Amounts, Callable[[], Amounts]]] = field(default_factory=list)

    def used(self, metered: Amounts, estimate: Amounts) -> Amounts:
        """Return what was used, from what was metered and what the host added to the request.

        Of a unit that was not metered, what `estimate` reserved for the request itself stays; so
        does what was added and is not stated to be used.
        """
        used = dict(metered)
        for reserved, stated in self.added:
            for unit, amount in {**reserved, **stated()}.items():
                used[unit] = plus(used.get(unit, estimate.get(unit, 0)), amount)
        return used


def plus(amount: int, more: Any) -> int:
    """Return the sum of two amounts; `more` as it is where it is none, for the guard to refuse."""
    number = isinstance(more, (int, float)) and not isinstance(more, bool) and more >= 0
    total: int = amount + more if number else more
    return total

"""Claims about all requests, which a policy set is to keep whatever becomes of its rules."""

from __future__ import annotations

from dataclasses import dataclass

from guardrail.errors import Span
from guardrail.model.conditions import Condition
from guardrail.model.effects import Effect
from guardrail.model.rules import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class AtMost:
    """So much of a unit is served, at most, to one value of some facts within a time.

    `amount` is in the unit's smallest parts (micro-USD for money); `over` of the kind `lifetime` is
    for ever.
    """

    unit: str
    amount: int
    key: tuple[str, ...]
    over: Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim about the requests of which `when` holds: exactly one of three things.

    No such request ever gets an effect of `never`, by the rule `by` alone if it is named; or no
    more than `at_most` is served; or what a client says of the facts in `said` admits no more than
    saying nothing of them. `unknown_holds` is what a missing fact makes of `when`.
    """

    id: str
    when: Condition
    unknown_holds: bool
    span: Span
    never: tuple[Effect, ...] = ()
    by: str | None = None
    at_most: tuple[AtMost, ...] = ()
    said: tuple[str, ...] = ()

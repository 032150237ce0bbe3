"""A plan: what is known of a decision before any counter is looked at, and the cells it needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from guardrail.engine.keys import spill_text
from guardrail.engine.sizes import Amounts
from guardrail.model.amounts import SECOND
from guardrail.model.cells import Cell, Charge, Outcome
from guardrail.model.effects import Effect
from guardrail.model.rules import Verdict

if TYPE_CHECKING:
    from guardrail.engine.verbs.base import Limit


BY_RULE, BY_BAN = -1, -2


class Finding(NamedTuple):
    """One thing a rule asks for in this decision.

    `order` is the rule's place in the set, −1 for what no rule asked. `wait` is how many
    microseconds from now it no longer refuses, None if waiting will not help. `number` is the
    counter that asks: `BY_RULE` where it is none, `BY_BAN` where it is the ban of a rule's key.
    """

    order: int
    effect: Effect
    verdict: Verdict
    wait: int | None = None
    shadow: bool = False
    number: int = BY_RULE


class Part(NamedTuple):
    """What one cell stands for: its limit, and the allowance and amount in the limit's unit."""

    limit: Limit
    role: str
    number: int
    allowance: int
    amount: int


class Plan:
    """A decision so far: what static rules found, and the cells that counting rules charge.

    `now` is in microseconds. `parts` tells of each cell what it stands for.
    """

    __slots__ = (
        "amounts",
        "cells",
        "charges",
        "facts",
        "findings",
        "id",
        "notes",
        "now",
        "parts",
        "spill",
    )

    def __init__(
        self,
        facts: Mapping[str, Any],
        amounts: Amounts,
        now: int,
        decision_id: str,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.facts = facts
        self.amounts = amounts
        self.now = now
        self.id = decision_id
        self.notes = notes
        self.findings: list[Finding] = []
        self.charges: list[Charge] = []
        self.cells: list[Cell] = []
        self.parts: list[Part] = []
        self.spill = spill_text(facts)

    @property
    def seconds(self) -> float:
        """The decision's time in seconds since the epoch."""
        return self.now / SECOND

    @property
    def refused(self) -> bool:
        """Whether the request is refused already, so that no counter need be asked."""
        return refuses(self.findings)

    def applied(self, outcome: Outcome) -> list[bool]:
        """Return which of its charges the store applied."""
        return [
            (outcome.admitted if charge.after is None else outcome.refused[charge.after])
            and not outcome.refused[i]
            for i, charge in enumerate(self.charges)
        ]


def refuses(findings: Iterable[Finding]) -> bool:
    """Tell whether a rule in force refuses."""
    return any(f.effect.refuses and not f.shadow for f in findings)

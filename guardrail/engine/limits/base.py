"""What all counting rules share: keys, charges, bans, receipts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, cast

from guardrail.engine.keys import counter_ident
from guardrail.engine.plan import Finding, Part, Plan
from guardrail.engine.statuses import LimitStatus, in_unit
from guardrail.model.amounts import SECOND
from guardrail.model.cells import (
    LEFT_OUT,
    Cell,
    Charge,
    Correction,
    Counter,
    CounterReply,
    Member,
    Reply,
)
from guardrail.model.effects import Effect, Mode
from guardrail.model.rules import Key, Rule, Verdict

Allowances = tuple[int | None, ...]
"""A rule's amounts looked up for one request; None is unlimited."""

NEVER_FITS = "cost-exceeds-limit"
REPEATED = "repeated-refusals"


class Debit(NamedTuple):
    """The receipt for one charged cell: all that settling needs to know.

    `number` names the counter within its policy set. `slot` is the slot charged, or a rate's
    capacity; `used` what the counter held before, `increment` what was added, `amount` the units
    that stands for, of an `allowance` of so many; `refunded` is a draining counter's figure.
    """

    number: int
    key: str
    slot: int
    used: int
    increment: int
    amount: int
    allowance: int
    refunded: int


class Stand(NamedTuple):
    """How a counter stands, in its own units (money in micro-USD).

    `most` is what it holds when full, `left` what is left of that. `resets` is in how many
    microseconds it is full again, None where time alone does not fill it.
    """

    most: int
    left: int
    resets: int | None


class Limit(ABC):
    """What all counting rules share: keys, charges, bans."""

    def __init__(self, rule: Rule, over: Verdict, key: Key) -> None:
        self.rule = rule
        self.over = over
        self.key_facts = key.facts
        self.shadow = rule.mode is Mode.SHADOW
        self.binding = not self.shadow and over.effect is not Effect.DEGRADE
        self.idents: tuple[str, ...] = ()
        self.units: tuple[str, ...] = ()
        self.ban_idents = ("", "")

    def name(self, namespace: str, verb: str, whose: str, windows: list[tuple[str, str]]) -> None:
        """Give each counter (unit, window) of the rule its ident."""
        self.idents = tuple(
            counter_ident(namespace, self.rule, verb, unit, window, whose)
            for unit, window in windows
        )
        escalate = self.rule.escalate
        if escalate is not None:
            self.ban_idents = (
                counter_ident(namespace, self.rule, "strikes", verb, whose),
                counter_ident(namespace, self.rule, "ban", verb, whose),
            )

    @abstractmethod
    def charge(self, plan: Plan, allowances: Allowances, key: str, member: str) -> None:
        """Add the cells of this rule for one request to the plan."""

    def judge(
        self, plan: Plan, part: Part, cell: Cell, reply: Reply, applied: bool
    ) -> Finding | None:
        """Return what a cell's reply asks for, if anything; `applied` tells if it was charged."""
        escalate = self.rule.escalate
        if part.role == "sentence" and applied and escalate is not None:
            # This refusal was one too many: waiting for the limit alone would not be enough.
            return self._finding(self.over, escalate.block_for)
        if part.role in ("strike", "sentence"):
            return None
        if part.role == "ban":
            left = cast(CounterReply, reply).used - plan.now
            banned = Verdict(effect=Effect.BLOCK, reason=REPEATED)
            return self._finding(banned, left) if left > 0 else None
        return self._judge_limit(plan, part, cell, reply)

    @abstractmethod
    def status(self, part: Part, cell: Cell, reply: Reply, now: int, applied: bool) -> LimitStatus:
        """Return how the limit stands after this decision."""

    @abstractmethod
    def debit(self, number: int, part: Part, cell: Cell, reply: Reply) -> Debit:
        """Return the receipt for a cell that was charged; `number` is the counter's own."""

    @abstractmethod
    def standing(self, debit: Debit, now: int) -> Stand:
        """Return how the limit stands at `now` (microseconds), by a receipt of that moment."""

    @abstractmethod
    def correction(self, debit: Debit, amount: int | None, decision_id: str) -> Correction | None:
        """Return what makes a debit right once `amount` was used; None leaves it as reserved."""

    def renewal(self, debit: Debit, now: int, decision_id: str) -> Correction | None:
        """Return what keeps a lease alive from now on, None where there is none."""
        return None

    @abstractmethod
    def _judge_limit(self, plan: Plan, part: Part, cell: Cell, reply: Reply) -> Finding | None: ...

    def _finding(self, verdict: Verdict, wait: int | None) -> Finding:
        return Finding(self.rule.index, verdict.effect, verdict, wait, self.shadow)

    def _open(self, plan: Plan, key: str) -> int:
        """Start a charge, with its ban check and what follows a refusal; return its index."""
        charge = len(plan.charges)
        plan.charges.append(Charge(self.binding, None))
        escalate = self.rule.escalate
        if escalate is None:
            return charge
        plan.charges += (Charge(False, charge), Charge(False, charge + 1))
        strikes, ban = (ident + key for ident in self.ban_idents)
        # Strangers must not share strikes: one would be banned for another's.
        spill = None if plan.spill is None else LEFT_OUT
        now, until = plan.now, plan.now + escalate.block_for
        # Strikes are a set of seconds, so that at most one is counted a second. The ban is looked
        # at again beside them: no strike falls during a ban, and a ban in force does not grow.
        checks = [Counter(charge + i, ban, 0, 1, now, 0, now, escalate.block_for) for i in (0, 1)]
        second = str(now // SECOND)
        struck = now + escalate.within
        plan.cells += (
            checks[0],
            Member(charge + 1, strikes, second, struck, escalate.after - 1, escalate.within, spill),
            checks[1],
            Counter(charge + 2, ban, 0, 1, now, escalate.block_for, until, escalate.block_for),
        )
        plan.parts += (
            Part(self, "ban", 0, 0, 0),
            Part(self, "strike", 0, 0, 0),
            Part(self, "strike", 0, 0, 0),
            Part(self, "sentence", 0, 0, 0),
        )
        return charge

    def _place(self, plan: Plan, number: int, key: str) -> tuple[str, str | None]:
        ident = self.idents[number]
        # A key that is the same for everyone cannot multiply.
        spill = None if plan.spill is None or key == "=" else ident + plan.spill
        return ident + key, spill

    def _never_fits(self, plan: Plan, unit: str, amount: int, most: int) -> None:
        """Refuse a request that asks for more than the limit ever allows, which no wait cures."""
        asks, fits = (f"{in_unit(number, unit):,}" for number in (amount, most))
        message = f"it asks for {asks} {unit} at once and at most {fits} fit; ask for less"
        self._refuse_static(plan, Verdict(effect=Effect.BLOCK, reason=NEVER_FITS, message=message))

    def _allows_nothing(self, plan: Plan) -> None:
        refusal = self.over
        if refusal.effect is Effect.THROTTLE:
            refusal = Verdict(
                effect=Effect.BLOCK,
                reason=refusal.reason,
                message=refusal.message,
                status=refusal.status,
                remedy=refusal.remedy,
            )
        self._refuse_static(plan, refusal)

    def _refuse_static(self, plan: Plan, verdict: Verdict) -> None:
        if self.over.effect is Effect.DEGRADE:
            verdict = self.over
        plan.add(self, verdict)


def charged_key(cell: Cell, reply: Reply) -> str:
    """Return the key a cell was charged under."""
    return cast(str, cell.spill) if reply.spilled else cell.key

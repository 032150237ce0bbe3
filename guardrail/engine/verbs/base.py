"""What all counting rules share: counters, keys, bans, receipts, and how a limit stands.

A *receipt* is all that a decision keeps of one counter it looked at, as plain numbers. What a reply
asks for, how a limit stands, what settling corrects: every verb answers from receipts, whichever
way the counter was looked at.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol

from guardrail.engine.expressions import counter_ident
from guardrail.engine.windows import Bounds
from guardrail.model.amounts import MICRO, SECOND, Amount, Banded, Lookup
from guardrail.model.cells import (
    IDENT_LENGTH,
    LEFT_OUT,
    Cell,
    Correction,
    Counter,
    Member,
)
from guardrail.model.effects import Effect, Mode
from guardrail.model.rules import Key, Rule, Verdict

Allowances = tuple[int | None, ...]
"""A rule's amounts looked up for one request; None is unlimited."""

NEVER_FITS = "cost-exceeds-limit"
REPEATED = "repeated-refusals"

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


def refuses(findings: Iterable[Finding]) -> bool:
    """Tell whether a rule in force refuses."""
    return any(f.effect.refuses and not f.shadow for f in findings)


class OpenPlan(Protocol):
    """What a rule reads and adds to when it is planned; see `guardrail.engine.plan.Plan`."""

    found: list[Finding]
    now: int

    @property
    def amounts(self) -> dict[str, int]:
        """The request's amounts by unit."""
        ...

    @property
    def lease(self) -> str:
        """What the decision's places in flight are known by."""
        ...


class RuleEmitter(Protocol):
    """What a rule writes to when a decision is generated; see `guardrail.engine.emit.Emitter`."""

    head: list[str]
    longest_line: float

    def local(self, limit: Limit, part: int = 0) -> int:
        """Return the number that a rule's counter has among those of the function."""
        ...

    def amount(self, unit: str) -> str:
        """Return the variable that holds the request's amount of a unit."""
        ...

    def constant(self, prefix: str, value: object) -> str:
        """Return a name for a value that cannot stand in the source itself."""
        ...

    def variable(self, fact: str) -> str:
        """Return the local variable that holds a fact."""
        ...

    def settled(self, amount: Amount) -> Amount:
        """Return an amount as the facts leave it whose value is known."""
        ...

    def allowance(self, amount: Amount) -> str:
        """Return the expression for an amount; it gives None for unlimited."""
        ...

    def row(self, amount: Banded) -> str:
        """Return the expression for the row of a banded amount; -1 where its fact is missing."""
        ...

    def exhaustive(self, amount: Lookup) -> bool:
        """Tell whether a table lists every value that its fact can have."""
        ...

    def looked_up(self, limit: Limit, amount: Amount, j: int) -> tuple[str, str]:
        """Return the source of a rule's amount, and when it is limited; empty: always."""
        ...

    def refuse_all(self, limit: Limit, where: str) -> None:
        """Refuse, where a condition holds (empty: always), as the limit allows nothing."""
        ...

    def refuse_too_much(
        self, limit: Limit, number: int, amount: str, by: str, most: str, fits: str, where: str
    ) -> None:
        """Refuse a request whose amount, worked out as `by`, is above what can ever fit."""
        ...

    def calendar_slot(self, kind: str, bounds_at: Callable[[int], Bounds]) -> str:
        """Return the variable of the calendar window's slot."""
        ...

    def lease(self) -> str:
        """Return the variable of what the decision's places in flight are known by."""
        ...

    def member(self, limit: Limit) -> str:
        """Return the variable of the value that a request shows to a set."""
        ...


class Receipt(NamedTuple):
    """One counter that a decision looked at: what it held, and what the request asks of it.

    `number` names the counter within its policy set. `slot` is the slot charged, or a time line's
    capacity; `used` what it held before (a set: its live members), `increment` what is added (0
    for a member that is there already), `amount` the units that stands for, of an `allowance` of
    so many; `refunded` is a time line's figure.
    """

    number: int
    key: str
    slot: int
    used: int
    increment: int
    amount: int
    allowance: int
    refunded: int

    @property
    def spilled(self) -> bool:
        """Whether a full store counted it with strangers; see `keys.spill_text`."""
        return self.key.startswith("~", IDENT_LENGTH)


class Stand(NamedTuple):
    """How a counter stands, in its own units (money in micro-USD).

    `most` is what it holds when full, `left` what is left of that. `resets` is in how many
    microseconds it is full again, None where time alone does not fill it.
    """

    most: int
    used: int
    left: int
    resets: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStatus:
    """How one counter that a decision consulted stands after it.

    `limit`, `used` and `remaining` are in `unit` (money in USD); for a rate, `limit` is its
    burst. `reset_after` is in seconds, None where time alone does not restore it.
    """

    rule: str
    unit: str
    limit: float
    used: float
    remaining: float
    reset_after: float | None


@dataclass
class CellSpec:
    """One cell of a rule, its numbers as source over the facts and amounts that were read.

    It is looked at where `gate` holds (empty: always). `kept` is the longest time that its record
    is kept, in microseconds, `ttl` the source of that time. `amount` is what the cell takes,
    `units` what that stands for, of an `allowance` of so many; what is above `ceiling` refuses
    (empty: nothing does). `place` is a window's slot, a set's member or a time line's capacity;
    `span` a window's slots; `until` a member's expiry, `length` microseconds from now. Past
    `alerts_at` percent of the allowance a window has more to say than to allow.
    """

    kind: int
    number: int
    kept: int
    ttl: str
    amount: str
    units: str
    allowance: str
    ceiling: str
    place: str
    span: int = 1
    until: str = ""
    length: int = 0
    alerts_at: int = 100
    gate: str = ""


class CellValues(NamedTuple):
    """One cell of a rule for one request: what `CellSpec` says, as values.

    `ceiling` is None where nothing refuses. `place` is a window's slot, a set's member or a time
    line's capacity.
    """

    kind: int
    number: int
    ttl: int
    amount: int
    units: int
    allowance: int
    ceiling: int | None
    place: int | str
    span: int = 1
    until: int = 0
    alerts_at: int = 100


class Limit(ABC):
    """A counting rule at work: its counters, what their replies mean, what corrects them."""

    kind: ClassVar[int]
    """The kind of its cells."""
    shown: ClassVar[bool] = True
    """Whether a client may be told how it stands."""
    period = 0
    """Microseconds in which the allowance of a line passes, 0 for all else."""
    lease = 0
    """Microseconds after which a place in flight is free by itself, 0 for all else."""
    without_store: ClassVar[Literal["local", "deny"] | None] = "local"
    """How it decides while the store is away; None where that depends on who asks."""

    def __init__(self, rule: Rule, over: Verdict, key: Key) -> None:
        self.rule = rule
        self.over = over
        self.key_facts = key.facts
        self.shadow = rule.mode is Mode.SHADOW
        self.binding = not self.shadow and over.effect is not Effect.DEGRADE
        self.first = 0
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
    def cells(self, plan: OpenPlan, allowances: Allowances, member: str) -> list[CellValues]:
        """Return the cells of this rule for one request; none where it is not limited.

        What it refuses without looking at a counter is added to the plan's findings.
        """

    @abstractmethod
    def specs(self, emitter: RuleEmitter) -> list[CellSpec] | None:
        """Return the same as source, and add what comes before to the emitter.

        None leaves requests to which the rule applies to the interpreter.
        """

    @abstractmethod
    def judge(self, receipt: Receipt, frees: int | None, now: int) -> Finding | None:
        """Return what a counter asks for at `now` (microseconds), if anything.

        `frees` is what its reply tells of a refusal: the slot, or the expiry, that makes room.
        """

    @abstractmethod
    def stand(self, receipt: Receipt, now: int, charged: bool) -> Stand:
        """Return how the limit stands at `now` (microseconds), by a receipt of that moment."""

    @abstractmethod
    def correction(self, debit: Receipt, amount: int | None, lease: str) -> Correction | None:
        """Return what makes a charge right once `amount` was used; None leaves it as reserved."""

    def renewal(self, debit: Receipt, now: int, lease: str) -> Correction | None:
        """Return what keeps a lease alive from now on, None where there is none."""
        return None

    def ceiling(self, most: int) -> int | None:
        """Return what an amount refuses above, None if it never does."""
        return most

    def unit(self, number: int) -> str:
        """Return what one of its counters counts, as people read it."""
        return self.units[number]

    def status(self, receipt: Receipt, now: int, charged: bool) -> LimitStatus:
        """Return how one of its counters stands, in the units people read."""
        most, used, left, resets = self.stand(receipt, now, charged)
        unit = self.unit(receipt.number - self.first)
        return LimitStatus(
            rule=self.rule.id,
            unit=unit,
            limit=in_unit(most, unit),
            used=in_unit(used, unit),
            remaining=in_unit(left, unit),
            reset_after=None if resets is None else resets / SECOND,
        )

    def banned(self, left: int) -> Finding:
        """Return what a ban asks for that ends in `left` microseconds."""
        return self.finding(Verdict(effect=Effect.BLOCK, reason=REPEATED), left, BY_BAN)

    def sentenced(self) -> Finding:
        """Return what a refusal that was one too many asks for.

        Waiting for the limit alone would not be enough.
        """
        assert self.rule.escalate is not None
        return self.finding(self.over, self.rule.escalate.block_for, BY_BAN)

    def too_much(self, number: int, amount: int, fits: int) -> Finding:
        """Refuse a request that asks for more than the limit ever allows, which no wait cures."""
        unit = self.units[number]
        asks, most = (f"{in_unit(value, unit):,}" for value in (amount, fits))
        message = f"it asks for {asks} {unit} at once and at most {most} fit; ask for less"
        return self._static(Verdict(effect=Effect.BLOCK, reason=NEVER_FITS, message=message))

    def nothing_allowed(self) -> Finding:
        """Refuse where the limit allows nothing."""
        refusal = self.over
        if refusal.effect is Effect.THROTTLE:
            refusal = Verdict(
                effect=Effect.BLOCK,
                reason=refusal.reason,
                message=refusal.message,
                status=refusal.status,
                remedy=refusal.remedy,
            )
        return self._static(refusal)

    def finding(self, verdict: Verdict, wait: int | None, number: int = BY_RULE) -> Finding:
        """Return what this rule asks for; `number` is the counter that does, see `Finding`."""
        return Finding(self.rule.index, verdict.effect, verdict, wait, self.shadow, number)

    def escalation(self, charge: int, key: str, spill: str | None, now: int) -> tuple[Cell, ...]:
        """Return the cells that stand before those of the limit, where it escalates.

        The ban, which refuses the charge; the strike, a charge after it, and the ban beside it;
        the ban's beginning, a charge after that. Strikes are a set of seconds, so that at most
        one is counted a second. The ban is looked at again beside them: no strike falls during a
        ban, and a ban in force does not grow.
        """
        escalate = self.rule.escalate
        assert escalate is not None
        strikes, ban = (ident + key for ident in self.ban_idents)
        # Strangers must not share strikes: one would be banned for another's.
        left_out = None if spill is None else LEFT_OUT
        within, length = escalate.within, escalate.block_for
        second, struck, most = str(now // SECOND), now + within, escalate.after - 1
        checks = [Counter(charge + i, ban, 0, 1, now, 0, now, length) for i in (0, 1)]
        return (
            checks[0],
            Member(charge + 1, strikes, second, struck, most, within, left_out),
            checks[1],
            Counter(charge + 2, ban, 0, 1, now, length, now + length, length),
        )

    def _static(self, verdict: Verdict) -> Finding:
        return self.finding(self.over if self.over.effect is Effect.DEGRADE else verdict, None)


def in_unit(value: int, unit: str) -> float:
    """Return a counter's value as people read it: micro-USD as USD, anything else as it is."""
    return value / MICRO if unit == "cost_usd" else value

"""The verbs `concurrency` and `distinct`: sets of requests in flight, and of values seen."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal, cast

from guardrail.engine.verbs.base import (
    Allowances,
    CellSpec,
    CellValues,
    Finding,
    Limit,
    OpenPlan,
    Receipt,
    RuleEmitter,
    Stand,
)
from guardrail.model.amounts import MINUTE, SECOND, Amount, Fixed
from guardrail.model.cells import MEMBERS, Correction, Leave, Renew
from guardrail.model.rules import Concurrency, Distinct, Rule

LEASE_WAIT = SECOND
"""The longest wait told for a place in flight: leases mostly end long before they expire."""


class SetLimit(Limit):
    """So many members of a set at once, each for `length` microseconds."""

    kind = MEMBERS
    most: Amount
    length: int
    kept: int

    def cells(self, plan: OpenPlan, allowances: Allowances, member: str) -> list[CellValues]:
        """Return the set, which the request enters, or what it shows."""
        (most,) = allowances
        if most is None:
            return []
        if most == 0:
            plan.found.append(self.nothing_allowed())
            return []
        name, until = self.member(plan, member), plan.now + self.length
        return [CellValues(MEMBERS, 0, self.kept, 0, 1, most, most, name, until=until)]

    def member(self, plan: OpenPlan, shown: str) -> str:
        """Return the member that a request enters, which shows a value of the counted fact."""
        return shown

    def specs(self, emitter: RuleEmitter) -> list[CellSpec]:
        """Return the set, if it is limited at all."""
        amount = emitter.settled(self.most)
        if amount == Fixed(None):
            return []
        # A value that is missing may skip the rule, before its amount has a say.
        member = self.shown_member(emitter)
        most, gate = emitter.looked_up(self, amount, emitter.local(self))
        return [
            CellSpec(
                MEMBERS, 0, self.kept, str(self.kept), "0", "1", most, most, member,
                until=f"t + {self.length}", length=self.length, gate=gate,
            )
        ]  # fmt: skip

    @abstractmethod
    def shown_member(self, emitter: RuleEmitter) -> str:
        """Return the source of the member that a request enters."""

    def judge(self, receipt: Receipt, frees: int | None, now: int) -> Finding | None:
        """Refuse a new member of a full set."""
        if not receipt.increment or receipt.used < receipt.allowance:
            return None
        return self.finding(self.over, self.wait(frees, now), receipt.number)

    def wait(self, frees: int | None, now: int) -> int | None:
        """Return in how many microseconds a place may be free, None if waiting does not help."""
        return None

    def stand(self, receipt: Receipt, now: int, charged: bool) -> Stand:
        """Return how many more members there may be."""
        most, used = receipt.allowance, receipt.used + (receipt.increment if charged else 0)
        return Stand(most, used, max(0, most - used), None)


class ConcurrencyLimit(SetLimit):
    """So many requests in flight, each on a lease."""

    def __init__(self, rule: Rule, namespace: str, zone: str) -> None:
        self.verb = cast(Concurrency, rule.verb)
        super().__init__(rule, self.verb.over, self.verb.key)
        self.units = ("requests",)
        self.most, self.lease = self.verb.most, self.verb.lease
        self.length, self.kept = self.lease, self.lease + MINUTE
        whose = ",".join(self.verb.key.facts)
        self.name(namespace, "concurrency", whose, [("in-flight", "")])

    def unit(self, number: int) -> str:
        """Return what it counts, as people read it."""
        return "concurrent-requests"

    def member(self, plan: OpenPlan, shown: str) -> str:
        """Return what names the decision's lease."""
        return plan.lease

    def shown_member(self, emitter: RuleEmitter) -> str:
        """Return the source of what names the decision's lease."""
        return emitter.lease()

    def wait(self, frees: int | None, now: int) -> int | None:
        """Return in how many microseconds a lease may have ended."""
        return min(LEASE_WAIT, max(1, LEASE_WAIT if frees is None else frees - now))

    def correction(self, debit: Receipt, amount: int | None, lease: str) -> Correction | None:
        """End the lease, whatever was used."""
        return Leave(debit.key, lease)

    def renewal(self, debit: Receipt, now: int, lease: str) -> Correction | None:
        """Return the lease, counted from now."""
        return Renew(debit.key, lease, now + self.lease, self.kept)


class DistinctLimit(SetLimit):
    """So many different values of a fact, seen by one key within a period."""

    shown = False
    without_store: ClassVar[Literal["local", "deny"] | None] = "deny"

    def __init__(self, rule: Rule, namespace: str, zone: str) -> None:
        self.verb = cast(Distinct, rule.verb)
        super().__init__(rule, self.verb.over, self.verb.key)
        self.most = self.verb.most
        self.length = self.kept = self.verb.period
        whose = ",".join(self.verb.key.facts)
        self.name(namespace, "distinct", whose, [(self.verb.count, str(self.verb.period))])

    def unit(self, number: int) -> str:
        """Return what it counts, as people read it."""
        return self.verb.count

    def shown_member(self, emitter: RuleEmitter) -> str:
        """Return the source of the value that the request shows."""
        return emitter.member(self)

    def correction(self, debit: Receipt, amount: int | None, lease: str) -> Correction | None:
        """Leave the sighting: another request may rest on it by now."""
        return None

"""The verbs `concurrency` and `distinct`: sets of requests in flight, and of values seen."""

from __future__ import annotations

from typing import cast

from guardrail.engine.limits.base import Allowances, Debit, Limit, Stand, charged_key
from guardrail.engine.plan import Finding, Part, Plan
from guardrail.engine.statuses import LimitStatus
from guardrail.model.amounts import MINUTE, SECOND
from guardrail.model.cells import Cell, Correction, Leave, Member, MemberReply, Renew, Reply
from guardrail.model.rules import Concurrency, Distinct, Rule

LEASE_WAIT = SECOND
"""The longest wait told for a place in flight: leases mostly end long before they expire."""


class ConcurrencyLimit(Limit):
    """So many requests in flight, each on a lease."""

    def __init__(self, rule: Rule, namespace: str, zone: str) -> None:
        self.verb = cast(Concurrency, rule.verb)
        super().__init__(rule, self.verb.over, self.verb.key)
        self.units = ("requests",)
        whose = ",".join(self.verb.key.facts)
        self.name(namespace, "concurrency", whose, [("in-flight", "")])

    def charge(self, plan: Plan, allowances: Allowances, key: str, member: str) -> None:
        """Take a lease in the set of requests in flight."""
        (most,) = allowances
        if most is None:
            return
        if most == 0:
            self._allows_nothing(plan)
            return
        charge = self._open(plan, key)
        place, spill = self._place(plan, 0, key)
        lease = self.verb.lease
        plan.cells.append(
            Member(charge, place, plan.id, plan.now + lease, most, lease + MINUTE, spill)
        )
        plan.parts.append(Part(self, "limit", 0, most, 1))

    def status(self, part: Part, cell: Cell, reply: Reply, now: int, applied: bool) -> LimitStatus:
        """Return how many more may be in flight."""
        answer = cast(MemberReply, reply)
        return _set_status(self.rule, "concurrent-requests", part, answer, applied)

    def debit(self, number: int, part: Part, cell: Cell, reply: Reply) -> Debit:
        """Return the receipt for the lease."""
        return _set_debit(number, part, cell, reply)

    def standing(self, debit: Debit, now: int) -> Stand:
        """Return how many more may be in flight."""
        return _set_standing(debit)

    def correction(self, debit: Debit, amount: int | None, decision_id: str) -> Correction | None:
        """End the lease, whatever was used."""
        return Leave(debit.key, decision_id)

    def renewal(self, debit: Debit, now: int, decision_id: str) -> Correction | None:
        """Return the lease, counted from now."""
        lease = self.verb.lease
        return Renew(debit.key, decision_id, now + lease, lease + MINUTE)

    def _judge_limit(self, plan: Plan, part: Part, cell: Cell, reply: Reply) -> Finding | None:
        answer = cast(MemberReply, reply)
        if answer.present or answer.live < part.allowance:
            return None
        frees = LEASE_WAIT if answer.frees is None else answer.frees - plan.now
        return self._finding(self.over, min(LEASE_WAIT, max(1, frees)))


class DistinctLimit(Limit):
    """So many different values of a fact, seen by one key within a period."""

    def __init__(self, rule: Rule, namespace: str, zone: str) -> None:
        self.verb = cast(Distinct, rule.verb)
        super().__init__(rule, self.verb.over, self.verb.key)
        self.units = ()
        whose = ",".join(self.verb.key.facts)
        self.name(namespace, "distinct", whose, [(self.verb.count, str(self.verb.period))])

    def charge(self, plan: Plan, allowances: Allowances, key: str, member: str) -> None:
        """Show the fact's value to the set of those seen."""
        (most,) = allowances
        if most is None:
            return
        if most == 0:
            self._allows_nothing(plan)
            return
        charge = self._open(plan, key)
        place, spill = self._place(plan, 0, key)
        period = self.verb.period
        plan.cells.append(Member(charge, place, member, plan.now + period, most, period, spill))
        plan.parts.append(Part(self, "limit", 0, most, 1))

    def status(self, part: Part, cell: Cell, reply: Reply, now: int, applied: bool) -> LimitStatus:
        """Return how many more values are welcome."""
        answer = cast(MemberReply, reply)
        return _set_status(self.rule, self.verb.count, part, answer, applied)

    def debit(self, number: int, part: Part, cell: Cell, reply: Reply) -> Debit:
        """Return the receipt for the sighting."""
        return _set_debit(number, part, cell, reply)

    def standing(self, debit: Debit, now: int) -> Stand:
        """Return how many more values are welcome."""
        return _set_standing(debit)

    def correction(self, debit: Debit, amount: int | None, decision_id: str) -> Correction | None:
        """Leave the sighting: another request may rest on it by now."""
        return None

    def _judge_limit(self, plan: Plan, part: Part, cell: Cell, reply: Reply) -> Finding | None:
        answer = cast(MemberReply, reply)
        if answer.present or answer.live < part.allowance:
            return None
        return self._finding(self.over, None)


def _set_status(
    rule: Rule, unit: str, part: Part, answer: MemberReply, applied: bool
) -> LimitStatus:
    used = answer.live + (applied and not answer.present)
    return LimitStatus(
        rule=rule.id,
        unit=unit,
        limit=part.allowance,
        used=used,
        remaining=max(0, part.allowance - used),
        reset_after=None,
    )


def _set_debit(number: int, part: Part, cell: Cell, reply: Reply) -> Debit:
    answer = cast(MemberReply, reply)
    key = charged_key(cell, reply)
    return Debit(number, key, 0, answer.live, int(not answer.present), 1, part.allowance, 0)


def _set_standing(debit: Debit) -> Stand:
    left = max(0, debit.allowance - debit.used - debit.increment)
    return Stand(debit.allowance, left, None)

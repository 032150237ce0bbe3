"""The verb `rate`: a pace, GCRA on a draining counter."""

from __future__ import annotations

from typing import cast

from guardrail.algorithms import pace_increment, pace_room
from guardrail.engine.limits.base import Allowances, Debit, Limit, Stand, charged_key
from guardrail.engine.plan import Finding, Part, Plan
from guardrail.engine.statuses import LimitStatus, in_unit
from guardrail.model.amounts import MINUTE, SECOND
from guardrail.model.cells import Cell, Correction, Counter, CounterReply, Drain, Reply
from guardrail.model.rules import Rate, Rule


class RateLimit(Limit):
    """A pace: GCRA on a draining counter."""

    def __init__(self, rule: Rule, namespace: str, zone: str) -> None:
        self.verb = cast(Rate, rule.verb)
        super().__init__(rule, self.verb.over, self.verb.key)
        whose = ",".join(self.verb.key.facts)
        self.units = (self.verb.unit,)
        self.name(namespace, "rate", whose, [(self.verb.unit, str(self.verb.period))])

    def charge(self, plan: Plan, allowances: Allowances, key: str, member: str) -> None:
        """Charge the time line with the request's amount."""
        limit, burst = allowances
        if limit is None or burst is None:
            return
        if limit == 0 or burst == 0:
            self._allows_nothing(plan)
            return
        period = self.verb.period
        amount = plan.amounts[self.verb.unit]
        increment = pace_increment(amount, limit, period)
        capacity = pace_increment(burst, limit, period)
        if increment > capacity:
            self._never_fits(plan, self.verb.unit, amount, burst)
            return
        charge = self._open(plan, key)
        place, spill = self._place(plan, 0, key)
        now, ttl = plan.now, capacity + MINUTE
        plan.cells.append(Counter(charge, place, 0, 1, now, increment, now + capacity, ttl, spill))
        plan.parts.append(Part(self, "limit", 0, limit, amount))

    def status(self, part: Part, cell: Cell, reply: Reply, now: int, applied: bool) -> LimitStatus:
        """Return the units that fit now; the limit is the burst."""
        counter, answer = cast(Counter, cell), cast(CounterReply, reply)
        line = answer.used + counter.amount if applied else answer.used
        period = self.verb.period
        capacity = cast(int, counter.ceiling) - counter.floor
        most = pace_room(capacity, part.allowance, period)
        remaining = min(pace_room(cast(int, counter.ceiling) - line, part.allowance, period), most)
        return LimitStatus(
            rule=self.rule.id,
            unit=self.verb.unit,
            limit=in_unit(most, self.verb.unit),
            used=in_unit(most - remaining, self.verb.unit),
            remaining=in_unit(remaining, self.verb.unit),
            reset_after=max(0, line - now) / SECOND,
        )

    def debit(self, number: int, part: Part, cell: Cell, reply: Reply) -> Debit:
        """Return the receipt: the time line before, and how far it was moved."""
        counter, answer = cast(Counter, cell), cast(CounterReply, reply)
        capacity = cast(int, counter.ceiling) - counter.floor
        return Debit(
            number,
            charged_key(cell, reply),
            capacity,
            answer.used,
            counter.amount,
            part.amount,
            part.allowance,
            answer.refunded,
        )

    def standing(self, debit: Debit, now: int) -> Stand:
        """Return the units that fit now, of those that fit a full time line."""
        line, capacity, period = debit.used + debit.increment, debit.slot, self.verb.period
        most = pace_room(capacity, debit.allowance, period)
        left = pace_room(now + capacity - line, debit.allowance, period)
        return Stand(most, min(left, most), max(0, line - now))

    def correction(self, debit: Debit, amount: int | None, decision_id: str) -> Correction | None:
        """Move the time line by the difference, back no further than has not drained."""
        if amount is None or amount == debit.amount:
            return None
        delta = pace_increment(amount, debit.allowance, self.verb.period) - debit.increment
        charged, ttl = debit.used + debit.increment, debit.slot + MINUTE
        return Drain(debit.key, delta, charged, debit.refunded, ttl)

    def _judge_limit(self, plan: Plan, part: Part, cell: Cell, reply: Reply) -> Finding | None:
        counter, answer = cast(Counter, cell), cast(CounterReply, reply)
        excess = answer.used + counter.amount - cast(int, counter.ceiling)
        return self._finding(self.over, excess) if excess > 0 else None

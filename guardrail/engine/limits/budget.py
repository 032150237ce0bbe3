"""The verb `budget`: an amount per window, for one or several units, with steps on the way."""

from __future__ import annotations

from typing import cast
from zoneinfo import ZoneInfo

from guardrail.algorithms import (
    LIFETIME_TTL,
    ROLLING_SPAN,
    Bounds,
    CalendarKind,
    calendar_window,
    rolling_frees_at,
    rolling_width,
)
from guardrail.engine.limits.base import Allowances, Debit, Limit, Stand, charged_key
from guardrail.engine.plan import Finding, Part, Plan
from guardrail.engine.statuses import LimitStatus, in_unit
from guardrail.model.amounts import DAY, HOUR, SECOND
from guardrail.model.cells import Adjust, Cell, Correction, Counter, CounterReply, Reply
from guardrail.model.rules import Budget, Rule

KEPT = {
    "hour": HOUR + DAY,
    "day": 2 * DAY + HOUR,
    "week": 8 * DAY + HOUR,
    "month": 32 * DAY + HOUR,
    "lifetime": LIFETIME_TTL,
}
"""How long a window's counter is kept after its last write: the longest such window and a day."""


class BudgetLimit(Limit):
    """An amount per window, for one or several units, with steps on the way."""

    def __init__(self, rule: Rule, namespace: str, zone: str) -> None:
        self.verb = cast(Budget, rule.verb)
        super().__init__(rule, self.verb.over, self.verb.key)
        window = self.verb.window
        whose = ",".join(self.verb.key.facts)
        label = window.text if window.kind in ("rolling", "lifetime") else f"{window.text} {zone}"
        self.units = tuple(unit for unit, _ in self.verb.amounts)
        self.name(namespace, "budget", whose, [(unit, label) for unit in self.units])
        self.width = rolling_width(window.length) if window.length else 0
        self.zone = None if zone == "UTC" else ZoneInfo(zone)
        self.ttl = KEPT.get(window.kind) or (ROLLING_SPAN + 1) * self.width
        refusing = [step.percent for step in self.verb.steps if step.verdict.effect.refuses]
        # The slot asked for last, and its end: nearly all requests ask for the current one.
        self._ended = (-1, 0)
        self.percent = min(refusing, default=None)
        self.alerts_at = min(step.percent for step in self.verb.steps)
        if self.percent is None:
            self.binding = False

    def charge(self, plan: Plan, allowances: Allowances, key: str, member: str) -> None:
        """Charge every unit's counter of the window that now falls in."""
        cells: list[tuple[Counter, Part]] = []
        slot, span = self.slot_at(plan.now)
        opening = len(plan.charges)
        for number, (unit, limit) in enumerate(zip(self.units, allowances, strict=True)):
            if limit is None:
                continue
            if limit == 0:
                self._allows_nothing(plan)
                return
            amount = plan.amounts[unit]
            ceiling = None if self.percent is None else limit * self.percent // 100
            if ceiling is not None and amount > ceiling:
                self._never_fits(plan, unit, amount, ceiling)
                return
            place, spill = self._place(plan, number, key)
            counter = Counter(opening, place, slot, span, 0, amount, ceiling, self.ttl, spill)
            cells.append((counter, Part(self, "limit", number, limit, amount)))
        if cells:
            self._open(plan, key)
            plan.cells += (cell for cell, _ in cells)
            plan.parts += (part for _, part in cells)

    def slot_at(self, now: int) -> tuple[int, int]:
        """Return the slot that `now` falls in, and how many slots count."""
        window = self.verb.window
        if window.kind == "lifetime":
            return 0, 1
        if window.kind == "rolling":
            return now // self.width, ROLLING_SPAN
        return self.bounds_at(now).slot, 1

    def bounds_at(self, now: int) -> Bounds:
        """Return the calendar window that `now` falls in."""
        return calendar_window(cast(CalendarKind, self.verb.window.kind), now, self.zone)

    def _ends(self, slot: int) -> int | None:
        window = self.verb.window
        if window.kind == "lifetime":
            return None
        if window.kind == "rolling":
            return rolling_frees_at(slot, self.width)
        known, end = self._ended
        if known != slot:
            end = self.bounds_at(slot * SECOND).end
            self._ended = slot, end
        return end

    def status(self, part: Part, cell: Cell, reply: Reply, now: int, applied: bool) -> LimitStatus:
        """Return what is left of the window's amount."""
        counter, answer = cast(Counter, cell), cast(CounterReply, reply)
        used = answer.used + counter.amount if applied else answer.used
        unit = self.units[part.number]
        ends = self._ends(answer.slot)
        return LimitStatus(
            rule=self.rule.id,
            unit=unit,
            limit=in_unit(part.allowance, unit),
            used=in_unit(used, unit),
            remaining=in_unit(max(0, part.allowance - used), unit),
            reset_after=None if ends is None else max(0, ends - now) / SECOND,
        )

    def debit(self, number: int, part: Part, cell: Cell, reply: Reply) -> Debit:
        """Return the receipt: the slot charged, and with how much."""
        answer = cast(CounterReply, reply)
        key, amount = charged_key(cell, reply), part.amount
        return Debit(number, key, answer.slot, answer.used, amount, amount, part.allowance, 0)

    def standing(self, debit: Debit, now: int) -> Stand:
        """Return what is left of the window's amount."""
        most, ends = debit.allowance, self._ends(debit.slot)
        left = max(0, most - debit.used - debit.increment)
        return Stand(most, left, None if ends is None else max(0, ends - now))

    def correction(self, debit: Debit, amount: int | None, decision_id: str) -> Correction | None:
        """Add or take back the difference."""
        if amount is None or amount == debit.amount:
            return None
        return Adjust(debit.key, debit.slot, amount - debit.amount, self.ttl)

    def _judge_limit(self, plan: Plan, part: Part, cell: Cell, reply: Reply) -> Finding | None:
        counter, answer = cast(Counter, cell), cast(CounterReply, reply)
        reached = (answer.used + counter.amount) * 100
        steps = [s for s in self.verb.steps if reached > part.allowance * s.percent]
        if not steps:
            return None
        step = max(steps, key=lambda s: (s.verdict.effect, s.percent))
        if not step.verdict.effect.refuses:
            return self._finding(step.verdict, None)
        frees = self._ends(answer.slot if answer.frees is None else answer.frees)
        return self._finding(step.verdict, None if frees is None else max(0, frees - plan.now))

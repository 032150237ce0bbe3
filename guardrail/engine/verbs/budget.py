"""The verb `budget`: an amount per window, for one or several units, with steps on the way."""

from __future__ import annotations

from typing import ClassVar, Literal, cast
from zoneinfo import ZoneInfo

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
from guardrail.engine.windows import (
    LIFETIME_TTL,
    ROLLING_SPAN,
    Bounds,
    CalendarKind,
    calendar_window,
    rolling_frees_at,
    rolling_width,
)
from guardrail.model.amounts import DAY, HOUR, SECOND, Fixed
from guardrail.model.cells import WINDOW, Adjust, Correction
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

    kind = WINDOW
    without_store: ClassVar[Literal["local", "deny"] | None] = None

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

    def cells(self, plan: OpenPlan, allowances: Allowances, member: str) -> list[CellValues]:
        """Return a counter for each limited unit, of the window that now falls in."""
        slot, span = self.slot_at(plan.now)
        found: list[CellValues] = []
        for number, (unit, limit) in enumerate(zip(self.units, allowances, strict=True)):
            if limit is None:
                continue
            if limit == 0:
                plan.found.append(self.nothing_allowed())
                return []
            amount, ceiling = plan.amounts[unit], self.ceiling(limit)
            if ceiling is not None and amount > ceiling:
                plan.found.append(self.too_much(number, amount, ceiling))
                return []
            found.append(
                CellValues(
                    WINDOW, number, self.ttl, amount, amount, limit, ceiling, slot, span,
                    alerts_at=self.alerts_at,
                )
            )  # fmt: skip
        return found

    def specs(self, emitter: RuleEmitter) -> list[CellSpec]:
        """Return a window for each unit that is limited at all."""
        window, percent = self.verb.window, self.percent
        found: list[CellSpec] = []
        for number, (unit, stated) in enumerate(self.verb.amounts):
            amount = emitter.settled(stated)
            if amount == Fixed(None):
                continue
            n, j = emitter.amount(unit), emitter.local(self, number)
            most, gate = emitter.looked_up(self, amount, j)
            ceiling = ""
            if percent is not None:
                ceiling = most if percent == 100 else f"{most} * {percent} // 100"
                emitter.refuse_too_much(self, number, n, "", ceiling, ceiling, gate)
            slot, span = "0", 1
            if window.kind == "rolling":
                slot, span = f"t // {self.width}", ROLLING_SPAN
            elif window.kind != "lifetime":
                slot = emitter.calendar_slot(window.kind, self.bounds_at)
            found.append(
                CellSpec(
                    WINDOW, number, self.ttl, str(self.ttl), n, n, most, ceiling, slot, span,
                    alerts_at=self.alerts_at, gate=gate,
                )
            )  # fmt: skip
        return found

    def ceiling(self, most: int) -> int | None:
        """Return what an amount refuses above, None if it never does."""
        return None if self.percent is None else most * self.percent // 100

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

    def judge(self, receipt: Receipt, frees: int | None, now: int) -> Finding | None:
        """Return what the strongest of the steps asks for that the request goes past."""
        reached = (receipt.used + receipt.increment) * 100
        steps = [s for s in self.verb.steps if reached > receipt.allowance * s.percent]
        if not steps:
            return None
        step = max(steps, key=lambda s: (s.verdict.effect, s.percent))
        if not step.verdict.effect.refuses:
            return self.finding(step.verdict, None, receipt.number)
        ends = self._ends(receipt.slot if frees is None else frees)
        wait = None if ends is None else max(0, ends - now)
        return self.finding(step.verdict, wait, receipt.number)

    def stand(self, receipt: Receipt, now: int, charged: bool) -> Stand:
        """Return what is left of the window's amount."""
        _, _, slot, used, increment, _, most, _ = receipt
        if charged:
            used += increment
        ends = self._ends(slot)
        resets = None if ends is None else ends - now if ends > now else 0
        return tuple.__new__(Stand, (most, used, most - used if used < most else 0, resets))

    def correction(self, debit: Receipt, amount: int | None, lease: str) -> Correction | None:
        """Add or take back the difference."""
        if amount is None or amount == debit.amount:
            return None
        return Adjust(debit.key, debit.slot, amount - debit.amount, self.ttl)

    def _ends(self, slot: int) -> int | None:
        known, end = self._ended
        if known == slot:
            return end
        window = self.verb.window
        if window.kind == "lifetime":
            return None
        if window.kind == "rolling":
            return rolling_frees_at(slot, self.width)
        end = self.bounds_at(slot * SECOND).end
        self._ended = slot, end
        return end

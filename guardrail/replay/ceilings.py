"""What all accounts together asked of the budgets they share, window by window."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

from guardrail.engine import Decision, Receipt
from guardrail.model.amounts import MICRO, SECOND
from guardrail.model.effects import Mode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Budget

MARGIN = 1.5
"""How much room a ceiling leaves above the busiest window there was."""
USUAL = 0.99
"""The share of windows that a ceiling is sized for, where there are enough to tell."""


class Ceiling(NamedTuple):
    """One budget over all: its limit, and the windows of the traffic.

    `limit` (None: not the same for all), `busiest`, `usual` and `proposed` are in `unit`, money in
    USD; `busiest_at` is when the busiest window began, in seconds; `length` is a window's seconds.
    """

    rule: str
    unit: str
    length: float
    limit: float | None
    windows: int
    busiest: float
    busiest_at: float
    proposed: float


class Ceilings:
    """Adds up what requests ask of budgets with `key: global`, refused or not."""

    def __init__(self, policies: PolicySet) -> None:
        self._rules = {
            rule.id: rule.verb
            for rule in policies.rules
            if rule.mode is not Mode.OFF
            and isinstance(rule.verb, Budget)
            and not rule.verb.key.facts
        }
        self._asked: dict[tuple[str, str], Counter[int]] = {}
        self._limits: dict[tuple[str, str], int | None] = {}
        self._shared: dict[int, tuple[str, str, float] | None] = {}
        self.any = bool(self._rules)
        """Whether there are such budgets at all."""

    def add(self, ts: float, decision: Decision) -> None:
        """Count what one request at `ts` (seconds) asked of them."""
        case = decision.case
        debits, looked = case.debits, case.looked
        if looked is not None:
            debits = tuple([receipt for receipt, _ in looked])
        for debit in debits:
            if debit is None:
                continue
            number = debit[0]
            if number not in self._shared:
                self._shared[number] = self._of(decision, number)
            shared = self._shared[number]
            if shared is None:
                continue
            # What was charged may be a plain tuple.
            receipt = Receipt._make(debit)
            rule, unit, length = shared
            self._asked.setdefault((rule, unit), Counter())[int(ts // length)] += receipt.amount
            known = self._limits.setdefault((rule, unit), receipt.allowance)
            if known != receipt.allowance:
                self._limits[rule, unit] = None

    def __getstate__(self) -> dict[str, object]:
        """Return the figures alone, for another process to merge."""
        return {"_asked": self._asked, "_limits": self._limits}

    def merge(self, other: Ceilings) -> None:
        """Add what other requests asked of the same policies' budgets."""
        for shared, windows in other._asked.items():
            self._asked.setdefault(shared, Counter()).update(windows)
        for shared, limit in other._limits.items():
            if self._limits.setdefault(shared, limit) != limit:
                self._limits[shared] = None

    def found(self) -> list[Ceiling]:
        """Return what came of each, in the order of the rules."""
        rows = []
        for (rule, unit), windows in self._asked.items():
            length = self._length(rule)
            scale = MICRO if unit == "cost_usd" else 1
            amounts = sorted(windows.values())
            usual = amounts[max(0, math.ceil(USUAL * len(amounts)) - 1)]
            at, busiest = max(windows.items(), key=lambda pair: (pair[1], -pair[0]))
            limit = self._limits[rule, unit]
            rows.append(
                Ceiling(
                    rule=rule,
                    unit=unit,
                    length=length,
                    limit=None if limit is None else limit / scale,
                    windows=len(amounts),
                    busiest=busiest / scale,
                    busiest_at=at * length,
                    proposed=rounded_up(usual * MARGIN / scale),
                )
            )
        order = list(self._rules)
        return sorted(rows, key=lambda row: (order.index(row.rule), row.unit))

    def _of(self, decision: Decision, number: int) -> tuple[str, str, float] | None:
        limit, part = decision.case.engine.counters[number]
        if limit.rule.id not in self._rules:
            return None
        return limit.rule.id, limit.unit(part), self._length(limit.rule.id)

    def _length(self, rule: str) -> float:
        return self._rules[rule].lasts / SECOND


def rounded_up(value: float) -> float:
    """Return the next number with two digits that count, at least as large."""
    if value <= 0:
        return 0.0
    digits = 10 ** (math.floor(math.log10(value)) - 1)
    return float(math.ceil(value / digits) * digits)

"""What a replay came to, beside what was expected of it: measured segment by segment."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from guardrail.engine import Decision, FactReader
from guardrail.errors import DataError
from guardrail.model.conditions import (
    Comparison,
    Condition,
    Every,
    Negation,
    compile_condition,
    facts_of,
)
from guardrail.model.effects import Effect, Mode
from guardrail.model.policy import PolicySet, Threshold

_HOLDS: Mapping[str, Callable[[Fraction, Fraction], bool]] = {
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}


Counted = tuple[str, str, str | None]
"""What is counted for a threshold, whatever its bound: its segment, its measure, its rule.

The segment is a digest, the same in all processes: its text leaves out most of a long list.
"""


class Measured(NamedTuple):
    """A threshold beside what a replay came to: how many `met` the measure, of how many.

    `holds` is None where nothing was in the segment, which shows nothing.
    """

    threshold: Threshold
    met: int
    whole: int

    @property
    def holds(self) -> bool | None:
        """Whether the replay came to what was expected."""
        if not self.whole:
            return None
        threshold = self.threshold
        value = Fraction(self.met, self.whole) if threshold.is_share else Fraction(self.met)
        return _HOLDS[threshold.operator](value, threshold.bound)


@dataclass(slots=True)
class Count:
    """What was counted for one threshold."""

    requests: int = 0
    met: int = 0
    accounts: set[str] = field(default_factory=set)
    accounts_met: set[str] = field(default_factory=set)

    def merge(self, other: Count) -> None:
        """Add what was counted of other requests."""
        self.requests += other.requests
        self.met += other.met
        self.accounts |= other.accounts
        self.accounts_met |= other.accounts_met


class Expected:
    """Measures what a policy set's thresholds are about, request by request."""

    def __init__(self, policies: PolicySet) -> None:
        self.thresholds = [one for one in policies.thresholds if one.measure != "bad_lines"]
        self.lines = [one for one in policies.thresholds if one.measure == "bad_lines"]
        names = frozenset().union(*(facts_of(one.when) for one in self.thresholds))
        self._reader = FactReader(policies.facts, names, policies.timezone)
        self._counts = {_counted(one): Count() for one in self.thresholds}
        shadow = {rule.id for rule in policies.rules if rule.mode is Mode.SHADOW}
        remedies = {
            (rule.id, verdict.reason)
            for rule in policies.rules
            for verdict in rule.verb.verdicts
            if verdict.remedy is not None
        }
        by_count = {_counted(one): one for one in self.thresholds}
        self._parts = [
            (compile_condition(one.when), _meets(one, shadow, remedies), self._counts[counted])
            for counted, one in by_count.items()
        ]
        self.any = bool(self._parts)
        """Whether there are such thresholds at all."""

    def add(self, ts: float, decision: Decision) -> None:
        """Count one request decided at `ts`, in seconds."""
        facts, _ = self._reader.read(decision.facts, ts)
        account = decision.facts.get("account.id")
        for condition, meets, count in self._parts:
            if condition(facts, ts) is not True:
                continue
            met = meets(decision)
            count.requests += 1
            count.met += met
            if isinstance(account, str):
                count.accounts.add(account)
                if met:
                    count.accounts_met.add(account)

    def __getstate__(self) -> dict[str, object]:
        """Return the figures alone, for another process to merge."""
        return {"_counts": self._counts}

    def merge(self, other: Expected) -> None:
        """Add what other requests under the same policies came to.

        Raises:
            DataError: nothing was counted of them for one of the thresholds.
        """
        for one in self.thresholds:
            if _counted(one) not in other._counts:
                raise DataError(
                    f"nothing was counted for `{one.text}` when the parts were replayed: give it "
                    "to each `check --shard` with `--expect`"
                )
        for counted, count in self._counts.items():
            count.merge(other._counts[counted])

    def measured(self, bad_lines: int, lines: int) -> list[Measured]:
        """Return every threshold with what was measured; `bad_lines` of all `lines` were none."""
        found = []
        for threshold in self.thresholds:
            count = self._counts[_counted(threshold)]
            if threshold.accounts:
                found.append(Measured(threshold, len(count.accounts_met), len(count.accounts)))
            else:
                found.append(Measured(threshold, count.met, count.requests))
        return [*found, *(Measured(one, bad_lines, lines) for one in self.lines)]


def _counted(threshold: Threshold) -> Counted:
    segment = hashlib.sha256(_in_full(threshold.when).encode(errors="surrogatepass")).hexdigest()
    return segment, threshold.measure, threshold.by


def _in_full(condition: Condition) -> str:
    """Return a condition with all that it tests, in an order that is the same in all processes."""
    if isinstance(condition, Comparison):
        operand = condition.operand
        if isinstance(operand, frozenset):
            operand = sorted(map(repr, operand))
        return f"{condition.fact} {condition.operator} {operand!r}"
    if isinstance(condition, Negation):
        return f"not ({_in_full(condition.part)})"
    word = "all of" if isinstance(condition, Every) else "any of"
    return f"{word} ({'; '.join(map(_in_full, condition.parts))})"


def _meets(
    threshold: Threshold, shadow: set[str], remedies: set[tuple[str, str]]
) -> Callable[[Decision], bool]:
    """Return whether a decision meets a threshold's measure, as a function."""
    measure, by = threshold.measure, threshold.by

    def is_met(effect: Effect) -> bool:
        if measure == "blocked":
            return effect is Effect.BLOCK
        if measure == "throttled":
            return effect is Effect.THROTTLE
        if measure == "degraded":
            return effect is Effect.DEGRADE
        return effect.refuses

    steps_up = measure == "stepped_up"
    if by in shadow:
        return lambda decision: any(
            report.rule == by
            and is_met(report.effect)
            and (not steps_up or (report.rule, report.reason) in remedies)
            for report in decision.shadow
        )
    return lambda decision: (
        is_met(decision.effect)
        and (by is None or decision.rule == by)
        and (not steps_up or decision.ruling.remedy is not None)
    )

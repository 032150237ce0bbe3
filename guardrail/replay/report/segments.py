"""Decisions by the values of a few facts: which tiers, countries, capabilities are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from guardrail.engine import Decision
from guardrail.model.effects import Effect
from guardrail.model.facts import Fact

USUAL = ("account.tier", "request.capability", "request.model", "geo.country")
"""The facts that segments are made by, where nothing else is asked for."""

MOST_VALUES = 500
"""How many values of one fact are told apart."""

MISSING = "(missing)"
OTHERS = "(others)"


class Segments:
    """Requests by effect for each value of some facts; a missing value is a segment of its own."""

    def __init__(self, known: Mapping[str, Fact], facts: Sequence[str] = USUAL) -> None:
        """Take the facts that the policies know: a default stands for a missing value."""
        self._defaults = {name: known[name].default for name in facts if name in known}
        self._counts: dict[str, dict[str, list[int]]] = {name: {} for name in facts}

    def add(self, decision: Decision) -> None:
        """Count one decided request."""
        facts, effect = decision.facts, decision.effect
        for name, values in self._counts.items():
            value = facts.get(name)
            if value is None:
                value = self._defaults.get(name)
            self._of(values, MISSING if value is None else str(value))[effect] += 1

    def merge(self, other: Segments) -> None:
        """Add what was counted elsewhere by the same facts."""
        for name, values in other._counts.items():
            mine = self._counts.setdefault(name, {})
            for value, counts in values.items():
                found = self._of(mine, value)
                for effect in Effect:
                    found[effect] += counts[effect]

    def rows(self) -> list[tuple[str, list[tuple[str, tuple[int, ...]]]]]:
        """Return, by fact, requests by effect for each value, the most requests first.

        A fact that no request states is left out.
        """
        found = []
        for name, values in self._counts.items():
            if values.keys() <= {MISSING}:
                continue
            ordered = sorted(values.items(), key=lambda pair: (-sum(pair[1]), pair[0]))
            found.append((name, [(value, tuple(counts)) for value, counts in ordered]))
        return found

    def _of(self, values: dict[str, list[int]], value: str) -> list[int]:
        found = values.get(value)
        if found is None:
            if len(values) >= MOST_VALUES:
                value = OTHERS
            found = values.setdefault(value, [0] * len(Effect))
        return found

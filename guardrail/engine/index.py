"""Finding rules by the value of one fact, where many of them ask for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from guardrail.engine.facts import DERIVED
from guardrail.model.conditions import Comparison, Condition, Every
from guardrail.model.facts import Fact, FactType
from guardrail.model.rules import Rule

INDEX_FROM = 16
"""A fact is indexed if at least so many rules can be; fewer are cheaper to test in line."""

AT_ONCE = 32
"""Up to so many values of an index have their functions made at the start, more as they come."""

WIDEST = 64
"""A rule that lists more values than this is not indexed by them."""

_PLAIN = frozenset(
    (
        FactType.STRING,
        FactType.COUNTRY,
        FactType.ENUM,
        FactType.LEVEL,
        FactType.INTEGER,
        FactType.BOOL,
    )
)


@dataclass(frozen=True, slots=True)
class Index:
    """How rules are found: those tried always, and per fact those tried for a value.

    `buckets` maps a fact to its values' rules, by place in the set; the value None is for a
    request without the fact, where a rule that matches the unknown is tried too.
    """

    always: tuple[int, ...]
    buckets: Mapping[str, Mapping[object, tuple[int, ...]]]

    @property
    def is_wide(self) -> bool:
        """Whether a fact has more values to find rules by than have functions made at once."""
        return any(len(bucket) > AT_ONCE for bucket in self.buckets.values())

    @property
    def main(self) -> str | None:
        """The fact by which most rules are found, of those that requests state; None for none."""
        stated = [name for name in self.buckets if name not in DERIVED]
        return max(
            stated, key=lambda name: sum(map(len, self.buckets[name].values())), default=None
        )


def build_index(rules: Sequence[Rule], facts: Mapping[str, Fact]) -> Index:
    """Return the index of a policy set's rules."""
    candidates = [_candidates(rule.when, facts) for rule in rules]
    popular = Counter(name for values in candidates for name in values)
    always: list[int] = []
    buckets: dict[str, dict[object, list[int]]] = {}
    for place, (rule, values) in enumerate(zip(rules, candidates, strict=True)):
        usable = [name for name in values if popular[name] >= INDEX_FROM]
        if not usable:
            always.append(place)
            continue
        chosen = min(usable, key=lambda name: (len(values[name]), -popular[name], name))
        bucket = buckets.setdefault(chosen, {})
        keys: list[object] = sorted(values[chosen], key=repr)
        if rule.unknown != "skip":
            keys.append(None)
        for key in keys:
            bucket.setdefault(key, []).append(place)
    return Index(
        tuple(always),
        {
            name: {value: tuple(places) for value, places in bucket.items()}
            for name, bucket in sorted(buckets.items())
        },
    )


def _candidates(when: Condition, facts: Mapping[str, Fact]) -> dict[str, frozenset[object]]:
    """Return the facts that a condition needs to have one of a few values."""
    parts = when.parts if isinstance(when, Every) else (when,)
    found: dict[str, frozenset[object]] = {}
    for part in parts:
        if isinstance(part, Every):
            for name, values in _candidates(part, facts).items():
                found.setdefault(name, values)
        elif isinstance(part, Comparison) and part.operator == "in":
            wanted = cast(frozenset[object], part.operand)
            if facts[part.fact].type in _PLAIN and 0 < len(wanted) <= WIDEST:
                found.setdefault(part.fact, wanted)
    return found

"""How much a limit allows: a number, a number by fact, or a fact's own value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SECOND = 1_000_000
"""Microseconds in a second: the engine's times and spans are whole microseconds."""
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

MICRO = 1_000_000
"""Micro-USD in a dollar: money is counted in whole micro-USD."""

UNITS = (
    "requests",
    "tokens",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "reasoning_tokens",
    "cost_usd",
)
"""The built-in units; a policy set may declare more."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same for every request; None is unlimited."""

    value: int | None


@dataclass(frozen=True, slots=True)
class Lookup:
    """Looked up by the value of a fact.

    `otherwise` applies to values the table lacks, `missing` where the fact itself is missing;
    None is unlimited. Keys are typed fact values.
    """

    fact: str
    table: Mapping[object, int | None]
    otherwise: int | None
    missing: int | None


@dataclass(frozen=True, slots=True)
class FromFact:
    """The value of a fact, times `scale` (micro-USD for money), rounded down.

    `missing` applies where the fact is missing; a negative value allows nothing.
    """

    fact: str
    scale: int
    missing: int | None


Amount = Fixed | Lookup | FromFact


def amount_facts(amount: Amount) -> frozenset[str]:
    """Return the names of the facts an amount reads."""
    return frozenset() if isinstance(amount, Fixed) else frozenset((amount.fact,))

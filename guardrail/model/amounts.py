"""How much a limit allows: a number, by a fact's value or its band, or a fact's own value."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from guardrail.model.conditions import Condition, Facts, compile_condition, facts_of

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


@dataclass(frozen=True, slots=True)
class Band:
    """The amount from one value of a fact on; None is unlimited.

    `start` is in the fact's own unit (seconds for a duration), `text` as the author wrote it.
    """

    start: float
    text: str
    amount: int | None


@dataclass(frozen=True, slots=True)
class Banded:
    """Looked up by the band that a fact's value falls in: the last that starts at or below it.

    The starts of `bands` rise. `otherwise` applies to values below the first, `missing` where
    the fact itself is missing; None is unlimited.
    """

    fact: str
    bands: tuple[Band, ...]
    otherwise: int | None
    missing: int | None

    @property
    def starts(self) -> tuple[float, ...]:
        """Where each band starts."""
        return tuple(band.start for band in self.bands)

    @property
    def rows(self) -> tuple[int | None, ...]:
        """The amount below the first band, then that of each band."""
        return (self.otherwise, *(band.amount for band in self.bands))

    def row(self, value: float) -> int:
        """Return the place in `rows` of the amount for a value."""
        return bisect_right(self.starts, value)


@dataclass(frozen=True, slots=True)
class Raised:
    """`own`, and at least `least` where an exemption holds; None is unlimited.

    `expires` is in microseconds since the epoch, exclusive; `unknown_holds` tells whether the
    exemption holds where its condition is unknown.
    """

    own: Amount
    least: int | None
    exemption: str
    when: Condition
    unknown_holds: bool
    expires: int

    def is_raised(self, facts: Facts, now: int) -> bool:
        """Tell whether the exemption holds at `now` (microseconds)."""
        if now >= self.expires:
            return False
        answer = compile_condition(self.when)(facts, now / SECOND)
        return self.unknown_holds if answer is None else answer


Amount = Fixed | Lookup | FromFact | Banded | Raised


def larger(one: int | None, other: int | None) -> int | None:
    """Return the larger of two amounts; None is unlimited."""
    return None if one is None or other is None else max(one, other)


def without_raises(amount: Amount) -> Amount:
    """Return an amount as the rule itself has it."""
    while isinstance(amount, Raised):
        amount = amount.own
    return amount


def possible_amounts(amount: Amount) -> tuple[int | None, ...] | None:
    """Return what an amount can be, None is unlimited; None where it can be anything."""
    if isinstance(amount, Fixed):
        return (amount.value,)
    if isinstance(amount, Lookup):
        return (*amount.table.values(), amount.otherwise, amount.missing)
    if isinstance(amount, Banded):
        return (*amount.rows, amount.missing)
    if isinstance(amount, Raised):
        own = possible_amounts(amount.own)
        return None if own is None else (*own, *(larger(one, amount.least) for one in own))
    return None


def amount_facts(amount: Amount) -> frozenset[str]:
    """Return the names of the facts an amount reads."""
    if isinstance(amount, Raised):
        return amount_facts(amount.own) | facts_of(amount.when)
    return frozenset() if isinstance(amount, Fixed) else frozenset((amount.fact,))

"""Which evidence ties accounts together, and what tells against them, as a set states it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from guardrail.model.conditions import Condition, facts_of

CARD, IDENTITY = "payment.fingerprint", "kyc.subject"
"""What an account must have of its own for it to vouch that a value is shared by strangers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """The facts whose shared values link accounts, and the limits of that.

    One shared value of a `strong` fact links; of `weak` ones two at once have to be shared. A link
    lasts for `strong_days` or `weak_days` after it was last used. A value that `public_after`
    trusted accounts show, each with a card and an identity of its own, links nobody any more. An
    actor of `max_accounts` accounts takes no others in. Accounts for which `exempt` holds are
    never linked.
    """

    trusted: Condition
    strong: tuple[str, ...] = ()
    weak: tuple[str, ...] = ()
    strong_days: int = 180
    weak_days: int = 14
    public_after: int = 3
    max_accounts: int = 5000
    exempt: Condition | None = None
    client: frozenset[str] = frozenset()
    """The weak facts that callers choose: two of them link nobody, as anyone can copy both."""

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The pairs of weak facts, each of which links by its two values together.

        They do not depend on the order in which the facts are written.
        """
        every = combinations(sorted(self.weak), 2)
        return tuple(pair for pair in every if not self.client.issuperset(pair))

    @property
    def facts(self) -> frozenset[str]:
        """Every fact that linking reads."""
        return frozenset((*self.strong, *self.weak, "account.id", *self.relies, *self.vouching))

    @property
    def relies(self) -> frozenset[str]:
        """The facts that say whether an account is trusted, or exempt."""
        exempt = frozenset[str]() if self.exempt is None else facts_of(self.exempt)
        return facts_of(self.trusted) | exempt

    @property
    def vouching(self) -> tuple[str, ...]:
        """The facts of which a trusted account must have a value of its own to make one public."""
        return (CARD, IDENTITY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """One kind of evidence against an actor, worth `points` of its `family`.

    `kind` is `count`: it showed more than `above` different values of `fact`; `when`: `condition`
    held for more than `above` percent of its requests; `same`: more than `above` percent of them
    showed the same value of `fact`; or `even`: the time between them varies by less than 100 −
    `above` percent of its mean. Shares need at least `least` requests.
    """

    id: str
    family: str
    points: int
    kind: Literal["count", "when", "same", "even"]
    above: int
    fact: str | None = None
    condition: Condition | None = None
    least: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """How many established accounts may be newly refused for a score within `per` microseconds."""

    established: Condition
    most: int
    per: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What evidence says of actors: of each family the most points, of at least two families.

    Evidence counts for `window` microseconds at most, and half of that at least. Actors of fewer
    than `min_accounts` accounts have no score.
    """

    signs: tuple[Sign, ...]
    window: int
    min_accounts: int = 3
    breaker: Breaker | None = None

    @property
    def shown(self) -> frozenset[str]:
        """Every fact that evidence is read from."""
        read = {sign.fact for sign in self.signs if sign.fact is not None}
        conditions = [sign.condition for sign in self.signs if sign.condition is not None]
        return frozenset(read).union(*(facts_of(condition) for condition in conditions))

    @property
    def facts(self) -> frozenset[str]:
        """Every fact that a score is read from, and what it spares whom by."""
        spared = frozenset() if self.breaker is None else facts_of(self.breaker.established)
        return self.shown | spared

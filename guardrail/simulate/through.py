"""Who took what an attack was served: which kinds of accounts, and what refused them most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from guardrail.simulate.population import DAY

_PAID = (
    (0.0, "nothing"),
    (0.01, "< $20"),
    (20.0, "$20+"),
    (100.0, "$100+"),
    (500.0, "$500+"),
)
_ACTING = ((1, "1"), (2, "2–3"), (4, "4–7"), (8, "8+"))
OLD = 60 * DAY
"""From which age on an account, or an identity, counts as old, in seconds."""


class Kind(NamedTuple):
    """What an account of an operator was when it asked.

    `identity` is how long one had been known, in seconds, None without one; `age` is the account's,
    in seconds; `paid` is in USD; `acting` tells how many accounts act as one with it, None where
    the policies link none.
    """

    identity: float | None
    age: float
    paid: float
    acting: int | None


class Band(NamedTuple):
    """A kind of accounts, in words; the last is None where the policies link none."""

    known: str
    age: str
    paid: str
    acting: str | None


def band_of(kind: Kind) -> Band:
    """Return the band that a kind of account falls in."""
    known = "no ID" if kind.identity is None else "old ID" if kind.identity >= OLD else "new ID"
    acting = None if kind.acting is None else _name(_ACTING, kind.acting)
    return Band(known, "old" if kind.age >= OLD else "new", _name(_PAID, kind.paid), acting)


def _name(bands: tuple[tuple[float, str], ...], value: float) -> str:
    """Return the name of the last band that begins at a value or below it."""
    return [name for begins, name in bands if begins <= value or begins == bands[0][0]][-1]


@dataclass(slots=True)
class _Found:
    accounts: set[int] = field(default_factory=set)
    served: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class Through:
    """Counts what was served to each band of accounts, and which rules refused them."""

    def __init__(self) -> None:
        self._found: dict[Band, _Found] = {}

    def serve(self, kind: Kind, account: int, count: int) -> None:
        """Count so many requests served to an account."""
        found = self._of(kind)
        found.accounts.add(account)
        found.served += count

    def refuse(self, kind: Kind, account: int, rule: str | None) -> None:
        """Count one refusal of an account by a rule."""
        found = self._of(kind)
        found.accounts.add(account)
        found.refused[rule or "store"] += 1

    def _of(self, kind: Kind) -> _Found:
        band = band_of(kind)
        found = self._found.get(band)
        if found is None:
            found = self._found[band] = _Found()
        return found

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the bands, what took most first, each with the rules that refused it most often."""
        order = sorted(self._found.items(), key=lambda one: (-one[1].served, one[0][:3]))
        for band, found in order:
            ranked = sorted(found.refused.items(), key=lambda one: (-one[1], one[0]))
            yield {
                **band._asdict(),
                "accounts": len(found.accounts),
                "served": found.served,
                "refusals": dict(ranked),
            }

"""Who is hurt most: accounts by what was refused them, in bounded memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from guardrail.model.effects import Effect

MOST_ACCOUNTS = 100_000
"""How many accounts are told apart before those with the least harm are forgotten."""


@dataclass(slots=True)
class Harm:
    """What one account met: requests by effect, when it was first refused, and by which rules.

    `first` is in seconds, None where it never was.
    """

    effects: list[int] = field(default_factory=lambda: [0] * len(Effect))
    first: float | None = None
    rules: Counter[str] = field(default_factory=Counter)

    @property
    def asked(self) -> int:
        """How many requests it made."""
        return sum(self.effects)

    @property
    def refused(self) -> int:
        """How many of them were throttled or blocked."""
        return self.effects[Effect.THROTTLE] + self.effects[Effect.BLOCK]

    def merge(self, other: Harm) -> None:
        """Add what the account met elsewhere."""
        self.effects = [a + b for a, b in zip(self.effects, other.effects, strict=True)]
        firsts = [first for first in (self.first, other.first) if first is not None]
        self.first = min(firsts, default=None)
        self.rules.update(other.rules)


class Accounts:
    """Counts what each account met; `forgotten` is the most refusals of one that was forgotten."""

    def __init__(self, most: int = MOST_ACCOUNTS) -> None:
        self._most = most
        self._harm: dict[str, Harm] = {}
        self.forgotten: int | None = None

    def add(self, ts: float, account: object, effect: Effect, rule: str | None) -> None:
        """Count one request of an account at `ts` (seconds); one without a name is left out."""
        if not isinstance(account, str):
            return
        harm = self._harm.get(account)
        if harm is None:
            self._forget()
            harm = self._harm[account] = Harm()
        harm.effects[effect] += 1
        if effect.refuses:
            if harm.first is None or ts < harm.first:
                harm.first = ts
            harm.rules[rule or ""] += 1

    def merge(self, other: Accounts) -> None:
        """Add what was counted elsewhere."""
        for account, theirs in other._harm.items():
            self._harm.setdefault(account, Harm()).merge(theirs)
        if other.forgotten is not None:
            self.forgotten = max(self.forgotten or 0, other.forgotten)
        self._forget()

    def refused(self) -> int:
        """Return how many accounts were refused at least once."""
        return sum(harm.refused > 0 for harm in self._harm.values())

    def __len__(self) -> int:
        return len(self._harm)

    def worst(self, most: int) -> list[tuple[str, Harm]]:
        """Return the accounts with the most refusals, those with one at least."""
        hurt = [pair for pair in self._harm.items() if pair[1].refused]
        return ranked(hurt, most)

    def _forget(self) -> None:
        if len(self._harm) <= 2 * self._most:
            return
        kept = ranked(list(self._harm.items()), self._most)
        least = kept[-1][1].refused
        self.forgotten = max(self.forgotten or 0, least)
        self._harm = dict(kept)


def ranked(pairs: list[tuple[str, Harm]], most: int) -> list[tuple[str, Harm]]:
    """Return the worst of some accounts: by refusals, then by the share refused, then by name."""
    order = sorted(
        pairs, key=lambda pair: (-pair[1].refused, pair[1].effects[Effect.ALLOW], pair[0])
    )
    return order[:most]

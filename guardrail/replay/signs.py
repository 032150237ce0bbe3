"""What speaks for an account being a customer's: what it paid, who it is, how long it is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from guardrail.engine import FactReader
from guardrail.model.conditions import Comparison, Condition, Negation, compile_condition, facts_of
from guardrail.model.facts import AGES, FactType
from guardrail.model.policy import PolicySet

KNOWN_FOR = 30 * 86400.0
"""For how long, in seconds, an account must be there to count as known."""
NEW = 7 * 86400.0
"""Up to what age, in seconds, an account counts as new."""
ENOUGH = 2
"""From how many signs on an account looks like a customer's."""

PAID, VERIFIED, KNOWN, TRUSTED = "paid", "verified", "known", "trusted"
_FACTS = (
    "account.paid_usd", "account.paid_age", "account.verified_age", "kyc.subject", "account.age",
    "account.tier",
)  # fmt: skip


class Standing(NamedTuple):
    """What speaks for an account at one time: its signs, what it paid (USD), its age (seconds).

    `paid` and `age` are None where they are not known.
    """

    signs: tuple[str, ...] = ()
    paid: float | None = None
    age: float | None = None

    @property
    def like_customer(self) -> bool:
        """Whether it looks like a customer's."""
        return len(self.signs) >= ENOUGH

    @property
    def new(self) -> bool:
        """Whether it is known to be new."""
        return self.age is not None and self.age < NEW

    @property
    def weight(self) -> tuple[float, ...]:
        """How much it says: more signs say more, then more that was paid, then a longer time."""
        return (len(self.signs), self.paid or 0.0, self.age or 0.0)


class Signs:
    """Reads the signs of a customer from facts that the server established.

    `paid`: a payment has cleared. `verified`: an identity was established. `known`: the account is
    30 days old or older. `trusted`: what `links.trusted` of the policies says holds, or, without
    links, the tier is in the upper half of its levels. `grows` tells that the same facts never
    speak less for an account at a later time.
    """

    def __init__(self, policies: PolicySet) -> None:
        names = set(_FACTS)
        self._trusted = None
        self.grows = policies.links is None or _never_ends(policies.links.trusted)
        if policies.links is not None:
            self._trusted = compile_condition(policies.links.trusted)
            names |= facts_of(policies.links.trusted)
        tier = policies.facts["account.tier"]
        self._upper = (
            frozenset(tier.values[(len(tier.values) + 1) // 2 :])
            if tier.type is FactType.LEVEL
            else frozenset()
        )
        self._reader = FactReader(policies.facts, names, policies.timezone)
        self._names = tuple(sorted(self._reader.used))

    def stated(self, facts: Mapping[str, object]) -> tuple[object, ...]:
        """Return what a request states of all that signs are read from."""
        return tuple(map(facts.get, self._names))

    def of_stated(self, stated: tuple[object, ...], ts: float) -> Standing:
        """Return what speaks for an account of which `stated` was said, at `ts` in seconds."""
        return self.of(dict(zip(self._names, stated, strict=True)), ts)

    def of(self, facts: Mapping[str, object], ts: float) -> Standing:
        """Return what speaks for the account of a request at `ts`, in seconds."""
        read, _ = self._reader.read(facts, ts)
        get = read.get
        paid, age = get("account.paid_usd"), get("account.age")
        signs = []
        if (paid is not None and paid > 0) or get("account.paid_age") is not None:
            signs.append(PAID)
        if get("account.verified_age") is not None or get("kyc.subject") is not None:
            signs.append(VERIFIED)
        if age is not None and age >= KNOWN_FOR:
            signs.append(KNOWN)
        if self._trusted is not None:
            trusted = self._trusted(read, ts) is True
        else:
            trusted = get("account.tier") in self._upper
        if trusted:
            signs.append(TRUSTED)
        return Standing(
            tuple(signs),
            None if paid is None else float(paid),
            None if age is None else float(age),
        )


_GROWING = frozenset(("gt", "gte", "exists"))


def _never_ends(condition: Condition) -> bool:
    """Tell whether a condition that holds of some facts holds of them at any later time too."""
    if isinstance(condition, Comparison):
        return _is_timeless(condition) or (
            condition.fact in AGES and condition.operator in _GROWING
        )
    if isinstance(condition, Negation):
        return _is_wholly_timeless(condition.part)
    return all(map(_never_ends, condition.parts))


def _is_timeless(test: Comparison) -> bool:
    names = {test.fact, str(test.operand)} if test.operator == "same_as" else {test.fact}
    if test.operator in ("before", "after"):
        return False
    return not any(name in AGES or name.startswith("time.") for name in names)


def _is_wholly_timeless(condition: Condition) -> bool:
    if isinstance(condition, Comparison):
        return _is_timeless(condition)
    if isinstance(condition, Negation):
        return _is_wholly_timeless(condition.part)
    return all(map(_is_wholly_timeless, condition.parts))

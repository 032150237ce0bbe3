"""Reading a request's facts: typed, defaulted, derived, and what was wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from guardrail.engine.expressions import define
from guardrail.model.amounts import SECOND
from guardrail.model.facts import (
    AGES,
    WEEKDAYS,
    Fact,
    FactType,
    is_plain,
    reader_of,
    typed_value,
    value_shown,
)

IDENTITIES = frozenset(
    "account.id account.org credential.id kyc.subject payment.fingerprint device.fingerprint "
    "actor.id client.network".split()
)
"""Facts that tell one from another: all who had a wrong value for one would share a counter."""

INVALID_FACT = "invalid-fact"

Derivation = Callable[[dict[str, Any], float], object | None]


class Reading(NamedTuple):
    """What the facts and the estimate of a request say at `now` (microseconds).

    `notes` tell what was wrong with them.
    """

    facts: Mapping[str, Any]
    amounts: dict[str, int]
    now: int
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """The time in seconds since the epoch."""
        return self.now / SECOND


class FactReader:
    """Reads the facts that a policy set uses, and no others.

    Derived facts the request does not carry are added: ages such as `account.age` from the times
    they count from, an account's bucket from its id, `time.hour` and `time.weekday` from the
    decision's time, and, where nothing links accounts, each account as an actor of its own.
    """

    def __init__(
        self,
        facts: Mapping[str, Fact],
        used: Iterable[str],
        timezone: str,
        identities: Iterable[str] = (),
    ) -> None:
        """Take the facts, the names of those used, and the identities among the policies' own."""
        names = set(used)
        if "actor.score" in names and "actor.evidence" in facts:
            names.add("actor.evidence")  # so that an explanation says why
        names.update(FOLLOWS_FROM[name] for name in FOLLOWS_FROM.keys() & names)
        names.update(name for name, fact in facts.items() if fact.required)
        self.used = frozenset(names)
        self.facts = {name: facts[name] for name in sorted(names)}
        self._read = tuple((name, fact, reader_of(fact)) for name, fact in self.facts.items())
        self.identities = names & {*IDENTITIES, *identities}
        self.zone = None if timezone == "UTC" else ZoneInfo(timezone)
        every: dict[str, Derivation] = {
            **{name: _following(name) for name in FOLLOWING},
            "time.hour": lambda facts, now: self.local(now).hour,
            "time.weekday": lambda facts, now: WEEKDAYS[self.local(now).weekday()],
        }
        self.derivations = {name: every[name] for name in every if name in names}

    def local(self, now: float) -> datetime:
        """Return the time (seconds since the epoch) in the set's time zone."""
        return datetime.fromtimestamp(int(now), self.zone or UTC)

    def widened(self, unavailable: frozenset[str]) -> frozenset[str]:
        """Return what is unavailable with `unavailable`: what follows from it is so as well."""
        return unavailable.union(
            name for name in self.derivations if FOLLOWS_FROM.get(name) in unavailable
        )

    def read(
        self, raw: Mapping[str, object], now: float, unavailable: frozenset[str] = frozenset()
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return the typed facts, and a note on every value that is not of its fact's type.

        A missing fact (absent, or None) takes its default; an ill-typed or unavailable one stays
        missing. An empty identity is ill-typed.
        """
        known: dict[str, Any] = {}
        notes: list[str] = []
        spoiled: set[str] = set(unavailable)
        for name, fact, read in self._read:
            stated = raw.get(name)
            if stated is not None:
                value = read(fact, stated)
                if value is None or (value == "" and name in self.identities):
                    spoiled.add(name)
                    notes.append(_ill_typed(fact, stated))
                else:
                    known[name] = value
            elif fact.default is not None and name not in unavailable:
                known[name] = fact.default
        for name, derive in self.derivations.items():
            if name not in known and name not in spoiled:
                derived = derive(known, now)
                if derived is not None:
                    known[name] = derived
        return known, tuple(notes)

    def value(self, name: str, raw: Mapping[str, object]) -> Any:
        """Return the typed value of one fact that is not derived, None where it is missing."""
        fact = self.facts.get(name)
        if fact is None:
            return None
        stated = raw.get(name)
        return fact.default if stated is None else typed_value(fact, stated)

    def mistaken(self, raw: Mapping[str, object], known: Mapping[str, Any]) -> str | None:
        """Return an identity that the request states and that is none, None if there is none."""
        for name in sorted(self.identities):
            if name not in known and raw.get(name) is not None:
                return name
        return None


def completed(facts: Mapping[str, object], found: Mapping[str, object]) -> Mapping[str, object]:
    """Return the facts of a request with those that were found; what it states goes before."""
    more = {name: value for name, value in found.items() if facts.get(name) is None}
    return {**facts, **more} if more else facts


FOLLOWING: Mapping[str, tuple[str, str]] = {
    **{age: (time, "max(0.0, now - {value})") for age, time in AGES.items()},
    "actor.id": ("account.id", "{value}"),
    "actor.accounts": ("account.id", "1"),
    "actor.trusted_accounts": ("account.id", "0"),
    "actor.score": ("account.id", "0"),
    "actor.evidence": ("account.id", "()"),
}
"""For each fact that follows from another: from which, and the source of its value by that."""

DERIVED = frozenset((*FOLLOWING, "time.hour", "time.weekday"))
"""The facts that a request need not state to have them."""

FOLLOWS_FROM: Mapping[str, str] = {name: source for name, (source, _) in FOLLOWING.items()}
"""Which fact of a request a derived one follows from, where it follows from one."""


def _following(name: str) -> Derivation:
    source, value = FOLLOWING[name]
    lines = [
        "def follow(facts, now):",
        f"    value = facts.get({source!r})",
        f"    return None if value is None else {value.format(value='value')}",
    ]
    made: Derivation = define(lines, {}, "follow", name)
    return made


def _ill_typed(fact: Fact, value: object) -> str:
    shown = value_shown(value)
    if isinstance(value, str | int | float) and not is_plain(value):
        return f"fact `{fact.name}` is `{shown}`, no plain value: taken as missing"
    if fact.values and isinstance(value, str):
        return f"fact `{fact.name}` is `{shown}`, none of its values: taken as missing"
    article = "an" if fact.type.value[0] in "aeiou" else "a"
    wanted = f"{article} {fact.type.value}{_WRITTEN.get(fact.type, '')}"
    return f"fact `{fact.name}` is `{shown}`, not {wanted}: taken as missing"


_WRITTEN: Mapping[FactType, str] = {
    FactType.TIMESTAMP: " (seconds since the epoch, or RFC 3339 text)",
    FactType.DURATION: " (seconds, or text such as `5d`)",
}
"""How the types are stated that have no type of their own in Python; a host may have one for it."""

"""Random steps over a few keys, and what is compared after each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import lru_cache
from random import Random
from typing import NamedTuple, Protocol

from guardrail.model.cells import (
    IDENT_LENGTH,
    Adjust,
    Cell,
    Charge,
    Correction,
    Counter,
    CounterReply,
    Drain,
    Leave,
    Member,
    Outcome,
    Renew,
)
from guardrail.stores import Store
from tests.cells.definition import Definition

SECOND = 1_000_000
TTL = 10**15
"""Long enough that nothing is forgotten within a run: the definition never forgets."""

WINDOWED = ("calendar=a", "calendar=b", "rolling_=a", "lifetime=")
DRAINING = ("pace____=a", "pace____=b", "ban_____=a")
SETS = ("flight__=a", "distinct=a", "strikes_=a")


class Step(NamedTuple):
    """One call: a charge of cells, or corrections, at a time in microseconds."""

    charges: list[Charge]
    cells: list[Cell]
    corrections: list[Correction]
    now: int


class Steps:
    """Draws steps; corrections are drawn from what was charged before.

    `kin` has strikes only follow charges of the same key facts, as the engine's do; `plain` has
    no sets and no clock that steps back.
    """

    def __init__(self, seed: int, *, kin: bool = False, plain: bool = False) -> None:
        self.rng = Random(seed)
        self.kin = kin
        self.plain = plain
        self.now = 1_700_000_000 * SECOND
        self.charged: list[tuple[Cell, object]] = []

    def draw(self) -> Step:
        """Return the next step."""
        rng = self.rng
        ahead = rng.choice((0, 1, SECOND // 3, SECOND, 7 * SECOND, 40 * SECOND, -3 * SECOND))
        self.now += abs(ahead) if self.plain else ahead
        if self.charged and rng.random() < 0.35:
            return Step([], [], [self._correction() for _ in range(rng.randint(1, 2))], self.now)
        charges: list[Charge] = []
        cells: list[Cell] = []
        for _ in range(rng.randint(1, 3)):
            index = len(charges)
            charges.append(Charge(rng.random() < 0.75, None))
            cells += [self._cell(index) for _ in range(rng.randint(1, 2))]
            akin = all(cell.key[IDENT_LENGTH:] == "=a" for cell in cells if cell.charge == index)
            if rng.random() < 0.3 and (akin or not self.kin) and not self.plain:
                charges += (Charge(False, index), Charge(False, index + 1))
                cells += self._escalation(index)
        return Step(charges, cells, [], self.now)

    def note(self, step: Step, outcome: Outcome) -> None:
        """Remember what a step charged."""
        if outcome.admitted:
            self.charged += list(zip(step.cells, outcome.replies, strict=True))
            del self.charged[:-40]

    def _cell(self, charge: int) -> Cell:
        rng, now = self.rng, self.now
        kind = rng.random() * (0.7 if self.plain else 1)
        amount = rng.choice((0, 1, 1, 2, 5, 30))
        ceiling = rng.choice((None, 0, 3, 20, 20, 60))
        if kind < 0.45:
            key = rng.choice(WINDOWED)
            slot, span = {
                "calendar": (now // (60 * SECOND) * 60, 1),
                "rolling_": (now // SECOND, 61),
                "lifetime": (0, 1),
            }[key[:8]]
            return Counter(charge, key, slot, span, 0, amount, ceiling, TTL)
        if kind < 0.7:
            key = rng.choice(DRAINING[:2])
            room = rng.choice((3, 20)) * SECOND
            return Counter(charge, key, 0, 1, now, amount * SECOND, now + room, TTL)
        key, member = rng.choice(SETS[:2]), rng.choice("abcdef")
        return Member(charge, key, member, now + rng.choice((5, 50)) * SECOND, ceiling, TTL)

    def _escalation(self, charge: int) -> Iterator[Cell]:
        now, ban = self.now, DRAINING[2]
        block = 30 * SECOND
        yield Counter(charge, ban, 0, 1, now, 0, now, TTL)
        second = str(now // SECOND)
        yield Member(charge + 1, SETS[2], second, now + 60 * SECOND, 2, TTL)
        yield Counter(charge + 1, ban, 0, 1, now, 0, now, TTL)
        yield Counter(charge + 2, ban, 0, 1, now, block, now + block, TTL)

    def _correction(self) -> Correction:
        rng = self.rng
        cell, reply = rng.choice(self.charged)
        delta = rng.choice((-30, -5, -1, 1, 4, 100))
        if isinstance(cell, Member):
            if rng.random() < 0.5:
                return Leave(cell.key, cell.member)
            return Renew(cell.key, cell.member, self.now + 20 * SECOND, TTL)
        assert isinstance(reply, CounterReply)
        if cell.floor:
            charged = reply.used + cell.amount
            return Drain(cell.key, delta * SECOND, charged, reply.refunded, TTL)
        return Adjust(cell.key, reply.slot, delta, TTL)


class Inspected(Store, Protocol):
    """A store that shows its records; `members` may show hashes in place of names."""

    def slots(self, key: str) -> dict[int, int]:
        """Return a windowed counter's slots and values."""
        ...

    def drained(self, key: str) -> tuple[int, int]:
        """Return a draining counter's value and all that was refunded to it."""
        ...

    def members(self, key: str) -> dict[str, int]:
        """Return a set's members and their expiries."""
        ...


def state(store: Inspected) -> dict[str, object]:
    """Return everything a store recorded; a server is asked once for all of it."""
    with getattr(store, "at_once", nullcontext)((*WINDOWED, *DRAINING, *SETS)):
        windows = {key: store.slots(key) for key in WINDOWED}
        lines = {key: store.drained(key) for key in DRAINING}
        sets = {key: store.members(key) for key in SETS}
    return {**windows, **lines, **sets}


def defined(definition: Definition, named: Callable[[str], str]) -> dict[str, object]:
    """Return everything that should be recorded, members as a store shows them."""
    windows = {key: definition.slots.get(key, {}) for key in WINDOWED}
    lines = {
        key: (definition.slots.get(key, {}).get(0, 0), definition.refunded.get(key, 0))
        for key in DRAINING
    }
    sets = {
        key: {named(member): expires for member, expires in definition.members.get(key, {}).items()}
        for key in SETS
    }
    return {**windows, **lines, **sets}


def difference(
    store: Inspected,
    seed: int,
    count: int,
    *,
    reopened: Callable[[], Inspected] | None = None,
    definition: Definition | None = None,
    kin: bool = False,
) -> str | None:
    """Return where a store first differs from the definition, None if it never does.

    `reopened` stands for a crash: it returns a new store on the same records, every now and then.
    """
    steps, crashes = Steps(seed, kin=kin), Random(seed)
    definition = definition or Definition()
    named = lru_cache(None)(lambda member: getattr(store, "member_name", str)(member))
    for number in range(count):
        step = steps.draw()
        if step.corrections:
            store.settle(step.corrections, step.now)
            definition.settle(step.corrections, step.now)
        else:
            wanted = definition.acquire(step.charges, step.cells, step.now)
            found = store.acquire(step.charges, step.cells, step.now)
            if found != wanted:
                return f"seed {seed}, step {number}: {found} is not {wanted}"
            steps.note(step, wanted)
        if reopened is not None and crashes.random() < 0.01:
            store = reopened()
        if state(store) != defined(definition, named):
            return f"seed {seed}, step {number}: the records differ"
    return None

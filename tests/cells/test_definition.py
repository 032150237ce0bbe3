"""Stores do what the definition says, step for step, and mutants of them do not."""

from __future__ import annotations

from typing import Any

import pytest

from guardrail.model.cells import Counter, Member, Outcome
from guardrail.stores.memory import MemoryStore
from tests.cells.steps import Steps, difference

SEEDS = range(12)
STEPS = 500


@pytest.mark.parametrize("seed", SEEDS)
def test_the_memory_store_equals_the_definition_after_every_step(seed):
    assert difference(MemoryStore(), seed, STEPS) is None


class OneTooMany(MemoryStore):
    def _acquire(self, charges, cells, now):
        raised = [c if c.ceiling is None else c._replace(ceiling=c.ceiling + 1) for c in cells]
        return super()._acquire(charges, raised, now)


class NarrowRing(MemoryStore):
    def _acquire(self, charges, cells, now):
        narrow = [c._replace(span=60) if getattr(c, "span", 1) == 61 else c for c in cells]
        return super()._acquire(charges, narrow, now)


class ChargesTheRefused(MemoryStore):
    def _acquire(self, charges, cells, now):
        outcome = super()._acquire(charges, cells, now)
        if not outcome.admitted:
            self.apply(cells[0], outcome.replies[0], now)
        return outcome


class ReopensOldWindows(MemoryStore):
    def read(self, cell, now):
        reply: Any = super().read(cell, now)
        windowed = isinstance(cell, Counter) and not cell.floor
        return reply._replace(slot=cell.slot) if windowed else reply


class StrikesWithoutRefusal(MemoryStore):
    def _acquire(self, charges, cells, now):
        loose = [charge._replace(after=None) for charge in charges]
        return super()._acquire(loose, cells, now)


class BindsTheUnbinding(MemoryStore):
    def _acquire(self, charges, cells, now):
        return super()._acquire([c._replace(binding=True) for c in charges], cells, now)


class CountsTheDead(MemoryStore):
    def read(self, cell, now):
        return super().read(cell, now - 10_000_000 if isinstance(cell, Member) else now)


class RefusesMembers(MemoryStore):
    def read(self, cell, now):
        return super().read(cell._replace(member="-") if isinstance(cell, Member) else cell, now)


class ForgetsTheFloor(MemoryStore):
    def read(self, cell, now):
        reply: Any = super().read(cell, now)
        return reply._replace(used=reply.used - 1) if getattr(cell, "floor", 0) else reply


class RefundsWhatDrained(MemoryStore):
    def correct(self, correction, now):
        if hasattr(correction, "charged"):
            correction = correction._replace(charged=correction.charged + 10**9)
        super().correct(correction, now)


class RenewsTheDead(MemoryStore):
    def correct(self, correction, now):
        super().correct(correction, 0 if hasattr(correction, "expires") else now)


class SaysNothingOfRoom(MemoryStore):
    def _acquire(self, charges, cells, now):
        admitted, refused, replies = super()._acquire(charges, cells, now)
        return Outcome(admitted, refused, [reply._replace(frees=None) for reply in replies])


MUTANTS = [
    OneTooMany,
    NarrowRing,
    ChargesTheRefused,
    ReopensOldWindows,
    StrikesWithoutRefusal,
    BindsTheUnbinding,
    CountsTheDead,
    RefusesMembers,
    ForgetsTheFloor,
    RefundsWhatDrained,
    RenewsTheDead,
    SaysNothingOfRoom,
]


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_of_the_store_is_found_out(mutant):
    assert any(difference(mutant(), seed, STEPS) for seed in SEEDS)


def test_the_steps_draw_every_kind_of_cell_and_some_of_each_outcome():
    steps, store = Steps(0), MemoryStore()
    kinds: set[type] = set()
    verdicts: set[bool] = set()
    for _ in range(STEPS):
        step = steps.draw()
        kinds.update(type(correction) for correction in step.corrections)
        kinds.update(type(cell) for cell in step.cells)
        if step.cells:
            outcome = store.acquire(step.charges, step.cells, step.now)
            verdicts.add(outcome.admitted)
            steps.note(step, outcome)

    assert {Counter, Member} <= kinds
    assert len(kinds) == 6
    assert verdicts == {True, False}

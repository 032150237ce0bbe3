"""The LMDB store does what the definition says, crashes included; mutants of it do not."""

from __future__ import annotations

import asyncio

import pytest

from guardrail.model.cells import (
    CELL,
    COUNTER,
    Adjust,
    Charge,
    Counter,
    CounterReply,
    Leave,
)
from guardrail.stores.lmdb import AsyncLmdbStore, LmdbStore
from guardrail.stores.lmdb.records import SET
from tests.cells.awaited import Awaited
from tests.cells.steps import TTL, difference
from tests.cells.stores import Housed, HousedInNumbers

SEEDS = range(8)
STEPS = 500
MUTANT_SEEDS, MUTANT_STEPS = range(6), 300


@pytest.mark.parametrize("seed", SEEDS)
def test_the_lmdb_store_equals_the_definition_after_every_step(seed):
    store = Housed()
    assert difference(store, seed, STEPS) is None
    store.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_lmdb_store_asked_in_numbers_equals_the_definition(seed):
    store = HousedInNumbers()
    assert difference(store, seed, STEPS) is None
    store.close()


class AwaitedAndShown(Awaited):
    """The awaited store, and the records of the store it is the twin of."""

    def __init__(self, store: LmdbStore) -> None:
        super().__init__(AsyncLmdbStore(store))
        self.slots, self.drained, self.members = store.slots, store.drained, store.members
        self.member_name = store.member_name


@pytest.mark.parametrize("seed", SEEDS)
def test_the_awaited_lmdb_store_equals_the_definition(seed):
    store = AwaitedAndShown(Housed())
    assert difference(store, seed, STEPS // 2) is None
    store.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_or_gained_when_the_process_dies_between_two_steps(seed, tmp_path):
    opened = [LmdbStore(tmp_path)]

    def reopened() -> LmdbStore:
        # As the kernel does for a dead process: files are closed, nothing else happens.
        opened[-1].connection.before_fork()
        opened[-1].connection.after_fork(True)
        opened.append(LmdbStore(tmp_path))
        return opened[-1]

    assert difference(opened[0], seed, STEPS, reopened=reopened) is None
    assert len(opened) > 2


class OneTooMany(Housed):
    def _acquire(self, transaction, charges, cells):
        raised = [c if c.ceiling is None else c._replace(ceiling=c.ceiling + 1) for c in cells]
        return super()._acquire(transaction, charges, raised)


class ChargesTheRefused(Housed):
    def _acquire(self, transaction, charges, cells):
        outcome = super()._acquire(transaction, charges, cells)
        if not outcome.admitted:
            self._apply(transaction, cells[0], outcome.replies[0])
        return outcome


class ReopensOldWindows(Housed):
    def _read(self, transaction, cell):
        reply = super()._read(transaction, cell)
        if isinstance(reply, CounterReply) and not cell.floor:
            return CounterReply(reply.used, cell.slot, reply.frees, 0)
        return reply


class StrikesWithoutRefusal(Housed):
    def _acquire(self, transaction, charges, cells):
        return super()._acquire(transaction, [c._replace(after=None) for c in charges], cells)


class BindsTheUnbinding(Housed):
    def _acquire(self, transaction, charges, cells):
        return super()._acquire(transaction, [c._replace(binding=True) for c in charges], cells)


class ForgetsAWrite(Housed):
    def _apply(self, transaction, cell, reply):
        super()._apply(transaction, cell, reply)
        entry = transaction.entries.get(cell.key)
        if entry is not None and len(transaction.entries) > 3:
            entry.changed = False


class RefundsTwice(Housed):
    def _correct(self, transaction, correction):
        super()._correct(transaction, correction)
        if isinstance(correction, Adjust):
            super()._correct(transaction, correction)


class KeepsWhoLeft(Housed):
    def _correct(self, transaction, correction):
        if not isinstance(correction, Leave):
            super()._correct(transaction, correction)


class EmptiesTheSet(Housed):
    def _correct(self, transaction, correction):
        super()._correct(transaction, correction)
        if isinstance(correction, Leave):
            entry = transaction.find(correction.key, SET)
            entry.put(None, 0)


class RenewsTheDead(Housed):
    def settle(self, corrections, now):
        dead = any(hasattr(correction, "expires") for correction in corrections)
        super().settle(corrections, 0 if dead else now)


class ForgetsTheRefunded(Housed):
    def _correct(self, transaction, correction):
        super()._correct(transaction, correction)
        entry = transaction.entries.get(correction.key)
        if entry is not None and isinstance(entry.record, tuple):
            entry.record = entry.record[0]


class ExpiresAtOnce(Housed):
    def _apply(self, transaction, cell, reply):
        super()._apply(transaction, cell._replace(ttl=-TTL), reply)


class CountsAboveTheCeiling(HousedInNumbers):
    def ask(self, form, now):
        for start in range(0, len(form.cells), CELL):
            form.cells[start + CELL - 1] += form.cells[start + CELL - 1] >= 0
        return super().ask(form, now)


class ChargesWhatComesAfter(HousedInNumbers):
    def ask(self, form, now):
        form.charges[1::2] = [0] * (len(form.charges) // 2)
        return super().ask(form, now)


class ForgetsTheSpan(HousedInNumbers):
    def ask(self, form, now):
        for start in range(0, len(form.cells), CELL):
            if form.cells[start] == COUNTER:
                form.cells[start + 6] = 1
        return super().ask(form, now)


MUTANTS = [
    OneTooMany,
    ChargesTheRefused,
    ReopensOldWindows,
    StrikesWithoutRefusal,
    BindsTheUnbinding,
    ForgetsAWrite,
    RefundsTwice,
    KeepsWhoLeft,
    EmptiesTheSet,
    RenewsTheDead,
    ForgetsTheRefunded,
    ExpiresAtOnce,
    CountsAboveTheCeiling,
    ChargesWhatComesAfter,
    ForgetsTheSpan,
]


def found_out(mutant, seed):
    store = mutant()
    try:
        return difference(store, seed, MUTANT_STEPS) is not None
    finally:
        store.close()


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_of_the_lmdb_store_is_found_out(mutant):
    assert any(found_out(mutant, seed) for seed in MUTANT_SEEDS)


def test_tasks_of_one_loop_admit_exactly_the_limit():
    store = AsyncLmdbStore(Housed())
    cell = Counter(0, "counter_=shared", 0, 1, 0, 1, 50, TTL)

    async def flock() -> int:
        calls = [store.acquire([Charge(True, None)], [cell], 1) for _ in range(120)]
        return sum(outcome.admitted for outcome in await asyncio.gather(*calls))

    assert asyncio.run(flock()) == 50
    store.store.close()

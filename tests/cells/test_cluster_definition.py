"""A store on a cluster does what the definition says, and a refusal leaves what is stated here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import cast

import pytest

from guardrail.model.cells import (
    Adjust,
    Cell,
    Charge,
    Counter,
    CounterReply,
    Outcome,
    Reply,
)
from guardrail.stores.redis import cluster
from guardrail.stores.redis.protocol import compensating
from tests.cells.definition import Definition
from tests.cells.steps import Steps, difference
from tests.stores.clusters import CLUSTERS
from tests.stores.servers import binaries
from tests.stores.spreads import Spread

TTL = 10**15


class SlotBySlot(Definition):
    """The definition, and the traces that a request leaves which a later slot refuses.

    The answers are the definition's. The slots before the one that refuses have charged, and are
    corrected: a window keeps a slot of 0, a rate counts what it was given back, and a member that
    was there already stays as long as the refused request would have kept it.
    """

    def __init__(self, slot_of: Callable[[str], int]) -> None:
        super().__init__()
        self.slot_of = slot_of

    def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Answer as the definition does; charge slot by slot, and take back what must not stand."""
        whole = Definition()
        whole.slots, whole.members = deepcopy(self.slots), deepcopy(self.members)
        whole.refunded = dict(self.refunded)
        told = whole.acquire(charges, cells, now)
        charged: list[tuple[Cell, Reply]] = []
        refused = False
        for slot in sorted({self.slot_of(cell.key) for cell in cells}):
            part = [cell for cell in cells if self.slot_of(cell.key) == slot]
            outcome = self._charged(charges, part, now, refused)
            charged += [
                (cell, reply)
                for cell, reply in zip(part, outcome.replies, strict=False)
                if outcome.admitted
                and charges[cell.charge].after is None
                and not outcome.refused[cell.charge]
            ]
            refused |= not outcome.admitted
        for cell, reply in charged:
            if not told.admitted or told.refused[cell.charge]:
                self._take_back(cell, reply, now)
        return told

    def _charged(
        self, charges: Sequence[Charge], cells: Sequence[Cell], now: int, refused: bool
    ) -> Outcome:
        if not refused:
            return super().acquire(charges, cells, now)
        never = Counter(len(charges), "refuses_", 0, 1, 0, 1, 0, TTL)
        return super().acquire([*charges, Charge(True, None)], [*cells, never], now)

    def _take_back(self, cell: Cell, reply: Reply, now: int) -> None:
        if not isinstance(cell, Counter):
            members = self.members[cell.key]
            if not reply[1] and members.get(cell.member) == cell.expires:
                del members[cell.member]
        elif cell.floor and cell.amount:
            self.slots[cell.key][0] -= cell.amount
            self.refunded[cell.key] = self.refunded.get(cell.key, 0) + cell.amount
        elif cell.amount:
            counted = cast(CounterReply, reply)
            self.settle([Adjust(cell.key, counted.slot, -cell.amount, TTL)], now)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", binaries())
@pytest.mark.parametrize("seed", range(3))
def test_a_cluster_holds_what_the_definition_says_slot_by_slot(kind, is_async, seed):
    store = Spread(CLUSTERS.empty(kind), is_async=is_async)
    definition = SlotBySlot(store.slot)
    assert difference(store, seed, 250, definition=definition, kin=True) is None
    store.close()


@pytest.mark.parametrize("seed", range(4))
def test_where_no_clock_steps_back_the_counters_are_those_of_a_single_server(seed):
    store, definition = Spread(CLUSTERS.empty("valkey 9")), Definition()
    steps, refusals = Steps(seed, plain=True), 0
    for _ in range(250):
        step = steps.draw()
        if step.corrections:
            continue
        wanted = definition.acquire(step.charges, step.cells, step.now)
        found = store.acquire(step.charges, step.cells, step.now)
        replies: list[Reply] = [
            cast(CounterReply, reply)._replace(refunded=0) for reply in found.replies
        ]
        assert found._replace(replies=replies) == wanted
        refusals += not wanted.admitted
    assert refusals > 20
    store.close()


MUTANTS = {
    "nothing is taken back": ("compensating", lambda *_, **__: []),
    "strikes are taken back": (
        "compensating",
        lambda *given, strikes: compensating(*given, strikes=True),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_of_the_compensation_is_found_out(name, monkeypatch):
    monkeypatch.setattr(cluster, *MUTANTS[name])

    def differs(seed: int) -> bool:
        store = Spread(CLUSTERS.empty("valkey 9"))
        definition = SlotBySlot(store.slot)
        try:
            return difference(store, seed, 250, definition=definition, kin=True) is not None
        finally:
            store.close()

    assert any(differs(seed) for seed in range(3))

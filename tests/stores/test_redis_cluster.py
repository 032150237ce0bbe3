"""Counters on a cluster of three primaries: where they are, and what is exact across them."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from guardrail import Guard
from guardrail.loading import load_text
from guardrail.model.cells import Charge, Counter, Member
from tests.cells.awaited import Awaited
from tests.cells.definition import Definition
from tests.cells.redis_stores import HASH_KEY, Shown, empty_cluster, redis_store
from tests.cells.steps import Steps
from tests.stores.servers import binaries
from tests.stores.spreading import BINDING, NOW, THREE, TTL, S, budget, chores, in_different_slots

POLICY = """
guardrail: 1
policy: p
rules:
  - id: pace
    when: always
    rate: {requests: 2/minute, burst: 2, key: account.id}
    escalate: {after: 2, within: 1m, block_for: 1h}
  - id: tokens
    when: always
    budget: {tokens: 1k, output_tokens: 1k, per: day, key: account.id}
  - id: organisation
    when: always
    budget: {tokens: 1M, per: day, key: account.org}
  - id: flight
    when: always
    concurrency: {max: 9, key: [account.org, account.id]}
"""


@pytest.fixture(params=["sync", "async"])
def store(request):
    opened = Shown(empty_cluster(), is_async=request.param == "async")
    yield opened
    opened.close()


@pytest.mark.parametrize("kind", binaries())
def test_all_counters_of_the_same_key_facts_share_a_slot_and_none_crosses(kind):
    cluster = empty_cluster(kind)
    facts = {"account.id": "a{b}c", "account.org": "o{b}"}
    with Guard.from_policies(
        load_text(POLICY), store=f"{cluster.uri}?deadline=2s", hash_key=HASH_KEY, environ={}
    ) as guard:
        decisions = [guard.decide(facts, {"input_tokens": 1, "output_tokens": 1}) for _ in range(8)]
    names = cluster.names()

    assert {d.mode.value for d in decisions} == {"normal"}
    assert [str(d.effect) for d in decisions[:3]] == ["allow", "allow", "throttle"]
    # The pace, its strikes, and two units of the account; one of the organisation; one of both.
    tags = [name[: name.index(b"}")] for name in names]
    assert sorted(tags.count(tag) for tag in set(tags)) == [1, 1, 4]
    assert all(server.client.pttl(name) > 0 for name, server in names.items())
    assert not any(b"a{b}c" in name or b"o{b}" in name for name in names)


class Windowed(Steps):
    """Steps on windowed counters alone, of charges that nothing follows.

    On a cluster a refusal further on takes rates and leases back as far as that goes: what was
    refunded to a rate is kept on record, a lease that was renewed stays so, and a window that was
    opened stays open, so that debt goes there. So time does not step back here, and debt is left
    out.
    """

    def _cell(self, charge):
        while True:
            cell = super()._cell(charge)
            if isinstance(cell, Counter) and not cell.floor:
                return cell

    def _correction(self):
        while True:
            correction = super()._correction()
            if getattr(correction, "delta", 0) < 0:
                return correction

    def draw(self):
        while True:
            before, step = self.now, super().draw()
            if self.now < before:
                self.now = before
            elif all(charge.after is None for charge in step.charges):
                return step


@pytest.mark.parametrize("seed", range(4))
def test_budgets_count_what_the_definition_says_after_every_step(store, seed):
    steps, definition = Windowed(seed), Definition()
    for _ in range(150):
        step = steps.draw()
        if step.corrections:
            store.settle(step.corrections, step.now)
            definition.settle(step.corrections, step.now)
            continue
        wanted = definition.acquire(step.charges, step.cells, step.now)
        found = store.acquire(step.charges, step.cells, step.now)
        rest(store)
        steps.note(step, wanted)
        assert found.admitted == wanted.admitted
        looks = [cell._replace(charge=0, amount=0, ceiling=None) for cell in step.cells]
        held, shown = (
            counted.acquire([Charge(False, None)], looks, step.now).replies
            for counted in (definition, store)
        )
        assert [reply[0] for reply in shown] == [reply[0] for reply in held]


def rest(store: Any) -> None:
    """Wait until what has to be taken back is."""
    if isinstance(store.store, Awaited):
        store.store.runner.run(chores(store.store.store))
    assert not getattr(store.store, "store", store.store)._undo


def test_a_refusal_in_a_later_slot_gives_back_what_the_first_charged(store):
    first, second, third = in_different_slots(store)
    cells = [
        budget(first),
        Member(0, first.replace("budget__", "flight__"), "x", NOW + 60 * S, 5, TTL),
        Counter(1, second, 0, 1, NOW, S, NOW + 9 * S, TTL),
        budget(third, 11, charge=2),
    ]
    outcome = store.acquire(THREE, cells, NOW)

    assert (outcome.admitted, outcome.refused) == (False, [False, False, True])
    rest(store)
    assert store.slots(first) in ({}, {0: 0})
    assert store.members(first.replace("budget__", "flight__")) == {}
    assert store.drained(second)[0] <= NOW


def test_a_refusal_in_an_earlier_slot_charges_nothing_later_and_answers_all(store):
    first, second, _ = in_different_slots(store)
    store.acquire(BINDING, [budget(second, 4)], NOW)
    outcome = store.acquire(THREE[:2], [budget(first, 11), budget(second, 1, charge=1)], NOW)

    assert outcome.refused == [True, False]
    assert [reply.used for reply in outcome.replies] == [0, 4]
    assert store.slots(second) == {0: 4}


def test_no_limit_is_exceeded_by_threads_that_use_up_three_slots_at_once():
    shown = Shown(empty_cluster())
    keys, admitted = in_different_slots(shown), []

    def work():
        store = redis_store(shown.server.uri)
        store.open()
        for _ in range(60):
            cells = [budget(key, ceiling=40 + n, charge=n) for n, key in enumerate(keys)]
            if store.acquire(THREE, cells, NOW).admitted:
                admitted.append(1)
        store.close()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(admitted) == 40
    assert [shown.slots(key) for key in keys] == [{0: 40}] * 3
    shown.close()

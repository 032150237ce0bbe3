"""Rules on a cluster of three primaries, and decisions cancelled at any moment."""

from __future__ import annotations

import asyncio

import pytest

from guardrail import Guard
from guardrail.errors import StoreError
from guardrail.loading import load_text
from guardrail.model.cells import Charge, Counter
from tests.cells.redis_stores import HASH_KEY, redis_store
from tests.stores.clusters import CLUSTERS
from tests.stores.servers import binaries
from tests.stores.spreads import Spread, three_keys

S = 1_000_000
NOW = 1_700_000_000 * S
TTL = 10**12
BINDING = [Charge(True, None)]
THREE = [Charge(True, None)] * 3

POLICY = """
guardrail: 1
policy: p
rules:
  - id: pace
    when: always
    rate: {requests: 2/minute, burst: 2, key: account.id}
    escalate: {after: 50, within: 1m, block_for: 1h}
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


def budget(name, amount=1, ceiling=10, *, charge=0, spill=None):
    return Counter(charge, name, 0, 1, 0, amount, ceiling, TTL, spill)


@pytest.mark.parametrize("kind", binaries())
def test_all_counters_of_the_same_key_facts_share_a_slot_and_none_crosses(kind):
    cluster = CLUSTERS.empty(kind)
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
    clients = [server.client for server in cluster.servers]
    lasting = [client.pttl(name) for client in clients for name in client.keys("*{*}?*")]
    assert len(lasting) == len([ttl for ttl in lasting if ttl > 0]) == 6
    assert not any(b"a{b}c" in name or b"o{b}" in name for name in names)


def test_what_follows_a_charge_under_other_key_facts_is_refused_unasked():
    store = Spread(CLUSTERS.empty("valkey 9"))
    first, second, _ = three_keys(store, "budget__")
    cells = [budget(first), budget(second, charge=1)]
    with pytest.raises(StoreError, match="must have its key facts"):
        store.acquire([Charge(True, None), Charge(False, 0)], cells, NOW)
    assert store.cluster.names() == []
    store.close()


def test_a_decision_cancelled_between_two_slots_leaves_nothing_charged():
    cluster = CLUSTERS.empty("valkey 9")
    shown = Spread(cluster)
    first, second, third = three_keys(shown, "budget__")
    cells = [budget(key, charge=n) for n, key in enumerate((first, second, third))]

    async def cancelled(turns):
        store = redis_store(cluster.uri).awaited()
        for key in (first, second, third):
            await store.acquire(BINDING, [budget(key, 0)], NOW)
        task = asyncio.ensure_future(store.acquire(THREE, cells, NOW))
        for _ in range(turns):
            await asyncio.sleep(0)
        done = not task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        await rest(store)
        await store.close()
        return done and not isinstance(outcome, BaseException) and outcome.admitted

    admitted = sum(asyncio.run(cancelled(turns)) for turns in range(0, 60, 3))
    held = [sum(shown.slots(key).values()) for key in (first, second, third)]
    assert held == [admitted] * 3
    shown.close()


async def rest(store):
    """Wait until what has to be taken back is."""
    while store._maintenance is not None and not store._maintenance.done():
        await store._maintenance

"""A guard for other policies over the same store: what was counted goes on, either settles."""

from __future__ import annotations

import asyncio
from fractions import Fraction

import pytest

from guardrail import AsyncGuard, Guard
from guardrail.loading import load_text
from tests.cells.redis_stores import HASH_KEY, SERVERS
from tests.stores.proxies import Proxy
from tests.stores.servers import eventually

FACTS = {"account.id": "a1"}
ONE = {"requests": 1}


def policies(amount, more=""):
    return load_text(
        "guardrail: 1\npolicy: changed\nrules:\n"
        f"  - {{id: calls, when: always, budget: {{requests: {amount}, per: day, key: account.id}},"
        f" on_store_error: local}}\n{more}"
    )


PACE = "  - {id: pace, when: always, rate: {requests: 6/minute, burst: 4, key: account.id}}\n"


def uri(kind, folder):
    if kind == "memory":
        return "memory://"
    if kind == "lmdb":
        return f"lmdb://{folder / 'store'}?deadline=5s"
    return f"redis://127.0.0.1:{SERVERS.empty('valkey 9').port}/0?deadline=5s"


@pytest.mark.parametrize("kind", ["memory", "lmdb", "redis"])
def test_what_was_counted_goes_on_and_either_guard_settles(kind, tmp_path):
    (tmp_path / "store").mkdir()
    before = Guard.from_policies(
        policies(2), store=uri(kind, tmp_path), hash_key=HASH_KEY, environ={}
    )
    first = [before.decide(FACTS, ONE) for _ in range(3)]
    after = before.with_policies(policies(4, PACE))
    second = [after.decide(FACTS, ONE) for _ in range(3)]
    after.release(first[0])
    before.release(second[0])
    third = [after.decide(FACTS, ONE) for _ in range(3)]

    assert [decision.allowed for decision in (*first, *second, *third)] == [
        *(True, True, False),
        *(True, True, False),
        *(True, True, False),
    ]
    assert first[0].revision != second[0].revision
    after.close()


def test_the_same_in_an_event_loop(tmp_path):
    async def run():
        before = AsyncGuard.from_policies(
            policies(2), store=uri("redis", tmp_path), hash_key=HASH_KEY, environ={}
        )
        allowed = [(await before.decide(FACTS, ONE)).allowed for _ in range(3)]
        after = before.with_policies(policies(3))
        allowed += [(await after.decide(FACTS, ONE)).allowed for _ in range(2)]
        await after.close()
        return allowed

    assert asyncio.run(run()) == [True, True, False, True, False]


def test_rules_that_came_with_a_change_are_kept_warm_for_when_the_store_is_away():
    server = SERVERS.empty("valkey 9")
    with Proxy(server.port) as proxy:
        before = Guard.from_policies(
            policies(100),
            store=f"{proxy.uri}?deadline=250ms",
            hash_key=HASH_KEY,
            local_share=Fraction(1, 1),
            environ={},
        )
        after = before.with_policies(
            policies(100, PACE.replace("{id", "{on_store_error: local, id"))
        )
        eventually(lambda: after.decide({"account.id": "other"}, ONE).mode.value == "normal")
        for _ in range(3):
            assert after.decide(FACTS, ONE).allowed
        proxy.silent = proxy.deaf = True
        away = [after.decide(FACTS, ONE) for _ in range(2)]
        proxy.silent = proxy.deaf = False
        proxy.reset()
        after.close()

    assert [decision.mode.value for decision in away] == ["local", "local"]
    assert [decision.allowed for decision in away] == [True, False]


@pytest.mark.parametrize("kind", ["memory", "lmdb", "redis"])
def test_a_guard_decides_on_however_often_its_policies_were_changed_since(kind, tmp_path):
    (tmp_path / "store").mkdir()
    guards = [
        Guard.from_policies(policies(10), store=uri(kind, tmp_path), hash_key=HASH_KEY, environ={})
    ]
    guards += [guards[0].with_policies(policies(10 + n)) for n in range(1, 4)]
    decisions = [guard.decide(FACTS, ONE) for guard in guards]

    assert [decision.mode.value for decision in decisions] == ["normal"] * 4
    guards[0].release(decisions[0])
    assert guards[-1].decide(FACTS, ONE).limits[0].used == 4
    guards[-1].close()

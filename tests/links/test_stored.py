"""Links that are asked for: how often, under which names, for how long, and what if they fail."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guardrail import AsyncGuard, Guard
from guardrail.errors import StoreError
from guardrail.links import Standing, StoredLinks
from guardrail.model.cells import Charge, Counter
from guardrail.stores.lmdb import LmdbStore
from guardrail.stores.memory import MemoryStore
from guardrail.stores.steps import performed
from tests.cells.redis_stores import SERVERS, redis_store
from tests.cells.stores import Housed
from tests.links.histories import BUDGET, LINKS, POOLS, SECOND, START, TTL, Facts, InStore, whose
from tests.links.test_actors import MONDAY, POLICY, shown, trusted
from tests.loaded import loaded
from tests.stores.servers import Server

DAY = 86_400
CARD: Facts = {"payment.fingerprint": "one card"}


def policies(limit: int = 1000) -> Any:
    return loaded(POLICY.replace("LIMIT", str(limit)).replace("MOST", "5000"))


def on_server(uri: str) -> Any:
    store = redis_store(uri, host_clock=True)
    store.open()
    return store


@pytest.fixture(params=["lmdb", "redis"])
def store(request):
    made = Housed() if request.param == "lmdb" else on_server(SERVERS.empty("valkey 9").uri)
    yield made
    made.close()


class Counted:
    """A store that counts how often it is asked about links, and may fail to answer."""

    def __init__(self, store: Any) -> None:
        self.inner = store
        self.asked = 0
        self.answer: Any = None
        self.problem: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "awaited":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def linked(self, *arguments: Any) -> bool:
        """Ask, and count it; raise what is to be raised once all was done."""
        self.asked += 1
        if self.answer is not None:
            return bool(self.answer)
        done = self.inner.linked(*arguments)
        if self.problem is not None:
            raise self.problem
        return bool(done)

    def share(self, pools: Any) -> None:
        """Share, as the store does."""
        self.inner.share(pools)

    def every(self) -> Any:
        """Return all, as the store does."""
        return self.inner.every()


def charged(side: InStore, facts: Facts, amount: int, now: int) -> int:
    """Charge the budget of an account's actor, and return what it holds then."""
    key = BUDGET + whose(facts, side.see(facts, now))
    cell = Counter(0, key, 7, 1, 0, amount, None, TTL)
    reply = side.store.acquire([Charge(True, None)], [cell], now).replies[0]
    return int(reply.used) + amount


def test_a_thousand_requests_on_known_pairs_ask_nothing_about_links(store):
    counted = Counted(store)
    guard = Guard.from_policies(policies(), store=counted)
    known = [shown(f"a{number}", card=f"c{number // 3}") for number in range(10)]
    for facts in known:
        guard.decide(facts, now=MONDAY)
    assert counted.asked == 1 + len(known)  # the secret of evidence, once
    for facts in known:  # those that others joined have another actor now
        guard.decide(facts, now=MONDAY + 1)
    before = counted.asked
    for at in range(1000):
        guard.decide(known[at % 10], now=MONDAY + 2 + at / 50)
    assert counted.asked == before
    guard.decide(known[0], now=MONDAY + 32)
    assert counted.asked == before + 1


def test_who_turns_out_to_be_one_is_so_at_once_also_by_what_was_remembered_of_each(store):
    guard = Guard.from_policies(policies(), store=store)
    accounts = "abcd"
    for facts in (*map(shown, accounts), *(shown(name, card="c") for name in accounts)):
        guard.decide(facts, now=MONDAY)

    later = [dict(guard.decide(shown(name), now=MONDAY + 1).obligations) for name in accounts]
    assert later == [{"x-crowded": "yes"}] * len(accounts)
    guard.close()


def test_a_call_that_was_answered_too_late_counts_nothing_twice(store):
    side = InStore(Counted(store))
    one: Facts = {"account.id": "a", **CARD}
    other: Facts = {"account.id": "b", **CARD}
    charged(side, {"account.id": "a"}, 5, START)
    charged(side, {"account.id": "b"}, 7, START)
    side.see(one, START)
    side.store.problem = StoreError("no reply in time", unsure=True)
    with pytest.raises(StoreError):
        side.see(other, START)
    side.store.problem = None
    assert side.see(other, START).accounts == 2
    assert charged(side, one, 0, START) == charged(side, other, 0, START) == 12


def test_where_others_are_faster_each_time_the_account_acts_alone_in_this_request(store):
    counted = Counted(store)
    guard = Guard.from_policies(policies(limit=3), store=counted)
    counted.answer = False
    for facts in (shown("a", card="c"), shown("b", card="c")):
        admitted = [guard.decide(facts, now=MONDAY + at).allowed for at in range(5)]
        assert admitted == [True] * 3 + [False] * 2
    (warning,) = (line for line in guard.warnings(now=MONDAY) if "act as one" in line)
    assert "10 requests" in warning
    assert warning in guard.health.warnings
    counted.answer = None
    assert not guard.decide(shown("a", card="c"), now=MONDAY + 6).allowed
    assert not any("act as one" in line for line in guard.warnings(now=MONDAY))


@pytest.mark.parametrize("how", ["sync", "async"])
def test_while_the_server_is_away_nothing_raises_and_nothing_becomes_unlimited(how):
    with Server() as server, asyncio.Runner() as runner:
        guard: Any
        if how == "sync":
            guard = Guard.from_policies(policies(limit=4), store=on_server(server.uri))
            decide = guard.decide
        else:
            store = on_server(server.uri)
            guard = AsyncGuard.from_policies(policies(limit=4), store=store)

            def decide(facts: Any, **when: Any) -> Any:
                return runner.run(guard.decide(facts, **when))

        assert decide(shown("a", card="c"), now=MONDAY).allowed
        assert decide(shown("b", card="c"), now=MONDAY).limits[0].used == 2
        server.kill()
        later = [decide(shown("c", card="c"), now=MONDAY + at) for at in range(12)]
        assert sum(decision.allowed for decision in later) <= 4
        assert any("act as one" in line for line in guard.warnings(now=MONDAY))
        assert guard.health.breaker == "open"
        end = guard.close()
        if how == "async":
            runner.run(end)


def test_links_outlive_a_change_of_the_hash_key(tmp_path):
    old, new = b"the old key, long enough", b"the new key, long enough"
    now = START

    def opened(*keys: bytes) -> InStore:
        return InStore(LmdbStore(tmp_path, hash_keys=keys, clock=lambda: now / SECOND))

    side = opened(old)
    charged(side, {"account.id": "a", **CARD}, 5, now)
    assert charged(side, {"account.id": "b", **CARD}, 7, now) == 12
    side.close()
    opened(new, old).close()  # announces the new key
    now += 2 * 3600 * SECOND
    side = opened(new, old)
    assert charged(side, {"account.id": "b"}, 1, now) == 13
    assert charged(side, {"account.id": "c", **CARD}, 1, now) == 14
    assert charged(side, {"account.id": "a"}, 0, now) == 14
    side.close()
    now += 401 * DAY * SECOND
    side = opened(new)
    secret = performed(side.links.evidence(now))
    side.close()
    other = InStore(LmdbStore(tmp_path, hash_keys=(new,), clock=lambda: now / SECOND))
    assert secret is not None
    again = performed(other.links.evidence(now))
    assert again is not None
    assert secret.account("a") == again.account("a")
    other.close()


@pytest.mark.parametrize("back", [(), ("a",), ("b",), ("a", "b")])
@pytest.mark.parametrize("kind", ["lmdb", "redis"])
def test_what_was_counted_under_a_former_hash_key_is_added_up_when_accounts_turn_out_to_be_one(
    kind, back, tmp_path
):
    old, new = b"the old key, long enough", b"the new key, long enough"
    now = START
    server = SERVERS.empty("valkey 9") if kind == "redis" else None

    def opened(*keys: bytes) -> InStore:
        def clock() -> float:
            return now / SECOND

        if server is None:
            return InStore(LmdbStore(tmp_path, hash_keys=keys, clock=clock))
        made = redis_store(server.uri, host_clock=True, clock=clock, keys=keys)
        made.open()
        return InStore(made)

    side = opened(old)
    charged(side, {"account.id": "a", **CARD}, 5, now)
    charged(side, {"account.id": "b"}, 7, now)
    side.close()
    opened(new, old).close()  # announces the new key
    now += 2 * 3600 * SECOND
    side = opened(new, old)
    for account in back:  # those who come back before it turns out
        charged(side, {"account.id": account}, 1, now)
    assert charged(side, {"account.id": "b", **CARD}, 0, now) == 12 + len(back)
    assert charged(side, {"account.id": "a"}, 0, now) == 12 + len(back)
    side.close()


def test_redis_forgets_every_row_by_itself():
    server = SERVERS.empty("valkey 9")
    side = InStore(on_server(server.uri))
    for number in range(30):
        facts: Facts = {"account.id": f"a{number % 7}", "client.network": f"n{number % 3}"}
        facts["device.fingerprint"] = f"d{number % 2}"
        if number % 4 == 0:
            facts["payment.fingerprint"] = f"c{number % 5}"
        charged(side, facts, 1, START)
    side.see({**trusted("t", network="n1", device="d1")}, START)
    side.unlink("a1", START)
    names = [name for name in server.client.scan_iter() if b"{links}" in name]
    assert len(names) > 20
    for name in names:
        assert server.client.pttl(name) > 0
        if b"{links}n" in name:
            most = LINKS.strong_days if len(side.store.every()[name[-9:]]) else 0
            assert server.client.pttl(name) <= (most + 3) * DAY * 1000
    weak = [name for name in names if b"{links}n" in name]
    assert min(server.client.pttl(name) for name in weak) <= (LINKS.weak_days + 3) * DAY * 1000
    side.close()


def test_lmdb_removes_rows_when_their_last_link_has_long_expired(tmp_path):
    side = InStore(LmdbStore(tmp_path, clock=lambda: START / SECOND))
    for number in range(60):
        facts: Facts = {"account.id": f"a{number}", "payment.fingerprint": f"c{number // 2}"}
        side.see(facts, START)
    assert len(side.store.every()) > 80
    side.close()
    later = START + (LINKS.strong_days + 40) * DAY * SECOND
    side = InStore(LmdbStore(tmp_path, clock=lambda: later / SECOND))
    for at in range(900):  # nobody who was there comes back
        cell = Counter(0, f"other___=b{at}", 7, 1, 0, 1, None, TTL)
        side.store.acquire([Charge(True, None)], [cell], later)
    assert len(side.store.every()) < 20
    side.close()


def test_no_id_or_value_of_anybody_is_in_the_store(tmp_path):
    server = SERVERS.empty("valkey 9")
    stores: tuple[Any, ...] = (on_server(server.uri), LmdbStore(tmp_path, max_size=16 << 20))
    for store in stores:
        guard = Guard.from_policies(policies(), store=store)
        for name in ("canary-a", "canary-b"):
            guard.decide(shown(name, card="canary-card", network="canary-net"), now=MONDAY)
        guard.decide(trusted("canary-t", network="canary-net", device="canary-dev"), now=MONDAY)
        guard.close()
    kept = b"".join(name + (server.client.dump(name) or b"") for name in server.client.scan_iter())
    kept += (tmp_path / "counters.mdb").read_bytes()
    assert b"{links}" in kept
    assert b"canary" not in kept


def test_what_is_erased_is_gone_and_what_was_used_stays(store):
    side = InStore(store)
    vouching: Facts = {
        "account.id": "t", "account.tier": "verified", "payment.fingerprint": "own",
        "kyc.subject": "own", "client.network": "n", "device.fingerprint": "d",
    }  # fmt: skip
    side.see(vouching, START)
    charged(side, {"account.id": "a", **CARD}, 5, START)
    charged(side, {"account.id": "b", **CARD}, 7, START)
    side.unlink("a", START)
    side.see({"account.id": "a", "kyc.subject": "x"}, START)
    for account in ("a", "b", "t"):
        performed(side.links.erase(account, POOLS, START))
    evidence = performed(side.links.evidence(START))
    assert evidence is not None
    for account in ("a", "b", "t"):
        number = evidence.account(account).to_bytes(8, "big")
        assert not any(number in name or number in data for name, data in store.every().items())
    assert charged(side, {"account.id": "b"}, 0, START) == 12


def test_cutting_the_link_between_two_accounts_parts_them_until_it_is_shown_again(store):
    side = InStore(store)
    side.see({"account.id": "a", **CARD}, START)
    side.see({"account.id": "b", **CARD}, START)
    edge = performed(side.links.part("a", "b", POOLS, START))
    assert edge is not None
    assert side.see({"account.id": "a"}, START).accounts == 1
    assert performed(side.links.part("a", "b", POOLS, START)) is None
    side.see({"account.id": "a", **CARD}, START)
    assert side.see({"account.id": "b", **CARD}, START).accounts == 2


def test_links_of_one_namespace_are_none_of_another(store):
    one, other = InStore(store), InStore(store)
    other.links = StoredLinks(LINKS, store, "another")
    one.see({"account.id": "a", **CARD}, START)
    other.see({"account.id": "b", **CARD}, START)
    assert one.see({"account.id": "b", **CARD}, START).accounts == 2
    assert other.see({"account.id": "b"}, START).accounts == 1


def test_a_store_that_keeps_no_links_says_so_and_each_account_acts_alone(caplog):
    class Own:
        """A host's own store."""

        def __init__(self) -> None:
            self.inner = MemoryStore()
            self.acquire, self.settle = self.inner.acquire, self.inner.settle

        def close(self) -> None:
            """Do nothing."""

    with caplog.at_level(logging.WARNING, "guardrail"):
        guard = Guard.from_policies(policies(), store=Own())
    assert "keeps none" in caplog.text
    assert any("keeps none" in line for line in guard.warnings(now=MONDAY))
    for number in range(5):
        decision = guard.decide(shown(f"a{number}", card="c"), now=MONDAY)
        assert decision.limits[0].used == 1
        assert "x-crowded" not in decision.obligations
    guard.close()


def chained(side: InStore, accounts: int) -> None:
    """Show a chain of accounts, each tied to the next by a value of its own."""
    for number in range(accounts):
        shown_by = {
            "payment.fingerprint": f"c{number // 2}",
            "kyc.subject": f"s{(number + 1) // 2}",
        }
        side.see({"account.id": f"a{number}", **shown_by}, START)


def test_who_is_too_far_from_a_root_shares_a_budget_with_those_that_show_the_same(
    store, monkeypatch
):
    side = InStore(store)
    side.links = StoredLinks(replace(LINKS, max_accounts=100), store, "tests")
    chained(side, 12)
    monkeypatch.setattr("guardrail.stores.lmdb.links.LONGEST_PATH", 5)
    monkeypatch.setattr("guardrail.stores.redis.links.LONGEST_PATH", 5)
    apart = 0
    for number in range(6):
        card = f"c{number}"
        own: list[Facts] = [
            {"account.id": f"{card} {name}", "payment.fingerprint": card} for name in "xyz"
        ]
        standings = [side.see(facts, START) for facts in own]
        assert standings[2].accounts >= 3
        apart += standings[2].accounts == 3
        assert charged(side, own[0], 1, START) + 1 == charged(side, own[1], 1, START)
    assert apart >= 3
    for number in range(12):  # those of the chain are no better off
        facts: Facts = {"account.id": f"a{number}", "payment.fingerprint": f"c{number // 2}"}
        assert side.see(facts, START).accounts > 3
        verified: Facts = {**facts, "account.tier": "verified"}
        assert side.see(verified, START) == Standing(0, 1, 1)
    assert side.unlink("c5 x", START)
    assert side.see({"account.id": "c5 x", "payment.fingerprint": "c5"}, START).accounts == 1
    evidence = performed(side.links.evidence(START))
    assert evidence is not None
    performed(side.links.erase("c5 y", POOLS, START))
    number = evidence.account("c5 y")
    for each in (number, evidence.crowd(number)):
        assert not any(each.to_bytes(8, "big") in name for name in store.every())


def test_rows_that_cannot_be_read_are_not_taken_for_a_store_that_is_away(store):
    counted = Counted(store)
    guard = Guard.from_policies(policies(), store=counted)
    guard.decide(shown("a", card="c"), now=MONDAY)
    counted.problem = ValueError("garbage")
    for at in range(20):
        assert guard.decide(shown("b", card="c"), now=MONDAY + at).allowed
    assert guard.health.breaker == "closed"
    assert any("garbage" in line for line in guard.warnings(now=MONDAY))


def test_the_user_that_the_documents_describe_may_do_all_of_it():
    server = SERVERS.empty("valkey 9")
    (line,) = (
        line
        for line in (Path(__file__).parents[2] / "docs" / "stores.md")
        .read_text("utf-8")
        .splitlines()
        if line.startswith("ACL SETUSER guardrail")
    )
    server.client.execute_command(*line.replace(">…", ">secret").split())
    try:
        side = InStore(on_server(server.uri.replace("//", "//guardrail:secret@")))
        for account in ("a", "b"):
            charged(side, {"account.id": account, **CARD}, 1, START)
        assert side.unlink("a", START + 20 * DAY * SECOND)
        side.see({"account.id": "b"}, START + 40 * DAY * SECOND)
        side.close()
    finally:
        server.client.execute_command("ACL", "DELUSER", "guardrail")


def test_requests_at_once_on_a_pair_that_has_grown_old_ask_once():
    asked = 0

    async def crowd() -> list[Any]:
        store = on_server(SERVERS.empty("valkey 9").uri)
        guard = AsyncGuard.from_policies(policies(), store=store)
        remote: Any = guard._remote
        linked = remote.linked

        async def counted(*arguments: Any) -> bool:
            nonlocal asked
            asked += 1
            return bool(await linked(*arguments))

        await guard.decide(shown("a", card="c"), now=MONDAY)
        remote.linked = counted
        many = [guard.decide(shown("a", card="c"), now=MONDAY + 31) for _ in range(50)]
        decisions = await asyncio.gather(*many)
        await guard.close()
        return decisions

    decisions = asyncio.run(crowd())
    assert sorted(each.limits[0].used for each in decisions) == list(range(2, 52))
    assert asked == 1

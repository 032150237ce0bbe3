"""What an actor's counter holds is what its accounts were charged, summed up anew each time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from guardrail.model.cells import Charge, Counter
from tests.cells.redis_stores import SERVERS, redis_store
from tests.cells.stores import Housed
from tests.links.histories import (
    BUDGET,
    DAY,
    LINKS,
    START,
    TTL,
    Facts,
    InMemory,
    InStore,
    whose,
)
from tests.links.test_forest import Everything

TIES = replace(LINKS, max_accounts=1000, strong_days=6)
VALUES = ("payment.fingerprint", "kyc.subject")


class Ledger:
    """Who hangs together by all that was shown, and the sum of what each group was charged.

    Groups that turn out to be one have used the sum; each part of a group that parts has used all.
    """

    def __init__(self, accounts: int) -> None:
        self.shown = Everything()
        self.used = {frozenset({account}): 0 for account in range(1, accounts + 1)}

    def group(self, account: int) -> frozenset[int]:
        """Return with whom an account acts."""
        (found,) = (group for group in self.used if account in group)
        return found

    def turn(self, today: int) -> None:
        """Let links expire."""
        now = self.shown.components(today)
        before = self.used
        self.used = {}
        for group, used in before.items():
            for account in group:
                self.used[now.get(account, frozenset({account}))] = used

    def show(self, account: int, values: list[int], today: int, expiry: int) -> None:
        """Note what an account shows."""
        for value in values:
            self.shown.edges[account, value] = expiry
        whole = self.shown.components(today).get(account, frozenset({account}))
        parts = [group for group in self.used if group <= whole]
        self.used[whole] = sum(self.used.pop(group) for group in parts)


def in_file() -> Any:
    return InStore(Housed(), TIES)


def on_server() -> Any:
    store = redis_store(SERVERS.empty("valkey 9").uri, host_clock=True)
    store.open()
    return InStore(store, TIES)


@pytest.mark.parametrize(
    ("place", "seeds"), [(lambda: InMemory(TIES), 25), (in_file, 4), (on_server, 3)]
)
def test_counters_after_merges_and_splits_are_the_sums_of_what_was_charged(
    place: Callable[[], Any], seeds: int
) -> None:
    for seed in range(seeds):
        dice, side, ledger, day = random.Random(seed), place(), Ledger(8), START // DAY
        split = merged = 0
        for step in range(120):
            if dice.random() < 0.3:
                day += dice.choice((1, 1, 3))
                before = len(ledger.used)
                ledger.turn(day)
                split += len(ledger.used) > before
            account, shown = dice.randrange(1, 9), {}
            for name in VALUES:
                if dice.random() < 0.4:
                    shown[name] = dice.randrange(5)
            before = len(ledger.used)
            numbers = [1000 + 10 * VALUES.index(name) + value for name, value in shown.items()]
            ledger.show(account, numbers, day, day + TIES.strong_days)
            merged += len(ledger.used) < before
            amount = dice.randrange(1, 9)
            facts: Facts = {name: f"v{value}" for name, value in shown.items()}
            facts["account.id"] = f"a{account}"
            now = day * DAY + step
            key = BUDGET + whose(facts, side.see(facts, now))
            cell = Counter(0, key, 7, 1, 0, amount, None, TTL)
            used = side.store.acquire([Charge(True, None)], [cell], now).replies[0].used
            group = ledger.group(account)
            assert used == ledger.used[group], (seed, step)
            ledger.used[group] += amount
        assert split > 3, seed
        assert merged > 3, seed
        side.close()

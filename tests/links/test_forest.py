"""The forest of links against the definition: components of all edges that have not expired."""

from __future__ import annotations

import random
from array import array
from collections import defaultdict

import pytest

from guardrail.links import Forest, Index, memory_forest
from guardrail.links.forest import (
    FIRST_EVIDENCE,
    NOBODY,
    STRANGER,
    TRUSTED,
    Alone,
    Change,
    Join,
    Part,
)

STRONG = FIRST_EVIDENCE
HUGE = 10**9
LENGTHS = (3, 10)


class Everything:
    """All edges ever shown, with their expiries: obviously right, and slow."""

    def __init__(self) -> None:
        self.edges: dict[tuple[int, int], int] = {}

    def components(self, today: int) -> dict[int, frozenset[int]]:
        """Return for each account the accounts it hangs together with."""
        near = self._near(today)
        found: dict[int, frozenset[int]] = {}
        for start in near:
            if start >= 1000 or start in found:
                continue
            accounts = frozenset(name for name in self.reached(start, today) if name < 1000)
            for account in accounts:
                found[account] = accounts
        return found

    def reached(self, start: int, until: int) -> set[int]:
        """Return the names reached from one by edges that last until a day."""
        near = self._near(until)
        seen, left = {start}, [start]
        while left:
            for other in near[left.pop()]:
                if other not in seen:
                    seen.add(other)
                    left.append(other)
        return seen

    def _near(self, until: int) -> defaultdict[int, set[int]]:
        near: defaultdict[int, set[int]] = defaultdict(set)
        for (account, value), expiry in self.edges.items():
            if expiry >= until:
                near[account].add(value)
                near[value].add(account)
        return near


def forest_components(forest: Forest, accounts: set[int], today: int) -> dict[int, frozenset[int]]:
    """Return what the forest says: accounts by their roots."""
    by_root: defaultdict[int, set[int]] = defaultdict(set)
    for account in accounts:
        row = forest.index.get(account, NOBODY)
        if row != NOBODY:
            by_root[forest.root(row, today)].add(account)
    return {account: frozenset(group) for group in by_root.values() for account in group}


def show(forest: Forest, row: int, value: int, expiry: int, today: int, fresh: int) -> None:
    """Add an edge, or renew it, in one of the ways that there are for that."""
    way = fresh % 3
    if way == 0 and value not in forest.index:
        assert forest.hang(row, {value: STRONG}, expiry, today)
    elif way == 2 or forest.renewed(row, [value], expiry, today):
        assert forest.link(row, forest.node(value, STRONG), expiry, today, fresh, HUGE)


def history(seed: int, steps: int, accounts: int, values: int) -> None:
    """Run one random history, and compare at each of its steps."""
    dice = random.Random(seed)
    forest, oracle, today, fresh = memory_forest(), Everything(), 20_000, 10**6
    trusted: set[int] = set()
    for step in range(steps):
        if dice.random() < 0.3:
            today += dice.choice((1, 1, 1, 4))
        while forest.expire(today, 1000):
            pass
        account, value = dice.randrange(1, accounts + 1), 1000 + dice.randrange(values)
        expiry = today + LENGTHS[value % 2]
        row = forest.node(account, TRUSTED if account in trusted else STRANGER)
        if dice.random() < 0.1:
            trusted ^= {account}
        forest.regard(row, TRUSTED if account in trusted else STRANGER)
        fresh += 1
        show(forest, row, value, expiry, today, fresh)
        old = oracle.edges.get((account, value), 0)
        oracle.edges[account, value] = max(old, expiry)
        forest.tidy()
        wanted = oracle.components(today)
        for one, group in wanted.items():
            found = forest.index.get(one, NOBODY)
            assert found != NOBODY, (seed, step)
            _, size, trust = forest.standing(found, today)
            assert size == len(group), (seed, step, one)
            assert trust == len(group & trusted), (seed, step, one)
        forest.tidy()
        told = forest_components(forest, set(wanted), today)
        assert told == wanted, (seed, step)
        rows = {forest.index.get(1000 + at, NOBODY): 1000 + at for at in range(values)}
        rows.pop(NOBODY, None)
        until = today + dice.randrange(max(LENGTHS) + 1)
        held = {rows[found] for found in forest.held(row, rows, until)}
        assert held == oracle.reached(account, until) & set(rows.values()), (seed, step)


@pytest.mark.parametrize("seed", range(60))
def test_accounts_hang_together_by_exactly_the_links_that_have_not_expired(seed: int) -> None:
    history(seed, steps=120, accounts=3 + seed % 12, values=2 + seed % 9)


def test_a_forest_whose_links_have_all_expired_is_empty() -> None:
    forest = memory_forest()
    for account in range(1, 200):
        for value in (1000 + account % 7, 2000 + account % 11, 3000 + account):
            row = forest.node(account, STRANGER)
            forest.link(row, forest.node(value, STRONG), 20_010 + account % 5, 20_000, 7, HUGE)
    forest.tidy()
    while forest.expire(20_100, 1000):
        pass
    forest.tidy()
    assert len(forest.index) == 0
    assert not forest.actor
    assert not forest.due


class Ledger:
    """What each actor has used, as sets of charges: joined by union, parted by copy."""

    def __init__(self) -> None:
        self.used: defaultdict[int, set[int]] = defaultdict(set)

    def follow(self, changes: list[Change]) -> None:
        """Apply what has become of actors."""
        for change in changes:
            if isinstance(change, Join):
                for other in change.others:
                    self.used[change.into] |= self.used[other]
            elif isinstance(change, Alone):
                self.used[change.account] = set(self.used[change.whole])
            elif isinstance(change, Part):
                self.used[change.part] = set(self.used[change.whole])


@pytest.mark.parametrize("seed", range(40))
def test_an_actor_has_used_what_any_of_its_accounts_ever_used_beside_another(seed: int) -> None:
    """Every account keeps what was charged to it, and to those it acted with at the time."""
    dice = random.Random(seed)
    forest, ledger, today, fresh = memory_forest(), Ledger(), 20_000, 10**6
    charged: defaultdict[int, set[int]] = defaultdict(set)
    for step in range(150):
        if dice.random() < 0.25:
            today += dice.choice((1, 2, 4))
        while forest.expire(today, 1000):
            pass
        account, value = dice.randrange(1, 9), 1000 + dice.randrange(6)
        row = forest.node(account, STRANGER)
        fresh += 1
        value_row = forest.node(value, STRONG)
        forest.link(row, value_row, today + LENGTHS[value % 2], today, fresh, HUGE)
        actor, _, _ = forest.standing(row, today)
        forest.tidy()
        ledger.follow(forest.changes)
        forest.changes = []
        ledger.used[actor or account].add(step)
        groups = forest_components(forest, set(range(1, 9)), today)
        for other in groups[account]:
            charged[other].add(step)
        for one in groups:
            name, _, _ = forest.standing(forest.index[one], today)
            ledger.follow(forest.changes)
            forest.changes = []
            assert ledger.used[name or one] >= charged[one], (seed, step, one)


def test_the_weakest_link_between_two_accounts_is_the_one_whose_end_parts_them() -> None:
    forest = memory_forest()
    one, two, three = (forest.node(name, STRANGER) for name in (1, 2, 3))
    card, device = forest.node(1000, STRONG), forest.node(1001, STRONG)
    for row, value, expiry in (
        (one, card, 20_180), (two, card, 20_170), (two, device, 20_014), (three, device, 20_020),
    ):  # fmt: skip
        forest.link(row, value, expiry, 20_000, row + 50, HUGE)
    weakest = forest.edge_at(forest.weakest_between(one, three))
    assert (weakest.account, weakest.value, weakest.expiry) == (2, 1001, 20_014)
    assert forest.root(one, 20_014) == forest.root(three, 20_014)
    assert forest.root(one, 20_015) != forest.root(three, 20_015)


def test_an_index_finds_what_a_dict_finds() -> None:
    dice = random.Random(5)
    names = array("Q", [dice.getrandbits(64) | 1 for _ in range(300)] + list(range(1, 60)))
    index, wanted = Index(names), dict[int, int]()
    for _ in range(6000):
        row = dice.randrange(len(names))
        if dice.random() < 0.4 and names[row] in wanted:
            del index[names[row]], wanted[names[row]]
        else:
            index[names[row]] = wanted[names[row]] = row
        assert len(index) == len(wanted)
        probe = dice.choice(names)
        assert index.get(probe) == wanted.get(probe, -1)
    assert dict(index.items()) == wanted


def test_a_value_may_have_more_accounts_than_two_bytes_count() -> None:
    forest = memory_forest()
    for account in range(1, 66_000):
        value = forest.node(2**60, STRONG)
        assert forest.link(forest.node(account, STRANGER), value, 20_014, 20_000, account, HUGE)
    assert forest.degree[forest.index[2**60]] == 65_999

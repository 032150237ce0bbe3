"""Random histories of sightings and charges, run over links in memory and in a store alike."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from guardrail.engine import whose_key
from guardrail.links import MemoryLinks, Standing, StoredLinks, actor_id
from guardrail.model.cells import (
    LINE,
    MEMBERS,
    WINDOW,
    Adjust,
    Cell,
    Charge,
    Correction,
    Counter,
    Drain,
    Member,
    Pool,
)
from guardrail.model.conditions import Comparison
from guardrail.model.links import Links
from guardrail.stores.memory import MemoryStore
from guardrail.stores.steps import performed

SECOND = 10**6
DAY = 86_400 * SECOND
START = 20_600 * DAY + 7
BUDGET, PACE, STRIKES = "budget__", "pace____", "strikes_"
POOLS = (Pool(BUDGET, WINDOW), Pool(PACE, LINE), Pool(STRIKES, MEMBERS))
TTL = 400 * DAY

TRUSTED = Comparison("account.tier", "in", frozenset({"verified"}), "verified")
EXEMPT = Comparison("account.org", "in", frozenset({"partner"}), "partner")
LINKS = Links(
    trusted=TRUSTED,
    strong=("payment.fingerprint", "kyc.subject"),
    weak=("client.network", "device.fingerprint", "request.template"),
    strong_days=9,
    weak_days=3,
    public_after=2,
    max_accounts=6,
    exempt=EXEMPT,
)

Facts = dict[str, object]


class InMemory:
    """Links in memory, with the counters that follow them."""

    def __init__(self, links: Links = LINKS) -> None:
        self.store: Any = MemoryStore()
        self.links = MemoryLinks(links, self.store)

    def see(self, facts: Facts, now: int) -> Standing:
        """Return whom an account acts as after a request showed these facts."""
        sighting = self.links.evidence.sighting(facts, now / SECOND)
        assert sighting is not None
        return self.links.see(sighting, POOLS, now).standing

    def unlink(self, account: str, now: int) -> bool:
        """Take an account out of its actor."""
        return self.links.unlink(account, POOLS, now)

    def close(self) -> None:
        """Do nothing."""


class InStore:
    """Links in a store that others use too."""

    def __init__(self, store: Any, links: Links = LINKS) -> None:
        self.store = store
        store.share(POOLS)
        self.links = StoredLinks(links, store, "tests")

    def see(self, facts: Facts, now: int) -> Standing:
        """Return whom an account acts as after a request showed these facts."""
        evidence = performed(self.links.evidence(now))
        assert evidence is not None
        sighting = evidence.sighting(facts, now / SECOND)
        assert sighting is not None
        standing = performed(self.links.see(sighting, POOLS, now))
        assert standing is not None
        return standing

    def unlink(self, account: str, now: int) -> bool:
        """Take an account out of its actor."""
        return bool(performed(self.links.unlink(account, POOLS, now)))

    def close(self) -> None:
        """Close the store."""
        self.store.close()


def whose(facts: Facts, standing: Standing) -> str:
    """Return what the keys of shared counters say of an account's actor."""
    account = str(facts["account.id"])
    return whose_key(actor_id(standing.actor) if standing.actor else account)


def cells_of(whose: str, amount: int, member: str, now: int) -> list[Cell]:
    """Return what a request is charged on shared counters."""
    return [
        Counter(0, BUDGET + whose, now // SECOND, 61, 0, amount, None, TTL),
        Counter(0, PACE + whose, 0, 1, now, amount * SECOND, None, TTL),
        Member(0, STRIKES + whose, member, now + DAY, None, TTL),
    ]


class Step(NamedTuple):
    """One request, what it is charged and what is corrected of that; or an appeal."""

    facts: Facts
    amount: int
    corrected: int
    now: int
    appeal: bool


def steps(seed: int, count: int, accounts: int = 7) -> Iterator[Step]:
    """Draw a history; most values are shared by few accounts."""
    dice, now = random.Random(seed), START
    trusted: set[str] = set()
    for _ in range(count):
        now += dice.choice((1, SECOND, 3 * SECOND, 3 * SECOND, 8 * 3600 * SECOND, DAY, 2 * DAY))
        account = f"a{dice.randrange(accounts)}"
        if dice.random() < 0.04:
            trusted ^= {account}
        facts: Facts = {"account.id": account}
        if account in trusted:
            facts["account.tier"] = "verified"
        if dice.random() < 0.03:
            facts["account.org"] = "partner"
        for name, chance, values in (
            ("payment.fingerprint", 0.2, 4),
            ("kyc.subject", 0.1, 5),
            ("client.network", 0.7, 4),
            ("device.fingerprint", 0.5, 4),
            ("request.template", 0.3, 3),
        ):
            if dice.random() < chance:
                facts[name] = f"{name}{dice.randrange(values)}"
        corrected = dice.choice((0, 0, -3, 2))
        yield Step(facts, dice.randrange(1, 9), corrected, now, dice.random() < 0.03)


def regulars(seed: int, count: int) -> Iterator[Step]:
    """Draw a history of accounts that show mostly the same, some times a day.

    They come less often than every ten minutes.
    """
    dice, now = random.Random(seed), START
    known: dict[str, list[Facts]] = {}
    for _ in range(count):
        now += dice.choice((11, 11, 12, 25, 25, 40, 90, 240)) * 60 * SECOND
        now += DAY * (dice.random() < 0.08)
        account = f"a{dice.randrange(9)}"
        ways = known.setdefault(account, [])
        if len(ways) < 2 or dice.random() < 0.08:
            facts: Facts = {"account.id": account}
            for name, chance, values in (
                ("payment.fingerprint", 0.3, 4),
                ("kyc.subject", 0.2, 6),
                ("client.network", 0.8, 2),
                ("device.fingerprint", 0.7, 3),
                ("request.template", 0.5, 2),
            ):
                if dice.random() < chance:
                    facts[name] = f"{name}{dice.randrange(values)}"
            if dice.random() < 0.3:
                facts |= {"account.tier": "verified", "kyc.subject": f"own of {account}"}
                facts["payment.fingerprint"] = f"own of {account}"
            if dice.random() < 0.04:
                facts["account.org"] = "partner"
            ways[:] = [*ways[-1:], facts]
        corrected = dice.choice((0, 0, -3, 2))
        yield Step(dice.choice(ways), dice.randrange(1, 9), corrected, now, dice.random() < 0.01)


Draw = Callable[[int, int], Iterator[Step]]


def difference(
    memory: InMemory, side: Any, seed: int, count: int, draw: Draw = steps
) -> str | None:
    """Return where a history first goes otherwise in a store than in memory, None if nowhere.

    Compared are who acts together, how many they are, and all that each account's counters hold.
    """
    last: dict[str, Facts] = {}
    charged: list[tuple[int, list[tuple[list[Cell], Any]]]] = []
    for number, step in enumerate(draw(seed, count)):
        account = str(step.facts["account.id"])
        where = f"seed {seed}, step {number}"
        if step.appeal:
            wanted, found = (each.unlink(account, step.now) for each in (memory, side))
            if wanted != found:
                return f"{where}: unlinked {found}, not {wanted}"
            continue
        last[account] = step.facts
        standings = [each.see(step.facts, step.now) for each in (memory, side)]
        if standings[0][1:] != standings[1][1:] or bool(standings[0][0]) != bool(standings[1][0]):
            return f"{where}: {standings[1]} is not {standings[0]}"
        receipts = []
        for each, standing in zip((memory, side), standings, strict=True):
            cells = cells_of(whose(step.facts, standing), step.amount, f"m{number % 5}", step.now)
            outcome = each.store.acquire([Charge(True, None)], cells, step.now)
            receipts.append((cells, outcome.replies))
        if receipts[0][1] != receipts[1][1]:
            return f"{where}: {receipts[1][1]} is not {receipts[0][1]}"
        charged.append((step.now, receipts))
        at, former = charged[max(0, len(charged) - 1 - number % 4)]
        if step.corrected and step.now - at < DAY:  # later ones may find that it is forgotten
            for each, (cells, replies) in zip((memory, side), former, strict=True):
                each.store.settle(corrections(cells, replies, step.corrected), step.now)
    partitions = []
    for each in (memory, side):
        groups = defaultdict(set)
        for account, facts in last.items():
            standing = each.see({"account.id": account, **_only_tier(facts)}, step.now)
            groups[standing.actor or account].add(account)
        partitions.append({frozenset(group) for group in groups.values()})
    if partitions[0] != partitions[1]:
        return f"seed {seed}: the actors are {partitions[1]}, not {partitions[0]}"
    return None


def _only_tier(facts: Facts) -> Facts:
    return {name: facts[name] for name in ("account.tier",) if name in facts}


def corrections(cells: list[Cell], replies: list[Any], delta: int) -> list[Correction]:
    """Return what corrects a charge by an amount."""
    budget, pace, _ = cells
    assert isinstance(pace, Counter)
    reach = replies[1].used + pace.amount
    return [
        Adjust(budget.key, replies[0].slot, delta, TTL),
        Drain(pace.key, delta * SECOND, reach, replies[1].refunded, TTL),
    ]

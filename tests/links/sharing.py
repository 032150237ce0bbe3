"""What several processes do at once to the links and the shared counters of one store."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from typing import Any

from guardrail.engine import whose_key
from guardrail.errors import StoreError
from guardrail.links import Standing, StoredLinks, actor_id
from guardrail.model.cells import Charge, Counter
from guardrail.stores.steps import performed
from tests.links.histories import BUDGET, LINKS, POOLS, SECOND, START, TTL, Facts

MANY = replace(LINKS, max_accounts=10_000, strong_days=180, weak_days=14)
ALONE = Standing(0, 1, 0)


def requests(seed: int, count: int, accounts: int = 40) -> list[Facts]:
    """Return requests of accounts that share cards and pairs of weak values."""
    dice = random.Random(seed)
    drawn: list[Facts] = []
    for _ in range(count):
        account = dice.randrange(accounts)
        facts: Facts = {"account.id": f"a{account}"}
        if dice.random() < 0.3:
            facts["payment.fingerprint"] = f"card{(account + dice.randrange(2)) // 3}"
        if dice.random() < 0.3:
            facts["client.network"] = f"net{account % 5}"
            facts["device.fingerprint"] = f"device{account // 7}"
        drawn.append(facts)
    return drawn


def serve(store: Any, seed: int, count: int) -> dict[str, int]:
    """Let each request be seen and charged once; return how many of each account were."""
    store.share(POOLS)
    links = StoredLinks(MANY, store, "tests")
    evidence = performed(links.evidence(START))
    while evidence is None:
        evidence = performed(links.evidence(START))
    served: defaultdict[str, int] = defaultdict(int)
    remembered: dict[str, Standing] = {}
    dice = random.Random(seed + 1)
    left = requests(seed, count)
    for facts in left:
        account = str(facts["account.id"])
        sighting = evidence.sighting(facts, START / SECOND)
        assert sighting is not None
        if account not in remembered or len(facts) > 1 or dice.random() < 0.5:
            seen = performed(links.see(sighting, POOLS, START))
            while seen is None and dice.random() < 0.9:
                seen = performed(links.see(sighting, POOLS, START))
            if seen is None:  # as if the request went on alone, and the next one showed the same
                left.append(facts)
            remembered[account] = seen or ALONE
        actor = remembered[account].actor
        key = BUDGET + whose_key(actor_id(actor) if actor else account)
        cell = Counter(0, key, 7, 1, 0, 1, None, TTL)
        assert store.acquire([Charge(True, None)], [cell], START).admitted
        served[account] += 1
    return dict(served)


def serve_until_it_fails(store: Any, seed: int) -> tuple[dict[str, int], dict[str, int]]:
    """Let requests be seen and charged until the store does not answer any more.

    Return how many of each account were charged, and how many may have been: nobody said so.
    """
    store.share(POOLS)
    links = StoredLinks(MANY, store, "tests")
    served: defaultdict[str, int] = defaultdict(int)
    unsure: defaultdict[str, int] = defaultdict(int)
    try:
        evidence = performed(links.evidence(START))
        while evidence is None:
            evidence = performed(links.evidence(START))
        for facts in requests(seed, 100_000):
            account = str(facts["account.id"])
            sighting = evidence.sighting(facts, START / SECOND)
            assert sighting is not None
            seen = performed(links.see(sighting, POOLS, START)) or ALONE
            key = BUDGET + whose_key(actor_id(seen.actor) if seen.actor else account)
            cell = Counter(0, key, 7, 1, 0, 1, None, TTL)
            unsure[account] += 1
            assert store.acquire([Charge(True, None)], [cell], START).admitted
            unsure[account] -= 1
            served[account] += 1
    except StoreError:
        pass
    return dict(served), dict(unsure)


def tied(histories: list[list[Facts]]) -> dict[str, frozenset[str]]:
    """Return for each account those it must act with, by all that was ever shown."""
    group: dict[object, object] = {}

    def top(node: object) -> object:
        while group.setdefault(node, node) != node:
            node = group[node]
        return node

    for facts in (each for history in histories for each in history):
        account = str(facts["account.id"])
        values = [facts[name] for name in ("payment.fingerprint",) if name in facts]
        if "client.network" in facts:
            values.append((facts["client.network"], facts["device.fingerprint"]))
        for value in values:
            group[top((account,))] = top(value)
        top((account,))
    together: defaultdict[object, set[str]] = defaultdict(set)
    for node in list(group):
        if isinstance(node, tuple) and len(node) == 1:
            together[top(node)].add(node[0])
    return {account: frozenset(each) for each in together.values() for account in each}


def found(store: Any) -> tuple[dict[str, frozenset[str]], dict[str, int]]:
    """Return who acts with whom, by a store, and what each account's shared counter holds."""
    store.share(POOLS)
    links = StoredLinks(MANY, store, "tests")
    evidence = performed(links.evidence(START))
    assert evidence is not None
    groups: defaultdict[str, set[str]] = defaultdict(set)
    used: dict[str, int] = {}
    for number in range(40):
        account = f"a{number}"
        sighting = evidence.sighting({"account.id": account}, START / SECOND)
        assert sighting is not None
        standing = performed(links.see(sighting, POOLS, START))
        assert standing is not None
        whose = whose_key(actor_id(standing.actor) if standing.actor else account)
        groups[whose].add(account)
        cell = Counter(0, BUDGET + whose, 7, 1, 0, 0, None, TTL)
        used[account] = store.acquire([Charge(True, None)], [cell], START).replies[0].used
    return {a: frozenset(each) for each in groups.values() for a in each}, used

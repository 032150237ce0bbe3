"""Whole guards over every store tell the same of one random history, reloads and all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest

from guardrail import Guard
from guardrail.engine import Decision
from tests.cells.redis_stores import SERVERS
from tests.cells.stores import Housed
from tests.links.test_actors_in_stores import on_server
from tests.loaded import loaded

DAY = 86_400.0
MONDAY = 1_780_272_000.0
MOVES = (601, 601, 605, 1200, 3600, 7200, 7200, 90_000, 200_000)
"""Seconds between requests: by then each store has found out what others have."""
SETTLED_WITHIN = 70_000
"""What was charged more than a day ago may have moved to a counter that nobody knows any more."""
EVIDENCE = (
    "{id: networks, family: network, count: client.network, above: 2, points: 30}",
    "{id: rented, family: network, when: {network.kind: vpn}, above: 50%, least: 4, points: 20}",
    "{id: template, family: template, same: request.template, above: 60%, least: 4, points: 25}",
    "{id: abroad, family: geo, when: {geo.country: {not: DE}}, above: 50%, least: 3, points: 15}",
    "{id: even, family: clock, even: true, above: 60%, least: 5, points: 5}",
)
WEAK = ("client.network", "device.fingerprint", "request.template", "account.signup")
WINDOWS = ("hour", "day", "week", "lifetime", "90m", "30d")


def evidence(dice: Random) -> str:
    """Return what accounts are linked and scored by."""
    weak = ", ".join(dice.sample(WEAK, dice.randint(2, 4)))
    signs = "".join(f"    - {sign}\n" for sign in dice.sample(EVIDENCE, dice.randint(3, 5)))
    trusted = dice.choice(("", ", account.age: {gte: 30d}"))
    exempt = dice.choice(("", "  exempt: {account.org: {in: $contracted}}\n"))
    window = dice.choice(("{strong: 180d, weak: 14d}", "{strong: 3d, weak: 2d}"))
    return (
        f"links:\n  trusted: {{account.tier: verified{trusted}}}\n"
        f"  strong: [payment.fingerprint, kyc.subject]\n  weak: [{weak}]\n"
        f"  window: {window}\n  public_after: {dice.choice((2, 3))}\n"
        f"  max_accounts: {dice.choice((3, 6, 5000))}\n{exempt}"
        f"score:\n  window: {dice.choice(('12h', '2d', '7d'))}\n  min_accounts: 2\n"
        f"  evidence:\n{signs}"
        "  breaker: {established: {account.age: {gte: 30d}}, most: 1, per: 1h}\n"
    )


def rules(dice: Random) -> str:
    """Return some rules of every verb, most of them on what an actor does."""
    few = [dice.choice((3, 5, 8, 20)) for _ in range(6)]
    per = [dice.choice(WINDOWS) for _ in range(3)]
    whose = dice.choice(("actor.id", "account.id"))
    over = dice.choice(("", ", over: {block: {reason: no}}", ", over: {degrade: {x-a: b}}"))
    every = (
        f"{{id: pool, when: always, budget: {{requests: {few[0]}, per: {per[0]}, key: actor.id}}}}",
        f"{{id: own, when: always, budget: {{requests: {few[1]}, tokens: {few[2] * 50}, "
        f"per: {per[1]}, key: {whose}}}{over}}}",
        f"{{id: pace, when: always, rate: {{requests: {few[3]}/minute, key: {whose}}}}}",
        f"{{id: flight, when: always, concurrency: {{max: 2, lease: 20m, key: {whose}}}}}",
        "{id: spread, when: always, distinct: {count: geo.country, max: 2, per: 1d, "
        f"key: {whose}}}{over}}}",
        f"{{id: strict, when: always, rate: {{requests: {few[4]}/hour, key: {whose}}}, "
        "escalate: {after: 2, within: 1h, block_for: 20m}}",
        "{id: banded, when: {actor.accounts: {gte: 2}}, unknown: skip, budget: {requests: "
        f"{{by: actor.trusted_accounts, bands: {{0: {few[5]}, 1: 24, 3: unlimited}}}}, "
        f"per: {per[2]}, key: actor.id}}}}",
        "{id: slow, when: {actor.score: {gte: 30}}, rate: {requests: 3/hour, key: actor.id}}",
        "{id: stop, when: {actor.score: {gte: 55}}, block: {remedy: verify}}",
        "{id: known, when: {actor.trusted_accounts: {gte: 1}}, degrade: {x-known: b}}",
    )
    chosen = [every[0], *dice.sample(every[1:], dice.randint(3, 7))]
    return "rules:\n" + "".join(f"  - {rule}\n" for rule in chosen)


def policies(dice: Random) -> list[str]:
    """Return policies that link and score by different evidence, with the same rules."""
    head = (
        "guardrail: 1\npolicy: whole\nlists: {contracted: [acme]}\n"
        "facts: {account.tier: {type: level, values: [free, email, verified]}}\n"
    )
    same = rules(dice)
    return [head + evidence(dice) + same for _ in range(3)]


def request(dice: Random) -> tuple[dict[str, object], dict[str, int]]:
    """Return the facts and the estimate of a request of one of eight accounts."""
    number = dice.randrange(8)
    shown = {
        "payment.fingerprint": (0.5, f"card{(number + dice.randrange(2)) // 3}"),
        "kyc.subject": (0.3, f"subject{number // 2}"),
        "client.network": (0.5, f"network{dice.randrange(4)}"),
        "device.fingerprint": (0.4, f"device{number % 4}"),
        "request.template": (0.4, f"template{number % 3}"),
        "account.signup": (0.2, f"signup{number % 3}"),
        "account.org": (0.3, dice.choice(("acme", "other"))),
    }
    facts: dict[str, object] = {
        "account.id": f"a{number}",
        "account.tier": ("free", "email", "verified")[number // 3],
        "account.created": MONDAY - DAY * (1, 40, 90)[number % 3],
        "network.kind": dice.choice(("business", "vpn")),
        "geo.country": dice.choice(("DE", "DE", "FR", "US")),
    }
    facts |= {name: value for name, (odds, value) in shown.items() if dice.random() < odds}
    return facts, {"input_tokens": dice.randrange(40), "output_tokens": dice.randrange(40)}


def told(decision: Decision) -> dict[str, Any]:
    """Return what a decision tells; actors have other names in each store."""
    actor = {k: v for k, v in decision.facts.items() if k.startswith("actor.") and k != "actor.id"}
    names = ("effect", "rule", "reason", "retry_after", "shadow", "mode", "limits", "errors")
    return {**{name: getattr(decision, name) for name in names}, **actor}


@contextmanager
def guards(text: str, *stores: Any) -> Iterator[list[Guard]]:
    """Open a guard in memory, and one over each of some stores."""
    made = [Guard.from_policies(loaded(text), environ={})]
    made += [Guard.from_policies(loaded(text), store=store, environ={}) for store in stores]
    opened = list(made)
    try:
        yield made
    finally:
        for guard in opened:
            guard.close()


@pytest.mark.parametrize("seed", range(30))
def test_every_store_tells_the_same_of_a_history(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Links are named under secrets that are drawn; here they are always the same.
    monkeypatch.setattr(os, "urandom", bytes)
    dice = Random(seed)
    texts = policies(dice)
    server = on_server(SERVERS.empty("valkey 9").uri)
    with guards(texts[0], Housed(), server) as made:
        now, decided = MONDAY, list[list[Decision]]()
        for _ in range(60):
            now += dice.choice(MOVES)
            if dice.random() < 0.08:
                changed = loaded(dice.choice(texts))
                made[:] = [guard.with_policies(changed) for guard in made]
            facts, estimate = request(dice)
            decided.append([guard.decide(dict(facts), estimate, now=now) for guard in made])
            memory, *others = map(told, decided[-1])
            assert others == [memory, memory]
            settled = dice.choice(decided[-5:])
            if now - settled[0].time > SETTLED_WITHIN:
                continue
            kind, now = dice.randrange(6), now + dice.choice((0, 3, 40))
            usage = {"input_tokens": dice.randrange(60), "output_tokens": dice.randrange(60)}
            for guard, decision in zip(made, settled, strict=True):
                if kind == 0:
                    guard.release(decision, now=now)
                elif kind == 1:
                    guard.renew(decision, now=now)
                elif kind < 5:
                    guard.settle(decision, usage, now=now)

"""Random traffic under one rule, and what a replay of it refuses."""

from __future__ import annotations

import random

from guardrail.guard import Guard
from guardrail.loading import load_text
from guardrail.replay.report.fills import Fills, Row
from guardrail.replay.running import Replay
from guardrail.traffic.reading import Recorded
from guardrail.traffic.requests import FactValue, Request

START = 1772366400.0

Refusals = dict[str, int]


def traffic(seed: int, count: int, *, duration: float = 0.0) -> list[Recorded]:
    """Return random requests of a few accounts and devices, close together."""
    chance = random.Random(seed)
    ts, found = START, []
    for line in range(1, count + 1):
        ts += chance.choice([0.0, 1.0, 7.0, 60.0, 2000.0])
        account = f"a{min(chance.randrange(12), chance.randrange(12))}"
        facts: dict[str, FactValue] = {"account.id": account}
        facts["device.fingerprint"] = f"d{chance.randrange(3)}"
        lasts = duration * chance.random()
        found.append((line, ts, Request(ts=ts, facts=facts, duration=lasts)))
    return found


def replayed(policy: str, lines: list[Recorded], key: str) -> tuple[Fills, Refusals]:
    """Return the fills of a replay, and how many requests of each key were refused."""
    fills, refused = Fills(), Refusals()
    guard = Guard.from_policies(load_text(policy), store="memory://")
    replay = Replay(guard)
    for _, ts, request, decision in replay.run(iter(lines)):
        fills.add(ts, request, decision)
        if decision.effect.refuses:
            whose = str(request.facts[key])
            refused[whose] = refused.get(whose, 0) + 1
    replay.finish()
    guard.close()
    return fills, refused


def only_row(fills: Fills) -> Row:
    """Return the one counter's row."""
    (row,) = fills.rows()
    return row

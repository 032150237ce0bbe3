"""T11 on a server: what a million accounts take there, and what a decision among them costs."""

from __future__ import annotations

import asyncio
import random
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.results import Result
from benchmarks.timing import Contender, interleaved, micros, ratio
from benchmarks.workload import R5_POLICY, START, TOKENS, one_of_many, r5_guard
from guardrail import AsyncGuard, Guard
from tests.stores.servers import Server

SCALE_MOST = 3.0
FEW, TASKS, TIMED, SAMPLE = 1000, 200, 500, 2000
SETTINGS: dict[str, Any] = {"hash_key": b"a hash key for benchmarks"}
PATIENT = "?deadline=20s"


def populous_costs(rounds: int, scale: float) -> list[Result]:
    """Return T11 on a server: bytes a key, and decisions among many accounts against few."""
    accounts = int(1_000_000 * scale)
    with Server() as many, Server() as few:
        empty = int(many.client.info("memory")["used_memory"])
        for server, count in ((few, FEW), (many, accounts)):
            asyncio.run(_settled_in(server.uri + PATIENT, count))
        keys = int(many.client.dbsize())
        grown = int(many.client.info("memory")["used_memory"]) - empty
        sampled = [many.client.memory_usage(many.client.randomkey()) for _ in range(SAMPLE)]
        guards = [r5_guard(store=server.uri + PATIENT, **SETTINGS) for server in (many, few)]
        costs = interleaved(
            {"many": _timed(guards[0], accounts), "few": _timed(guards[1], FEW)}, rounds
        )
        for guard in guards:
            guard.close()
    return [
        Result(
            target="T11",
            what=f"R5 on a server with {accounts:,} accounts, against {FEW:,}",
            value=ratio(costs, "many", "few"),
            bound=SCALE_MOST,
            note=f"{micros(costs, 'many'):.0f} µs against {micros(costs, 'few'):.0f}",
        ),
        Result(
            target="T11",
            what=f"memory of the server a key, {keys:,} keys",
            value=grown / keys,
            unit="bytes",
            note=f"MEMORY USAGE says {sum(sampled) / len(sampled):.0f} on average",
        ),
    ]


async def _settled_in(uri: str, accounts: int) -> None:
    """Have every account ask once."""
    guard = AsyncGuard.load(R5_POLICY, store=uri, environ={}, **SETTINGS)
    left = iter(range(accounts))

    async def arrive() -> None:
        for number in left:
            decision = await guard.decide(one_of_many(number), TOKENS, now=START)
            if not decision.allowed or decision.mode.value != "normal":
                raise RuntimeError(f"refused or not counted: {decision.errors}")

    await asyncio.gather(*(arrive() for _ in range(TASKS)))
    await guard.close()


def _timed(guard: Guard, accounts: int) -> Contender:
    draw = random.Random(11)

    def run() -> float:
        took = []
        for _ in range(TIMED):
            facts = one_of_many(draw.randrange(accounts))
            began = perf_counter()
            guard.decide(facts, TOKENS, now=START + 1)
            took.append(perf_counter() - began)
        return median(took)

    return run

"""T5 and T6: R5 with its counters on a server, against one no-op script call of redis-py."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from statistics import median
from time import perf_counter
from typing import Any

import redis
import redis.asyncio
from limits.aio.storage import RedisStorage as AsyncRedisStorage
from limits.aio.strategies import FixedWindowRateLimiter as AsyncFixedWindowRateLimiter
from limits.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter

from benchmarks.peers import PER_DAY, PER_MINUTE, PER_ORG_DAY, Asked, bare, informed
from benchmarks.results import Result
from benchmarks.timing import Contender, interleaved, micros, ratio
from benchmarks.workload import R5_POLICY, START, STEP, r5_guard, r5_requests
from guardrail import AsyncGuard
from tests.stores.servers import Server

SYNC_MOST = 1.05
ASYNC_LEAST = {50: 4.0, 200: 8.0}
NOOP = "return 1"
HASH_KEY = b"a hash key for benchmarks"
PATIENT = "?deadline=5s"
"""On a busy machine a reply may be late, and here none is lost."""

Stated = Sequence[tuple[dict[str, object], dict[str, object]]]


def serving_costs(rounds: int, scale: float) -> list[Result]:
    """Return T5: the median decision of one thread, and what `limits` takes for the same."""
    requests = r5_requests(max(50, int(2000 * scale)))
    with Server() as server:
        guard = r5_guard(store=server.uri + PATIENT, hash_key=HASH_KEY)
        client = server.client
        noop = client.script_load(NOOP)
        limiter = FixedWindowRateLimiter(RedisStorage(server.uri))
        plain = redis.Redis(port=server.port)
        costs = interleaved(
            {
                "noop": _median(lambda n: plain.evalsha(noop, 1, "k"), len(requests.stated)),
                "decide": _deciding(guard, requests.stated),
                "bare": _counting(limiter, requests.positional, bare),
                "informed": _counting(limiter, requests.positional, informed),
            },
            rounds,
        )
        calls = _calls_a_decision(server, guard, requests.stated)
        guard.close()
        plain.close()
    rows = [
        Result(
            target="T5",
            what="median decision on Redis, against a no-op EVALSHA of redis-py",
            value=ratio(costs, "decide", "noop"),
            bound=SYNC_MOST,
            note=f"{micros(costs, 'decide'):.0f} µs against {micros(costs, 'noop'):.0f}",
        ),
        Result(target="T5", what="… commands a decision", value=calls, unit="", bound=1.0),
    ]
    for name, what in (("bare", "three bare counts"), ("informed", "test, count and statistics")):
        value = ratio(costs, name, "decide")
        note = f"{micros(costs, name):.0f} µs"
        rows.append(Result(target="T5", what=f"… `limits`, {what}", value=value, note=note))
    return rows


def crowd_costs(rounds: int, scale: float) -> list[Result]:
    """Return T6: decisions of many tasks on one event loop, against one script call each."""
    rows = []
    for tasks, bound in ASYNC_LEAST.items():
        requests = r5_requests(max(2 * tasks, int(10_000 * scale)))
        with Server() as server, asyncio.Runner() as runner:
            crowd = runner.run(_Crowd.met(server, tasks))
            costs = interleaved(
                {
                    "noop": lambda: runner.run(crowd.noops(requests.stated)),  # noqa: B023
                    "decide": lambda: runner.run(crowd.decisions(requests.stated)),  # noqa: B023
                    "limits": lambda: runner.run(crowd.counts(requests.positional)),  # noqa: B023
                },
                rounds,
            )
            runner.run(crowd.left())
        note = f"{1e6 / micros(costs, 'decide'):,.0f} a second against"
        rows += [
            Result(
                target="T6",
                what=f"decisions of {tasks} tasks, in the time of one EVALSHA of redis-py each",
                value=ratio(costs, "noop", "decide"),
                bound=bound,
                at_least=True,
                note=f"{note} {1e6 / micros(costs, 'noop'):,.0f}",
            ),
            Result(
                target="T6",
                what="… of three bare counts of `limits.aio`",
                value=ratio(costs, "limits", "decide"),
                note=f"{note} {1e6 / micros(costs, 'limits'):,.0f}",
            ),
        ]
    return rows


class _Crowd:
    """Many tasks of one event loop, and what they share."""

    def __init__(self, server: Server, tasks: int) -> None:
        self.tasks = tasks
        settings: dict[str, Any] = {"environ": {}, "hash_key": HASH_KEY}
        self.guard = AsyncGuard.load(R5_POLICY, store=server.uri + PATIENT, **settings)
        pool = redis.asyncio.BlockingConnectionPool(port=server.port, max_connections=tasks)
        self.pool = pool
        self.client: Any = redis.asyncio.Redis(connection_pool=pool)
        # Its own pool would give up where more tasks ask at once than it has connections.
        more: Any = {"implementation": "redispy", "connection_pool": pool}
        storage = AsyncRedisStorage(f"async+{server.uri}", **more)
        self.limiter = AsyncFixedWindowRateLimiter(storage)
        self.noop = ""
        self.now = START

    @classmethod
    async def met(cls, server: Server, tasks: int) -> _Crowd:
        """Return a crowd on the running loop."""
        crowd = cls(server, tasks)
        crowd.noop = await crowd.client.script_load(NOOP)
        return crowd

    async def left(self) -> None:
        """Close what is open."""
        await self.guard.close()
        await self.client.aclose()
        await self.pool.aclose()

    async def noops(self, stated: Stated) -> float:
        """Call the no-op once for each request."""

        async def one(_: object) -> None:
            await self.client.evalsha(self.noop, 1, "k")

        return await self._spread(one, stated)

    async def decisions(self, stated: Stated) -> float:
        """Decide each request."""
        decide = self.guard.decide

        async def one(request: tuple[dict[str, object], dict[str, object]]) -> None:
            self.now += STEP
            decision = await decide(*request, now=self.now)
            if not decision.allowed or decision.mode.value != "normal":
                raise RuntimeError(f"refused or not counted: {decision.errors}")

        return await self._spread(one, stated)

    async def counts(self, positional: Sequence[tuple[Any, ...]]) -> float:
        """Count each request three times with `limits`."""

        async def one(request: tuple[Any, ...]) -> None:
            account, org, _, _, capability, tokens = request
            await self.limiter.hit(PER_MINUTE, account)
            await self.limiter.hit(PER_DAY, account, cost=tokens)
            await self.limiter.hit(PER_ORG_DAY, org, capability, cost=tokens)

        return await self._spread(one, positional)

    async def _spread(self, one: Callable[[Any], Awaitable[None]], asked: Sequence[Any]) -> float:
        """Have the tasks share the requests; return seconds a request."""
        left = iter(asked)

        async def work() -> None:
            for request in left:
                await one(request)

        began = perf_counter()
        await asyncio.gather(*(work() for _ in range(self.tasks)))
        return (perf_counter() - began) / len(asked)


def _median(call: Callable[[int], object], count: int) -> Contender:
    def run() -> float:
        took = []
        for number in range(count):
            began = perf_counter()
            call(number)
            took.append(perf_counter() - began)
        return median(took)

    return run


def _deciding(guard: Any, stated: Stated) -> Contender:
    now = [START]

    def call(number: int) -> None:
        now[0] += STEP
        decision = guard.decide(*stated[number], now=now[0])
        if not decision.allowed or decision.mode.value != "normal":
            raise RuntimeError(f"refused or not counted: {decision.errors}")

    return _median(call, len(stated))


def _counting(
    limiter: FixedWindowRateLimiter,
    positional: Sequence[tuple[Any, ...]],
    count: Callable[[FixedWindowRateLimiter, tuple[Asked, ...]], object],
) -> Contender:
    def call(number: int) -> None:
        account, org, _, _, capability, tokens = positional[number]
        whose = (account,), (org, capability)
        asked = (
            (PER_MINUTE, whose[0], 1),
            (PER_DAY, whose[0], tokens),
            (PER_ORG_DAY, whose[1], tokens),
        )
        count(limiter, asked)

    return _median(call, len(positional))


def _calls_a_decision(server: Server, guard: Any, stated: Stated) -> float:
    client = server.client
    client.config_resetstat()
    for number, request in enumerate(stated):
        guard.decide(*request, now=START + 1e6 + number)
    told = client.info("commandstats")
    # What the script itself calls is counted among commands too: only calls of scripts are ours.
    ours = ("cmdstat_evalsha", "cmdstat_eval")
    return sum(float(told[name]["calls"]) for name in ours if name in told) / len(stated)

"""A flood of random unknown credentials through a guard: what it takes, and whom it harms.

`python -m benchmarks.floods URI [KEYS [PROCESSES]] [--directly]`, for a store outside this process.
Each tenth of the flood prints a line, and the end tells how those fared who had nothing to do with
it. `--directly` hands the store the cells that the guard would, without the guard's own work.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import secrets
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from urllib.parse import unquote, urlsplit

import redis

from guardrail import AsyncGuard, Guard
from guardrail.errors import StoreError
from guardrail.loading import load_text
from guardrail.model.cells import Cell, Charge, Correction, CounterReply, Outcome
from guardrail.stores.lmdb import LmdbStore
from guardrail.stores.opening import awaited, open_store

KEYS, PROCESSES, STAGES, TASKS = 10_000_000, 2, 10, 200
HASH_KEY = b"a hash key for floods"
GUESTS, CUSTOMERS = 3, 20
"""What a credential without an account may ask for in a day, and an account ever."""
POLICY = f"""
guardrail: 1
policy: flood
rules:
  - id: guests
    when: {{account.id: {{exists: false}}}}
    budget: {{requests: {GUESTS}, per: day, key: credential.id}}
    on_store_error: deny
  - id: customers
    when: {{account.id: {{exists: true}}}}
    budget: {{requests: {CUSTOMERS}, per: lifetime, key: account.id}}
    on_store_error: deny
"""

Ask = Callable[[str], Awaitable[tuple[bool, bool]]]
"""Asks for a credential; tells whether it was admitted, and whether that failed."""
Close = Callable[[], Awaitable[None]]
Way = Callable[[str], tuple[Ask, Close]]


@dataclass(frozen=True, slots=True)
class Level:
    """How things stand after a part of a flood; `memory` in bytes, `seconds` since it began."""

    sent: int
    admitted: int
    errors: int
    keys: int
    memory: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.sent:>11,} sent  {self.admitted:>10,} admitted  {self.errors} errors  "
            f"{self.keys:>9,} keys  {self.memory / 1e6:7.1f} MB  {self.seconds:6.0f} s"
        )


@dataclass(frozen=True, slots=True)
class Bystanders:
    """Who must not notice the flood: what a store answered them."""

    blocked: bool
    guest: int
    known: int
    verified: int

    @property
    def unharmed(self) -> bool:
        """Whether each has had exactly what is theirs."""
        due = (GUESTS - 1, CUSTOMERS - 1, CUSTOMERS)
        return self.blocked and (self.guest, self.known, self.verified) == due


def guard_of(uri: str) -> Guard:
    """Return a guard for the flood's policy on a store."""
    return Guard.from_policies(load_text(POLICY), store=uri, hash_key=HASH_KEY, environ={})


class Witness:
    """A store that admits everything, and keeps what it was last asked for."""

    def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Admit, with what nobody counted."""
        self.asked = charges, cells, now
        return Outcome(True, [False] * len(charges), [CounterReply(0, 0, None, 0) for _ in cells])

    def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Correct nothing."""

    def close(self) -> None:
        """Let go of nothing."""


def settled_in(uri: str) -> None:
    """Have a credential spend what it has, and another, and an account, a part of it."""
    guard = guard_of(uri)
    for _ in range(GUESTS + 1):
        guard.decide({"credential.id": "blocked"})
    guard.decide({"credential.id": "guest"})
    guard.decide({"credential.id": "known", "account.id": "known"})
    guard.close()


def flooded(
    uri: str,
    keys: int = KEYS,
    processes: int = PROCESSES,
    *,
    stages: int = STAGES,
    directly: bool = False,
) -> Iterator[Level]:
    """Flood a store from several processes; yield its level after each part."""
    send = partial(_sent, _straight if directly else _guarded)
    context = multiprocessing.get_context("spawn")
    began, admitted, errors = perf_counter(), 0, 0
    part = keys // stages // processes
    with ProcessPoolExecutor(processes, context) as pool:
        for stage in range(1, stages + 1):
            for allowed, failed in pool.map(send, [uri] * processes, [part] * processes):
                admitted, errors = admitted + allowed, errors + failed
            sent, took = part * processes * stage, perf_counter() - began
            yield Level(sent, admitted, errors, *taken(uri), took)


def bystanders(uri: str) -> Bystanders:
    """Return how those fare who were `settled_in`, and an account that is new."""
    guard = guard_of(uri)
    blocked = not guard.decide({"credential.id": "blocked"}).allowed
    guest = _served(guard, {"credential.id": "guest"})
    known, verified = (_served(guard, {"account.id": name}) for name in ("known", "verified since"))
    guard.close()
    return Bystanders(blocked, guest, known, verified)


def _served(guard: Guard, facts: Mapping[str, object]) -> int:
    """Return how often somebody is served until they have no more."""
    return sum(guard.decide(facts).allowed for _ in range(CUSTOMERS + 5))


def _sent(way: Way, uri: str, count: int) -> tuple[int, int]:
    """Send requests of so many new credentials; return how many were admitted, and failed."""
    return asyncio.run(_send(way, uri, count))


async def _send(way: Way, uri: str, count: int) -> tuple[int, int]:
    admitted = errors = 0
    left = iter(range(count))
    ask, close = way(uri)

    async def guests() -> None:
        nonlocal admitted, errors
        for _ in left:
            allowed, failed = await ask(secrets.token_hex(12))
            admitted += allowed
            errors += failed

    await asyncio.gather(*(guests() for _ in range(TASKS)))
    await close()
    return admitted, errors


def _guarded(uri: str) -> tuple[Ask, Close]:
    guard = AsyncGuard.from_policies(load_text(POLICY), store=uri, hash_key=HASH_KEY, environ={})

    async def ask(credential: str) -> tuple[bool, bool]:
        decision = await guard.decide({"credential.id": credential})
        return decision.allowed, bool(decision.errors)

    return ask, guard.close


def _straight(uri: str) -> tuple[Ask, Close]:
    witness, store = Witness(), awaited(open_store(uri, [HASH_KEY]))
    guard = Guard.from_policies(load_text(POLICY), store=witness, environ={})
    guard.decide({"credential.id": "0"})
    charges, (cell,), now = witness.asked

    async def ask(credential: str) -> tuple[bool, bool]:
        try:
            key = cell.key[:-1] + credential
            return (await store.acquire(charges, [cell._replace(key=key)], now)).admitted, False
        except StoreError:
            return False, True

    return ask, store.close


def taken(uri: str) -> tuple[int, int]:
    """Return how many keys a store holds, and the bytes they take."""
    parts = urlsplit(uri)
    if parts.scheme == "lmdb":
        with closing(LmdbStore(unquote(parts.path), hash_keys=[HASH_KEY])) as store:
            keys = len(store)
        files = Path(unquote(parts.path)).glob("*.mdb")
        return keys, sum(file.stat().st_blocks * 512 for file in files)
    client: redis.Redis = redis.Redis.from_url(parts._replace(query="").geturl())
    with client:
        memory: dict[str, int] = client.info("memory")
        return int(client.dbsize()), memory["used_memory"]


def main(arguments: list[str]) -> int:
    """Flood the store that is named, and return 0 if nobody was harmed."""
    uri, *numbers = (argument for argument in arguments if argument != "--directly")
    settled_in(uri)
    for level in flooded(uri, *map(int, numbers), directly="--directly" in arguments):
        print(level, flush=True)
    found = bystanders(uri)
    print(found)
    return 0 if found.unharmed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Stores on real servers whose records can be looked at, sync and awaited alike."""

from __future__ import annotations

import atexit
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from guardrail.model.cells import Cell, Charge, Correction, Outcome
from guardrail.stores.redis.address import read_address
from guardrail.stores.redis.server_state import StoreOptions
from guardrail.stores.redis.store import RedisStore
from tests.cells.awaited import Awaited
from tests.stores.clusters import Cluster
from tests.stores.servers import Kept, Server

HASH_KEY = b"a hash key for tests"
SERVERS = Kept()
atexit.register(SERVERS.close)


def options(**changes: Any) -> StoreOptions:
    """Return the usual surroundings of a store, but for some changes."""
    usual: dict[str, Any] = {
        "keys": (HASH_KEY,),
        "layouts": (1,),
        "prefix": "gr",
        "overlap": 3600 * 10**6,
        "bound": None,
        "host_clock": False,
        "evicting": False,
    }
    return StoreOptions(**{**usual, **changes})


def redis_store(
    uri: str, *, deadline: float = 2.0, clock: Any = None, **changes: Any
) -> RedisStore:
    """Return a store on a server, with a deadline that a busy machine keeps."""
    more = {} if clock is None else {"clock": clock}
    return RedisStore(read_address(uri), options(**changes), deadline=deadline, **more)


class Shown:
    """A store on a server behind the sync contract, and the records it keeps there."""

    def __init__(
        self, server: Server | Cluster, *, is_async: bool = False, **settings: Any
    ) -> None:
        store = redis_store(server.uri, **settings)
        store.open()
        self.server = server
        self.state = store.state
        self.seen: dict[str, Any] = {}
        self.store: Any = Awaited(store.awaited()) if is_async else store

    def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Charge."""
        outcome: Outcome = self.store.acquire(charges, cells, now)
        return outcome

    def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Correct."""
        self.store.settle(corrections, now)

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    @contextmanager
    def at_once(self, keys: Sequence[str]) -> Iterator[None]:
        """Show some records as one question to each server finds them, until the block ends."""
        names = [self.state.context().names[key] for key in keys]
        self.seen = dict(zip(keys, self.server.get_all(names), strict=True))
        yield
        self.seen = {}

    def record(self, key: str) -> list[Any]:
        """Return a record as it lies on the server."""
        if key in self.seen:
            value = self.seen[key]
        else:
            value = self.server.get(self.state.context().names[key])
        found: list[Any] = [] if value is None else msgspec.msgpack.decode(value)
        return found

    def slots(self, key: str) -> dict[int, int]:
        """Return a windowed counter's slots and values."""
        record = self.record(key)
        return dict(zip(record[::2], record[1::2], strict=True))

    def drained(self, key: str) -> tuple[int, int]:
        """Return a draining counter's value and all that was refunded to it."""
        value, refunded = self.record(key) or (0, 0)
        return value, refunded

    def members(self, key: str) -> dict[str, int]:
        """Return a set's members, by their hashes, and their expiries."""
        return self.slots(key)  # type: ignore[return-value]

    def member_name(self, member: str) -> str:
        """Return the hash that stands for a member."""
        return self.state.context().names.naming.member(member).decode()

"""Where the memory store keeps its records: sharded tables that forget by whole generations.

A table holds the records of one lifetime. Each of its shards has two generations: a record is
written to the current one; when the shard turns, the current generation becomes the previous one
and the previous one is dropped whole. A record thus lives between one and two lifetimes after its
last write, without a thread, a scan, or an expiry of its own. Shards keep every dict small, so that
neither a resize nor a drop takes long, and records are ints wherever possible, which the garbage
collector does not follow.
"""

from __future__ import annotations

from guardrail.stores.records import Record

SHARDS = 1024
MASK = SHARDS - 1

_NOTHING: dict[str, Record] = {}


class Table:
    """The records that must be kept for `lifetime` microseconds after their last write."""

    __slots__ = ("_cursor", "_turns_at", "current", "former", "lifetime", "previous", "size")

    def __init__(self, lifetime: int) -> None:
        self.lifetime = lifetime
        self.size = 0
        self.current: list[dict[str, Record]] = [{} for _ in range(SHARDS)]
        self.previous: list[dict[str, Record]] = [_NOTHING] * SHARDS
        self.former: dict[str, Table] = {}
        self._turns_at = [0] * SHARDS
        self._cursor = 0

    def find(self, key: str) -> Record | None:
        """Return the record of a key, None if there is none."""
        shard = hash(key) & MASK
        record = self.current[shard].get(key)
        return self.find_older(key) if record is None else record

    def find_older(self, key: str) -> Record | None:
        """Return the record of a key that the current generation lacks, None if there is none."""
        record = self.previous[hash(key) & MASK].get(key)
        if record is None and self.former:
            former = self.former.get(key[:8])
            if former is not None:
                return former.find(key)
        return record

    def put(self, key: str, record: Record, now: int) -> None:
        """Write a record, and give one shard the chance to turn if the key is new to this one."""
        shard = hash(key) & MASK
        current = self.current[shard]
        if key not in current:
            if self.previous[shard].pop(key, None) is None:
                self.size += 1
            self.turn_next(now)
            # The turn may have been this very shard's.
            current = self.current[shard]
        current[key] = record

    def discard(self, key: str) -> None:
        """Forget a key."""
        shard = hash(key) & MASK
        for generation in (self.current, self.previous):
            if generation[shard].pop(key, None) is not None:
                self.size -= 1

    def leave(self, key: str, member: str) -> None:
        """End a member's stay in a set, and forget the set with its last member."""
        members = self.find(key)
        if members is not None:
            members.pop(member, None)
            if not members:
                self.discard(key)

    def turn_next(self, now: int) -> None:
        """Look at the next shard and turn it if its time has come."""
        self._cursor = shard = (self._cursor + 1) & MASK
        due = self._turns_at[shard]
        if now < due:
            if due - now > 2 * self.lifetime:  # the clock was ahead, and is right again
                self._turns_at[shard] = now + self.lifetime
            return
        self._turns_at[shard] = now + self.lifetime
        self.size -= len(self.previous[shard])
        self.previous[shard] = self.current[shard] or _NOTHING
        self.current[shard] = {}

    def records(self) -> dict[str, Record]:
        """Return a copy of every record kept, for tests and tools."""
        merged: dict[str, Record] = {}
        for shard in range(SHARDS):
            merged |= self.previous[shard]
            merged |= self.current[shard]
        return merged

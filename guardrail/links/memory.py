"""Links kept in a process's memory, beside the counters of a memory store."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, MutableMapping, Sequence

from guardrail.engine import whose_key
from guardrail.links.evidence import Evidence, Sighting
from guardrail.links.forest import Alone, Forest, Join, Own, account_kind
from guardrail.links.linking import Book, Linking, Standing
from guardrail.links.signal import Kept, Marks, Seen, actor_id
from guardrail.links.tally import Tallies
from guardrail.model.amounts import DAY
from guardrail.model.cells import Pool
from guardrail.model.links import Links
from guardrail.stores.memory import MemoryStore

_EMPTY, _GONE = -1, -2
_SHARDS, _SMALLEST = 256, 4


class Index(MutableMapping[int, int]):
    """Finds rows by numbers of 64 bits: four bytes a place, a third to two thirds of them free.

    Numbers are hashes already: their high bits choose a shard, their low ones say where to begin to
    look in it. A shard is small, so that none takes long to grow. `names` tells the number of each
    row, and is its owner's.
    """

    def __init__(self, names: array[int]) -> None:
        self.names = names
        self._shards = [array("i", [_EMPTY]) * _SMALLEST for _ in range(_SHARDS)]
        self._used = [0] * _SHARDS
        """The places of each shard that hold a row, or held one."""
        self._kept = 0

    def get(self, name: int, otherwise: int = -1) -> int:  # type: ignore[override]
        """Return a number's row."""
        rows, names = self._shards[name >> 56], self.names
        mask = len(rows) - 1
        at = name & mask
        while (row := rows[at]) != _EMPTY:
            if row >= 0 and names[row] == name:
                return row
            at = (at + 1) & mask
        return otherwise

    def __getitem__(self, name: int) -> int:
        row = self.get(name)
        if row < 0:
            raise KeyError(name)
        return row

    def __setitem__(self, name: int, row: int) -> None:
        """Note where a number is; `names` must say so as well."""
        self.update(((name, row),))

    def update(self, pairs: Iterable[tuple[int, int]]) -> None:  # type: ignore[override]
        """Note where several numbers are; `names` must say so as well."""
        shards, used, names = self._shards, self._used, self.names
        for name, row in pairs:
            shard = name >> 56
            rows = shards[shard]
            mask = len(rows) - 1
            at = name & mask
            while (held := rows[at]) != _EMPTY and not (held >= 0 and names[held] == name):
                at = (at + 1) & mask
            rows[at] = row
            if held == _EMPTY:
                self._kept += 1
                used[shard] += 1
                if used[shard] * 3 > len(rows) * 2:
                    self._grow(shard)

    def __delitem__(self, name: int) -> None:
        rows, names = self._shards[name >> 56], self.names
        mask = len(rows) - 1
        at = name & mask
        while (row := rows[at]) != _EMPTY:
            if row >= 0 and names[row] == name:
                rows[at] = _GONE
                self._kept -= 1
                return
            at = (at + 1) & mask
        raise KeyError(name)

    def __len__(self) -> int:
        return self._kept

    def __iter__(self) -> Iterator[int]:
        return (self.names[row] for rows in self._shards for row in rows if row >= 0)

    def _grow(self, shard: int) -> None:
        rows, names = [row for row in self._shards[shard] if row >= 0], self.names
        size = _SMALLEST
        while size * 4 < len(rows) * 9:
            size *= 2
        grown = self._shards[shard] = array("i", [_EMPTY]) * size
        self._used[shard] = len(rows)
        mask = size - 1
        for row in rows:
            at = names[row] & mask
            while grown[at] != _EMPTY:
                at = (at + 1) & mask
            grown[at] = row


class MemoryLinks:
    """Who acts as one, in memory; the store's lock makes each call atomic with its counters."""

    def __init__(self, links: Links, store: MemoryStore, former: MemoryLinks | None = None) -> None:
        """Take what links, and the store of the counters; `former` is gone on with."""
        self._store, self._links = store, links
        self.tallies: Tallies = Tallies() if former is None else former.tallies
        """What tells against actors."""
        self._begin(_State() if former is None else former._state)

    def empty(self) -> None:
        """Forget whom accounts act as, and what tells against actors."""
        with self._store.lock:
            self.tallies.empty()
            self._begin(_State())

    def _begin(self, state: _State) -> None:
        self._state = state
        self.evidence = Evidence(self._links, state.secret, state.book.kinds)
        self.marks = state.marks
        """How far they have come."""
        self._linking = Linking(self._links, self.evidence, state.forest, state.book)

    def see(self, sighting: Sighting, pools: Sequence[Pool], now: int) -> Seen:
        """Return whom an account acts as after a sighting at `now` (microseconds).

        Where actors turn out to be one, the counters of `pools` follow in the same step.
        """
        with self._store.lock:
            self._state.handles[sighting.account] = sighting.handle
            revision = self._state.book.revision
            standing = self._linking.see(sighting, now)
            self._follow(pools, now)
            if sighting.account not in self._linking.forest.index:
                self._state.handles.pop(sighting.account, None)
            # What it parted itself, by one value, another may tie once more.
            return self._seen(standing, revision, self._linking.settled)

    def stands(self, kept: Kept, pools: Sequence[Pool], now: int) -> Seen | None:
        """Return whom an account acts as, by what is known of it already.

        None where others have said otherwise meanwhile, whether it is trusted or whether it is
        exempt: it has to be seen again.
        """
        with self._store.lock:
            account, _, is_trusted, is_exempt, _ = kept.shown
            kind = account_kind(is_trusted=is_trusted, is_exempt=is_exempt)
            if not self._linking.agrees(account, kind):
                return None
            if is_exempt:
                standing = Standing.alone(is_trusted=is_trusted)
            else:
                standing = self._linking.stands(account, is_trusted, now // DAY)
            self._follow(pools, now)
            return self._seen(standing, kept.revision, kept.settled)

    def _seen(self, standing: Standing, revision: int, settled: bool) -> Seen:
        return Seen(standing, self.marks.version, revision, settled)

    def expire(self, pools: Sequence[Pool], now: int) -> None:
        """Let go of all links that have expired by `now` (microseconds)."""
        with self._store.lock:
            self._linking.expire(now)
            self._follow(pools, now)

    def unlink(self, account: str, pools: Sequence[Pool], now: int) -> bool:
        """Take an account out of its actor and keep it apart; see `Linking.unlink`."""
        with self._store.lock:
            was_linked = self._linking.unlink(self.evidence.account(account), now)
            self._follow(pools, now)
        return was_linked

    def erase(self, account: str, pools: Sequence[Pool], now: int) -> bool:
        """Forget all that is kept of an account; see `Linking.erase`."""
        number = self.evidence.account(account)
        with self._store.lock:
            was_linked = self._linking.erase(number)
            self._follow(pools, now)
            self._state.handles.pop(number, None)
        return was_linked

    def __len__(self) -> int:
        """Return how many accounts and values are kept."""
        return len(self._linking.forest.index)

    def _follow(self, pools: Sequence[Pool], now: int) -> None:
        """Let counters follow what has become of actors."""
        changes = self._linking.changes()
        marks, revision = self.marks, self._state.book.revision
        if changes or marks.revision != revision:
            marks.revision = revision
            marks.version += 1
        for change in changes:
            if isinstance(change, Join):
                self.tallies.join(change.into, change.others)
                others = [self._whose(other) for other in change.others]
                self._store.unite(pools, self._whose(change.into), others, now)
            elif isinstance(change, Own):
                self._store.keep(pools, self._whose(change.account))
            elif isinstance(change, Alone):
                whole, part = self._whose(change.whole), self._whose(change.account)
                self._store.hand_on(pools, whole, part, now)
            else:
                self.tallies.part(change.whole, change.part)
                self._store.hand_on(pools, self._whose(change.whole), self._whose(change.part), now)
        for account in self._state.forest.gone:
            self._state.handles.pop(account, None)
        self._state.forest.gone.clear()

    def _whose(self, number: int) -> str:
        """Return what a counter's key says of an actor, or of an account that acts alone."""
        handle = self._state.handles.get(number)
        return whose_key(actor_id(number) if handle is None else handle)


def memory_forest() -> Forest:
    """Return an empty forest that is kept in memory."""
    names = array("Q")
    return Forest(Index(names), names)


class _State:
    """What outlives a change of policies."""

    def __init__(self) -> None:
        self.forest = memory_forest()
        self.book = Book()
        self.handles: dict[int, str] = {}
        self.secret = os.urandom(32)
        self.marks = Marks()

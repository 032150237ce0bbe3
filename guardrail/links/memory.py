"""Links kept in a process's memory, beside the counters of a memory store."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, MutableMapping, Sequence

from guardrail.engine import whose_key
from guardrail.links.evidence import Evidence, Sighting
from guardrail.links.forest import Alone, Forest, Join
from guardrail.links.linking import Book, Linking, Standing
from guardrail.links.signal import actor_id
from guardrail.model.amounts import DAY
from guardrail.model.cells import Pool
from guardrail.model.links import Links
from guardrail.stores.memory import MemoryStore

_EMPTY, _GONE = 0, 2**64 - 1
_SMALLEST = 64


class Index(MutableMapping[int, int]):
    """Finds rows by numbers of 64 bits, in two arrays: twelve bytes a place, half of them free.

    Numbers are hashes already: their low bits say where to begin to look.
    """

    def __init__(self) -> None:
        self._names = array("Q", bytes(8 * _SMALLEST))
        self._rows = array("i", bytes(4 * _SMALLEST))
        self._mask = _SMALLEST - 1
        self._used = 0
        self._kept = 0

    def get(self, name: int, otherwise: int = -1) -> int:  # type: ignore[override]
        """Return a number's row."""
        names, mask = self._names, self._mask
        at = name & mask
        while (found := names[at]) != _EMPTY:
            if found == name:
                return self._rows[at]
            at = (at + 1) & mask
        return otherwise

    def __getitem__(self, name: int) -> int:
        row = self.get(name)
        if row < 0:
            raise KeyError(name)
        return row

    def __setitem__(self, name: int, row: int) -> None:
        names, mask = self._names, self._mask
        at = name & mask
        while (found := names[at]) != _EMPTY:
            if found == name:
                self._rows[at] = row
                return
            at = (at + 1) & mask
        names[at], self._rows[at] = name, row
        self._kept += 1
        self._used += 1
        if self._used * 3 > (mask + 1) * 2:
            self._resize()

    def __delitem__(self, name: int) -> None:
        names, mask = self._names, self._mask
        at = name & mask
        while (found := names[at]) != _EMPTY:
            if found == name:
                names[at] = _GONE
                self._kept -= 1
                return
            at = (at + 1) & mask
        raise KeyError(name)

    def __len__(self) -> int:
        return self._kept

    def __iter__(self) -> Iterator[int]:
        return (name for name in self._names if name not in (_EMPTY, _GONE))

    def _resize(self) -> None:
        old = list(zip(self._names, self._rows, strict=True))
        size = _SMALLEST
        while size < 3 * self._kept:
            size *= 2
        self._names, self._rows = array("Q", bytes(8 * size)), array("i", bytes(4 * size))
        self._mask, self._used, self._kept = size - 1, 0, 0
        for name, row in old:
            if name not in (_EMPTY, _GONE):
                self[name] = row


class MemoryLinks:
    """Who acts as one, in memory; the store's lock makes each call atomic with its counters."""

    def __init__(self, links: Links, store: MemoryStore, former: MemoryLinks | None = None) -> None:
        """Take what links, and the store of the counters; `former` is gone on with."""
        self._store = store
        self._state: _State = _State() if former is None else former._state
        self.evidence = Evidence(links, self._state.secret, self._state.book.kinds)
        self._linking = Linking(links, self.evidence, self._state.forest, self._state.book)

    @property
    def version(self) -> int:
        """Rises whenever an actor comes to be, grows or ends."""
        return self._state.version

    def see(self, sighting: Sighting, pools: Sequence[Pool], now: int) -> Standing:
        """Return whom an account acts as after a sighting at `now` (microseconds).

        Where actors turn out to be one, the counters of `pools` follow in the same step.
        """
        with self._store.lock:
            self._state.handles[sighting.account] = sighting.handle
            standing = self._linking.see(sighting, now)
            self._follow(pools, now)
            if sighting.account not in self._linking.forest.index:
                del self._state.handles[sighting.account]
        return standing

    def stands(self, sighting: Sighting, pools: Sequence[Pool], now: int) -> Standing:
        """Return whom an account acts as, by what is known of it already."""
        with self._store.lock:
            standing = self._linking.stands(sighting.account, sighting.is_trusted, now // DAY)
            self._follow(pools, now)
        return standing

    def unlink(self, account: str, pools: Sequence[Pool], now: int) -> bool:
        """Take an account out of its actor and keep it apart; see `Linking.unlink`."""
        with self._store.lock:
            was_linked = self._linking.unlink(self.evidence.account(account), now)
            self._state.version += 1
            self._follow(pools, now)
        return was_linked

    def __len__(self) -> int:
        """Return how many accounts and values are kept."""
        return len(self._linking.forest.index)

    def _follow(self, pools: Sequence[Pool], now: int) -> None:
        """Let counters follow what has become of actors."""
        changes = self._linking.changes()
        if not changes:
            return
        self._state.version += 1
        for change in changes:
            if isinstance(change, Join):
                others = [self._whose(other) for other in change.others]
                self._store.unite(pools, self._whose(change.into), others, now)
            elif isinstance(change, Alone):
                whole, part = self._whose(change.whole), self._whose(change.account)
                self._store.hand_on(pools, whole, part, now)
            else:
                self._store.hand_on(pools, self._whose(change.whole), self._whose(change.part), now)

    def _whose(self, number: int) -> str:
        """Return what a counter's key says of an actor, or of an account that acts alone."""
        handle = self._state.handles.get(number)
        return whose_key(actor_id(number) if handle is None else handle)


class _State:
    """What outlives a change of policies."""

    def __init__(self) -> None:
        self.forest = Forest(Index())
        self.book = Book()
        self.handles: dict[int, str] = {}
        self.secret = os.urandom(32)
        self.version = 0

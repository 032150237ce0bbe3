"""What a store outside the process keeps of links: rows that lead to rows, notes, and moves.

A row is a node of the forest: its first eight bytes name the row above it, zeros where there is
none. What the rest says is the business of who links. The rows that a call needs are those on the
paths from some nodes to their roots. A call reads them, decides, and writes what changed: all in
one step, or, where others were faster, nothing. The counters of actors move in the same step.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from guardrail.model.amounts import DAY
from guardrail.model.cells import Pool

NAME = 8
"""The bytes of a row's name."""
NO_NAME = bytes(NAME)
LONGEST_PATH = 1024
"""The most rows that are read between one and its root; past it nothing is decided."""
TRIES, MOST_TRIES = 12, 48
"""How often a call is made that others were faster than; more often while there is time."""

NODE, DUE, NOTE, MOVED = b"n", b"d", b"o", b"m"
"""What the name of a record of links starts with, by what it is."""

MOVED_FOR = DAY
"""How long after two actors became one their members may still be charged as they were before."""
MOST_MOVES = 64

Party = str | bytes
"""Whose counters: what their keys say after the ident, or the hash of that."""


class Unite(NamedTuple):
    """What `others` have used is added to what `into` has, and charged to `into` from now on."""

    into: Party
    others: tuple[Party, ...]


class HandOn(NamedTuple):
    """From now on `part` has used what `whole` has."""

    whole: Party
    part: Party


class Keep(NamedTuple):
    """What is charged to `party` is charged to nobody else any more."""

    party: Party


Move = Unite | HandOn | Keep


class Query(NamedTuple):
    """What a call reads: the paths of `nodes`, `notes`, and the paths of nodes that are due.

    `space` (eight bytes) names whose links they are; due are at most `most` nodes whose day is
    before `before`.
    """

    space: bytes
    nodes: tuple[bytes, ...] = ()
    notes: tuple[bytes, ...] = ()
    before: int = 0
    most: int = 0


class Found(NamedTuple):
    """What a call read: the rows and notes there are, and the day of each node that is due.

    `whose` hashes what a key says after its ident; `secrets` has for each hash key in force its
    id and a secret that follows from it, the current one first.
    """

    rows: Mapping[bytes, bytes]
    notes: Mapping[bytes, bytes]
    due: Mapping[bytes, int]
    whose: Callable[[str], bytes]
    secrets: Sequence[tuple[str, bytes]]


class Changes(NamedTuple):
    """What a call writes: rows and notes, empty where one is removed, days, and moves, in order.

    `days` gives each node's former day and its new one, 0 for none. `ttls` says of each row, also
    of those that were read only, for how many microseconds more it is needed; what it was kept for
    before is not shortened. Notes say it each for itself. The counters of `pools` move.
    """

    rows: Mapping[bytes, bytes]
    notes: Mapping[bytes, tuple[bytes, int]]
    days: Mapping[bytes, tuple[int, int]]
    moves: Sequence[Move]
    pools: Sequence[Pool]
    ttls: Mapping[bytes, int]

    def __bool__(self) -> bool:
        return bool(self.rows or self.notes or self.days or self.moves)


Decide = Callable[[Found], Changes]
"""Decides what a call writes; it is asked again where others were faster."""


@runtime_checkable
class LinkedStore(Protocol):
    """A store that keeps links."""

    def linked(self, query: Query, decide: Decide, now: int) -> bool:
        """Read, decide and write in one step at `now` (microseconds); tell whether it was done.

        It was not where others were faster each time, or a path is longer than `LONGEST_PATH`.

        Raises:
            StoreError: the store did not answer; nothing is known of what was written.
        """
        ...

    def share(self, pools: Sequence[Pool]) -> None:
        """Name counters that accounts share, before any of them is charged."""
        ...

    def every(self) -> Mapping[bytes, bytes]:
        """Return all rows and notes, of every space, for tools; they may change meanwhile.

        Their names start with `NODE` or `NOTE`.
        """
        ...


@runtime_checkable
class AsyncLinkedStore(Protocol):
    """The same, awaited."""

    def linked(self, query: Query, decide: Decide, now: int) -> Awaitable[bool]:
        """Read, decide and write; see `LinkedStore.linked`."""
        ...

    def share(self, pools: Sequence[Pool]) -> None:
        """Name counters that accounts share; see `LinkedStore.share`."""
        ...

"""What fused source is put together from: the lines of a rule, and what a store must offer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class FusableTable(Protocol):
    """What fused source reads and writes of a store's table, under the store's lock."""

    current: list[dict[str, Any]]

    def find_older(self, key: str) -> Any:
        """Return a record that the current generation lacks."""
        ...

    def find(self, key: str) -> Any:
        """Return a record."""
        ...

    def put(self, key: str, record: Any, now: int) -> None:
        """Write a record."""
        ...

    def leave(self, key: str, member: str) -> None:
        """End a member's stay in a set."""
        ...


class FusableStore(Protocol):
    """A store that fused source may look into: its lock, its tables, how it writes records."""

    lock: Any

    def home(self, ident: str, ttl: int) -> FusableTable:
        """Return the table where the records of a counter are kept."""
        ...

    @property
    def codec(self) -> Any:
        """The module that reads and writes records."""
        ...

    @property
    def shard_mask(self) -> int:
        """What a key's hash is masked with to find its shard."""
        ...


@dataclass
class CounterLines:
    """The lines of one counter, without indentation.

    They hold where `gate` does (empty: always). `checks` run under the lock and leave by bailing
    out; `writes` run if nothing did; `debit` is the expression of the receipt. `flag` is the
    variable that is None where the counter was not reached; empty, there is nothing but checks.
    """

    flag: str = ""
    gate: str = ""
    checks: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    debit: str = ""


@dataclass
class RuleLines:
    """The lines of one rule: what all its counters need first, and each counter's own."""

    head: list[str] = field(default_factory=list)
    counters: list[CounterLines] = field(default_factory=list)


def indented(lines: Sequence[str], depth: int) -> list[str]:
    """Return lines moved in by so many levels."""
    return ["    " * depth + line for line in lines]

"""Sources of facts: each signal turns what is known of a request into more facts about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from guardrail.signals.client import MOST_HOPS, ClientAddress, Proxies, client_address, is_proxy
from guardrail.signals.network import ClientNetworkSignal, NetworkSignal

__all__ = [
    "MOST_HOPS",
    "Ageing",
    "ClientAddress",
    "ClientNetworkSignal",
    "Lookup",
    "NetworkSignal",
    "Proxies",
    "Signal",
    "client_address",
    "in_order",
    "is_proxy",
]


class Signal(Protocol):
    """A source of facts (an information point, in the words of RFC 2753).

    A guard asks only the signals whose `provides` its policies read. The facts a request already
    carries win over a signal's.
    """

    @property
    def provides(self) -> frozenset[str]:
        """The names of the facts this signal can establish."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """The names of the facts it establishes them from."""
        ...

    @property
    def sources(self) -> tuple[str, ...]:
        """What it reads, with dates, for the record: `country-2026-06.mmdb 2026-06-10`."""
        ...

    def facts(self, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        """Return the facts established from `known` at `now` (seconds since the epoch).

        A fact that has no value for this request is left out.

        Raises:
            DataError: the source failed; the guard treats what it provides as unavailable.
        """
        ...


@runtime_checkable
class Lookup(Protocol):
    """A signal that has to be waited for: it asks a store, or a service.

    A `Guard` calls `facts`, which blocks; an `AsyncGuard` awaits `look_up`. Either ends in time by
    itself: within the store's deadline, if it asks the store. It is asked after all signals that
    it needs facts from, never before a body is read, and only where a rule reads what it provides.
    """

    async def look_up(self, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        """Return the facts established from `known` at `now`; see `Signal.facts`.

        Raises:
            DataError: the source failed; the guard treats what it provides as unavailable.
        """
        ...


@runtime_checkable
class Ageing(Protocol):
    """A source that can grow old, or be worse than it should, and says so."""

    def warnings(self, now: float) -> tuple[str, ...]:
        """Return what an operator should know at `now` (seconds since the epoch)."""
        ...


@runtime_checkable
class Refreshing(Protocol):
    """A source of files that may be replaced while they are in use."""

    def refreshed(self) -> Signal:
        """Return itself, or what answers from the files as they stand now.

        Raises:
            DataError: they cannot be used; this one still answers from the old ones.
        """
        ...


def in_order(signals: Sequence[Signal], used: frozenset[str]) -> tuple[Signal, ...]:
    """Return the signals whose facts are used, each after those it needs facts from."""
    wanted = set(used)
    for _ in signals:
        for signal in signals:
            if signal.provides & wanted:
                wanted |= signal.needs
    left = [signal for signal in signals if signal.provides & wanted]
    ordered: list[Signal] = []
    while left:
        ready = [
            signal
            for signal in left
            if not any(other.provides & signal.needs for other in left if other is not signal)
        ]
        # Signals that need each other cannot be told apart: they run as they were given.
        ordered += ready or left
        left = [signal for signal in left if signal not in ordered]
    return tuple(ordered)

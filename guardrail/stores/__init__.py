"""The store contract: one atomic call that charges, one that corrects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, runtime_checkable

from guardrail.model.cells import Cell, Charge, Correction, Form, Outcome
from guardrail.stores.cells import reply_to


class Store(Protocol):
    """Keeps counters and sets; every call is atomic.

    **Acquire.** Every cell is evaluated and answered. A charge is refused if one of its cells
    is. The request is admitted unless a binding charge (one that is not `after` another) is
    refused. Charges without `after` are applied if the request is admitted and they are not
    refused; charges after *k*, if *k* was refused and they are not.

    *Counter*: the record maps slots to values. s = max(slot, newest recorded slot); used = the
    values in slots between s − span and s, both exclusive, plus max(value[s], floor). Refused if
    used + amount > ceiling. Applied: value[s] = max(value[s], floor) + amount, at most 2⁵³ − 1;
    slots ≤ s − span go. An amount of 0 never writes.

    *Full*: a store at its bound that has no record for a cell's key uses the cell's `spill` for
    it, and says so; where the `spill` is `LEFT_OUT` it neither refuses nor applies the charge.

    *Set*: a member is live while its expiry > now. A live member is renewed, never refused;
    another is refused if live ≥ ceiling, else added.

    **Settle.** See the corrections in `guardrail.model.cells`.
    """

    def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Evaluate all cells at `now` (microseconds) and apply the charges that are admitted.

        Raises:
            StoreError: the store did not answer; nothing is known of what was applied.
        """
        ...

    def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Apply corrections to what was charged before.

        Raises:
            StoreError: the store did not answer.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections; closing twice is harmless."""
        ...


class AsyncStore(Protocol):
    """The same contract, awaited."""

    async def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Evaluate and apply; see `Store.acquire`."""
        ...

    async def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Apply corrections; see `Store.settle`."""
        ...

    async def close(self) -> None:
        """Let go of files and connections; closing twice is harmless."""
        ...


@runtime_checkable
class FormStore(Store, Protocol):
    """A store that is asked in numbers, for which no cells need be made."""

    def ask(self, form: Form, now: int) -> list[int]:
        """Acquire what a form asks for; return the outcome as `cells.reply_of` writes it.

        Raises:
            StoreError: the store did not answer; nothing is known of what was applied.
        """
        ...


@runtime_checkable
class AsyncFormStore(AsyncStore, Protocol):
    """The same, awaited."""

    async def ask(self, form: Form, now: int) -> list[int]:
        """Acquire; see `FormStore.ask`."""
        ...


Ask = Callable[[Form, int], list[int]]
AsyncAsk = Callable[[Form, int], Awaitable[list[int]]]


def asking(store: Store) -> Ask:
    """Return how a store is asked in numbers; one that takes no form is handed its cells.

    Asking it raises StoreError where it does not answer, or its outcome is none of such a form.
    """
    if isinstance(store, FormStore):
        return store.ask

    def ask(form: Form, now: int) -> list[int]:
        return reply_to(form, store.acquire(form.as_charges, form.as_cells, now))

    return ask


def awaiting(store: AsyncStore) -> AsyncAsk:
    """Return the same of a store that is awaited."""
    if isinstance(store, AsyncFormStore):
        return store.ask

    async def ask(form: Form, now: int) -> list[int]:
        return reply_to(form, await store.acquire(form.as_charges, form.as_cells, now))

    return ask

"""A store that is never there: what a replay shows of a day without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from guardrail.errors import StoreError
from guardrail.model.cells import Cell, Charge, Correction, Outcome, Pool
from guardrail.stores.links import Decide, Query


class DownStore:
    """Fails every call, as a store that is down does."""

    is_meant_to_fail = True
    """Whether it need not be logged that it does."""

    def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        """Fail; nothing was charged."""
        raise StoreError("down in this replay")

    def settle(self, corrections: Sequence[Correction], now: int) -> None:
        """Fail; nothing was corrected."""
        raise StoreError("down in this replay")

    def linked(self, query: Query, decide: Decide, now: int) -> bool:
        """Fail; nothing is known of who acts as one."""
        raise StoreError("down in this replay")

    def share(self, pools: Sequence[Pool]) -> None:
        """Do nothing: no counter is kept."""

    def every(self) -> Mapping[bytes, bytes]:
        """Fail; no row is kept."""
        raise StoreError("down in this replay")

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

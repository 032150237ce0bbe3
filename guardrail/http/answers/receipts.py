"""How the caller's own limits stand after a request that was simply allowed, by its receipts."""

from __future__ import annotations

from guardrail.engine import SEPARATOR, Case, Engine, Limit, Receipt
from guardrail.http.answers.standing import OWN, Shown, Standing, shown_of, standing_of
from guardrail.model.cells import IDENT_LENGTH
from guardrail.model.effects import Mode

_ENGINES_KEPT = 4


class Receipts:
    """Reads receipts; it remembers what does not change of the policy sets last seen."""

    def __init__(self) -> None:
        self._known: dict[Engine, tuple[Shown | None, ...]] = {}

    def standings(self, case: Case) -> list[Standing] | None:
        """Return how the caller's own limits stand, for a case in which nothing was found.

        Nothing spilled in such a case. Whose a counter is follows from its rule alone, unless
        something stands in for a missing fact of its key: None then.
        """
        known = self._known.get(case.engine)
        if known is None:
            known = self._seen(case.engine)
        standings: list[Standing] = []
        for row in case.debits:
            if row is None or (shown := known[row[0]]) is None:
                continue
            receipt = Receipt._make(row)
            stated = receipt.key.startswith("=", IDENT_LENGTH)
            if len(shown.limit.key_facts) > 1:
                parts = receipt.key.count(f"{SEPARATOR}=")
                stated = stated and parts == len(shown.limit.key_facts) - 1
            if not stated:
                return None
            if not OWN.isdisjoint(shown.limit.key_facts):
                standings.append(standing_of(shown, receipt, case.now, True, None))
        return standings

    def _seen(self, engine: Engine) -> tuple[Shown | None, ...]:
        if len(self._known) >= _ENGINES_KEPT:
            self._known = {}
        shown = tuple(_shown(limit, part) for limit, part in engine.counters)
        self._known[engine] = shown
        return shown


def _shown(limit: Limit, part: int) -> Shown | None:
    hidden = not limit.shown or limit.rule.mode is not Mode.ENFORCE
    return None if hidden else shown_of(limit, part)

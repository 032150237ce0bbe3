"""How the caller's own limits stand after a request that was simply allowed, by its receipts."""

from __future__ import annotations

from typing import NamedTuple

from guardrail.engine import Engine
from guardrail.engine.decision import Case
from guardrail.engine.limits.base import Debit, Limit
from guardrail.http.answers.standing import MONEY, OWN, Standing, filling, window_of
from guardrail.model.amounts import SECOND
from guardrail.model.effects import Mode
from guardrail.model.rules import Concurrency, Distinct, Rate

_ENGINES_KEPT = 4


class _Shown(NamedTuple):
    """What does not change of a counter that may show; `window` is None for a rate."""

    limit: Limit
    name: str
    unit: str
    window: int | None
    paced: bool


class Receipts:
    """Reads receipts; it remembers what does not change of the policy sets last seen."""

    def __init__(self) -> None:
        self._known: dict[Engine, tuple[_Shown | None, ...]] = {}

    def standings(self, case: Case) -> list[Standing]:
        """Return how the caller's own limits stand, for a case that was decided in one go.

        Such a case has no plan: nothing was found, nothing spilled, and no fact of a key that it
        charged was missing. Whose a counter is follows from its rule alone then.
        """
        known = self._known.get(case.engine)
        if known is None:
            known = self._seen(case.engine)
        standings: list[Standing] = []
        for receipt in case.debits:
            if receipt is None or (shown := known[receipt[0]]) is None:
                continue
            debit = Debit._make(receipt)
            most, left, resets = shown.limit.standing(debit, case.now)
            standings.append(
                Standing(
                    shown.name,
                    shown.unit,
                    most,
                    left,
                    filling(debit.slot) if shown.paced else shown.window,
                    None if resets is None else resets / SECOND,
                    None,
                    debit.key,
                )
            )
        return standings

    def _seen(self, engine: Engine) -> tuple[_Shown | None, ...]:
        if len(self._known) >= _ENGINES_KEPT:
            self._known = {}
        shown = tuple(_shown(limit, part) for limit, part in engine.counters)
        self._known[engine] = shown
        return shown


def _shown(limit: Limit, part: int) -> _Shown | None:
    rule = limit.rule
    hidden = isinstance(rule.verb, Distinct) or rule.mode is not Mode.ENFORCE
    if hidden or OWN.isdisjoint(limit.key_facts):
        return None
    unit = "concurrent-requests" if isinstance(rule.verb, Concurrency) else limit.units[part]
    name = rule.id if len(limit.idents) == 1 else f"{rule.id}.{unit}"
    shown = MONEY if unit == "cost_usd" else unit
    return _Shown(limit, name, shown, window_of(rule), isinstance(rule.verb, Rate))

"""Settling where the usage is plain, whole counts of tokens: it takes the place of an estimate.

In memory, counters are put right by source that is generated with the decision (`emit_inline`); for
a store elsewhere, windows are corrected by the difference, all else as its verb says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from guardrail.engine.core import Case, Decision, Engine
from guardrail.engine.emit import MONEY, PLAIN_UNITS, plain_place
from guardrail.engine.verbs import BudgetLimit, Receipt
from guardrail.model.cells import TOP, Adjust, Correction

Settle = Callable[[Decision, Mapping[str, object], float, str | None], bool]
Corrections = Callable[[Decision, Mapping[str, object], str | None], list[Correction] | None]
Read = Callable[[Decision, Mapping[str, object], str | None], tuple[int | None, ...] | None]


def settle_inline(engine: Engine) -> Settle | None:
    """Return a function that settles a decision at a time in seconds, None if it cannot.

    It is for decisions that were made in one pass over a memory store, whose usage is plain: what
    was generated with them corrects the records. It returns False where it left a decision to the
    steps.
    """
    read = _reader(engine)
    if read is None:
        return None

    def settle(
        decision: Decision, usage: Mapping[str, object], now: float, model: str | None
    ) -> bool:
        amounts = read(decision, usage, model)
        case = decision._case
        if amounts is None or isinstance(case, Case):
            return False
        decision._settled = True
        case[5].settle(amounts, now, *case)
        return True

    return settle


def settle_elsewhere(engine: Engine) -> Corrections:
    """Return a function that settles a decision whose counters are elsewhere.

    It returns the corrections, or None where the usage is not plain: then it left the decision to
    the steps.
    """
    read = _reader(engine)
    counters = [(limit, plain_place(limit, part)) for limit, part in engine.counters]
    leases = any(limit.lease for limit, _ in counters)

    def corrections(
        decision: Decision, usage: Mapping[str, object], model: str | None
    ) -> list[Correction] | None:
        amounts = None if read is None else read(decision, usage, model)
        if amounts is None:
            return None
        case = decision._case
        debits = case.debits if isinstance(case, Case) else decision.debits
        lease = engine.lease(case[4]) if leases else ""
        decision._settled = True
        found: list[Correction] = []
        for debit in debits:
            if debit is None:
                continue
            number, key, slot, _, _, reserved, _, _ = debit
            limit, place = counters[number]
            amount = amounts[place]
            if isinstance(limit, BudgetLimit):
                if amount is not None and amount != reserved:
                    found.append(Adjust(key, slot, amount - reserved, limit.ttl))
            elif limit.lease or amount is not None:
                correction = limit.correction(Receipt._make(debit), amount, lease)
                if correction is not None:
                    found.append(correction)
        return found

    return corrections


def _reader(engine: Engine) -> Read | None:
    """Return what reads a usage: the amounts of `PLAIN_UNITS`, then None for all else.

    It reads None where the usage is not plain, whole counts of tokens, whose cost is that of the
    model served, or the decision another engine's or settled. There is none for an engine that
    counts what else a usage may state.
    """
    units = set(engine.sizer.units)
    if not units <= {"requests", *PLAIN_UNITS}:
        return None
    counts_money = MONEY in units

    def read(
        decision: Decision, usage: Mapping[str, object], model: str | None
    ) -> tuple[int | None, ...] | None:
        into: Any = usage.get("input_tokens")
        out: Any = usage.get("output_tokens")
        if into.__class__ is not int or out.__class__ is not int or "requests" in usage:
            return None
        if into < 0 or out < 0 or into + out > TOP:
            return None
        if decision._settled or decision._case[0] is not engine:
            return None
        cost = _cost(engine, decision, usage, model) if counts_money else None
        if counts_money and cost is None:
            return None
        return into + out, into, out, cost, None

    return read


def _cost(
    engine: Engine, decision: Decision, usage: Mapping[str, object], served: str | None
) -> int | None:
    """Return what the tokens of a usage cost, None where something else has a say in that.

    Where it is not known which model `served`, it is the one that the decision asked for.
    """
    cached = usage.get("cached_input_tokens", 0)
    if not isinstance(cached, int) or isinstance(cached, bool) or not 0 <= cached <= TOP:
        return None
    if usage.get("cost_usd") is not None:
        return None
    model: object = served
    if served is None:
        model = decision.model
        if decision.obligations:
            model = decision.obligations.get("model", model)
    incoming: Any = usage["input_tokens"]
    outgoing: Any = usage["output_tokens"]
    return engine.sizer.priced(incoming, outgoing, cached, model)

"""Settling in memory: what was used takes the place of an estimate, in the records themselves.

Where the usage states whole counts of tokens, windows of one slot are corrected where their records
are; all else is corrected as its verb says, at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from guardrail.engine.core import Decision, Engine
from guardrail.engine.emit import TOKENS
from guardrail.engine.emit_inline import FusableStore
from guardrail.engine.verbs import Receipt
from guardrail.model.cells import TOP, WINDOW

Settle = Callable[[Decision, Mapping[str, object], int, str | None], bool]


def settle_inline(engine: Engine, store: FusableStore) -> Settle | None:
    """Return a function that settles a decision at a time in microseconds, None if it cannot.

    It corrects the records in place where the usage states whole counts of tokens, whose cost is
    that of the model served, and returns False where it left the decision to the steps.
    """
    units = set(engine.sizer.units)
    if not units <= {"requests", *TOKENS, "cost_usd"}:
        return None
    counts_money = "cost_usd" in units
    # Of each counter: its rule, its ident, where its unit stands among the amounts.
    places = {unit: place for place, unit in enumerate((*TOKENS, "cost_usd"))}
    counters = [
        (limit, limit.idents[part], places.get("".join(limit.units[part : part + 1]), len(places)))
        for limit, part in engine.counters
    ]
    acquire, release, correct = store.lock.acquire, store.lock.release, store.correct
    moves, moved, homes, mask = store.moves, store.moved, store.homes, store.shard_mask
    leases = any(limit.lease for limit, _ in engine.counters)
    bits, slots = store.codec.SLOT_BITS, store.codec.SLOT_MASK

    def settle(
        decision: Decision, usage: Mapping[str, object], now: int, model: str | None
    ) -> bool:
        into: Any = usage.get("input_tokens")
        out: Any = usage.get("output_tokens")
        if into.__class__ is not int or out.__class__ is not int or "requests" in usage:
            return False
        if into < 0 or out < 0 or into + out > TOP:
            return False
        if decision._settled or decision._case[0] is not engine:
            return False
        cost = _cost(engine, decision, usage, model) if counts_money else None
        if counts_money and cost is None:
            return False
        amounts = (into + out, into, out, cost, None)
        debits, lease = decision.debits, engine.lease(decision._case[4]) if leases else ""
        decision._settled = True
        acquire()
        try:
            for debit in debits:
                if debit is None:
                    continue
                number, charged, slot, _, _, reserved, _, _ = debit
                limit, ident, place = counters[number]
                amount, key = amounts[place], moved(charged) if moves.size else charged
                if limit.lease:
                    homes[ident].leave(key, lease)
                elif amount is not None and amount != reserved:
                    shard = homes[ident].current[hash(key) & mask]
                    record = shard.get(key)
                    if (
                        limit.kind == WINDOW
                        and record.__class__ is int
                        and record & slots == slot
                        and (left := (record >> bits) + amount - reserved) >= 0
                    ):
                        shard[key] = min(left, TOP) << bits | slot  # as nearly always
                        continue
                    correction = limit.correction(Receipt._make(debit), amount, "")
                    if correction is not None:
                        correct(correction, now)
        finally:
            release()
        return True

    return settle


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
        model = decision.facts.get("request.model")
        if decision.obligations:
            model = decision.obligations.get("model", model)
    incoming: Any = usage["input_tokens"]
    outgoing: Any = usage["output_tokens"]
    return engine.sizer.priced(incoming, outgoing, cached, model)

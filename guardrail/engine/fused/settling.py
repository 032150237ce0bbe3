"""The fused settlement: usage to corrected records without a step in between.

Like the fused decision it handles the clean case alone (whole counts of requests and tokens) and
leaves every other usage, untouched, to the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

from guardrail.algorithms import pace_increment
from guardrail.engine.core import Engine
from guardrail.engine.decision import Decision
from guardrail.engine.fused.body import TOKENS
from guardrail.engine.fused.parts import FusableStore
from guardrail.engine.limits.base import Debit, Limit
from guardrail.engine.limits.budget import BudgetLimit
from guardrail.engine.limits.rate import RateLimit
from guardrail.engine.limits.sets import ConcurrencyLimit
from guardrail.model.amounts import MINUTE
from guardrail.model.cells import IDENT_LENGTH, TOP, Drain

Settle = Callable[[Decision, Mapping[str, object], int], bool]


class _Counter(NamedTuple):
    """What settling needs of one counter: `period` is 0 but for rates, `unit` empty for sets."""

    unit: str
    period: int
    lease: bool


def fuse_settlement(engine: Engine, store: FusableStore) -> Settle | None:
    """Return a function that settles a decision at a time in microseconds, None if it cannot.

    The function returns False where it left the decision to the steps.
    """
    if not set(engine.sizer.units) <= {"requests", *TOKENS}:
        return None
    counters = [_counter(limit, part) for limit, part in engine.counters]
    acquire, release = store.lock.acquire, store.lock.release

    def settle(decision: Decision, usage: Mapping[str, object], now: int) -> bool:
        amounts = _amounts(usage)
        case = decision._case
        if amounts is None or case[0] is not engine or decision.settled:
            return False
        decision._settled = True
        acquire()
        try:
            for debit in cast(tuple[Debit | None, ...], case[4]):
                if debit is None:
                    continue
                unit, period, lease = counters[debit[0]]
                amount = amounts.get(unit)
                if lease:
                    store.home(debit[1][:IDENT_LENGTH], 0).leave(debit[1], decision.id)
                elif amount is not None and amount != debit[5]:
                    _correct(store, debit, amount, period, now)
        finally:
            release()
        return True

    return settle


def _correct(store: FusableStore, debit: Debit, amount: int, period: int, now: int) -> None:
    key, codec = debit[1], store.codec
    table = store.home(key[:IDENT_LENGTH], 0)
    record = table.find(key)
    if period:
        delta = pace_increment(amount, debit[6], period) - debit[4]
        drain = Drain(key, delta, debit[3] + debit[4], debit[7], debit[2] + MINUTE)
        table.put(key, codec.redrained(record, drain, now), now)
        return
    changed = codec.readjusted(record, debit[2], amount - debit[5])
    if changed is not None:
        table.put(key, changed, now)


def _counter(limit: Limit, part: int) -> _Counter:
    if isinstance(limit, RateLimit):
        return _Counter(limit.verb.unit, limit.verb.period, False)
    unit = limit.units[part] if isinstance(limit, BudgetLimit) else ""
    return _Counter(unit, 0, isinstance(limit, ConcurrencyLimit))


def _amounts(usage: Mapping[str, object]) -> dict[str, int] | None:
    """Return the amounts of a usage that states whole counts of tokens, else None."""
    incoming, outgoing = usage.get("input_tokens"), usage.get("output_tokens")
    if not (isinstance(incoming, int) and isinstance(outgoing, int)):
        return None
    if incoming is True or incoming is False or outgoing is True or outgoing is False:
        return None
    total = incoming + outgoing
    if "requests" in usage or incoming < 0 or outgoing < 0 or total > TOP:
        return None
    return {"input_tokens": incoming, "output_tokens": outgoing, "tokens": total}

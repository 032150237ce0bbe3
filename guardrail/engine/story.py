"""A decision's evidence, read back: what was charged, how limits stand, what hinged on what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from guardrail.conditions import compile_condition
from guardrail.engine.limits.base import Debit
from guardrail.engine.plan import Plan
from guardrail.engine.statuses import LimitStatus
from guardrail.model.amounts import SECOND
from guardrail.model.cells import Counter, CounterReply, MemberReply, Outcome, Reply
from guardrail.model.predicates import facts_of

if TYPE_CHECKING:
    from guardrail.engine.core import Engine
    from guardrail.engine.decision import Decision


def kept(debits: tuple[Debit | None, ...]) -> Iterator[Debit]:
    """Yield the debits of the rules that applied."""
    for debit in debits:
        if debit is not None:
            yield Debit._make(debit)


def debits(
    numbers: Mapping[int, int], plan: Plan, outcome: Outcome | None, *, owing: bool = False
) -> Iterator[Debit]:
    """Yield the receipt of every limit that was charged.

    With `owing`, that of every counter that was looked at, as if it had been charged nothing.
    """
    if outcome is None:
        return
    charged = plan.applied(outcome)
    for part, cell, reply in zip(plan.parts, plan.cells, outcome.replies, strict=True):
        if part.role != "limit" or not (
            isinstance(cell, Counter) if owing else charged[cell.charge]
        ):
            continue
        number = numbers[id(part.limit)] + part.number
        debit = part.limit.debit(number, part, cell, reply)
        yield debit._replace(increment=0, amount=0) if owing else debit


def told(engine: Engine, decision: Decision) -> tuple[Plan, Outcome | None]:
    """Return the plan of a decision and the store's answer, made anew if it was fused."""
    case = decision.case
    if case.plan is not None:
        return case.plan, case.outcome
    plan = engine.plan(case.facts, case.estimate, case.now, decision.id)
    known = {debit.key: debit for debit in kept(case.debits)}
    replies: list[Reply] = []
    for cell in plan.cells:
        debit = known.get(cell.key)
        if isinstance(cell, Counter):
            used, slot, refunded = (cell.floor, cell.slot, 0)
            if debit is not None:
                used, refunded = debit.used, debit.refunded
                slot = 0 if cell.floor else debit.slot
            replies.append(CounterReply(used, slot, None, refunded))
        elif debit is None:
            replies.append(MemberReply(0, False, None))
        else:
            replies.append(MemberReply(debit.used, not debit.increment, None))
    return plan, Outcome(True, [False] * len(plan.charges), replies)


def statuses(plan: Plan, outcome: Outcome | None) -> tuple[LimitStatus, ...]:
    """Return how each counter that was consulted stands, in the order of the rules."""
    if outcome is None:
        return ()
    charged = plan.applied(outcome)
    rows = [
        (
            part.limit.rule.index,
            part.number,
            part.limit.status(part, cell, reply, plan.now, charged[cell.charge]),
        )
        for part, cell, reply in zip(plan.parts, plan.cells, outcome.replies, strict=True)
        if part.role == "limit"
    ]
    return tuple(status for _, _, status in sorted(rows, key=lambda row: row[:2]))


def notes(engine: Engine, decision: Decision) -> tuple[str, ...]:
    """Return what was wrong with the facts, the estimate and the usage.

    A fused decision reads only the facts it needs: what is wrong with others is found here.
    """
    if decision.case.plan is not None:
        return decision.ruling.notes
    return told(engine, decision)[0].notes + decision.ruling.notes


def hinges(engine: Engine, decision: Decision) -> tuple[tuple[str, str], ...]:
    """Return the rules whose condition was unknown, each with the first fact it missed."""
    case = decision.case
    seconds = case.now / SECOND
    facts = case.plan.facts if case.plan else engine.reader.read(case.facts, seconds)[0]
    found = []
    for rule in engine.rules:
        missing = sorted(facts_of(rule.when) - facts.keys())
        if missing and compile_condition(rule.when)(facts, seconds) is None:
            found.append((rule.id, missing[0]))
    return tuple(found)


def hinge_notes(engine: Engine, decision: Decision) -> tuple[str, ...]:
    """Return a line for each rule that matched, or was skipped, because a fact is missing."""
    skipping = {rule.id for rule in engine.rules if rule.unknown == "skip"}
    return tuple(
        f"rule `{rule}` {'was skipped' if rule in skipping else 'matched'}: `{fact}` is missing"
        for rule, fact in hinges(engine, decision)
    )

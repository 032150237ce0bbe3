"""Counters that hold something before a request is explained: `tokens-per-day=44k`."""

from __future__ import annotations

from collections.abc import Mapping

from guardrail.engine import Decision, Engine, Part, Plan, pace_increment
from guardrail.errors import SettingError
from guardrail.guard.context import ProcessIds
from guardrail.loading import NotationError, read_amount
from guardrail.model.amounts import SECOND
from guardrail.model.cells import Cell, Charge, Counter
from guardrail.model.policy import PolicySet
from guardrail.stores import Store

Used = Mapping[str, str]

MOST_MEMBERS = 100_000
"""How many members a set can be given beforehand."""


def precharge(store: Store, policies: PolicySet, decision: Decision, used: Used) -> None:
    """Charge the counters that a request like that of `decision` consults.

    `used` maps a rule's id, or `RULE:UNIT` where the rule counts several units, to the amount
    its counter is to hold.

    Raises:
        SettingError: an amount is none, or no such rule counts this request.
    """
    now = round(decision.time * SECOND)
    plan = Engine(policies, ProcessIds()).plan(decision.facts, None, now, decision.id)
    for name, written in used.items():
        cells = _cells(plan, name, written)
        store.acquire([Charge(False, None)], cells, plan.now)


def _cells(plan: Plan, name: str, written: str) -> list[Cell]:
    rule, _, unit = name.partition(":")
    parts = [
        (part, cell)
        for part, cell in zip(plan.parts, plan.cells, strict=True)
        if part.role == "limit" and part.limit.rule.id == rule and unit in ("", _unit(part))
    ]
    if not parts:
        raise SettingError(f"no counter of `{name}` stands to this request: it cannot be used")
    if len(parts) > 1:
        units = " or ".join(f"`{rule}:{_unit(part)}`" for part, _ in parts)
        raise SettingError(f"`{rule}` counts several units: write {units}")
    part, cell = parts[0]
    amount = _amount(name, written, money=_unit(part) == "cost_usd")
    if isinstance(cell, Counter):
        return [cell._replace(charge=0, amount=_increment(part, amount), ceiling=None)]
    if amount > MOST_MEMBERS:
        raise SettingError(f"`{name}={written}` is too much: at most {MOST_MEMBERS:,}")
    return [
        cell._replace(charge=0, member=f"used {number}", ceiling=None) for number in range(amount)
    ]


def _unit(part: Part) -> str:
    units = part.limit.units
    return units[part.number] if units else ""


def _increment(part: Part, amount: int) -> int:
    period = part.limit.period
    return pace_increment(amount, part.allowance, period) if period else amount


def _amount(name: str, written: str, *, money: bool) -> int:
    try:
        return read_amount(written, money=money)
    except NotationError as error:
        raise SettingError(f"`{name}={written}` {error.message}: {error.help}") from None

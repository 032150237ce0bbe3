"""Counters that hold something before a request is explained: `tokens-per-day=44k`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from guardrail.engine import (
    ConditionStory,
    Decision,
    Engine,
    Interpreter,
    Plan,
    Row,
    RuleStory,
    pace_increment,
)
from guardrail.errors import SettingError
from guardrail.guard.context import ProcessIds
from guardrail.loading import NotationError, nearest, read_amount
from guardrail.model.amounts import SECOND
from guardrail.model.cells import REPLY, Cell, Charge, Counter
from guardrail.model.policy import PolicySet
from guardrail.stores import Store

Used = Mapping[str, str]

_OF_A_ROLLOUT = "% of accounts"

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
    plan = Interpreter(Engine(policies, ProcessIds())).plan(decision.facts, None, now, 0)
    for name, written in used.items():
        cells = _cells(plan, name, written)
        if not cells:
            raise SettingError(f"`--used {name}`: {_why_none(policies, decision, name)}")
        store.acquire([Charge(False, None)], cells, plan.now)


def _cells(plan: Plan, name: str, written: str) -> list[Cell]:
    rule, _, unit = name.partition(":")
    rows = [
        (row, counted)
        for row in plan.rows
        for counted in [_unit(plan, row)]
        if plan.counters[row.number][0].rule.id == rule and unit in ("", counted)
    ]
    if not rows:
        return []
    if len(rows) > 1:
        units = " or ".join(f"`{rule}:{counted}`" for _, counted in rows)
        raise SettingError(f"`{rule}` counts several units: write {units}")
    row, counted = rows[0]
    cell = plan.form.as_cells[row.at // REPLY]
    amount = _amount(name, written, money=counted == "cost_usd")
    if isinstance(cell, Counter):
        period = plan.counters[row.number][0].period
        held = pace_increment(amount, row.allowance, period) if period else amount
        return [cell._replace(charge=0, amount=held, ceiling=None)]
    if amount > MOST_MEMBERS:
        raise SettingError(f"`{name}={written}` is too much: at most {MOST_MEMBERS:,}")
    return [
        cell._replace(charge=0, member=f"used {number}", ceiling=None) for number in range(amount)
    ]


def _unit(plan: Plan, row: Row) -> str:
    limit, part = plan.counters[row.number]
    return limit.units[part] if limit.units else ""


def _why_none(policies: PolicySet, decision: Decision, name: str) -> str:
    """Return why no counter of a rule stands to a request."""
    id, _, unit = name.partition(":")
    rule = next((rule for rule in policies.rules if rule.id == id), None)
    if rule is None:
        near = nearest(id, [rule.id for rule in policies.rules])
        return f"there is no rule `{id}`" + (f", did you mean `{near}`?" if near else "")
    if not rule.verb.allowances:
        return f"rule `{id}` counts nothing: it is a `{rule.verb.name}`"
    if unit and unit not in rule.verb.units:
        units = " and ".join(f"`{own}`" for own in rule.verb.units) or "no unit"
        return f"rule `{id}` counts {units}, not `{unit}`"
    story = next(told for told in decision.explain().rules if told.rule == id)
    if story.standing == "exempt":
        return f"exemption `{story.exemption}` lifts rule `{id}` for this request"
    if story.standing in ("off", "not in force"):
        return f"rule `{id}` is {story.standing}"
    if story.standing != "match":
        return f"rule `{id}` does not apply to this request{_failing(story)}"
    lacking = [fact for fact in rule.verb.facts if fact not in decision.facts]
    if lacking:
        return f"rule `{id}` counts by `{lacking[0]}`, which this request lacks"
    return f"rule `{id}` has no counter for this request: its amount here is 0 or unlimited"


def _failing(story: RuleStory) -> str:
    """Return the first test that keeps a rule from applying, in words."""
    tests = [test for test in _tests(story.condition) if test[1] is not True]
    if not tests:
        return ""
    text, answer = tests[0]
    if text.endswith(_OF_A_ROLLOUT):
        whose = (
            "its account is not in the" if answer is False else "it has no account, and so is in no"
        )
        return f": {whose} rollout ({text})"
    return f": `{text}` is {'false' if answer is False else 'unknown'}"


def _tests(condition: ConditionStory) -> Iterator[tuple[str, bool | None]]:
    if condition.test is not None:
        yield condition.test.text, condition.test.answer
    elif condition.word == "not":
        text = " or ".join(dict.fromkeys(test.text for test in condition.tests))
        yield f"not ({text})", condition.answer
    elif condition.word == "all":
        for part in condition.parts:
            yield from _tests(part)
    else:
        yield " or ".join(dict.fromkeys(test.text for test in condition.tests)), condition.answer


def _amount(name: str, written: str, *, money: bool) -> int:
    try:
        return read_amount(written, money=money, used=True)
    except NotationError as error:
        raise SettingError(f"`{name}={written}` {error.message}: {error.help}") from None

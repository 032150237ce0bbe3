"""Reading a decision for its client: which limits are the caller's own, what refused, for how long.

Only limits keyed by the caller's own account, credential or organisation may show. All others are
shared with strangers: what they hold would tell of other people, or of how they are told apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, cast

from guardrail.engine import Decision
from guardrail.engine.limits.base import NEVER_FITS, Limit
from guardrail.engine.plan import Finding, Plan
from guardrail.engine.statuses import LimitStatus
from guardrail.engine.story import told
from guardrail.model.amounts import SECOND
from guardrail.model.cells import Cell, Counter, Outcome
from guardrail.model.effects import Effect, Mode
from guardrail.model.rules import Budget, Concurrency, Distinct, Rate, Rule

OWN = frozenset({"account.id", "credential.id", "account.org"})
"""The facts whose values belong to one caller."""

CALENDAR = {"hour": 3600, "day": 86400, "week": 604800, "month": None}
"""Calendar windows and their length in seconds; a month's differs."""


MONEY = "micro_usd"
"""The unit in which money shows."""


class Standing(NamedTuple):
    """How one of the caller's own limits stands.

    `quota` is what a full limit holds in whole units (money in micro-USD), `left` what is left.
    `window` is in seconds, None where there is none to tell. `resets` is the seconds until it is
    full again, None where time alone does not fill it; `wait` those until this request fits,
    None if it does.
    """

    name: str
    unit: str
    quota: int
    left: int
    window: int | None
    resets: float | None
    wait: float | None
    key: str


class Refused(NamedTuple):
    """One rule that refuses: for how many seconds (None: for ever), and whether it may show."""

    rule: Rule | None
    finding: Finding
    wait: float | None
    own: bool


class Reading(NamedTuple):
    """What of a decision concerns its client.

    `refusals` are those of enforced rules. `obliged` lists what asks for less, or for a notice,
    and may show. `shared` tells that the answer rests on a limit shared with strangers.
    """

    standings: tuple[Standing, ...]
    refusals: tuple[Refused, ...]
    obliged: tuple[Finding, ...]
    shared: bool


def reading_of(decision: Decision) -> Reading:
    """Return what of a decision concerns its client."""
    engine = decision.case.engine
    rules = engine.policies.rules
    plan, outcome = told(engine, decision)
    standings: list[Standing] = []
    findings = [(finding, _static_shows(rules, finding, plan)) for finding in plan.findings]
    for limit, finding, own, standing in _judged(plan, outcome):
        if finding is not None:
            findings.append((finding, own))
        if standing is not None and own and limit.rule.mode is Mode.ENFORCE:
            standings.append(standing)
    enforced = [(finding, own) for finding, own in findings if not finding.shadow]
    refusals = tuple(
        Refused(
            rules[f.order] if f.order >= 0 else None,
            f,
            None if f.wait is None else f.wait / SECOND,
            own,
        )
        for f, own in enforced
        if f.effect.refuses
    )
    obliged = tuple(f for f, own in enforced if own and not f.effect.refuses)
    shared = _rests_on_strangers(decision, refusals, enforced)
    return Reading(tuple(standings), refusals, obliged, shared)


def is_own(rule: Rule, facts: Mapping[str, object], key: tuple[str, ...]) -> bool:
    """Tell whether a rule's counter belongs to the caller alone, given the typed facts.

    The account stands in for a missing key fact unless the rule says otherwise.
    """
    for name in key:
        if name in OWN and name in facts:
            return True
        if name not in facts and rule.unknown is None and "account.id" in facts:
            return True
    return False


def window_of(rule: Rule) -> int | None:
    """Return the window of a budget in seconds, None where there is none to tell."""
    if not isinstance(rule.verb, Budget):
        return None
    window = rule.verb.window
    return CALENDAR.get(window.kind) if window.length is None else window.length // SECOND


def filling(capacity: int) -> int:
    """Return the window of a rate whose full time line is so many microseconds.

    A full bucket and the time it takes to fill state the pace and the burst at once.
    """
    return max(1, -(-capacity // SECOND))


def _static_shows(rules: tuple[Rule, ...], finding: Finding, plan: Plan) -> bool:
    """A static rule may show; a limit's size may not, if strangers share it."""
    if finding.order < 0 or finding.verdict.reason != NEVER_FITS:
        return True
    rule = rules[finding.order]
    if isinstance(rule.verb, Rate | Budget | Concurrency | Distinct):
        return is_own(rule, plan.facts, rule.verb.key.facts)
    return True


def _judged(
    plan: Plan, outcome: Outcome | None
) -> Iterator[tuple[Limit, Finding | None, bool, Standing | None]]:
    if outcome is None:
        return
    applied = plan.applied(outcome)
    for part, cell, reply in zip(plan.parts, plan.cells, outcome.replies, strict=True):
        limit, charged = part.limit, applied[cell.charge]
        finding = limit.judge(plan, part, cell, reply, charged)
        own = is_own(limit.rule, plan.facts, limit.key_facts) and not reply.spilled
        standing = None
        if part.role == "limit":
            status = limit.status(part, cell, reply, plan.now, charged)
            refused = finding is not None and finding.effect.refuses
            wait = finding.wait if finding is not None and refused else None
            standing = _standing(limit.rule, status, len(limit.idents), wait, cell)
        yield limit, finding, own, standing


def _standing(
    rule: Rule, status: LimitStatus, counters: int, wait: int | None, cell: Cell
) -> Standing | None:
    verb = rule.verb
    if isinstance(verb, Distinct):
        return None
    money = status.unit == "cost_usd"
    scale = SECOND if money else 1
    quota = round(status.limit * scale)
    window = window_of(rule)
    if isinstance(verb, Rate):
        counter = cast(Counter, cell)
        window = filling(cast(int, counter.ceiling) - counter.floor)
    return Standing(
        name=rule.id if counters == 1 else f"{rule.id}.{status.unit}",
        unit=MONEY if money else status.unit,
        quota=quota,
        left=max(0, min(quota, int(status.remaining * scale))),
        window=window,
        resets=status.reset_after,
        wait=None if wait is None else wait / SECOND,
        key=cell.key,
    )


def _rests_on_strangers(
    decision: Decision,
    refusals: tuple[Refused, ...],
    enforced: list[tuple[Finding, bool]],
) -> bool:
    if not refusals:
        return decision.effect is Effect.DEGRADE and not any(
            own for f, own in enforced if f.effect is Effect.DEGRADE and _is_by(decision, f)
        )
    strangers = [refused for refused in refusals if not refused.own]
    if not strangers:
        return False
    if not any(r.own and r.finding.effect is decision.effect for r in refusals):
        return True
    return _longest(strangers) > _longest([refused for refused in refusals if refused.own])


def _is_by(decision: Decision, finding: Finding) -> bool:
    rules = decision.case.engine.policies.rules
    return finding.order >= 0 and rules[finding.order].id == decision.rule


def _longest(refusals: list[Refused]) -> float:
    return max(float("inf") if refused.wait is None else refused.wait for refused in refusals)

"""Reading a decision for its client: which limits are the caller's own, what refused, for how long.

Only limits keyed by the caller's own account, credential or organisation may show. All others are
shared with strangers: what they hold would tell of other people, or of how they are told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from guardrail.engine import BY_RULE, NEVER_FITS, Decision, Finding, Limit, Receipt
from guardrail.model.amounts import SECOND
from guardrail.model.effects import Effect, Mode
from guardrail.model.rules import CountingVerb, Rule

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
    case = decision.case
    engine, rules = case.engine, case.engine.policies.rules
    facts = engine.read(case).facts
    receipts = {receipt.number: (receipt, charged) for receipt, charged in case.consulted}
    waits: dict[int, int | None] = {}
    enforced: list[tuple[Finding, bool]] = []
    for finding in case.found:
        if finding.number >= 0 and finding.effect.refuses:
            waits[finding.number] = finding.wait
        if not finding.shadow:
            counter = receipts.get(finding.number)
            spilled = counter is not None and counter[0].spilled
            enforced.append((finding, _shows(rules, finding, facts) and not spilled))
    standings = []
    for number, (receipt, charged) in receipts.items():
        limit, part = engine.counters[number]
        shows = limit.shown and limit.rule.mode is Mode.ENFORCE and not receipt.spilled
        if shows and is_own(limit.rule, facts, limit.key_facts):
            shown = shown_of(limit, part)
            standings.append(standing_of(shown, receipt, case.now, charged, waits.get(number)))
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


class Shown(NamedTuple):
    """What does not change of a counter that may show; `window` is None for a rate."""

    limit: Limit
    name: str
    unit: str
    window: int | None


def shown_of(limit: Limit, part: int) -> Shown:
    """Return how one of a limit's counters shows."""
    unit, rule = limit.unit(part), limit.rule
    name = rule.id if len(limit.idents) == 1 else f"{rule.id}.{unit}"
    return Shown(limit, name, MONEY if unit == "cost_usd" else unit, window_of(rule))


def standing_of(
    shown: Shown, receipt: Receipt, now: int, charged: bool, wait: int | None
) -> Standing:
    """Return how a counter stands at `now` (microseconds), by its receipt of that moment."""
    most, _, left, resets = shown.limit.stand(receipt, now, charged)
    return Standing(
        shown.name,
        shown.unit,
        most,
        left,
        filling(receipt.slot) if shown.limit.period else shown.window,
        None if resets is None else resets / SECOND,
        None if wait is None else wait / SECOND,
        receipt.key,
    )


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
    window = rule.verb.covers
    if window is None:
        return None
    return CALENDAR.get(window.kind) if window.length is None else window.length // SECOND


def filling(capacity: int) -> int:
    """Return the window of a rate whose full time line is so many microseconds.

    A full bucket and the time it takes to fill state the pace and the burst at once.
    """
    return max(1, -(-capacity // SECOND))


def _shows(rules: tuple[Rule, ...], finding: Finding, facts: Mapping[str, Any]) -> bool:
    """Tell whether a finding may show: a rule without counters may, and the caller's own limits.

    What a limit allows may not, if strangers share it.
    """
    if finding.order < 0:
        return True
    rule = rules[finding.order]
    if finding.number == BY_RULE and finding.verdict.reason != NEVER_FITS:
        return True
    return not isinstance(rule.verb, CountingVerb) or is_own(rule, facts, rule.verb.key.facts)


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

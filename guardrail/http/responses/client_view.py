"""Reads a decision for its client: which limits are its own, what refused it, how long to wait.

Only limits keyed by the caller's own account, credential or organisation may show. All others are
shared with strangers: what they hold would tell of other people, or of how they are told apart.
A wait that is told is never less than the truth, and not the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from guardrail.engine import (
    BY_RULE,
    NEVER_FITS,
    Decision,
    Finding,
    Limit,
    Receipt,
    Stand,
)
from guardrail.model.amounts import SECOND
from guardrail.model.effects import Effect, Mode
from guardrail.model.rules import CountingVerb, Rule

_ENFORCE = Mode.ENFORCE
OWN = frozenset({"account.id", "credential.id", "account.org"})
"""The facts whose values belong to one caller."""

CALENDAR = {"hour": 3600, "day": 86400, "week": 604800, "month": None}
"""Calendar windows and their length in seconds; a month's differs."""


MONEY = "micro_usd"
"""The unit in which money shows."""


class ShownLimit(NamedTuple):
    """How one of the caller's own limits stands.

    `quota` is what a full limit holds in whole units (money in micro-USD), `left` what is left.
    `window` is in seconds, None where there is none to tell. `resets` is the microseconds until it
    is full again, None where time alone does not fill it; `wait` those until this request fits,
    None if it does.
    """

    name: str
    unit: str
    quota: int
    window: int | None
    left: int
    resets: int | None
    wait: int | None
    key: str


class Refused(NamedTuple):
    """One rule that refuses: for how many seconds (None: for ever), and whether it may show."""

    rule: Rule | None
    finding: Finding
    wait: float | None
    own: bool


class ClientView(NamedTuple):
    """What of a decision concerns its client.

    `refusals` are those of enforced rules. `obliged` lists what asks for less, or for a notice,
    and may show. `shared` tells that the answer rests on a limit shared with strangers.
    """

    standings: tuple[ShownLimit, ...]
    refusals: tuple[Refused, ...]
    obliged: tuple[Finding, ...]
    shared: bool


def view_of(decision: Decision) -> ClientView:
    """Return what of a decision concerns its client."""
    case = decision.case
    engine, rules = case.engine, case.engine.policies.rules
    facts = engine.reading(case).facts
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
    looked: list[Looked] = []
    for number, (receipt, charged) in receipts.items():
        limit, part = engine.counters[number]
        shows = limit.shown and limit.rule.mode is _ENFORCE and not receipt.spilled
        if shows and is_own(limit.rule, facts, limit.key_facts):
            looked.append((shown_of(limit, part), receipt, charged, waits.get(number)))
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
    return ClientView(tuple(standings_of(looked, case.now)), refusals, obliged, shared)


class Shown(NamedTuple):
    """What does not change of a counter that may show.

    `window` is None for a rate, which `paces`: its window is that of a receipt. `own` tells that it
    is keyed by what belongs to one caller, and `joins` how many facts of its key follow the first.
    """

    stand: Callable[[Receipt, int, bool], Stand]
    paces: bool
    name: str
    unit: str
    window: int | None
    own: bool
    joins: int


def shown_of(limit: Limit, part: int) -> Shown:
    """Return how one of a limit's counters shows."""
    unit, rule = limit.unit(part), limit.rule
    name = rule.id if len(limit.idents) == 1 else f"{rule.id}.{unit}"
    return Shown(
        limit.stand,
        limit.period > 0,
        name,
        MONEY if unit == "cost_usd" else unit,
        window_of(rule),
        own=not OWN.isdisjoint(limit.key_facts),
        joins=max(len(limit.key_facts) - 1, 0),
    )


Looked = tuple[Shown, Receipt, bool, int | None]
"""A counter, its receipt, whether the request was charged to it, and its wait if it refuses."""


def standings_of(looked: Iterable[Looked], now: int) -> list[ShownLimit]:
    """Return how counters stand at `now`, by receipts of that moment; times in microseconds."""
    found = []
    for (stand, paces, name, unit, window, _, _), receipt, charged, wait in looked:
        most, _, left, resets = stand(receipt, now, charged)
        if paces:
            window = pace_window(receipt.slot)
        # Several are made for each answer: a named tuple's own constructor takes thrice as long.
        told = (name, unit, most, window, left, resets, wait, receipt.key)
        found.append(tuple.__new__(ShownLimit, told))
    return found


def pace_window(fills: int) -> int:
    """Return the window of a rate that fills in so many microseconds, in seconds.

    A full bucket and the time it takes to fill state the pace and the burst at once.
    """
    return -(-fills // SECOND) or 1


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


Jitter = Callable[[], float]
"""A source of numbers from 0 to 1, such as `random.random`."""

PATIENCE = 60.0
"""The longest wait, in seconds, after which clients are asked to try again by themselves."""

HOUR = 3600
IN_FLIGHT_SPREAD = 1.0
TOLERANCE = 1e-5
"""A decision may add a microsecond to the wait of the rule that has the longest."""


class Wait(NamedTuple):
    """What is told of a wait: whole seconds, and milliseconds where those are finer.

    `seconds` None: waiting will not help, or nothing is known. `retry`: the client may try again
    by itself.
    """

    seconds: int | None
    millis: int | None
    retry: bool


NO_WAIT = Wait(None, None, False)


def wait_of(reading: ClientView, retry_after: float | None, jitter: Jitter, spread: float) -> Wait:
    """Return what to tell of a wait of `retry_after` seconds.

    Where it ends at a calendar reset, up to `spread` seconds are added, so that not every client
    returns at midnight sharp; up to one second for a place in flight. A wait for a limit shared
    with strangers is rounded up to hours, which is all that is told of it.
    """
    if retry_after is None:
        return NO_WAIT
    if reading.shared:
        return Wait(max(1, math.ceil(retry_after / HOUR)) * HOUR, None, False)
    waited = retry_after + jitter() * _spread(reading, retry_after, spread)
    if retry_after <= PATIENCE:
        # A wait that clients would wait out stays one, however it is spread.
        waited = min(waited, PATIENCE)
    # Six digits are more than a wait has: without them 1.1 s would round up to 1101 ms.
    seconds = max(1, math.ceil(round(waited, 6)))
    millis = max(1, math.ceil(round(waited * 1000, 3)))
    retry = seconds <= PATIENCE
    return Wait(seconds, millis if retry and millis < seconds * 1000 else None, retry)


def _spread(reading: ClientView, retry_after: float, spread: float) -> float:
    """Return over how many seconds to spread the returns of those who wait for the same."""
    longest = [
        r.rule.verb
        for r in reading.refusals
        if r.rule and r.wait is not None and abs(r.wait - retry_after) <= TOLERANCE
    ]
    windows = [verb.covers.kind for verb in longest if verb.covers is not None]
    if any(kind not in ("rolling", "lifetime") for kind in windows):
        return spread
    return IN_FLIGHT_SPREAD if any(verb.in_flight for verb in longest) else 0.0

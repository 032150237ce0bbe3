"""Limits that never come to act, that no request fits, or that do not hold what they seem to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from guardrail.errors import Diagnostic, Severity
from guardrail.loading.findings import Path
from guardrail.loading.lint.conditions import conjuncts
from guardrail.loading.lint.tiers import allowances
from guardrail.loading.lint.written import Written
from guardrail.loading.text import listed, place_of, quoted
from guardrail.model.amounts import (
    DAY,
    HOUR,
    Amount,
    Banded,
    Fixed,
    Lookup,
    possible_amounts,
    without_raises,
)
from guardrail.model.conditions import ALWAYS, Comparison, Condition, Every, facts_of
from guardrail.model.effects import Mode
from guardrail.model.facts import Source
from guardrail.model.policy import PolicySet
from guardrail.model.rules import CALENDAR, Budget, Concurrency, Distinct, Limiting, Rate, Rule

TYPICAL_TOKENS = 1000
"""What a request is taken to need where no model says how long its answers may get."""

_METERED = ("tokens", "output_tokens", "cost_usd")
_BY_TOKENS = ("tokens", "input_tokens", "output_tokens", "cost_usd")
_OF_ALL = ("requests", "tokens", "in flight")
"""The units of which every request needs some: it may cost nothing, or have no output."""
_OWN = (
    "account.id",
    "account.org",
    "account.signup",
    "actor.id",
    "client.ip",
    "client.network",
    "credential.id",
    "device.fingerprint",
    "kyc.subject",
    "payment.fingerprint",
)
"""The facts that tell one customer, or a few who belong together, from all others."""
_OF_ACCOUNTS = ("actor.id", "kyc.subject", "payment.fingerprint")
"""The facts that an account has one of, besides those called `account`."""
_LONGEST: Mapping[str, int] = {**CALENDAR, "month": 31 * DAY}
_SHORTEST: Mapping[str, int] = {**CALENDAR, "month": 28 * DAY}
_NESTED = {
    ("hour", "day"): 24,
    ("hour", "week"): 7 * 24,
    ("hour", "month"): 31 * 24,
    ("day", "week"): 7,
    ("day", "month"): 31,
}
"""How many of one calendar window make up another, at most."""


@dataclass(frozen=True, slots=True)
class _Limit:
    """One amount of a rule that counts, where it is written, and what has to hold for the rule."""

    rule: Rule
    verb: Limiting
    unit: str
    amount: Amount
    path: Path
    tests: frozenset[object]

    def covers(self, other: _Limit) -> bool:
        """Tell whether its rule surely applies wherever that of another limit does."""
        return self.tests <= other.tests


def lint_limits(written: Written) -> None:
    """Report limits that are there in vain, or leave a gap beside them."""
    limits = [limit for limit in _limits(written.policies) if limit.rule.mode is Mode.ENFORCE]
    _never_reached(written, limits)
    _too_small(written, limits)
    _without_room(written, limits)
    _capability_alone(written, limits)
    _without_concurrency(written, limits)
    _filled_alone(written, limits)


def forgetful(policies: PolicySet, store: str) -> list[Diagnostic]:
    """Return a note if a store that forgets at a restart is to keep what counts for long."""
    if store.partition("://")[0] != "memory":
        return []
    long = [
        rule
        for rule in policies.rules
        if rule.mode is not Mode.OFF and (rule.verb.lasts > HOUR or _bans_long(rule))
    ]
    if not long:
        return []
    message = f"`{store}` forgets at every restart what {listed(rule.id for rule in long)} "
    message += "counts" if len(long) == 1 else "count"
    help = "keep counters in `lmdb://…` or `redis://…`; a window of an hour forgives a restart"
    return [Diagnostic("GR211", Severity.NOTE, message, long[0].span, None, None, help)]


def _bans_long(rule: Rule) -> bool:
    return rule.escalate is not None and rule.escalate.block_for > HOUR


def _limits(policies: PolicySet) -> Iterator[_Limit]:
    for rule in policies.rules:
        verb = rule.verb
        if isinstance(verb, Limiting):
            tests = conjuncts(rule.when)
            for path, amount in allowances(rule):
                if path[-1] != "burst":
                    unit = {"concurrency": "in flight", "distinct": "values"}.get(verb.name)
                    yield _Limit(rule, verb, unit or str(path[-1]), amount, path, tests)


def _refuses(limit: _Limit) -> bool:
    verb = limit.verb
    over = verb.verdicts[-1]
    bounded = limit.rule.start is None and limit.rule.end is None
    return bounded and limit.rule.mode is Mode.ENFORCE and over.effect.refuses


# GR207: a limit that another one keeps from ever being reached.


def _never_reached(written: Written, limits: list[_Limit]) -> None:
    alike: dict[tuple[str, tuple[str, ...]], list[_Limit]] = {}
    for limit in limits:
        if isinstance(limit.verb, Budget | Rate):
            alike.setdefault((limit.unit, limit.verb.key.facts), []).append(limit)
    for group in alike.values():
        for inner in group:
            for outer in group:
                if inner.rule is not outer.rule and _keeps_from(written.policies, outer, inner):
                    message = f"rule {quoted(inner.rule.id)} never comes to act: "
                    message += f"{quoted(outer.rule.id)} lets less through in that time"
                    label = f"{quoted(outer.rule.id)} is in {place_of(outer.rule.span)}"
                    help = "leave one of them out, or lower this one"
                    at = written.place(inner.rule).key_span(inner.path)
                    written.scope.findings.warn("GR207", at, message, label=label, help=help)
                    break


def _keeps_from(policies: PolicySet, outer: _Limit, inner: _Limit) -> bool:
    """Tell whether one limit refuses before another of another window can be reached."""
    if not outer.covers(inner) or _same_window(outer.verb, inner.verb) or not _refuses(outer):
        return False
    if outer.rule.unknown == "skip" and inner.rule.unknown != "skip":
        return False
    for exemption in policies.exemptions:
        if outer.rule.id in exemption.rules and inner.rule.id not in exemption.rules:
            return False
    pairs = _rows(outer.amount, inner.amount)
    if not pairs:
        return False
    # What is used above its estimate passes a limit once: room for that is left.
    slack = 1 if inner.unit == "requests" else 2
    return all(
        _at_most(outer, most) is not None and _fits(outer, most, inner, least, slack)
        for most, least in pairs
    )


def _same_window(one: Limiting, other: Limiting) -> bool:
    if isinstance(one, Budget) and isinstance(other, Budget):
        return one.window.kind == other.window.kind and one.window.length == other.window.length
    return isinstance(one, Rate) and isinstance(other, Rate)


def _rows(one: Amount, other: Amount) -> list[tuple[int | None, int | None]]:
    """Return the amounts that two limits have for the same request; none where that is open."""
    ours, theirs = possible_amounts(one), possible_amounts(other)
    if ours is None or theirs is None:
        return []
    if isinstance(one, Fixed) or isinstance(other, Fixed):
        return [(mine, its) for mine in ours for its in theirs]
    if isinstance(one, Lookup) and isinstance(other, Lookup) and one.fact == other.fact:
        keys = {*one.table, *other.table}
        rows = [
            (one.table.get(key, one.otherwise), other.table.get(key, other.otherwise))
            for key in keys
        ]
        return [*rows, (one.otherwise, other.otherwise), (one.missing, other.missing)]
    if isinstance(one, Banded) and isinstance(other, Banded) and one.fact == other.fact:
        starts = {*one.starts, *other.starts}
        rows = [(one.rows[one.row(at)], other.rows[other.row(at)]) for at in starts]
        return [*rows, (one.otherwise, other.otherwise), (one.missing, other.missing)]
    return []


def _at_most(limit: _Limit, amount: int | None) -> Fraction | None:
    """Return what a limit lets through before it refuses; a step may refuse below its amount."""
    if amount is None:
        return None
    refusing = [step.percent for step in limit.verb.on_the_way if step.verdict.effect.refuses]
    return Fraction(amount * min([100, *refusing]), 100)


def _fits(outer: _Limit, most: int | None, inner: _Limit, least: int | None, slack: int) -> bool:
    if least is None:
        return False
    steps = [step.percent for step in inner.verb.on_the_way]
    reached = Fraction(least * min([100, *steps]), 100)
    admitted = _at_most(outer, most)
    if admitted is None:
        return False
    if isinstance(inner.verb, Rate):
        return isinstance(outer.verb, Budget) and _fills_no_rate(
            outer.verb, admitted, inner, reached
        )
    assert isinstance(inner.verb, Budget)
    return slack * _within(outer, admitted, inner.verb) <= reached


def _within(outer: _Limit, admitted: Fraction, inner: Budget) -> Fraction | float:
    """Return the most that a limit lets through within the window of another."""
    kind = inner.window.kind
    if isinstance(outer.verb, Rate):
        burst = possible_amounts(outer.verb.burst or outer.amount)
        if burst is None or None in burst or kind == "lifetime":
            return math.inf
        most = max(amount for amount in burst if amount is not None)
        return most + admitted * Fraction(_length(inner), outer.verb.period)
    assert isinstance(outer.verb, Budget)
    window = outer.verb.window
    if window.kind == "lifetime":
        return admitted
    if kind == "lifetime":
        return math.inf
    nested = _NESTED.get((window.kind, kind))
    if nested is not None:
        return admitted * nested
    shortest = window.length or _SHORTEST[window.kind]
    times = math.ceil(Fraction(_length(inner), shortest))
    return admitted * (times if window.kind == "rolling" else times + 1)


def _length(budget: Budget) -> Fraction:
    """Return how long the time is, in microseconds, that a window adds up at most."""
    if budget.window.length is not None:
        return Fraction(budget.window.length * 61, 60)
    return Fraction(_LONGEST[budget.window.kind] + HOUR)


def _fills_no_rate(outer: Budget, admitted: Fraction, inner: _Limit, pace: Fraction) -> bool:
    rate = inner.verb
    assert isinstance(rate, Rate)
    burst = possible_amounts(rate.burst or rate.amount)
    if burst is None or outer.window.kind == "lifetime":
        return False
    smallest = min((amount for amount in burst if amount is not None), default=0)
    length = outer.window.length or _SHORTEST[outer.window.kind]
    at_once = admitted if outer.window.kind == "rolling" else 2 * admitted
    return at_once <= smallest and admitted * rate.period <= pace * length


# GR210: a limit that one request can be too large for.


def _too_small(written: Written, limits: list[_Limit]) -> None:
    caps = [model.max_output for model in written.policies.models.values() if model.max_output]
    typical = {"tokens": TYPICAL_TOKENS, "output_tokens": TYPICAL_TOKENS, "input_tokens": 0}
    told = f"a request of {TYPICAL_TOKENS:,} tokens does not fit"
    if caps:
        typical = dict.fromkeys(("tokens", "output_tokens"), min(caps))
        told = f"a request that states no output reserves {min(caps):,} tokens at least"
    prices = [
        Fraction(model.price.output * model.max_output, 1_000_000)
        for model in written.policies.models.values()
        if model.price is not None and model.max_output
    ]
    for limit in limits:
        amounts = possible_amounts(_at_once(limit)) or ()
        stated = [amount for amount in amounts if amount]
        needed: Fraction | int = typical.get(limit.unit, 0)
        label = told
        if limit.unit == "cost_usd":
            needed = min(prices, default=Fraction(0))
            label = "a request that states no output reserves more, whatever its model"
        if stated and min(stated) < needed:
            message = f"a typical request does not fit into the limit of {quoted(limit.rule.id)}"
            help = "give it room for a few requests, or `0` if nobody is to be served"
            at = written.place(limit.rule).key_span(limit.path)
            findings = written.scope.findings
            report = findings.warn if caps else findings.note
            report("GR210", at, message, label=label, help=help)


def _at_once(limit: _Limit) -> Amount:
    return (limit.verb.burst or limit.amount) if isinstance(limit.verb, Rate) else limit.amount


def _without_room(written: Written, limits: list[_Limit]) -> None:
    """Report limits of 0 that all requests meet, and that no exemption lifts or raises."""
    lifted = {name for exemption in written.policies.exemptions for name in exemption.rules}
    for limit in limits:
        if limit.rule.when != ALWAYS or limit.rule.id in lifted or not _refuses(limit):
            continue
        if limit.unit in _OF_ALL and set(possible_amounts(_at_once(limit)) or ()) == {0}:
            message = f"no request fits into the limit of {quoted(limit.rule.id)}"
            label = "it refuses whatever it applies to"
            help = "give it room, or write `block: {}` if nobody is to be served"
            at = written.place(limit.rule).key_span(limit.path)
            written.scope.findings.warn("GR210", at, message, label=label, help=help)


# GR212 and GR214: what has to stand beside a limit.


def _capability_alone(written: Written, limits: list[_Limit]) -> None:
    facts = written.policies.facts

    def said(limit: _Limit) -> set[str]:
        read = facts_of(limit.rule.when)
        return {name for name in read if facts[name].source is Source.CLIENT}

    general = [
        limit
        for limit in limits
        if isinstance(limit.verb, Budget) and limit.unit in _BY_TOKENS and not said(limit)
    ]
    narrow = [
        limit
        for limit in limits
        if isinstance(limit.verb, Budget) and "request.capability" in said(limit)
    ]
    if narrow and not general:
        limit = narrow[0]
        message = f"rule {quoted(limit.rule.id)} bounds a capability, and nothing bounds all tokens"
        label = "a client can call it `chat`"
        help = "add a budget of tokens that does not ask what the request calls itself"
        at = written.place(limit.rule).key_span(limit.path)
        written.scope.findings.note("GR212", at, message, label=label, help=help)


def _without_concurrency(written: Written, limits: list[_Limit]) -> None:
    metered = [
        limit for limit in limits if isinstance(limit.verb, Budget) and limit.unit in _METERED
    ]
    if metered and not any(isinstance(limit.verb, Concurrency) for limit in limits):
        limit = metered[0]
        message = f"nothing bounds how many requests can run over {quoted(limit.rule.id)} at once"
        label = "each in flight may use more than it reserved"
        help = "add a `concurrency` by account: it bounds what is used above a limit"
        at = written.place(limit.rule).key_span(limit.path)
        written.scope.findings.note("GR214", at, message, label=label, help=help)


# GR215: a limit for all that one account can use up.


def _filled_alone(written: Written, limits: list[_Limit]) -> None:
    for shared in limits:
        if not _refuses(shared) or isinstance(shared.verb, Distinct):
            continue
        if set(shared.verb.key.facts) & set(_OWN):
            continue
        pace = _pace(shared, shared.rule.when)
        own = [
            limit
            for limit in limits
            if limit.unit == shared.unit
            and _bounds_account(limit.verb.key.facts)
            and _refuses(limit)
            and limit.covers(shared)
        ]
        if pace == 0 or any(_pace(limit, shared.rule.when) < pace for limit in own):
            continue
        message = f"one account can fill the limit of {quoted(shared.rule.id)} alone"
        label = "all share it, and no limit on an account is smaller"
        help = f"add a limit in `{shared.unit}` with `key: account.id`"
        if shared.unit == "in flight":
            help = "add a `concurrency` with `key: account.id`"
        at = written.place(shared.rule).key_span(shared.path)
        written.scope.findings.warn("GR215", at, message, label=label, help=help)


def _bounds_account(key: tuple[str, ...]) -> bool:
    """Tell whether a limit by a key bounds an account, which has no second one elsewhere.

    Beside an account, an address makes a key that the account has as often as it has addresses.
    """
    if len(key) == 1:
        return key[0] in _OWN
    return bool(set(key) & set(_OWN)) and all(
        name.startswith("account.") or name in _OF_ACCOUNTS for name in key
    )


def _pace(limit: _Limit, when: Condition) -> Fraction | float:
    """Return how much a limit lets through in a microsecond, in the long run; in flight, at once.

    It is the most of what it has for requests of which a condition holds. An amount that a fact
    holds, or that an exemption raises, is one that somebody agreed to.
    """
    amounts = amounts_under(without_raises(limit.amount), when)
    if amounts is None:
        return 0
    if None in amounts:
        return math.inf
    most = Fraction(max(amount for amount in amounts if amount is not None))
    verb = limit.verb
    if isinstance(verb, Rate):
        return most / verb.period
    if isinstance(verb, Budget):
        if verb.window.kind == "lifetime" and set(verb.key.facts) & set(_OWN):
            return 0
        return most / verb.lasts
    return most


def amounts_under(amount: Amount, when: Condition) -> list[int | None] | None:
    """Return what an amount can be where a condition holds; None where it can be anything.

    Rows that the condition's own tests of the same fact leave out are left out.
    """
    if isinstance(amount, Lookup):
        tests = _tests_of(amount.fact, when)
        wanted = [test.operand for test in tests if test.operator == "in"]
        if wanted and isinstance(wanted[0], frozenset):
            return [amount.table.get(value, amount.otherwise) for value in wanted[0]]
    if isinstance(amount, Banded):
        tests = _tests_of(amount.fact, when)
        edges = [-math.inf, *amount.starts, math.inf]
        rows = [
            row
            for row, low, high in zip(amount.rows, edges, edges[1:], strict=False)
            if all(_meets(test, low, high) for test in tests)
        ]
        return [*rows, amount.missing]
    amounts = possible_amounts(amount)
    return None if amounts is None else list(amounts)


def _tests_of(fact: str, when: Condition) -> list[Comparison]:
    parts = when.parts if isinstance(when, Every) else (when,)
    return [part for part in parts if isinstance(part, Comparison) and part.fact == fact]


def _meets(test: Comparison, low: float, high: float) -> bool:
    """Tell whether a test of a number can hold from `low` on, and below `high`."""
    bound = test.operand
    if not isinstance(bound, int | float) or isinstance(bound, bool):
        return True
    return {"gt": high > bound, "gte": high > bound, "lt": low < bound, "lte": low <= bound}.get(
        test.operator, True
    )

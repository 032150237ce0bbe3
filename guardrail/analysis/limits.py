"""Limits that are there in vain, or leave a gap beside them, of all requests.

Of each question the requests that are refused anyway are left out: they are charged nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice

from guardrail.analysis.demands import (
    Demand,
    Index,
    amounts_of,
    as_strict_while_away,
    counts_with,
    unless_given_up,
    without,
)
from guardrail.analysis.formulas import (
    Formula,
    every,
    holds,
    leaf,
    some,
    variables_of,
)
from guardrail.analysis.space import CLOCK, Space
from guardrail.analysis.through import SHORTEST, Time, time_of, windows
from guardrail.analysis.witnesses import More, possible, possible_twice, some_point
from guardrail.engine import in_unit
from guardrail.errors import Diagnostic, Span, finding
from guardrail.model.amounts import Amount, Fixed, FromFact, without_raises
from guardrail.model.effects import Mode
from guardrail.model.facts import Source
from guardrail.model.rules import (
    BURST,
    Block,
    Budget,
    CountingVerb,
    Degrade,
    Distinct,
    Rate,
    Rule,
)

OWN = (
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
_BY_TOKENS = ("tokens", "input_tokens", "output_tokens", "cost_usd")
_ACCOUNT = "account.id"
_CAPABILITY = "request.capability"
_RENAMED = ("agentic", "code")
"""The capabilities that a client can call `chat` at the same endpoint."""
_VARYING = ("client.", "device.", "geo.", "network.", "time.")
"""The facts, by how they begin, that one account can have several values of."""
Row = tuple[int | None, int | None, Formula]
"""What a limit allows, None is unlimited, at once if it is a rate, and of which requests."""


@dataclass(frozen=True, slots=True, eq=False)
class Limit:
    """One amount of an enforced rule that counts: of which requests, and its `rows`.

    `written` is the amount's key in the rule; there are no rows where the amount is a fact's own.
    """

    rule: Rule
    verb: CountingVerb
    unit: str
    written: str
    when: Formula
    rows: tuple[Row, ...]
    own_rows: tuple[Row, ...]
    """The rows without what exemptions raise."""

    @property
    def key(self) -> tuple[str, ...]:
        """The facts of its key."""
        return self.verb.key.facts

    @property
    def refuses(self) -> bool:
        """Whether it refuses what is too much, at any time."""
        bounded = self.rule.start is None and self.rule.end is None
        return bounded and self.verb.verdicts[-1].effect.refuses


def limits_of(space: Space) -> tuple[Limit, ...]:
    """Return every amount of the enforced rules of the one policy set of a space."""
    return tuple(
        limit
        for rule in space.sets[0].rules
        if rule.mode is Mode.ENFORCE
        for limit in _of_rule(space, rule)
        if limit.when is not False
    )


def _of_rule(space: Space, rule: Rule) -> Iterator[Limit]:
    verb = rule.verb
    if isinstance(verb, Block | Degrade):
        return
    burst = verb.burst or verb.amount if isinstance(verb, Rate) else Fixed(None)
    when = space.applies(0, rule)
    for written, amount in verb.written:
        if written == BURST:
            continue
        yield Limit(
            rule=rule,
            verb=verb,
            unit=verb.counted or written,
            written=written,
            when=when,
            rows=_rows(space, amount, burst),
            own_rows=_rows(space, without_raises(amount), without_raises(burst)),
        )


def _rows(space: Space, amount: Amount, burst: Amount) -> tuple[Row, ...]:
    if isinstance(without_raises(amount), FromFact) or isinstance(without_raises(burst), FromFact):
        return ()
    return tuple(
        (most, at_once, both)
        for most, where in amounts_of(space, 0, amount).items()
        for at_once, there in amounts_of(space, 0, burst).items()
        if (both := every((where, there), space.full)) is not False
    )


def lint_limits(
    space: Space, limits: Sequence[Limit], asked: Sequence[Demand], left: dict[str, Span]
) -> Iterator[Diagnostic]:
    """Yield what is found of limits; `asked` is all that is asked of requests.

    What is given up goes into `left`, by what it was about.
    """
    elsewhere = without(space, [one for one in asked if one.refuses])
    vain: set[str] = set()
    counting = [limit for limit in limits if isinstance(limit.verb, Budget | Rate)]
    acting = Index([limit for limit in counting if limit.refuses])
    for limit in limits:
        found = chain(
            _never_reached(space, limit, acting, elsewhere, vain),
            _filled_alone(space, limit, limits, elsewhere),
        )
        yield from unless_given_up(found, limit.rule, left)
    alone = (
        one
        for limit in limits
        for one in unless_given_up(
            _capability_alone(space, limit, limits, elsewhere), limit.rule, left
        )
    )
    yield from islice(alone, 1)


def _found(
    space: Space, code: str, limit: Limit, message: str, label: str, help: str
) -> Diagnostic:
    return finding(code, message, _at(space, limit), help, label=label)


def _at(space: Space, limit: Limit) -> Span:
    return space.sets[0].places.get((limit.rule.id, limit.written), limit.rule.span)


# GR207: a limit that another one keeps from ever being reached.


def _never_reached(
    space: Space, inner: Limit, acting: Index[Limit], elsewhere: More, vain: set[str]
) -> Iterator[Diagnostic]:
    if not isinstance(inner.verb, Budget | Rate):
        yield from _counts_one(space, inner)
        return
    if inner.rows and all(most is None for most, _, _ in inner.rows):
        if not possible(space, [inner.when]):
            return
        message = f"rule `{inner.rule.id}` never comes to act: it is unlimited for every request"
        help = "leave it out, or give it an amount"
        yield finding("GR207", message, _at(space, inner), help)
        return
    left, idle, less = 0, [], []
    for most, at_once, where in inner.rows:
        here = every((inner.when, where), space.full)
        first = None if most is None else some_point(space, [here], elsewhere)
        if first is None:
            continue
        shown = [first]
        for outer in acting.at(first):
            row = most, at_once, here
            if outer.rule.id in vain or not _keeps_from(space, outer, inner, row, elsewhere, shown):
                continue
            idle.append((most, outer))
            if _keeps_from(space, outer, inner, row, elsewhere, shown, is_less=True):
                less.append((most, outer))
            break
        else:
            left += 1
    if idle and not left:
        vain.add(inner.rule.id)
        yield _in_vain(space, inner, idle[0], is_whole=True)
    elif less:
        yield _in_vain(space, inner, less[0], is_whole=False)


def _counts_one(space: Space, limit: Limit) -> Iterator[Diagnostic]:
    """Find a rule that counts the values of a fact, and keeps a counter for each of them."""
    verb = limit.verb
    if isinstance(verb, Distinct) and verb.count in limit.key and possible(space, [limit.when]):
        if any(most == 0 for most, _, _ in limit.rows):
            return
        message = f"rule `{limit.rule.id}` never comes to act: it keeps a counter for each "
        message += f"`{verb.count}`, and finds one in it"
        help = "let `key` be what they have in common, such as `device.fingerprint`"
        yield finding("GR207", message, _at(space, limit), help)


def _in_vain(
    space: Space, inner: Limit, idle: tuple[int | None, Limit], *, is_whole: bool
) -> Diagnostic:
    most, outer = idle
    name, other = inner.rule.id, outer.rule.id
    message = f"rule `{name}` never comes to act: `{other}` lets less through in that time"
    help = "leave one of them out, or lower this one"
    if not is_whole:
        amount = in_unit(most or 0, inner.unit)
        message = f"nobody has the {amount:,.10g} of `{name}`: "
        message += f"`{other}` counts the same requests, and lets less through in that time"
        help = f"lower the amount, or let `{other}` leave out those whom it is for"
    label = f"`{other}` is in {outer.rule.span.file}:{outer.rule.span.line}"
    return _found(space, "GR207", inner, message, label, help)


def _keeps_from(
    space: Space,
    outer: Limit,
    inner: Limit,
    row: Row,
    elsewhere: More,
    shown: list[dict[str, int]],
    *,
    is_less: bool = False,
) -> bool:
    """Tell whether one limit refuses before an amount of another is reached by any request.

    `is_less`: it lets less through than that amount, and not as much. `shown` are requests that
    the other one counts; one that shows that it is not so is added.
    """
    if inner.rule is outer.rule or inner.unit != outer.unit:
        return False
    if not counts_with(outer.rule, inner.rule):
        return False
    if not outer.rows or not as_strict_while_away(outer.rule, inner.rule):
        return False
    # What is used above its estimate passes a limit once: room for that is left, but not where it
    # fills both alike.
    slack = 1 if inner.unit == "requests" or _same_time(outer.verb, inner.verb) else 2
    zone = space.sets[0].timezone
    *least, here = row
    more = [
        where
        for *most, where in outer.rows
        if not _fits(outer, most, inner, least, slack, zone, is_less=is_less)
    ]
    if any(not holds(outer.when, one) or any(holds(w, one) for w in more) for one in shown):
        return False
    for where in (space.opposite(outer.when), *more):
        found = some_point(space, [here, where], elsewhere)
        if found is not None:
            shown.append(found)
            return False
    return True


def _same_time(one: CountingVerb, other: CountingVerb) -> bool:
    if isinstance(one, Rate) or isinstance(other, Rate):
        return isinstance(one, Rate) and isinstance(other, Rate)
    first, second = one.covers, other.covers
    if first is None or second is None:
        return False
    return (first.kind, first.length) == (second.kind, second.length)


def _fits(
    outer: Limit,
    most: Sequence[int | None],
    inner: Limit,
    least: Sequence[int | None],
    slack: int,
    zone: str,
    *,
    is_less: bool,
) -> bool:
    """Tell whether a limit is not reached where another has admitted as much as it does.

    `most` is what that one allows, and at once if it is a rate; `least` what the first one does.
    """
    if least[0] is None:
        return True
    if most[0] is None:
        return False
    steps = [step.percent for step in inner.verb.on_the_way]
    reached = Fraction(least[0] * (100 if is_less else min([100, *steps])), 100)
    refusing = [step.percent for step in outer.verb.on_the_way if step.verdict.effect.refuses]
    admitted = Fraction(most[0] * min([100, *refusing]), 100)
    if isinstance(inner.verb, Rate):
        if isinstance(outer.verb, Rate):
            slower = slack * admitted * inner.verb.period <= reached * outer.verb.period
            same = is_less and admitted * inner.verb.period == reached * outer.verb.period
            return slower and not same and slack * _at_once(most) <= _at_once(least)
        return isinstance(outer.verb, Budget) and _fills_no_rate(
            outer.verb, admitted, inner.verb, least[1], reached
        )
    assert isinstance(inner.verb, Budget)
    within = slack * _within(outer, admitted, most[1], inner.verb, zone)
    return within < reached or (within == reached and not is_less)


def _at_once(allowed: Sequence[int | None]) -> float:
    return math.inf if allowed[1] is None else allowed[1]


def _within(
    outer: Limit, admitted: Fraction, burst: int | None, inner: Budget, zone: str
) -> Fraction | float:
    """Return the most that a limit lets through within the window of another."""
    if isinstance(outer.verb, Rate):
        longest = _time(inner).longest(zone)
        if burst is None or longest is None:
            return math.inf
        return burst + admitted * Fraction(longest, outer.verb.period)
    assert isinstance(outer.verb, Budget)
    if _same_time(outer.verb, inner):
        return admitted
    times = windows(outer.verb.window, _time(inner), zone)
    return math.inf if times is None else admitted * times


def _time(budget: Budget) -> Time:
    """Return the time that a window adds up at most: of a rolling one sixty parts, and one more."""
    length = budget.window.length
    return time_of(budget.window) if length is None else Time(-(-length * 61 // 60))


def _fills_no_rate(
    outer: Budget, admitted: Fraction, rate: Rate, burst: int | None, pace: Fraction
) -> bool:
    if burst is None or outer.window.kind == "lifetime":
        return burst is None
    length = outer.window.length or SHORTEST[outer.window.kind]
    at_once = admitted if outer.window.kind == "rolling" else 2 * admitted
    return at_once <= burst and admitted * rate.period <= pace * length


# GR212: a ceiling on what a client says of its request.


def _capability_alone(
    space: Space, limit: Limit, limits: Sequence[Limit], elsewhere: More
) -> Iterator[Diagnostic]:
    if not _bounds(limit) or _CAPABILITY not in variables_of(limit.when):
        return
    called = space.typed[0][_CAPABILITY]
    sensitive = sum(1 << place for place, value in enumerate(called) if value in _RENAMED)
    chat = sum(1 << place for place, value in enumerate(called) if value == "chat")
    facts = space.sets[0].facts
    said = {name for name in space.full if name in facts and facts[name].source is Source.CLIENT}
    here = every((limit.when, leaf(_CAPABILITY, sensitive, space.full)), space.full)
    if here is False:
        return
    broad = [one for one in limits if _bounds(one) and one.unit in _BY_TOKENS]
    escaping = [
        leaf(_CAPABILITY, chat, space.full),
        *(space.opposite(one.when) for one in (limit, *broad)),
    ]
    if not possible_twice(space, [here], escaping, said, elsewhere):
        return
    message = f"rule `{limit.rule.id}` bounds a capability, and nothing bounds all tokens"
    label = "a client can call it `chat`"
    help = "add a budget of tokens that does not ask what the request calls itself"
    yield _found(space, "GR212", limit, message, label, help)


def _bounds(limit: Limit) -> bool:
    return isinstance(limit.verb, Budget) and limit.refuses


# GR215: a limit for all that one account can use up.


def _filled_alone(
    space: Space, shared: Limit, limits: Sequence[Limit], elsewhere: More
) -> Iterator[Diagnostic]:
    if not shared.refuses or isinstance(shared.verb, Distinct) or set(shared.key) & set(OWN):
        return
    own = [
        limit
        for limit in limits
        if limit.unit == shared.unit and _bounds_account(limit.key) and limit.refuses
    ]
    if _can_fill(space, shared, own, elsewhere):
        message = f"one account can fill the limit of `{shared.rule.id}` alone"
        label = "all share it, and no limit on an account is smaller"
        help = f"add a limit in `{shared.unit}` with `key: account.id`"
        if shared.unit == "in flight":
            help = "add a `concurrency` with `key: account.id`"
        yield _found(space, "GR215", shared, message, label, help)


def _bounds_account(key: tuple[str, ...]) -> bool:
    """Tell whether a limit by a key bounds an account, which has no second one elsewhere.

    Beside an account, an address makes a key that the account has as often as it has addresses.
    """
    if len(key) == 1:
        return key[0] in OWN
    return bool(set(key) & set(OWN)) and all(
        name.startswith("account.") or name in _OF_ACCOUNTS for name in key
    )


def _can_fill(space: Space, shared: Limit, own: Sequence[Limit], elsewhere: More) -> bool:
    """Tell whether the requests of a limit leave one account as much as all have together."""
    full = space.full
    paced = [(_pace(shared, most, shared), where) for most, _, where in shared.own_rows if most]
    if not paced:
        return False
    least = min(pace for pace, _ in paced)
    filled = every((shared.when, some((where for _, where in paced), full)), full)
    if _ACCOUNT in full:
        there = full[_ACCOUNT] & ~space.missing(0, _ACCOUNT)
        filled = every((filled, leaf(_ACCOUNT, there, full)), full)
    bounding: list[tuple[Limit, Formula, Fraction | float]] = []
    for limit in own:
        rows: Sequence[Row] = limit.own_rows or ((0, None, True),)
        smaller = [
            (every((where, there), full), _pace(limit, most, shared))
            for most, _, where in rows
            for pace, there in paced
            if most is not None and _pace(limit, most, shared) < pace
        ]
        where = every((limit.when, some((one for one, _ in smaller), full)), full)
        if where is not False:
            bounding.append((limit, where, max(pace for _, pace in smaller)))
    # Collects the limits that bound some request each, until every request meets one of them.
    chosen: list[tuple[Limit, Formula, Fraction | float]] = []
    while True:
        left = [space.opposite(where) for _, where, _ in chosen]
        point = some_point(space, [filled, *left], elsewhere)
        if point is None:
            break
        meets = [one for one in bounding if holds(one[1], point)]
        if not meets:
            return True
        chosen.append(min(meets, key=lambda one: one[2]))
    if any(not possible(space, [filled, space.opposite(w)], elsewhere) for _, w, _ in bounding):
        return False
    return any(
        sum(
            pace
            for _, there, pace in chosen
            if _of_one_account(space, filled, where, there, elsewhere)
        )
        >= least
        for _, where, _ in chosen
    )


def _of_one_account(
    space: Space, filled: Formula, one: Formula, other: Formula, elsewhere: More
) -> bool:
    """Tell whether an account can meet both of two limits, by requests that differ."""
    facts = space.sets[0].facts
    varying = {
        name
        for name in space.full
        if name != CLOCK
        and name in facts
        and (facts[name].source is Source.CLIENT or name.startswith(_VARYING))
    }
    return possible_twice(space, [filled, one], [filled, other], varying, elsewhere)


def _pace(limit: Limit, most: int, shared: Limit) -> Fraction | float:
    """Return how much a limit lets through in a microsecond, in the long run; in flight, at once.

    What an account has for ever is nothing in the long run, and all that counts beside what is
    shared for ever. An amount that a fact holds, or that an exemption raises, is one that somebody
    agreed to.
    """
    verb = limit.verb
    if not limit.own_rows:
        return Fraction(0)
    if not isinstance(verb, Budget | Rate) or (_is_for_ever(verb) and _is_for_ever(shared.verb)):
        return Fraction(most)
    if _is_for_ever(shared.verb):
        return math.inf
    return Fraction(0) if _is_for_ever(verb) else Fraction(most, verb.lasts)


def _is_for_ever(verb: CountingVerb) -> bool:
    return isinstance(verb, Budget) and verb.window.kind == "lifetime"

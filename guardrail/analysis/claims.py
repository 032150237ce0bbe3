"""Whether the claims of a policy set hold for all requests, and what shows that they do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from guardrail.analysis.bound import Term, cheapest
from guardrail.analysis.comparing import Standing
from guardrail.analysis.demands import Demand, amounts_of, demands, told, without
from guardrail.analysis.formulas import (
    EFFORT,
    EffortError,
    Formula,
    every,
    given,
    holds,
    leaf,
    some,
)
from guardrail.analysis.space import Space
from guardrail.analysis.through import Through, Time, of_budget, of_rate, time_of
from guardrail.analysis.witnesses import More, Witness, possible, smallest
from guardrail.engine import in_unit
from guardrail.model.claims import AtMost, Claim
from guardrail.model.conditions import Comparison, Condition
from guardrail.model.effects import Effect, Mode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Budget, Rate, Rule

_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What became of one claim: it holds if `failure` is None.

    `failure` says in words what is wrong, and `witness` is a request that shows it, None where
    there is none to show. `is_open` tells that it may hold or not: the question was given up.
    """

    claim: Claim
    failure: str | None = None
    witness: Witness | None = None
    is_open: bool = False


def proved(policies: PolicySet, now: int, effort: int = EFFORT) -> tuple[Proof, ...]:
    """Return what becomes of each claim, at `now` (microseconds) and later.

    A question that takes more splits than `effort` is left open.
    """
    if not policies.claims:
        return ()
    conditions: list[Condition] = [claim.when for claim in policies.claims]
    keys = {name for claim in policies.claims for most in claim.at_most for name in most.key}
    conditions += [Comparison(name, "exists", True, name) for name in sorted(keys)]
    space = Space((policies,), now, conditions, effort)
    asked = demands(space, 0)
    return tuple(_proof(space, asked, claim) for claim in policies.claims)


def _proof(space: Space, asked: Sequence[Demand], claim: Claim) -> Proof:
    about = space.condition(0, claim.when, claim.unknown_holds)
    try:
        if not possible(space, [about]):
            return Proof(claim=claim, failure="is about no request: its `when` can never be true")
        if claim.never:
            found = next(_got(space, asked, claim, about), None)
        elif claim.at_most:
            found = next(_taken(space, asked, claim, about), None)
        else:
            found = _admitted(space, asked, claim, about)
    except EffortError:
        failure = "may hold or not: the conditions that it rests on are too entangled to be judged"
        return Proof(claim=claim, failure=failure, is_open=True)
    if found is None:
        return Proof(claim=claim)
    return Proof(claim=claim, failure=found[0], witness=found[1])


Shown = tuple[str, Witness | None]


# Effects that are never had.


def _got(space: Space, asked: Sequence[Demand], claim: Claim, about: Formula) -> Iterator[Shown]:
    """Yield the ways to get an effect that is never to be had, the smallest request first."""
    if claim.by is not None:
        asked = [one for one in asked if one.name == claim.by]
    found = [shown for effect in claim.never for shown in _gets(space, asked, about, effect)]
    yield from sorted(found, key=lambda shown: len(shown[1].facts))


def _gets(
    space: Space, asked: Sequence[Demand], about: Formula, effect: Effect
) -> Iterator[tuple[str, Witness]]:
    static = [one for one in asked if not one.counts]
    if effect is Effect.ALLOW:
        witness = smallest(space, [about], without(space, static))
        if witness is not None:
            yield "does not hold: a request gets `allow`", witness
        return
    elsewhere = without(space, [one for one in static if one.effect > effect])
    for one in asked:
        if one.effect is effect:
            witness = smallest(space, [about, one.when], elsewhere)
            if witness is not None:
                what = f"a request gets `{effect}` by `{one.name}`"
                if one.counts:
                    limit = told(one, witness.chosen)
                    what = f"a request can get `{effect}` by `{one.name}` ({limit})"
                yield f"does not hold: {what}", witness


# How much is served at most.


def _taken(space: Space, asked: Sequence[Demand], claim: Claim, about: Formula) -> Iterator[Shown]:
    for most in claim.at_most:
        shown = _more_than(space, asked, most, about)
        if shown is not None:
            yield shown


def _more_than(space: Space, asked: Sequence[Demand], most: AtMost, about: Formula) -> Shown | None:
    """Return what shows that more may be served, None if the claim holds.

    Rules of which each request meets one at least bound it by their sum; the smallest is looked
    for by collecting requests, and the rules that each of them meets.
    """
    there = [
        leaf(name, space.full[name] & ~space.missing(0, name), space.full) for name in most.key
    ]
    here = every([about, *there], space.full)
    elsewhere = without(space, [one for one in asked if one.refuses])
    limited: dict[str, tuple[Term, Formula]] = {}
    for rule in space.sets[0].rules:
        found = _limits(space, rule, most, here, elsewhere)
        if found is not None:
            limited[rule.id] = found
    terms = {name: term for name, (term, _) in limited.items()}
    met: list[frozenset[str]] = []
    while True:
        chosen = cheapest(terms, met) if met else ()
        total = sum(term.total for term in chosen)
        if total > most.amount:
            largest = max(chosen, key=lambda term: term.each)
            witness = smallest(space, [here, limited[largest.rule][1]], elsewhere)
            rules = " + ".join(f"{_amount(t.each, most.unit)} by `{t.rule}`" for t in chosen)
            text = f"does not hold: up to {_amount(total, most.unit)} may be served ({rules})"
            return text, witness
        left = [space.opposite(limited[term.rule][1]) for term in chosen]
        seen: dict[str, int] = {}
        if not possible(space, [here, *left], _noting(elsewhere, seen)):
            return None
        meets = frozenset(name for name, (_, where) in limited.items() if holds(where, seen))
        if not meets:
            free = [space.opposite(where) for _, where in limited.values()]
            witness = smallest(space, [here, *free], elsewhere)
            return f"does not hold: no rule limits the {most.unit} of a request", witness
        met.append(meets)


def _noting(elsewhere: More, seen: dict[str, int]) -> More:
    def more(chosen: Mapping[str, int]) -> list[Formula]:
        added = elsewhere(chosen)
        if not added:
            seen.update(chosen)
        return added

    return more


def _limits(
    space: Space, rule: Rule, most: AtMost, here: Formula, elsewhere: More
) -> tuple[Term, Formula] | None:
    """Return what one rule lets through, and of which requests, None if it bounds nothing."""
    verb = rule.verb
    if rule.mode is not Mode.ENFORCE or rule.end is not None:
        return None
    if not isinstance(verb, Budget | Rate) or most.unit not in verb.units:
        return None
    same = {*most.key, *(("actor.id",) if "account.id" in most.key else ())}
    if not set(verb.key.facts) <= same or not verb.verdicts[-1].effect.refuses:
        return None
    through = _through(space, rule, verb, most)
    applies = space.applies(0, rule)
    bounded = some((where for found, where in through if found is not None), space.full)
    where = every((applies, bounded), space.full)
    if where is False:
        return None
    found = ((found.total, there) for found, there in through if found is not None)
    for total, there in sorted(found, key=lambda row: row[0], reverse=True):
        if possible(space, [here, applies, there], elsewhere):
            return Term(rule=rule.id, keys=1, each=total, formula=""), where
    return None


def _through(
    space: Space, rule: Rule, verb: Budget | Rate, most: AtMost
) -> list[tuple[Through | None, Formula]]:
    """Return what a rule lets through in a time by each of its amounts, and of which requests."""
    time, zone = time_of(most.over), space.sets[0].timezone
    if isinstance(verb, Budget):
        amount = verb.amounts[verb.units.index(most.unit)][1]
        return [
            (None if value is None else of_budget(verb, value, time, zone), where)
            for value, where in amounts_of(space, 0, amount).items()
        ]
    bursts = amounts_of(space, 0, verb.burst or verb.amount)
    return [
        (_paced(verb, value, burst, time, zone), every((where, there), space.full))
        for value, where in amounts_of(space, 0, verb.amount).items()
        for burst, there in bursts.items()
    ]


def _paced(
    rate: Rate, value: int | None, burst: int | None, time: Time, zone: str
) -> Through | None:
    if value is None or burst is None:
        return None
    return of_rate(rate, [(value, burst)], time, zone) if value and burst else Through(0)


def _amount(value: int, unit: str) -> str:
    shown = in_unit(value, unit)
    return f"{shown:,} {'USD' if unit == 'cost_usd' else unit}"


# What a client says.


def _admitted(space: Space, asked: Sequence[Demand], claim: Claim, about: Formula) -> Shown | None:
    """Return what shows that saying something admits more than silence does."""
    silent = dict(space.full)
    for name in claim.said:
        if name in silent:
            silent[name] = 1
    unsaid = [
        replace(
            one,
            when=every((about, given(one.when, silent, space.full)), space.full),
            figures=tuple((row, given(where, silent, space.full)) for row, where in one.figures),
        )
        for one in asked
    ]
    standing = Standing(space, [one for one in unsaid if one.when is not False], asked, {}, [])
    shown: list[tuple[Demand, Witness]] = []
    for one in standing.a:
        witness = standing.uncovered(one)
        if witness is not None:
            shown.append((one, witness))
    if not shown:
        return None
    one, witness = min(shown, key=lambda pair: len(pair[1].facts))
    said = [name for name in claim.said if name in witness.facts]
    names = "`, `".join(said[:_NAMED])
    text = f"does not hold: who says `{names}` is no longer asked for what `{one.name}` asks of "
    return f"{text}others ({told(one, witness.chosen)})", witness

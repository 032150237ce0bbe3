"""What a policy set asks of requests, in parts that can be compared, and which part is stricter.

A static refusal and an obligation are decided by the request alone. A limit is taken as it is
written: how much, in what time, for whom. One limit is at least as strict as another if it counts
all that the other counts, for the same or fewer keys, over the same or a longer time, and allows
no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, product
from typing import Generic, Protocol, TypeVar, cast

from guardrail.analysis.formulas import (
    And,
    EffortError,
    Formula,
    Leaf,
    Or,
    bits,
    every,
    holds,
    leaf,
    some,
)
from guardrail.analysis.space import Space
from guardrail.analysis.through import LONGEST, LONGEST_CHANGE
from guardrail.analysis.witnesses import More
from guardrail.engine import allowance, in_unit
from guardrail.errors import Diagnostic, Span
from guardrail.model.amounts import DAY, HOUR, Amount, Fixed, Raised, larger
from guardrail.model.effects import Effect, Mode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import (
    Block,
    Budget,
    Concurrency,
    Degrade,
    Distinct,
    Escalate,
    Exemption,
    Limiting,
    Obligations,
    Rate,
    Rule,
    Verdict,
    Window,
)

Obligation = tuple[str, object]
Figures = tuple[Fraction, ...]
Rows = tuple[tuple[Figures, Formula], ...]

_STRICTNESS = {"allow": 0, None: 1, "local": 1, "deny": 2}
_WITHIN = {"hour": ("day", "week", "month"), "day": ("week", "month")}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Demand:
    """One thing that a rule asks for, and of which requests.

    `when` is where it does. `figures` are what it allows at most, by request, less being stricter;
    there are none where nothing is counted. `rule` is None for a required fact, named by `name`.
    `counted` says what is counted, `verb` in which way (empty: nothing is). `obligation` is what a
    degrade asks for. `percent` is the step's, `escalate` the ban that follows refusals.
    """

    rule: Rule | None
    name: str
    effect: Effect
    when: Formula
    verb: str = ""
    counted: str = ""
    key: tuple[str, ...] = ()
    window: Window | None = None
    lasts: int = 0
    percent: int = 100
    figures: Rows = ()
    obligation: Obligation | None = None
    escalate: Escalate | None = None
    verdict: Verdict | None = None

    @property
    def counts(self) -> bool:
        """Whether it depends on what was counted before."""
        return bool(self.verb)

    @property
    def refuses(self) -> bool:
        """Whether it refuses whatever was counted."""
        return not self.verb and self.effect.refuses


def unless_given_up(
    found: Iterable[Diagnostic], about: Rule | Exemption, left: dict[str, Span]
) -> Iterator[Diagnostic]:
    """Yield what is found of a rule or an exemption; one that is given up goes into `left`."""
    try:
        yield from found
    except EffortError:
        left[f"{'rule' if isinstance(about, Rule) else 'exemption'} `{about.id}`"] = about.span


MOST_INDEXED = 256
"""A demand that is met by more values of facts than this is not found by those facts."""


class Conditional(Protocol):
    """What is there for some requests."""

    @property
    def when(self) -> Formula:
        """Of which requests."""


T = TypeVar("T", bound=Conditional)


class Index(Generic[T]):
    """Finds the demands that a request meets, by the values that each needs of facts.

    Of a demand that needs several choices of values, the first is in the first row, and so on.
    """

    def __init__(self, every_demand: Sequence[T]) -> None:
        """Take the demands, in the order in which they are to be found."""
        self._all = every_demand
        rows: list[tuple[int, dict[str, dict[int, int]]]] = []
        # What of each demand is not in the rows.
        self._rest: list[tuple[Formula, ...]] = []
        for place, one in enumerate(every_demand):
            parts = one.when.parts if isinstance(one.when, And) else (one.when,)
            choices = [(_choice(part), part) for part in parts]
            self._rest.append(tuple(part for choice, part in choices if not choice))
            for number, leaves in enumerate(choice for choice, _ in choices if choice):
                if number == len(rows):
                    rows.append((0, {}))
                needed, by = rows[number]
                rows[number] = needed | 1 << place, by
                for part in leaves:
                    values = by.setdefault(part.variable, {})
                    for value in bits(part.mask):
                        values[value] = values.get(value, 0) | 1 << place
        self._whole = (1 << len(every_demand)) - 1
        self._rows = [(self._whole & ~needed, by) for needed, by in rows]

    def at(self, chosen: Mapping[str, int]) -> Iterator[T]:
        """Yield the demands that a request meets, given the places of its values."""
        found = self._whole
        for others, by in self._rows:
            met = others
            for name, values in by.items():
                met |= values.get(chosen[name], 0)
            found &= met
        for place in bits(found):
            for part in self._rest[place]:
                if not holds(part, chosen):
                    break
            else:
                yield self._all[place]


def _choice(part: Formula) -> tuple[Leaf, ...]:
    """Return the sets of values of which a part needs one, none if it is no such choice."""
    parts = part.parts if isinstance(part, Or) else (part,)
    leaves = tuple(one for one in parts if isinstance(one, Leaf))
    few = sum(one.mask.bit_count() for one in leaves) <= MOST_INDEXED
    return leaves if few and len(leaves) == len(parts) else ()


def demands(space: Space, side: int) -> tuple[Demand, ...]:
    """Return all that one of the policy sets asks for, rule by rule, shadow rules left out."""
    policies = space.sets[side]
    found: list[Demand] = []
    for name, fact in policies.facts.items():
        if fact.required:
            missing = leaf(name, space.missing(side, name), space.full)
            found.append(Demand(rule=None, name=name, effect=Effect.BLOCK, when=missing))
    for rule in policies.rules:
        if rule.mode is Mode.ENFORCE:
            found += _of_rule(space, side, rule)
    return tuple(one for one in found if one.when is not False)


def _of_rule(space: Space, side: int, rule: Rule) -> Iterator[Demand]:
    verb, when = rule.verb, space.applies(side, rule)
    if isinstance(verb, Block):
        yield Demand(rule=rule, name=rule.id, effect=Effect.BLOCK, when=when, verdict=verb.verdict)
    elif isinstance(verb, Degrade):
        yield from _obliged(space, side, rule, verb.verdict, when)
    elif isinstance(verb, Budget):
        for unit, amount in verb.amounts:
            yield from _budget(space, side, rule, verb, unit, amount, when)
        nothing = some((_where(space, side, amount, 0) for _, amount in verb.amounts), space.full)
        yield from _nothing(space, side, rule, verb.over, every((when, nothing), space.full))
    elif isinstance(verb, Rate):
        yield from _rate(space, side, rule, verb, when)
    else:
        yield from _set(space, side, rule, verb, when)


def _obliged(
    space: Space, side: int, rule: Rule, verdict: Verdict, when: Formula, **more: object
) -> Iterator[Demand]:
    """Yield a demand for each thing that a degrade asks for."""
    for obligation in obligations_of(verdict.obligations):
        here = when
        if obligation[0] == "model":
            moved = _moved(space, side, str(obligation[1]))
            here = every((when, moved), space.full)
        yield Demand(
            rule=rule,
            name=rule.id,
            effect=Effect.DEGRADE,
            when=here,
            obligation=obligation,
            verdict=verdict,
            **more,  # type: ignore[arg-type]
        )


def obligations_of(obligations: Obligations | None) -> Iterator[Obligation]:
    """Yield what a degrade asks for, one thing at a time."""
    if obligations is None:
        return
    if obligations.model is not None:
        yield "model", obligations.model
    if obligations.max_output_tokens is not None:
        yield "max_output_tokens", obligations.max_output_tokens
    for name in obligations.disable:
        yield "disable", name
    for name, value in sorted(obligations.extra.items()):
        yield name, value


def _moved(space: Space, side: int, target: str) -> Formula:
    """Return where the model asked for leads to a weaker one."""
    policies, mask = space.sets[side], 0
    for place, model in enumerate(space.typed[side]["request.model"]):
        if model is not None and target in policies.weaker_than(model):
            mask |= 1 << place
    return leaf("request.model", mask, space.full)


def amounts_of(space: Space, side: int, amount: Amount) -> dict[int | None, Formula]:
    """Return what an amount can be, None for unlimited, and where it is that."""
    if isinstance(amount, Fixed):
        return {amount.value: True}
    if isinstance(amount, Raised):
        return _raised(space, side, amount)
    masks: dict[int | None, int] = {}
    for place, value in enumerate(space.typed[side][amount.fact]):
        most = allowance(amount, {} if value is None else {amount.fact: value}, 0)
        masks[most] = masks.get(most, 0) | 1 << place
    return {most: leaf(amount.fact, mask, space.full) for most, mask in masks.items()}


def _raised(space: Space, side: int, amount: Raised) -> dict[int | None, Formula]:
    """Return what an amount can be that an exemption raises, and where it is that."""
    holds = space.condition(side, amount.when, amount.unknown_holds)
    raised = every((holds, space.during(None, amount.expires)), space.full)
    parts: dict[int | None, list[Formula]] = {}
    for own, where in amounts_of(space, side, amount.own).items():
        most = larger(own, amount.least)
        if most == own:
            parts.setdefault(own, []).append(where)
        else:
            parts.setdefault(most, []).append(every((where, raised), space.full))
            rest = every((where, space.opposite(raised)), space.full)
            parts.setdefault(own, []).append(rest)
    found = {most: some(wheres, space.full) for most, wheres in parts.items()}
    return {most: where for most, where in found.items() if where is not False}


def _where(space: Space, side: int, amount: Amount, value: int | None) -> Formula:
    return amounts_of(space, side, amount).get(value, False)


def _nothing(space: Space, side: int, rule: Rule, over: Verdict, when: Formula) -> Iterator[Demand]:
    """Yield what a limit asks for where it allows nothing."""
    if when is False:
        return
    if over.effect is Effect.DEGRADE:
        yield from _obliged(space, side, rule, over, when)
    else:
        yield Demand(rule=rule, name=rule.id, effect=Effect.BLOCK, when=when, verdict=over)


def _limit(
    space: Space, side: int, rule: Rule, verdict: Verdict, when: Formula, **more: object
) -> Iterator[Demand]:
    """Yield what a limit asks for once it is reached, and the ban that follows."""
    if when is False:
        return
    if verdict.effect is Effect.DEGRADE:
        yield from _obliged(space, side, rule, verdict, when, **more)
    elif verdict.effect.refuses:
        limit = Demand(
            rule=rule,
            name=rule.id,
            effect=verdict.effect,
            when=when,
            verdict=verdict,
            **more,  # type: ignore[arg-type]
        )
        yield limit


def _ban(rule: Rule, found: Sequence[Demand]) -> Iterator[Demand]:
    yield from found
    if rule.escalate is None:
        return
    for one in found:
        if one.effect.refuses:
            yield Demand(
                rule=rule,
                name=rule.id,
                effect=Effect.BLOCK,
                when=one.when,
                verb=one.verb,
                counted=one.counted,
                key=one.key,
                window=one.window,
                lasts=one.lasts,
                percent=one.percent,
                figures=one.figures,
                escalate=rule.escalate,
            )


def _budget(
    space: Space, side: int, rule: Rule, verb: Budget, unit: str, amount: Amount, when: Formula
) -> Iterator[Demand]:
    amounts = amounts_of(space, side, amount)
    found: list[Demand] = []
    for step in verb.steps:
        rows = tuple(
            ((Fraction(most * step.percent, 100),), where)
            for most, where in amounts.items()
            if most
        )
        here = every((when, some((where for _, where in rows), space.full)), space.full)
        found += _limit(
            space,
            side,
            rule,
            step.verdict,
            here,
            verb="budget",
            counted=unit,
            key=verb.key.facts,
            window=verb.window,
            percent=step.percent,
            figures=rows,
        )
    yield from _ban(rule, found)


def _rate(space: Space, side: int, rule: Rule, verb: Rate, when: Formula) -> Iterator[Demand]:
    rows: list[tuple[Figures, Formula]] = []
    nothing: list[Formula] = []
    burst = verb.burst or verb.amount
    pairs = product(
        amounts_of(space, side, verb.amount).items(), amounts_of(space, side, burst).items()
    )
    for (limit, where), (most, there) in pairs:
        both = every((where, there), space.full)
        if both is False or limit is None or most is None:
            continue
        if limit == 0 or most == 0:
            nothing.append(both)
        else:
            rows.append(((Fraction(limit, verb.period), Fraction(most)), both))
    here = every((when, some((where for _, where in rows), space.full)), space.full)
    more = {"verb": "rate", "counted": verb.unit, "key": verb.key.facts, "figures": tuple(rows)}
    yield from _ban(rule, list(_limit(space, side, rule, verb.over, here, **more)))
    refused = every((when, some(nothing, space.full)), space.full)
    yield from _nothing(space, side, rule, verb.over, refused)


def _set(
    space: Space, side: int, rule: Rule, verb: Concurrency | Distinct, when: Formula
) -> Iterator[Demand]:
    amounts = amounts_of(space, side, verb.most)
    rows = tuple(((Fraction(most),), where) for most, where in amounts.items() if most)
    here = every((when, some((where for _, where in rows), space.full)), space.full)
    more = {
        "verb": verb.name,
        "counted": verb.count if isinstance(verb, Distinct) else "",
        "key": verb.key.facts,
        "lasts": verb.lasts or verb.in_flight,
        "figures": rows,
    }
    yield from _ban(rule, list(_limit(space, side, rule, verb.over, here, **more)))
    refused = every((when, amounts.get(0, False)), space.full)
    yield from _nothing(space, side, rule, verb.over, refused)


# Which is stricter.


def may_cover(b: Demand, a: Demand, models: Sequence[PolicySet]) -> bool:
    """Tell whether `b` is at least as strict as `a` where it applies, its figures left aside."""
    if b.effect.refuses:
        if b.effect < a.effect:
            return False
    elif a.effect.refuses or not _obliges_as_much(b.obligation, a.obligation, models):
        return False
    if not b.counts:
        return True
    if (b.verb, b.counted) != (a.verb, a.counted):
        return False
    if (b.escalate is None) != (a.escalate is None) or b.lasts < a.lasts:
        return False
    if a.escalate is not None and b.escalate is not None:
        x, y = b.escalate, a.escalate
        if x.after > y.after or x.within < y.within or x.block_for < y.block_for:
            return False
    assert b.rule is not None
    assert a.rule is not None
    if not counts_with(b.rule, a.rule) or not as_strict_while_away(b.rule, a.rule):
        return False
    return b.window is None or a.window is None or _contains(b.window, a.window)


def as_strict_while_away(b: Rule, a: Rule) -> bool:
    """Tell whether a rule does no less than another while the store is away."""
    return _STRICTNESS[b.on_store_error] >= _STRICTNESS[a.on_store_error]


def _obliges_as_much(
    b: Obligation | None, a: Obligation | None, models: Sequence[PolicySet]
) -> bool:
    if b is None or a is None or b[0] != a[0]:
        return False
    if a[0] == "model":
        return b[1] == a[1] or any(b[1] in policies.weaker_than(a[1]) for policies in models)
    if a[0] == "max_output_tokens":
        return cast(int, b[1]) <= cast(int, a[1])
    return a[0] != "disable" or b[1] == a[1]


def counts_with(b: Rule, a: Rule) -> bool:
    """Tell whether a rule counts together all that another counts together."""
    assert isinstance(b.verb, Limiting)
    assert isinstance(a.verb, Limiting)
    key = b.verb.key.facts
    if not set(key) <= set(a.verb.key.facts):
        return False
    # What stands in for a missing key fact: its account, or one value that all without it share.
    return not key or a.unknown != "match" or b.unknown == "match"


def _contains(b: Window, a: Window) -> bool:
    """Tell whether the time that `b` adds up contains that of `a` at every moment."""
    if b.kind == "lifetime" or (b.kind, b.length) == (a.kind, a.length):
        return True
    if a.kind == "lifetime":
        return False
    if b.length is None:
        return b.kind in _WITHIN.get(a.kind, ())
    # A rolling window is counted in sixty parts, and a part more.
    if a.length is not None:
        return b.length >= a.length + -(-a.length // 60)
    return b.length >= LONGEST[a.kind] + (0 if a.kind == "hour" else LONGEST_CHANGE)


def covered(space: Space, b: Demand, a: Demand) -> Formula:
    """Return where `b` asks for at least as much as `a` does, given that it may."""
    if not b.counts or b.figures == a.figures:
        return b.when
    parts = [
        every((here, there), space.full)
        for least, here in a.figures
        for most, there in b.figures
        if all(x <= y for x, y in zip(most, least, strict=True))
    ]
    return every((b.when, some(parts, space.full)), space.full)


def without(space: Space, those: Sequence[Demand]) -> More:
    """Return what adds that nothing of `those` is asked for."""
    found = Index(those)
    return lambda chosen: [space.opposite(one.when) for one in islice(found.at(chosen), 1)]


def least_effect(acting: Iterable[Demand]) -> Demand | None:
    """Return what a request gets when nothing was counted yet, None if it is served in full.

    `acting` is all that is asked of it.
    """
    static = (one for one in acting if not one.counts)
    return max(static, key=lambda one: one.effect, default=None)


# In words.


def told(demand: Demand, chosen: Mapping[str, int] | None = None) -> str:
    """Return what is asked for in words, the figures those of one request if it is given."""
    effect = str(demand.effect)
    if demand.obligation is not None:
        name, value = demand.obligation
        effect = f"degrade ({name}: {value})"
    if not demand.counts:
        return effect
    rows = [row for row, where in demand.figures if chosen is None or holds(where, chosen)]
    figures = rows[0] if rows else ()
    whose = f"each `{'`, `'.join(demand.key)}`" if demand.key else "all together"
    then = f"then {effect}"
    if demand.escalate is not None:
        then = f"and block after {demand.escalate.after:,} refusals"
    if demand.verb == "budget":
        assert demand.window is not None
        per = demand.window.text
        part = "" if demand.percent == 100 else f" ({demand.percent}% of the limit)"
        return f"{_figure(figures[0], demand.counted)} per {per}{part} for {whose}, {then}"
    if demand.verb == "rate":
        pace, burst = figures
        minute = _figure(pace * 60 * 1_000_000, demand.counted)
        return f"{minute} a minute, {_amount(burst, demand.counted)} at once for {whose}, {then}"
    if demand.verb == "concurrency":
        return f"{int(figures[0]):,} in flight for {whose}, {then}"
    days = _span(demand.lasts)
    return f"{int(figures[0]):,} values of `{demand.counted}` in {days} for {whose}, {then}"


def _amount(value: Fraction, unit: str) -> str:
    shown = in_unit(int(value), unit) if unit == "cost_usd" else float(value)
    return f"{shown:,.10g}"


def _figure(value: Fraction, unit: str) -> str:
    return f"{_amount(value, unit)} {'USD' if unit == 'cost_usd' else unit}"


def _span(length: int) -> str:
    for whole, word in ((DAY, "d"), (HOUR, "h"), (60_000_000, "m")):
        if length % whole == 0:
            return f"{length // whole}{word}"
    return f"{length // 1_000_000}s"

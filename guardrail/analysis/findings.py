"""What can never have an effect in a policy set: conditions, rules, steps, exemptions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from guardrail.analysis.comparing import Standing
from guardrail.analysis.demands import Demand, demands, unless_given_up
from guardrail.analysis.formulas import EFFORT, Formula, every, leaf
from guardrail.analysis.limits import OWN, limits_of, lint_limits
from guardrail.analysis.space import Space
from guardrail.analysis.splits import RANGES
from guardrail.analysis.tiers import lint_tiers
from guardrail.analysis.witnesses import possible
from guardrail.engine import rule_facts
from guardrail.errors import Diagnostic, Span, finding
from guardrail.model.amounts import Amount, Raised, larger, possible_amounts, without_raises
from guardrail.model.conditions import (
    ALWAYS,
    Comparison,
    Condition,
    Every,
    Negation,
    Some,
    comparisons,
    text_of,
)
from guardrail.model.effects import Effect, Mode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Budget, Exemption, Rule

UNANSWERED = "GR229"
"""The code of a question about all requests that was given up."""

_NAMED = 3
"""How many rules are named that stand in for another one."""


def analyse(policies: PolicySet, now: int, effort: int = EFFORT) -> list[Diagnostic]:
    """Return what can never be or never matters, at `now` (microseconds) and later, by place.

    A question that takes more splits than `effort` is told as one that was given up.
    """
    space = Space((policies,), now, effort=effort)
    asked = demands(space, 0)
    gone: set[str] = set()
    left: dict[str, Span] = {}
    found = [
        *(
            one
            for of_rule in (_of_condition, _of_key)
            for rule in policies.rules
            for one in unless_given_up(of_rule(space, rule), rule, left)
        ),
        *_of_rules(space, policies, asked, gone, left),
        *(
            one
            for exemption in policies.exemptions
            for one in unless_given_up(
                _of_exemption(space, policies, exemption, now), exemption, left
            )
        ),
        *_by_examples(space, policies),
    ]
    limits = [limit for limit in limits_of(space) if limit.rule.id not in gone]
    found += lint_limits(space, limits, asked, left)
    found += lint_tiers(space, limits, asked, left)
    found += [_unanswered(what, span) for what, span in left.items()]
    return sorted(dict.fromkeys(found), key=lambda one: one.sort_key)


def _unanswered(what: str, span: Span) -> Diagnostic:
    message = f"{what} was not looked at to the end: {_WHY_UNANSWERED}"
    return replace(finding(UNANSWERED, message, span, _HELP_UNANSWERED), about=(what,))


_WHY_UNANSWERED = "too many choices stand within each other, or overlap those of other rules"
_HELP_UNANSWERED = "split its condition, list values with `in`, or look at a part of the set alone"


def folded(found: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Return findings with the questions of a file that were given up as one, at the first of them.

    Its `about` names all of them.
    """
    by_file: dict[str, list[Diagnostic]] = {}
    every = list(found)
    for one in every:
        if one.code == UNANSWERED and one.about:
            by_file.setdefault(one.span.file, []).append(one)
    first = {min(those, key=lambda one: one.sort_key): those for those in by_file.values()}
    gone = {one for those in by_file.values() for one in those}
    return [
        _as_one(one, first[one]) if one in first else one
        for one in every
        if one in first or one not in gone
    ]


def _as_one(first: Diagnostic, those: Sequence[Diagnostic]) -> Diagnostic:
    if len(those) == 1:
        return first
    ordered = sorted(those, key=lambda one: one.sort_key)
    names = [name for one in ordered for name in one.about]
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    message = f"{', '.join(names[:_NAMED])}{more} were not looked at to the end: {_WHY_UNANSWERED}"
    return replace(first, message=message, about=tuple(names))


def _by_examples(space: Space, policies: PolicySet) -> Iterator[Diagnostic]:
    """Find the facts whose values are not told apart exactly, each at the first rule of it."""
    for name in sorted(space.outside):
        rule = next((r for r in policies.rules if name in rule_facts(r, policies.exemptions)), None)
        if rule is not None:
            message = f"what rests on `{name}` was judged by examples, and not for all requests"
            help = "test it by `prefix` or by `cidr`, not both, and in fewer lists and rollouts"
            yield finding(UNANSWERED, message, rule.span, help)


# Conditions.


def _of_condition(space: Space, rule: Rule) -> Iterator[Diagnostic]:
    """Find what of a rule's condition never or always holds, the largest such part alone."""
    if rule.mode is Mode.OFF or rule.when == ALWAYS:
        return
    what = f"the condition of rule `{rule.id}`"
    if not _can_be(space, rule.when):
        never = _exclusive(space, rule.when)
        message = f"{what} can never be true"
        help = "correct it: no request has all of these values at once"
        if len(never) == 1:
            help = f"correct it: `{text_of(never[0])}` can never be true{_range_of(never[0])}"
        elif isinstance(rule.when, Comparison) and (ends := _range_of(rule.when)):
            help = f"correct it{ends}"
        elif len(never) == 2:
            help = f"correct it: `{text_of(never[0])}` and `{text_of(never[1])}` exclude each other"
        if possible(space, [space.written(0, rule)]):
            help += "; as it is, the rule applies only where a fact is missing"
        places = (_place(part, rule.span) for part in (*never, rule.when))
        at = next((place for place in places if place != rule.span), rule.span)
        yield finding("GR201", message, at, help)
        return
    parts = list(_of_parts(space, rule.when, rule.span))
    if not parts and not possible(space, [space.condition(0, rule.when, False, False)]):
        help = "write `when: always` if it is meant for every request"
        yield finding("GR216", f"{what} is always true", rule.span, help)
    yield from parts


def _exclusive(space: Space, condition: Condition) -> tuple[Condition, ...]:
    """Return what of a condition that never holds can never hold, or never together, if it is told.

    It is one part of it, or two.
    """
    parts = condition.parts if isinstance(condition, Every) else ()
    alone = next((part for part in parts if not _can_be(space, part)), None)
    if alone is not None:
        return _exclusive(space, alone) or (alone,)
    # Each is left out that the others can do without; to ask of each pair takes too long.
    needed = list(parts)
    for part in parts:
        others = [one for one in needed if one is not part]
        if not _can_be(space, Every(tuple(others))):
            needed = others
    return tuple(needed) if len(needed) == 2 else ()


def _of_parts(space: Space, condition: Condition, span: Span) -> Iterator[Diagnostic]:
    """Find the parts of a condition that never or always hold; the condition itself may hold."""
    if isinstance(condition, Comparison):
        yield from _of_test(space, condition, span)
    elif isinstance(condition, Negation):
        if not _can_be(space, condition.part):
            yield _never(condition.part, span)
        else:
            yield from _of_parts(space, condition.part, span)
    else:
        several = isinstance(condition, Some) and len(condition.parts) > 1
        found = []
        for part in condition.parts:
            if several and not _can_be(space, part):
                found.append(_never(part, span))
            elif isinstance(part, Comparison) or _can_be(space, part):
                found += _of_parts(space, part, span)
            else:
                found.append(_never(part, span))
        yield from found
        if several and not found and _always(space, condition):
            message = "one of these always holds: " + " or ".join(map(text_of, condition.parts))
            help = "leave the choice out, or correct one of them"
            yield finding("GR216", message, _place(condition, span), help)


def _of_test(space: Space, test: Comparison, span: Span) -> Iterator[Diagnostic]:
    if not _can_be(space, test):
        yield _never(test, span)
    elif _always(space, test):
        message = f"the test `{test.text}` is true whatever `{test.fact}` is"
        help = "leave it out, or correct the value"
        if test.operator != "exists" and space.missing(0, test.fact):
            help += f"; to ask that it is known, write `{test.fact}: {{exists: true}}`"
        yield finding("GR216", message, test.span or span, help)


def _never(part: Condition, span: Span) -> Diagnostic:
    help = "correct it, or leave it out" + (_range_of(part) or ": no request is like this")
    return finding("GR201", f"`{text_of(part)}` can never be true", _place(part, span), help)


def _range_of(part: Condition) -> str:
    """Return what is to be said of the range of a fact that is tested, empty where it has none."""
    if not isinstance(part, Comparison) or part.fact not in RANGES:
        return ""
    least, most = RANGES[part.fact]
    ends = f"is {least} at least" if most == math.inf else f"goes from {least} to {most}"
    return f": `{part.fact}` {ends}"


def _can_be(space: Space, condition: Condition) -> bool:
    return possible(space, [space.condition(0, condition, False)])


def _always(space: Space, condition: Condition) -> bool:
    """Tell whether a condition is true of every request that has the facts it tests."""
    return not possible(space, [space.condition(0, condition, True, False)])


def _place(condition: Condition, span: Span) -> Span:
    """Return where the first test of a condition stands, `span` where all are written elsewhere."""
    tests = (test.span for test in comparisons(condition) if test.span is not None)
    return next((test for test in tests if _within(test, span)), span)


def _within(inner: Span, outer: Span) -> bool:
    start = outer.line, outer.column
    end = outer.end_line, outer.end_column
    return inner.file == outer.file and start <= (inner.line, inner.column) < end


def _of_key(space: Space, rule: Rule) -> Iterator[Diagnostic]:
    """Find a fact that a rule counts by, and that no request has of which its condition holds."""
    if rule.mode is not Mode.ENFORCE:
        return
    for name in rule.verb.facts:
        if name not in space.full:
            continue
        there = leaf(name, space.full[name] & ~space.missing(0, name), space.full)
        written = space.written(0, rule)
        if possible(space, [written]) and not possible(space, [written, there]):
            message = f"rule `{rule.id}` counts by `{name}`, which none of its requests has"
            help = "count by another fact, or correct the condition: "
            help += "what stands in for a missing fact is the account, or all without one"
            if rule.unknown == "skip":
                help = "count by another fact, or correct the condition: as it is, the rule "
                help += "never applies"
            yield finding("GR233", message, rule.span, help)


# Rules and steps.


def _of_rules(
    space: Space,
    policies: PolicySet,
    whole: Sequence[Demand],
    gone: set[str],
    left: dict[str, Span],
) -> Iterator[Diagnostic]:
    """Find rules and steps that others stand in for; the ids of such rules are put into `gone`.

    What is given up goes into `left`.
    """
    by_rule: dict[str, list[Demand]] = {}
    for one in whole:
        by_rule.setdefault(one.name, []).append(one)
    standing = Standing(space, whole, whole, {}, [])
    others = partial(_instead, gone=gone)
    for rule in reversed(policies.rules):
        own = by_rule.get(rule.id, [])
        if rule.mode is Mode.ENFORCE and own:
            found = _of_rule(space, policies, standing, rule, own, others, gone)
            yield from unless_given_up(found, rule, left)
    # Steps are held against the rules that stay: of two alike, one is gone, and its steps with it.
    for rule in policies.rules:
        own = by_rule.get(rule.id, [])
        if rule.mode is Mode.ENFORCE and own and rule.id not in gone:
            yield from unless_given_up(_of_steps(space, standing, rule, own, others), rule, left)


def _of_rule(
    space: Space,
    policies: PolicySet,
    standing: Standing,
    rule: Rule,
    own: Sequence[Demand],
    others: Callable[[Demand, Demand], bool],
    gone: set[str],
) -> Iterator[Diagnostic]:
    """Find a rule that others stand in for, and put its id into `gone`."""
    covering = _covering(space, standing, own, others)
    if covering is None or _notifies(rule):
        return
    gone.add(rule.id)
    message = f"rule `{rule.id}` never decides: {_named(covering)} "
    message += "at least as much of every request that it applies to"
    help = "leave it out, or correct the one that is not as it is meant"
    other = next((one for one in policies.rules if (one.id,) == covering), rule)
    if other is not rule and other.verb.allowances and rule.verb.allowances:
        help = f"all rules hold at once, and none stands in for another: let `{other.id}` "
        help += "leave out whom this one is for, or write both as one table of amounts"
    yield finding("GR202", message, rule.span, help)


def _covering(
    space: Space,
    standing: Standing,
    own: Sequence[Demand],
    others: Callable[[Demand, Demand], bool],
) -> tuple[str, ...] | None:
    """Return the rules that ask for as much as all of these, None if something is left."""
    names: dict[str, None] = {}
    some_can_be = False
    for one in own:
        found = standing.covering(one, partial(others, one))
        if found is None:
            return None
        some_can_be = some_can_be or possible(space, [one.when])
        names |= dict.fromkeys(found)
    return tuple(names) if some_can_be else None


def _instead(one: Demand, b: Demand, *, gone: set[str]) -> bool:
    """Tell whether `b`, of another rule, is what is reported, and no easier to exempt from.

    The rules in `gone` have been found to decide nothing.
    """
    if b.rule is one.rule or b.name in gone:
        return False
    if b.rule is None or one.rule is None:
        return True
    if b.rule.exemptible and not one.rule.exemptible:
        return False
    if b.counts or b.effect > one.effect or b.rule.index < one.rule.index:
        return True
    return b.verdict == one.verdict


def _named(names: Sequence[str]) -> str:
    shown = [f"`{name}`" for name in names[:_NAMED]]
    if len(names) > _NAMED:
        shown.append(f"{len(names) - _NAMED} more")
    return f"{' and '.join(shown)} {'asks' if len(names) == 1 else 'ask'} for"


def _notifies(rule: Rule) -> bool:
    return any(verdict.effect is Effect.ALLOW for verdict in rule.verb.verdicts)


def _of_steps(
    space: Space,
    standing: Standing,
    rule: Rule,
    own: Sequence[Demand],
    others: Callable[[Demand, Demand], bool],
) -> Iterator[Diagnostic]:
    verb = rule.verb
    if not isinstance(verb, Budget):
        return
    for place, step in enumerate(verb.steps):
        last = place == len(verb.steps) - 1
        before = next(
            (
                s
                for s in verb.steps[:place]
                if s.verdict.effect.refuses and s.verdict.effect >= step.verdict.effect
            ),
            None,
        )
        what = f"the step at {step.percent}% of rule `{rule.id}` never takes effect"
        if before is not None:
            if last and _is_default(rule, step.verdict.reason, step.verdict.message):
                continue
            message = f"{what}: the one at {before.percent}% refuses before"
            help = "leave it out, or let the earlier one do less"
            yield finding("GR217", message, rule.span, help)
            continue
        asked = [d for d in own if d.counts and d.percent == step.percent]
        if len(verb.steps) > 1 and asked and not (last and not verb.on_the_way):
            covering = _covering(space, standing, asked, others)
            if covering:
                message = f"{what}: {_named(covering)} as much before"
                help = "leave it out, or correct the other rule"
                yield finding("GR217", message, rule.span, help)
            elif covering is not None and not last:
                message = f"{what}: whatever it applies to is refused at once"
                help = "leave it out, or correct an amount of 0"
                yield finding("GR217", message, rule.span, help)


def _is_default(rule: Rule, reason: str, message: str | None) -> bool:
    return reason == rule.id and message is None


# Exemptions.


def _of_exemption(
    space: Space, policies: PolicySet, exemption: Exemption, now: int
) -> Iterator[Diagnostic]:
    if exemption.expires <= now:
        return
    what = f"exemption `{exemption.id}`"
    by_id = {rule.id: rule for rule in policies.rules}
    holds = space.exempts(0, exemption)
    if not possible(space, [holds]):
        help = "correct its condition, or leave it out"
        span = _place(exemption.when, exemption.span)
        yield finding("GR218", f"{what} can never apply", span, help)
        return
    if exemption.when != ALWAYS and _is_for_all(space, exemption):
        message = f"{what} is for everyone: its condition holds for every request"
        help = "say who is exempt, or set the rules' `mode: off`"
        yield finding("GR227", message, _place(exemption.when, exemption.span), help)
    elif _is_for_others(space, exemption):
        message = f"{what} is for everyone but those it names"
        help = "name who is exempt, or let the rules leave out whom they are not for"
        yield finding("GR227", message, _place(exemption.when, exemption.span), help)
    yield from _of_raises(exemption, [by_id[name] for name in exemption.raises if name in by_id])
    names = dict.fromkeys((*exemption.rules, *exemption.raises))
    lifted = [by_id[name] for name in names if name in by_id]
    idle = [
        rule.id
        for rule in lifted
        if rule.mode is not Mode.OFF and not possible(space, [holds, _alone(space, rule)])
    ]
    if not idle:
        return
    shown = "`, `".join(idle)
    message = f"{what} never lifts `{shown}`: no request that it is for is one of "
    message += "theirs" if len(idle) > 1 else "its own"
    if len(idle) == len(lifted):
        message = f"{what} lifts nothing: no request that it is for meets `{shown}`"
    help = "correct its condition, or leave the rule out of it"
    yield finding("GR218", message, exemption.span, help)


def _is_for_all(space: Space, exemption: Exemption) -> bool:
    holds = space.condition(0, exemption.when, exemption.unknown_holds)
    return not possible(space, [space.opposite(holds)])


def _is_for_others(space: Space, exemption: Exemption) -> bool:
    """Tell whether an exemption holds for each customer that it does not name."""
    tests = [test for test in comparisons(exemption.when) if test.fact in OWN]
    outside: list[Formula] = []
    for test in tests:
        if test.operator in ("in", "not_in", "prefix", "cidr"):
            names = replace(test, operator="in") if test.operator == "not_in" else test
            there = Comparison(test.fact, "exists", True, test.text)
            outside += [space.test(0, there, False), space.opposite(space.test(0, names, False))]
    holds = space.condition(0, exemption.when, exemption.unknown_holds)
    if not outside or not possible(space, outside):
        return False
    return not possible(space, [*outside, space.opposite(holds)])


def _of_raises(exemption: Exemption, rules: Sequence[Rule]) -> Iterator[Diagnostic]:
    """Find the amounts that are no larger for those whom an exemption raises them for."""
    for rule in rules:
        idle = [name for name, amount in rule.verb.written if _raises_nothing(amount, exemption.id)]
        if idle:
            shown = "` and `".join(idle)
            message = f"exemption `{exemption.id}` does not raise `{shown}` of rule `{rule.id}`, "
            message += "which allows as much without it"
            help = "raise it to more than the rule has, or leave it out"
            yield finding("GR218", message, exemption.span, help)


def _raises_nothing(amount: Amount, exemption: str) -> bool:
    """Tell whether an exemption raises an amount to no more than it is for whoever asks."""
    own = possible_amounts(without_raises(amount))
    while own is not None and isinstance(amount, Raised):
        if amount.exemption == exemption:
            least = amount.least
            return all(larger(most, least) == most for most in own)
        amount = amount.own
    return False


def _alone(space: Space, rule: Rule) -> Formula:
    """Return where a rule applies, its exemptions left out."""
    parts = [space.written(0, rule), space.during(rule.start, rule.end)]
    return every(parts, space.full)

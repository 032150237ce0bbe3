"""Claims about all requests, against all requests of a small domain, one by one.

`python -m tests.analysis.enumerated COUNT SEED` runs so many random pairs of policy sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from random import Random

from guardrail.analysis import Changes, analyse, compared
from guardrail.engine import FactReader, rule_applies, rule_facts
from guardrail.errors import Diagnostic
from guardrail.model.amounts import SECOND
from guardrail.model.conditions import ALWAYS, Condition, compile_condition, facts_of
from guardrail.model.effects import Effect, Mode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Block, Degrade, Exemption, Rule, Verdict
from tests.analysis.seeds import over_seeds
from tests.analysis.small_sets import (
    NOW,
    TIMES,
    Asked,
    Reading,
    as_strict,
    asked,
    changed,
    chosen_names,
    declared,
    how_many,
    made_of,
    policy_set,
    requests,
)

MOST_REQUESTS = 3_000
"""Pairs of sets that tell more requests apart are left out of long runs."""


def pair(seed: int) -> tuple[PolicySet, PolicySet]:
    """Return two policy sets of one seed, the second one mostly a change of the first."""
    rng = Random(seed)
    names = chosen_names(rng)
    counting = rng.choice((0.0, 0.4, 0.8))
    facts = declared(rng)
    old = policy_set(rng, facts, names, counting)
    if rng.random() < 0.25:
        return old, policy_set(rng, facts, names, counting)
    return old, changed(rng, old, names, counting)


Case = tuple[list[tuple[str, Asked]], list[tuple[str, Asked]]]


def every_case(old: PolicySet, new: PolicySet) -> list[Case]:
    """Return what both sets ask of every request, at every time."""
    before, after = Reading(old), Reading(new)
    return [
        (asked(before, request, now), asked(after, request, now))
        for request, now in every_moment(old, new)
    ]


def every_moment(old: PolicySet, new: PolicySet) -> Iterator[tuple[dict[str, object], int]]:
    """Yield every request, at every time."""
    times = TIMES if timed(old) or timed(new) else TIMES[:1]
    return product(requests(old, new), times)


def loosened(cases: Iterable[Case]) -> set[str]:
    """Return the ids of the rules that ask for something that nothing as strict stands in for.

    A refusal and an obligation need something as strict for each request; a limit needs one rule
    for all of its requests that neither set refuses at once.
    """
    found: set[str] = set()
    limits: dict[tuple[str, object], list[tuple[Asked, list[tuple[str, Asked]]]]] = {}
    for was, now_asked in cases:
        refused = any(what == ("refuse",) for _, what in was)
        refused_now = any(what == ("refuse",) for _, what in now_asked)
        for name, what in was:
            if refused_now or (refused and what != ("refuse",)):
                continue
            if what[0] == "limit":
                # Each unit, step, obligation and ban of a rule is a limit of its own.
                limits.setdefault((name, _which(what)), []).append((what, now_asked))
            elif not any(as_strict(other, what) for _, other in now_asked):
                found.add(name)
    for (name, _), every in limits.items():
        rivals = {(n, _which(w)) for _, now in every for n, w in now if w[0] == "limit"}
        if not any(_stands_in(rival, every) for rival in rivals):
            found.add(name)
    return found


def _larger(old: PolicySet, new: PolicySet, found: Changes, cases: Sequence[Case]) -> list[str]:
    """Return the witnesses of refusals and obligations that state more facts than need be."""
    fewest: dict[str, int] = {}
    for (request, now), (was, now_asked) in zip(every_moment(old, new), cases, strict=True):
        refused = any(what == ("refuse",) for _, what in was)
        for name, what in was:
            if what[0] == "limit" or (refused and what != ("refuse",)):
                continue
            if not any(as_strict(other, what) for _, other in now_asked):
                # A later time counts as one more thing to state; each begins a day.
                count = len(request) - (request.get("time.hour") == 0) + (now != TIMES[0])
                fewest[name] = min(fewest.get(name, 99), count)
    problems = []
    for name, count in fewest.items():
        static = [
            len(change.witness.facts) + (change.witness.at is not None)
            for change in found.looser
            if change.rule == name and "then" not in change.before
        ]
        if static and min(static) > count:
            problems.append(f"{name}: {min(static)} facts are shown, and {count} will do")
    return problems


def timed(policies: PolicySet) -> bool:
    """Tell whether anything begins, ends, or is compared with a time."""
    text = repr(policies.rules) + repr(policies.exemptions)
    dated = any(rule.start or rule.end for rule in policies.rules)
    dated = dated or "Raised" in text
    return dated or bool(policies.exemptions) or "account.created" in text or "account.age" in text


def _which(what: Asked) -> object:
    obliged = what[9][1:] if what[9] else None
    return what[2], what[12], obliged, what[11] is not None


def _stands_in(
    rival: tuple[str, object], cases: list[tuple[Asked, list[tuple[str, Asked]]]]
) -> bool:
    """Tell whether one limit of one rule is as strict as another wherever that one is asked."""
    name, which = rival
    for what, every in cases:
        own = [w for n, w in every if n == name and w[0] == "limit" and _which(w) == which]
        if not any(as_strict(w, what) for w in own):
            return False
    return True


def named(found: Changes) -> set[str]:
    """Return the rules of which it is claimed that something became looser."""
    return {change.rule for change in found.looser}


def wrong(old: PolicySet, new: PolicySet) -> list[str]:
    """Return what is claimed wrongly, or missed, of two sets."""
    found = compared(old, new, NOW)
    problems: list[str] = []
    required = {name for name, fact in old.facts.items() if fact.required}
    claimed = {"required" if name in required else name for name in named(found)}
    cases = every_case(old, new)
    expected = loosened(cases)
    if claimed != expected:
        problems.append(f"claimed {sorted(claimed)}, and it is {sorted(expected)}")
    swapped = {"required" if c.rule in new.facts else c.rule for c in found.stricter}
    tightened = loosened((b, a) for a, b in cases)
    if swapped != tightened:
        problems.append(f"stricter: claimed {sorted(swapped)}, and it is {sorted(tightened)}")
    before, after = Reading(old), Reading(new)
    problems += _larger(old, new, found, cases)
    for change in found.looser:
        now = NOW if change.witness.at is None else change.witness.at
        was = asked(before, change.witness.facts, now)
        is_now = asked(after, change.witness.facts, now)
        own = [
            w for n, w in was if n == change.rule or (n == "required" and change.rule in required)
        ]
        if all(any(as_strict(other, what) for _, other in is_now) for what in own):
            problems.append(f"{change.rule}: {change.witness.facts} shows nothing")
    return problems


def wrong_findings(policies: PolicySet) -> list[str]:
    """Return what is found wrongly, or missed, of rules that never decide and of conditions."""
    told = analyse(policies, NOW)
    gone = {d.message.split("`")[1] for d in told if d.code == "GR202"}
    rest = replace(policies, rules=tuple(r for r in policies.rules if r.id not in gone))
    problems: list[str] = []
    without = loosened(every_case(policies, _numbered(rest)))
    if gone & without:
        problems.append(f"{sorted(gone & without)} decide something")
    for rule in rest.rules:
        if rule.mode is not Mode.ENFORCE or isinstance(rule.verb, Degrade):
            continue
        fewer = replace(rest, rules=tuple(r for r in rest.rules if r is not rule))
        cases = every_case(_numbered(rest), _numbered(fewer))
        asks = any(name == rule.id for was, _ in cases for name, _ in was)
        if asks and not _decides(rest, rule, cases):
            problems.append(f"{rule.id} never decides")
    for rule in policies.rules:
        if rule.mode is Mode.OFF or rule.when == ALWAYS:
            continue
        answers = _answers(policies, rule.when)
        named = f"the condition of rule `{rule.id}`"
        claimed = [d.code for d in told if d.message.startswith(named)]
        inner = any(d.code == "GR216" and d.span == rule.span for d in told)
        expected = ["GR201"] if True not in answers else []
        if claimed not in (expected, ["GR216"] if answers == {True} else expected) and not (
            inner and answers == {True}
        ):
            problems.append(f"{rule.id}: claimed {claimed}, answers {answers}")
    problems += _wrong_keys(policies, told)
    for exemption in policies.exemptions:
        problems += _wrong_exemption(policies, exemption, told)
    return problems


def _wrong_keys(policies: PolicySet, told: Sequence[Diagnostic]) -> list[str]:
    """Return where it is told wrongly, or not at all, that no request has what a rule counts by."""
    claimed = {tuple(d.message.split("`")[1:4:2]) for d in told if d.code == "GR233"}
    tested = {name for rule in policies.rules for name in facts_of(rule.when)}
    expected: set[tuple[str, ...]] = set()
    for rule in policies.rules:
        # What no condition tests is there or not, whatever else a request states.
        names = [name for name in rule.verb.facts if name in tested]
        if rule.mode is not Mode.ENFORCE or not names:
            continue
        holds = compile_condition(rule.when)
        reader = FactReader(policies.facts, tuple(sorted({*facts_of(rule.when), *names})), "UTC")
        met: list[set[str]] = []
        for request in requests(policies):
            for now in TIMES:
                typed = reader.read(request, now / SECOND)[0]
                answer = holds(typed, now / SECOND)
                if rule.unknown != "skip" if answer is None else answer:
                    met.append({name for name in names if typed.get(name) is not None})
        lacking = [name for name in names if met and not any(name in there for there in met)]
        expected |= {(rule.id, name) for name in lacking}
    return [f"GR233: claimed {claimed}, and it is {expected}"] if claimed != expected else []


def _decides(policies: PolicySet, rule: Rule, cases: Sequence[Case]) -> bool:
    """Tell whether a rule asks for something that no other one does, or has words of its own.

    Of two refusals that are as strong the first one's words are told to the client: a later one
    that says something else does not stand in for it.
    """
    by_id = {one.id: one for one in policies.rules}

    def stands_in(name: str, other: Asked, effect: Effect) -> bool:
        if name == "required" or other != ("refuse",) or effect is not Effect.BLOCK:
            return True
        earlier = by_id[name].index < rule.index
        return earlier or _words(by_id[name]) == _words(rule)

    effects = {_effect(what) for was, _ in cases for name, what in was if name == rule.id}
    for effect in effects:
        own = [
            (
                [(n, w) for n, w in was if n != rule.id or _effect(w) is effect],
                [(n, w) for n, w in now if stands_in(n, w, effect)],
            )
            for was, now in cases
        ]
        if rule.id in loosened(own):
            return True
    return False


def _effect(what: Asked) -> Effect:
    if what[0] == "limit":
        effect: Effect = what[7]
        return effect
    return Effect.BLOCK if what == ("refuse",) else Effect.DEGRADE


def _words(rule: Rule) -> Verdict:
    """Return what a rule says where it refuses whatever was counted."""
    return rule.verb.verdict if isinstance(rule.verb, Block) else rule.verb.verdicts[-1]


def _numbered(policies: PolicySet) -> PolicySet:
    return made_of(policies.facts, policies.rules, policies.exemptions)


def _answers(policies: PolicySet, condition: Condition) -> set[bool | None]:
    reading, holds = Reading(policies), compile_condition(condition)
    used = tuple(sorted(facts_of(condition)))
    reading.reader = FactReader(policies.facts, used, "UTC")
    return {
        holds(reading.typed(request, now), now / SECOND)
        for request in requests(policies)
        for now in TIMES
    }


def _wrong_exemption(
    policies: PolicySet, exemption: Exemption, told: Sequence[Diagnostic]
) -> list[str]:
    if exemption.expires <= NOW:
        return []
    claimed = [d.message for d in told if d.code == "GR218"]
    alone = replace(policies, exemptions=())
    lifts: set[str] = set()
    used = {n for r in policies.rules for n in rule_facts(r, policies.exemptions)}
    reader = FactReader(policies.facts, used, "UTC")
    holds = compile_condition(exemption.when)
    every = [(r, rule_applies(r, alone.exemptions)) for r in policies.rules]
    applies_ever = False
    for request in requests(policies):
        for now in TIMES:
            typed = reader.read(request, now / SECOND)[0]
            answer = now < exemption.expires and holds(typed, now / SECOND)
            if exemption.unknown_holds if answer is None else answer:
                applies_ever = True
                lifts |= {r.id for r, applies in every if applies(typed, now)}
    named = {r.id for r in policies.rules if r.id in exemption.rules and r.mode is not Mode.OFF}
    idle = named - lifts
    text = " ".join(claimed)
    if not applies_ever:
        return [] if "can never apply" in text else [f"{exemption.id} can never apply"]
    found = {name for name in named if f"`{name}`" in text or f"{name}`" in text}
    return [] if found == idle else [f"{exemption.id}: claimed {found}, and it is {idle}"]


def looked_at(seed: int, counts: Counter[str]) -> list[str]:
    """Return what is wrong of a pair, and count how many claims there were."""
    old, new = pair(seed)
    if how_many(old, new) > MOST_REQUESTS:
        counts["too many requests"] += 1
        return []
    counts["pairs"] += 1
    counts["with something looser"] += bool(compared(old, new, NOW).looser)
    counts.update(d.code for d in analyse(old, NOW))
    return [*wrong(old, new), *wrong_findings(old)]


if __name__ == "__main__":
    over_seeds(looked_at)

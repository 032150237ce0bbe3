"""What traffic shows of rules: which matched nothing, name what never came, or lack their facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction

from guardrail.cli.figures import first_of, length, plural, share
from guardrail.cli.inert import shortened
from guardrail.cli.machine import Unplaced
from guardrail.cli.traffic import TrafficRun
from guardrail.errors import Diagnostic, finding, severity_of
from guardrail.model.amounts import SECOND
from guardrail.model.conditions import facts_of, text_of
from guardrail.model.effects import Mode
from guardrail.model.facts import FactType
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Rule
from guardrail.replay.seen import Seen, bare, named_values, needed

_SHOWN = 3
_ENOUGH = 100
"""From how many requests with a fact on it means something that a value is not among them."""

THIN_REQUESTS, THIN_ACCOUNTS = 300, 100
"""From how many requests and accounts on a sample can be told to be thin."""
THIN_SPAN = 86_400.0
"""From how long a time on, in seconds, a sample can be told to be thin."""
THIN_EACH = 4.0
"""Below how many requests an account a sample may be thin."""
THIN_SOON = Fraction(3, 10)
"""Up to what share of repeated requests soon after another a sample is thin.

In recorded traces of accounts with fewer than six requests each it was 0.84 and more.
"""


def rule_findings(run: TrafficRun, policies: PolicySet, most: Fraction) -> Iterator[Diagnostic]:
    """Yield what traffic shows of rules; `most` is the share of requests that may lack a fact.

    GR301: a rule matched nothing. GR302: a rule names a value that never came. GR303: a fact that
    a rule tests, or counts by, is missing too often.
    """
    seen = run.tally.seen
    if not seen.requests:
        return
    quiet = [rule for rule in seen.rules if _matched_nothing(rule, run)]
    for rule in quiet:
        yield _nothing_matched(rule, seen)
    yield from _unseen_values(seen, quiet)
    yield from _missing_facts(run, policies, most)
    yield from _missing_keys(run, policies, most)


def thin_sample(run: TrafficRun, policies: PolicySet) -> Unplaced | None:
    """Return that the traffic looks drawn request by request, None if it does not (GR304).

    It does where accounts have few requests each, and those that come again mostly do so more
    than ten minutes later: whoever uses an API sends several at a time.
    """
    harm = run.tally.harm
    accounts, requests = len(harm.met), sum(harm.met.values())
    if accounts < THIN_ACCOUNTS or requests < THIN_REQUESTS or not _fills(policies):
        return None
    again = requests - accounts
    first, newest = run.course.first, run.course.newest
    if first is None or newest - first < THIN_SPAN:
        return None
    if requests >= THIN_EACH * accounts or harm.soon > THIN_SOON * again:
        return None
    message = (
        f"the sample looks drawn request by request: {plural(accounts, 'account')} have "
        f"{requests / accounts:.1f} requests each in {length(newest - first)}, and of those that "
        f"come again {share(harm.soon, again) if again else 'none'} do so within ten minutes, so "
        "that no budget can fill"
    )
    help = "draw accounts, and keep all their requests"
    return Unplaced("GR304", severity_of("GR304"), message, help)


def _fills(policies: PolicySet) -> bool:
    return any(
        rule.mode is not Mode.OFF and rule.verb.units and "account.id" in rule.verb.facts
        for rule in policies.rules
    )


def _matched_nothing(rule: Rule, run: TrafficRun) -> bool:
    first, newest = run.course.first, run.course.newest
    if first is None or run.tally.matching.matched.get(rule.id):
        return False
    started = rule.start is None or rule.start / SECOND <= newest
    return started and (rule.end is None or rule.end / SECOND > first)


def _nothing_matched(rule: Rule, seen: Seen) -> Diagnostic:
    message = f"rule `{rule.id}` matched none of {plural(seen.requests, 'request')}"
    never = seen.never_held(rule)
    if not never:
        why = "each part of its condition held for some, but never all of them at once"
    else:
        first = never[0]
        told = "; ".join(_seen_of(name, seen) for name in sorted(facts_of(first)))
        why = f"`{shortened(text_of(first), 100)}` never held: {told}"
    return finding("GR301", f"{message}: {why}", rule.span)


def _seen_of(name: str, seen: Seen) -> str:
    missing = seen.missing(name)
    if missing == seen.requests:
        return f"`{name}` was missing in all of them"
    values = seen.values(name)
    ordered = sorted(values.items(), key=lambda pair: (-pair[1], pair[0]))
    parts = [
        f"{shortened(value, 30)} {share(count, seen.requests)}" for value, count in ordered[:_SHOWN]
    ]
    present = seen.requests - missing
    if len(ordered) > _SHOWN:
        others = plural(len(ordered) - _SHOWN, "other")
        parts.append(others if values.total() == present else f"more than {others}")
    if missing:
        parts.append(f"missing {share(missing, seen.requests)}")
    return f"`{name}` was {', '.join(parts)}" if parts else f"`{name}` had other values"


def _unseen_values(seen: Seen, quiet: list[Rule]) -> Iterator[Diagnostic]:
    """Yield the values that rules name and nobody had; one that is nearly there is a fault."""
    types = {fact.name: fact.type for fact in seen.tested}
    unseen: dict[str, dict[str, Rule]] = {}
    had: dict[str, Counter[str]] = {}
    for rule in seen.rules:
        for name, value in named_values(rule.when):
            if name not in had:
                had[name] = seen.values(name)
            if value not in had[name]:
                unseen.setdefault(name, {}).setdefault(value, rule)
    for name, values in sorted(unseen.items()):
        plain = {}
        for value, rule in sorted(values.items()):
            near = None
            if types[name] is FactType.STRING:
                near = _spelt_nearly(value, had[name])
            if near is None:
                plain[value] = rule
                continue
            message = (
                f"rule `{rule.id}` names `{shortened(value, 60)}`, which no request's `{name}` "
                f"was; `{shortened(near, 60)}` was that of {had[name][near]:,}"
            )
            help = f"did you mean `{shortened(near, 60)}`?"
            yield finding("GR302", message, rule.span, help)
        rules = [rule for rule in plain.values() if rule not in quiet]
        if rules and seen.present[name] >= _ENOUGH:
            yield _never_seen(name, plain, rules[0])


def _spelt_nearly(value: str, known: Counter[str]) -> str | None:
    """Return the most frequent value that differs in case or in separators alone."""
    letters = bare(value)
    alike = [name for name in known if name != value and bare(name) == letters]
    return min(alike, key=lambda name: (-known[name], name), default=None)


def _never_seen(name: str, values: Mapping[str, Rule], first: Rule) -> Diagnostic:
    shown = first_of([shortened(value, 30) for value in values], _SHOWN)
    named = {rule.id for rule in values.values()}
    others = f" and {plural(len(named) - 1, 'other rule')}" if len(named) > 1 else ""
    verb = "name" if others else "names"
    message = (
        f"rule `{first.id}`{others} {verb} {plural(len(values), 'value')} of `{name}` that no "
        f"request had: {shown}"
    )
    return finding("GR302", message, first.span, is_mild=True)


def _missing_facts(run: TrafficRun, policies: PolicySet, most: Fraction) -> Iterator[Diagnostic]:
    seen = run.tally.seen
    decided: Counter[str] = Counter()
    for (_, facts), count in run.tally.matching.hinged.items():
        decided.update(dict.fromkeys(facts, count))
    for fact in seen.tested:
        missing = seen.missing(fact.name)
        rules = [rule for rule in seen.rules if fact.name in set(needed(rule.when))]
        if missing <= most * seen.requests or missing == seen.requests or not rules:
            continue
        refused = decided[fact.name]
        is_fault = refused > most * seen.requests
        message = (
            f"fact `{fact.name}`, which {_tests(rules)}, is missing in "
            f"{share(missing, seen.requests)} of the requests"
        )
        if refused:
            message += f"; that decided {plural(refused, 'request')}"
        help = "say with `unknown:` what that means, give it a `default`, or mend its source"
        yield finding("GR303", message, rules[0].span, help, is_mild=not is_fault)


def _missing_keys(run: TrafficRun, policies: PolicySet, most: Fraction) -> Iterator[Diagnostic]:
    matching, requests = run.tally.matching, run.tally.seen.requests
    by_id = {rule.id: rule for rule in policies.rules}
    by_fact: dict[str, list[str]] = {}
    for rule, name in sorted(matching.keyless):
        if matching.keyless[rule, name] > most * matching.matched[rule]:
            by_fact.setdefault(name, []).append(rule)
    for name, rules in sorted(by_fact.items()):
        first = max(rules, key=lambda rule: (matching.keyless[rule, name], rule))
        decided = sum(matching.keyless_decided[rule, name] for rule in rules)
        others = len(rules) - 1
        whose = f"rule `{first}` counts" + (f", as {plural(others, 'other')} do" if others else "")
        missing = share(matching.keyless[first, name], matching.matched[first])
        message = (
            f"fact `{name}`, by which {whose}, is missing in {missing} of the requests that "
            "it matched: what stands in for it was counted"
        )
        if decided:
            message += f", and decided {plural(decided, 'request')}"
        help = (
            "the account stands in, without one the network, else one counter for all; mend its "
            "source, count by another fact, or test that it `exists`"
        )
        yield finding("GR303", message, by_id[first].span, help, is_mild=decided <= most * requests)


def _tests(rules: list[Rule]) -> str:
    first = f"rule `{rules[0].id}` tests"
    others = len(rules) - 1
    if not others:
        return first
    return f"rule `{rules[0].id}` and {plural(others, 'other')} test"

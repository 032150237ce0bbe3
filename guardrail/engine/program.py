"""What rules ask of a request, read plainly: a plan, what a reply makes of it, and an index.

This is the readable meaning. Generated decisions (`guardrail.engine.emit`) have to come to the
same, and leave to it what is odd. Planning costs some ten times what a generated decision does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from guardrail.engine.expressions import Facts, allowance, key_text, spill_text, value_text
from guardrail.engine.sizes import Amounts
from guardrail.engine.verbs.base import Finding, Limit, Part, Receipt, receipt_of, refuses
from guardrail.model.amounts import SECOND
from guardrail.model.cells import Cell, Charge, CounterReply, Outcome
from guardrail.model.conditions import Comparison, Condition, Every, compile_condition
from guardrail.model.effects import Mode
from guardrail.model.facts import Fact, FactType
from guardrail.model.rules import Block, CountingVerb, Degrade, Exemption, Rule


class Plan:
    """A decision so far: what static rules found, and the cells that counting rules charge.

    `now` is in microseconds. `parts` tells of each cell what it stands for.
    """

    __slots__ = (
        "amounts",
        "cells",
        "charges",
        "facts",
        "findings",
        "id",
        "notes",
        "now",
        "parts",
        "spill",
    )

    def __init__(
        self,
        facts: Mapping[str, Any],
        amounts: Amounts,
        now: int,
        decision_id: str,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.facts = facts
        self.amounts = amounts
        self.now = now
        self.id = decision_id
        self.notes = notes
        self.findings: list[Finding] = []
        self.charges: list[Charge] = []
        self.cells: list[Cell] = []
        self.parts: list[Part] = []
        self.spill = spill_text(facts)

    @property
    def seconds(self) -> float:
        """The decision's time in seconds since the epoch."""
        return self.now / SECOND

    @property
    def refused(self) -> bool:
        """Whether the request is refused already, so that no counter need be asked."""
        return refuses(self.findings)

    def applied(self, outcome: Outcome) -> list[bool]:
        """Return which of its charges the store applied."""
        return [
            (outcome.admitted if charge.after is None else outcome.refused[charge.after])
            and not outcome.refused[i]
            for i, charge in enumerate(self.charges)
        ]


def looked_at(
    plan: Plan, outcome: Outcome | None
) -> tuple[list[Finding], list[tuple[Receipt, bool]]]:
    """Return what the cells of a plan ask for, and the receipts of its limits.

    Each receipt says whether it was charged; there are none where no store was asked.
    """
    found: list[Finding | None] = []
    looked: list[tuple[Receipt, bool]] = []
    if outcome is None:
        return [], looked
    applied, now = plan.applied(outcome), plan.now
    for part, cell, reply in zip(plan.parts, plan.cells, outcome.replies, strict=True):
        limit, charged = part.limit, applied[cell.charge]
        if part.role == "limit":
            receipt = receipt_of(limit.first + part.number, part, cell, reply)
            looked.append((receipt, charged))
            found.append(limit.judge(receipt, reply.frees, now))
        elif part.role == "sentence" and charged:
            found.append(limit.sentenced())
        elif part.role == "ban" and isinstance(reply, CounterReply) and reply.used > now:
            found.append(limit.banned(reply.used - now))
    return [finding for finding in found if finding is not None], looked


INDEX_FROM = 16
"""A fact is indexed if at least so many rules can be; fewer are cheaper to test in line."""

WIDEST = 64
"""A rule that lists more values than this is not indexed by them."""

_PLAIN = frozenset(
    (
        FactType.STRING,
        FactType.COUNTRY,
        FactType.ENUM,
        FactType.LEVEL,
        FactType.INTEGER,
        FactType.BOOL,
    )
)


@dataclass(frozen=True, slots=True)
class Index:
    """How rules are found: those tried always, and per fact those tried for a value.

    `buckets` maps a fact to its values' rules, by place in the set; the value None is for a
    request without the fact, where a rule that matches the unknown is tried too.
    """

    always: tuple[int, ...]
    buckets: Mapping[str, Mapping[object, tuple[int, ...]]]


def build_index(rules: Sequence[Rule], facts: Mapping[str, Fact]) -> Index:
    """Return the index of a policy set's rules."""
    candidates = [_candidates(rule.when, facts) for rule in rules]
    popular = Counter(name for values in candidates for name in values)
    always: list[int] = []
    buckets: dict[str, dict[object, list[int]]] = {}
    for place, (rule, values) in enumerate(zip(rules, candidates, strict=True)):
        usable = [name for name in values if popular[name] >= INDEX_FROM]
        if not usable:
            always.append(place)
            continue
        chosen = min(usable, key=lambda name: (len(values[name]), -popular[name], name))
        bucket = buckets.setdefault(chosen, {})
        keys: list[object] = sorted(values[chosen], key=repr)
        if rule.unknown != "skip":
            keys.append(None)
        for key in keys:
            bucket.setdefault(key, []).append(place)
    return Index(
        tuple(always),
        {
            name: {value: tuple(places) for value, places in bucket.items()}
            for name, bucket in sorted(buckets.items())
        },
    )


def _candidates(when: Condition, facts: Mapping[str, Fact]) -> dict[str, frozenset[object]]:
    """Return the facts that a condition needs to have one of a few values."""
    parts = when.parts if isinstance(when, Every) else (when,)
    found: dict[str, frozenset[object]] = {}
    for part in parts:
        if isinstance(part, Every):
            for name, values in _candidates(part, facts).items():
                found.setdefault(name, values)
        elif isinstance(part, Comparison) and part.operator == "in":
            wanted = cast(frozenset[object], part.operand)
            if facts[part.fact].type in _PLAIN and 0 < len(wanted) <= WIDEST:
                found.setdefault(part.fact, wanted)
    return found


Planner = Callable[[Plan], None]

UNSEEN = "u"
"""The member that stands for a value which is missing: all of those are one."""


def member_text(verb: CountingVerb, facts: Facts) -> str:
    """Return the value that a rule which counts values shows to its set, else nothing."""
    count = verb.facts[len(verb.key.facts) :]
    if not count:
        return ""
    value = facts.get(count[0])
    return UNSEEN if value is None else "=" + value_text(value)


def rule_applies(rule: Rule, exemptions: Sequence[Exemption]) -> Callable[[Facts, int], bool]:
    """Return whether a rule applies: its dates, its condition, and no exemption from it."""
    condition = compile_condition(rule.when)
    on_unknown = rule.unknown != "skip"
    exceptions = [
        (compile_condition(exemption.when), exemption.unknown_holds, exemption.expires)
        for exemption in exemptions
        if rule.id in exemption.rules
    ]

    def applies(facts: Facts, now: int) -> bool:
        if rule.start is not None and now < rule.start:
            return False
        if rule.end is not None and now >= rule.end:
            return False
        seconds = now / SECOND
        answer = condition(facts, seconds)
        if not (on_unknown if answer is None else answer):
            return False
        for exempts, on_unknown_exempt, expires in exceptions:
            answer = exempts(facts, seconds) if now < expires else False
            if on_unknown_exempt if answer is None else answer:
                return False
        return True

    return applies


def static_finding(rule: Rule) -> Finding:
    """Return what a rule without counters asks for where it applies."""
    verb = cast(Block | Degrade, rule.verb)
    return Finding(rule.index, verb.verdict.effect, verb.verdict, None, rule.mode is Mode.SHADOW)


def rule_planner(rule: Rule, limit: Limit | None, exemptions: Sequence[Exemption]) -> Planner:
    """Return the function by which one rule adds what it asks for to a plan."""
    applies = rule_applies(rule, exemptions)
    verb = rule.verb
    if isinstance(verb, (Block, Degrade)):
        finding = static_finding(rule)

        def find(plan: Plan) -> None:
            if applies(plan.facts, plan.now):
                plan.findings.append(finding)

        return find
    key = key_text(verb.key.facts, rule.unknown)
    amounts = verb.allowances
    skips_unseen = rule.unknown == "skip"

    def count(plan: Plan) -> None:
        if not applies(plan.facts, plan.now):
            return
        whose = key(plan.facts)
        member = member_text(verb, plan.facts)
        if whose is None or (skips_unseen and member == UNSEEN):
            return
        allowances = tuple(allowance(amount, plan.facts, plan.now) for amount in amounts)
        cast(Limit, limit).charge(plan, allowances, whose, member)

    return count


def compose(planners: Sequence[Planner], index: Index) -> Planner:
    """Return one planner that runs, in order, all that the index finds for a request."""
    always = [planners[place] for place in index.always]
    buckets = [
        (name, {value: [planners[p] for p in places] for value, places in bucket.items()})
        for name, bucket in index.buckets.items()
    ]

    def plan_all(plan: Plan) -> None:
        for planner in always:
            planner(plan)
        for name, bucket in buckets:
            for planner in bucket.get(plan.facts.get(name), ()):
                planner(plan)

    return plan_all

"""The whole story of a decision, as data: every rule, why it matched or not, every counter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from guardrail.engine.conclude import ShadowReport, idle_note
from guardrail.engine.expressions import allowance
from guardrail.engine.facts import Reading
from guardrail.engine.verbs import Finding, LimitStatus, in_unit
from guardrail.model.amounts import SECOND, Banded, without_raises
from guardrail.model.conditions import (
    Answer,
    Comparison,
    Condition,
    Every,
    Negation,
    compile_condition,
    evaluate,
)
from guardrail.model.effects import Effect, Mode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import BURST, Rule

Standing = Literal["match", "no match", "exempt", "off", "not in force"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One comparison of a condition, answered: as written, the fact's value, and its answer.

    `value` and `answer` are None where the fact is missing.
    """

    text: str
    fact: str
    value: object | None
    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionStory:
    """A part of a condition as it stands in the policy, answered.

    `word` is `all`, `any` or `not` over its `parts`, or `test` for one comparison, which `test`
    then tells of; `always` is `all` without parts. `answer` is None where it is unknown.
    """

    word: Literal["all", "any", "not", "test"]
    answer: Answer
    test: Answered | None = None
    parts: tuple[ConditionStory, ...] = ()

    @property
    def tests(self) -> tuple[Answered, ...]:
        """Every comparison in it, in the order of the policy."""
        if self.test is not None:
            return (self.test,)
        return tuple(test for part in self.parts for test in part.tests)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExemptionStory:
    """How one exemption of a rule stood to a request; `ended` tells that its time is over.

    `raises` tells that it raises the rule's amounts, and lifts nothing. `unknown` tells that its
    condition hinged on a missing fact.
    """

    exemption: str
    applies: bool
    raises: bool
    ended: bool
    expires: float
    unknown: bool
    condition: ConditionStory


@dataclass(frozen=True, slots=True, kw_only=True)
class BandStory:
    """Which band of an amount a request is in: the fact, its value, and where the band starts.

    `value` is None where the fact is missing. `start` is as the author wrote it, None below the
    first band and where the fact is missing. `amount` is in the unit people read (money in USD),
    None is unlimited.
    """

    unit: str
    fact: str
    value: object | None
    start: str | None
    amount: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleStory:
    """How one rule stood to a request.

    `unknown` tells that its condition hinged on a missing fact. `effect` and `reason` are what it
    asked for, None where it asked for nothing; `exemption` is the one that lifted it, and
    `exemptions` tells of each that names the rule. `bands` are those its amounts are in. `idle`
    says why the weaker model it asked for cannot be served, None where it can.
    """

    rule: str
    verb: str
    mode: Mode
    place: str
    standing: Standing
    unknown: bool
    condition: ConditionStory
    exemption: str | None
    exemptions: tuple[ExemptionStory, ...]
    bands: tuple[BandStory, ...]
    counters: tuple[LimitStatus, ...]
    effect: Effect | None
    reason: str | None
    retry_after: float | None
    idle: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A decision and all that led to it; `sources` name the data of its facts, with dates."""

    id: str
    revision: str
    sources: tuple[str, ...]
    time: float
    effect: Effect
    rule: str | None
    reason: str | None
    message: str | None
    retry_after: float | None
    obligations: Mapping[str, object]
    facts: Mapping[str, object]
    amounts: Mapping[str, int]
    rules: tuple[RuleStory, ...]
    shadow: tuple[ShadowReport, ...]
    errors: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the explanation as plain values, fit for JSON."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def rule_stories(
    policies: PolicySet,
    reading: Reading,
    found: Sequence[Finding],
    limits: Sequence[LimitStatus],
) -> tuple[RuleStory, ...]:
    """Return how each rule stood to a request, given what was found and how its counters stand."""
    asked = {f.order: f for f in reversed(found)}
    counters: dict[str, list[LimitStatus]] = {}
    for status in limits:
        counters.setdefault(status.rule, []).append(status)
    return tuple(
        _rule_story(
            policies, rule, reading, tuple(counters.get(rule.id, ())), asked.get(rule.index)
        )
        for rule in policies.rules
    )


def _rule_story(
    policies: PolicySet,
    rule: Rule,
    reading: Reading,
    counters: tuple[LimitStatus, ...],
    finding: Finding | None,
) -> RuleStory:
    answer = compile_condition(rule.when)(reading.facts, reading.seconds)
    exemptions = tuple(_exemption_stories(policies, rule, reading))
    exemption = next((s.exemption for s in exemptions if s.applies and not s.raises), None)
    matched = rule.unknown != "skip" if answer is None else answer
    standing: Standing = "match" if matched else "no match"
    if rule.mode is Mode.OFF:
        standing = "off"
    elif not _in_force(rule, reading.now):
        standing = "not in force"
    elif matched and exemption is not None:
        standing = "exempt"
    return RuleStory(
        rule=rule.id,
        verb=rule.verb.name,
        mode=rule.mode,
        place=f"{rule.span.file}:{rule.span.line}",
        standing=standing,
        unknown=answer is None,
        condition=_condition_story(rule.when, reading),
        exemption=exemption if standing == "exempt" else None,
        exemptions=exemptions,
        bands=tuple(_band_stories(rule, reading)),
        counters=counters,
        effect=finding.effect if finding else None,
        reason=finding.verdict.reason if finding else None,
        retry_after=None if finding is None or finding.wait is None else finding.wait / SECOND,
        idle=None if finding is None else _idle(policies, reading, finding),
    )


def _band_stories(rule: Rule, reading: Reading) -> Iterator[BandStory]:
    verb = rule.verb
    for key, amount in verb.written:
        banded = without_raises(amount)
        if not isinstance(banded, Banded):
            continue
        unit = key if verb.units else verb.name
        value = reading.facts.get(banded.fact)
        row = 0 if value is None else banded.row(value)
        most = allowance(banded, reading.facts, reading.now)
        counted = verb.units[0] if unit == BURST else unit
        yield BandStory(
            unit=unit,
            fact=banded.fact,
            value=value,
            start=banded.bands[row - 1].text if row else None,
            amount=None if most is None else in_unit(most, counted),
        )


def _idle(policies: PolicySet, reading: Reading, finding: Finding) -> str | None:
    return idle_note(policies, reading.facts.get("request.model"), finding)


def _exemption_stories(
    policies: PolicySet, rule: Rule, reading: Reading
) -> Iterator[ExemptionStory]:
    for exemption in policies.exemptions:
        if rule.id not in exemption.rules and rule.id not in exemption.raises:
            continue
        answer = compile_condition(exemption.when)(reading.facts, reading.seconds)
        ended = reading.now >= exemption.expires
        holds = exemption.unknown_holds if answer is None else answer
        yield ExemptionStory(
            exemption=exemption.id,
            applies=holds and not ended,
            raises=rule.id in exemption.raises,
            ended=ended,
            expires=exemption.expires / SECOND,
            unknown=answer is None,
            condition=_condition_story(exemption.when, reading),
        )


def _in_force(rule: Rule, now: int) -> bool:
    return (rule.start is None or now >= rule.start) and (rule.end is None or now < rule.end)


def _condition_story(condition: Condition, reading: Reading) -> ConditionStory:
    if isinstance(condition, Comparison):
        value = reading.facts.get(condition.fact)
        answer = evaluate(condition, reading.facts, reading.seconds)
        test = Answered(text=condition.text, fact=condition.fact, value=value, answer=answer)
        return ConditionStory(word="test", answer=answer, test=test)
    answer = compile_condition(condition)(reading.facts, reading.seconds)
    if isinstance(condition, Negation):
        return ConditionStory(
            word="not", answer=answer, parts=(_condition_story(condition.part, reading),)
        )
    word: Literal["all", "any"] = "all" if isinstance(condition, Every) else "any"
    parts = tuple(_condition_story(part, reading) for part in condition.parts)
    return ConditionStory(word=word, answer=answer, parts=parts)


def _plain(value: Any) -> Any:
    if isinstance(value, (Effect, Mode)):
        return str(value) if isinstance(value, Effect) else value.value
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value

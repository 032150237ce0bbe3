"""Running the tests a policy author wrote: each from empty counters, on its own clock."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from guardrail.analysis import Point, points_of, reached
from guardrail.engine import REPEATED, Decision
from guardrail.errors import Diagnostic, finding
from guardrail.guard import Guard
from guardrail.model.amounts import SECOND, possible_amounts
from guardrail.model.effects import Effect, Mode
from guardrail.model.policy import Expectation, PolicySet, Scenario, ScenarioStep
from guardrail.model.rules import Exemption, Rule

WAIT_TOLERANCE = 0.001
"""How far a `retry_after` may be from what a test expects, in seconds."""

UNLISTED = MappingProxyType({"output_tokens": 0, "cached_input_tokens": 0, "reasoning_tokens": 0})
"""What a request used whose test does not list it: what it lists is all that was used.

It is reserved as any request is: without an `output_tokens`, the longest answer of its model.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """The first request of a test that was not decided as expected.

    `number` counts the test's requests from 1. `differences` are pairs of what was expected and
    what came instead, in words; `decision` is None where the expectation itself is wrong.
    """

    number: int
    expectation: Expectation
    facts: Mapping[str, object]
    differences: tuple[tuple[str, str], ...]
    decision: Decision | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioResult:
    """How one test went: its requests, the seconds it simulated, and its mismatch, if any."""

    scenario: Scenario
    requests: int
    simulated: float
    mismatch: Mismatch | None


@dataclass(slots=True)
class SuiteResult:
    """How all tests went; `decided` holds the rules that decided a request as was expected.

    `reached` holds the rows, steps and branches of them that such requests went through.
    """

    results: list[ScenarioResult] = field(default_factory=list)
    decided: set[str] = field(default_factory=set)
    reached: set[Point] = field(default_factory=set)

    @property
    def failed(self) -> int:
        """How many tests failed."""
        return sum(result.mismatch is not None for result in self.results)


def run_suite(policies: PolicySet, geo: str | Path | None = None) -> SuiteResult:
    """Run every test of a policy set, each with empty counters in memory.

    `geo` is a country database instead of the embedded one. The environment has no say.
    """
    suite = SuiteResult()
    known = {rule.id for rule in policies.rules}
    with Guard.from_policies(policies, geo=geo, environ={}) as guard:
        for scenario in policies.scenarios:
            guard.empty()
            run = _Run(guard, scenario, known)
            suite.results.append(run.result())
            suite.decided |= run.decided
            suite.reached |= run.reached
    return suite


def suite_findings(
    policies: PolicySet, suite: SuiteResult, now: int, geo: str | Path | None = None
) -> list[Diagnostic]:
    """Return what is wrong with the tests that passed, at `now` (microseconds).

    GR403: a test expects nothing. GR404: a test passes by an exemption, or a rule, that has ended
    since.
    """
    found: list[Diagnostic] = []
    for scenario in policies.scenarios:
        if all(step.expect is None for step in scenario.steps):
            message = f"test `{scenario.name}` expects nothing, so it cannot fail"
            help = "say with `expect` what has to come of its requests"
            found.append(finding("GR403", message, scenario.span, help))
    ended: list[Exemption | Rule] = [one for one in policies.exemptions if one.expires <= now]
    ended += [rule for rule in policies.rules if _has_ended(rule, now)]
    passed = [one.scenario for one in suite.results if one.mismatch is None]
    resting = _failing(policies, passed, ended, geo)
    alone = [(one, _failing(policies, resting, [one], geo)) for one in ended]
    for scenario in resting:
        # What none of them alone brings about, all of them do.
        named = [one for one, failing in alone if scenario in failing] or ended
        kinds = [("rule" if isinstance(one, Rule) else "exemption", one.id) for one in named]
        names = ", ".join(f"{kind} `{id}`" for kind, id in kinds)
        message = f"test `{scenario.name}` rests on what has ended: {names}"
        help = "expect what happens without it, or renew it"
        found.append(finding("GR404", message, scenario.span, help))
    return found


def _failing(
    policies: PolicySet,
    scenarios: Sequence[Scenario],
    ended: Sequence[Exemption | Rule],
    geo: str | Path | None,
) -> list[Scenario]:
    """Return those of some tests that fail once some exemptions and rules have ended."""
    if not ended or not scenarios:
        return []
    left = replace(
        policies,
        exemptions=tuple(one for one in policies.exemptions if one not in ended),
        rules=tuple(replace(r, mode=Mode.OFF) if r in ended else r for r in policies.rules),
        scenarios=tuple(scenarios),
    )
    return [one.scenario for one in run_suite(left, geo).results if one.mismatch is not None]


def _has_ended(rule: Rule, now: int) -> bool:
    return rule.mode is not Mode.OFF and rule.end is not None and rule.end <= now


def uncovered(policies: PolicySet, suite: SuiteResult) -> tuple[Point, ...]:
    """Return the rows, steps and branches that no test went through, in their order."""
    return tuple(point for point in points_of(policies) if point not in suite.reached)


def possible_effects(rule: Rule) -> frozenset[Effect]:
    """Return the effects that a rule can have, in shadow those it would have."""
    effects = {verdict.effect for verdict in rule.verb.verdicts}
    if rule.escalate is not None or _can_be_nothing(rule):
        effects.add(Effect.BLOCK)
    return frozenset(effects)


def reasons_of(rule: Rule) -> frozenset[str]:
    """Return what a test may call a rule's effects: their reasons, and models to degrade to."""
    verdicts = rule.verb.verdicts
    models = [verdict.obligations.model for verdict in verdicts if verdict.obligations is not None]
    banned = [REPEATED] if rule.escalate is not None else []
    return frozenset((*(verdict.reason for verdict in verdicts), *filter(None, models), *banned))


def _can_be_nothing(rule: Rule) -> bool:
    """Tell whether a limit may be of 0, which blocks: waiting helps nobody."""
    return any(0 in (possible_amounts(amount) or (0,)) for amount in rule.verb.allowances)


def undecided_rules(policies: PolicySet, decided: set[str]) -> tuple[str, ...]:
    """Return the rules in force that decided none of the tests, in their order."""
    return tuple(
        rule.id for rule in policies.rules if rule.mode is not Mode.OFF and rule.id not in decided
    )


class _Run:
    """One test being run."""

    def __init__(self, guard: Guard, scenario: Scenario, known: set[str]) -> None:
        self.decided: set[str] = set()
        self.reached: set[Point] = set()
        self._guard = guard
        self._scenario = scenario
        self._known = known
        self._now = scenario.now
        self._requests = 0
        # due, order of entry, decision, usage
        self._pending: list[tuple[int, int, Decision, Mapping[str, object]]] = []

    def result(self) -> ScenarioResult:
        mismatch = None
        for step in self._scenario.steps:
            mismatch = self._wrong_name(step.expect) or self._run_step(step)
            if mismatch is not None:
                break
        return ScenarioResult(
            scenario=self._scenario,
            requests=self._requests,
            simulated=(self._now - self._scenario.now) / SECOND,
            mismatch=mismatch,
        )

    def _run_step(self, step: ScenarioStep) -> Mismatch | None:
        facts = {**self._scenario.facts, **step.facts}
        self._now += step.advance
        seen: set[tuple[object, ...]] = set()
        for _ in range(step.repeat):
            decision = self._decide(step, facts)
            differences = differing(step.expect, decision) if step.expect else ()
            if step.expect is not None and differences:
                return Mismatch(
                    number=self._requests,
                    expectation=step.expect,
                    facts=facts,
                    differences=differences,
                    decision=decision,
                )
            if step.expect is not None:
                self._shown(step.expect, decision, seen)
            self._now += step.every
        return None

    def _shown(
        self, expect: Expectation, decision: Decision, seen: set[tuple[object, ...]]
    ) -> None:
        """Take what a decision shows that was as expected; `seen` holds those like it."""
        acted = tuple(found.rule for found in decision.shadow) if expect.shadow is not None else ()
        kind = (decision.rule, decision.effect, decision.reason, tuple(decision.obligations), acted)
        if kind in seen:
            return
        seen.add(kind)
        if decision.rule is not None:
            self.decided.add(decision.rule)
        self.decided.update(acted)
        notices = expect.obligations or {}
        self.reached |= reached(decision, shadow=expect.shadow is not None, notices=notices)

    def _decide(self, step: ScenarioStep, facts: Mapping[str, object]) -> Decision:
        self._settle_due()
        self._requests += 1
        decision = self._guard.decide(facts, step.estimate, now=self._now / SECOND)
        if not decision.effect.refuses:
            usage = {**UNLISTED, **step.estimate} if step.usage is None else step.usage
            due = self._now + step.duration
            heapq.heappush(self._pending, (due, self._requests, decision, usage))
            if not step.duration:
                self._settle_due()
        return decision

    def _settle_due(self) -> None:
        while self._pending and self._pending[0][0] <= self._now:
            due, _, decision, usage = heapq.heappop(self._pending)
            self._guard.settle(decision, usage, now=due / SECOND)

    def _wrong_name(self, expect: Expectation | None) -> Mismatch | None:
        if expect is None:
            return None
        named = ((expect.by,) if expect.by else ()) + (expect.shadow or ())
        for name in named:
            if name not in self._known:
                return Mismatch(
                    number=self._requests + 1,
                    expectation=expect,
                    facts=self._scenario.facts,
                    differences=((f"by {name}", "there is no such rule"),),
                    decision=None,
                )
        return None


def differing(expect: Expectation, decision: Decision) -> tuple[tuple[str, str], ...]:
    """Return how a decision differs from what was expected: pairs of expected and got."""
    differences: list[tuple[str, str]] = []
    wanted = _described(expect.effect, expect.detail, expect.by)
    detail = _detail(decision)
    if (
        decision.effect is not expect.effect
        or (expect.detail is not None and detail != expect.detail)
        or (expect.by is not None and decision.rule != expect.by)
    ):
        differences.append((wanted, _described(decision.effect, detail, decision.rule)))
    differences += _differing_wait(expect, decision)
    for name, value in (expect.obligations or {}).items():
        got = decision.obligations.get(name)
        if _plain(got) != _plain(value):
            differences.append((_obliged(name, value), _obliged(name, got)))
    if expect.shadow is not None:
        acted = sorted({shadow.rule for shadow in decision.shadow})
        if acted != sorted(set(expect.shadow)):
            differences.append((_listed(expect.shadow), _listed(acted)))
    return tuple(differences)


def _differing_wait(expect: Expectation, decision: Decision) -> list[tuple[str, str]]:
    if expect.retry_after is None:
        return []
    got = decision.retry_after
    if got is not None and abs(got - expect.retry_after) <= WAIT_TOLERANCE:
        return []
    shown = "none" if got is None else f"{got:g}s"
    return [(f"retry_after {expect.retry_after:g}s", f"retry_after {shown}")]


def _described(effect: Effect, detail: str | None, rule: str | None) -> str:
    words = [str(effect)]
    if detail is not None:
        words.append(detail)
    if rule is not None:
        words.append(f"by {rule}")
    return " ".join(words)


def _detail(decision: Decision) -> str | None:
    if decision.effect is Effect.DEGRADE:
        model = decision.obligations.get("model")
        return None if model is None else str(model)
    return decision.reason


def _obliged(name: str, value: object) -> str:
    if isinstance(value, tuple | list):
        value = ", ".join(map(str, value))
    return f"obligation {name}: {'none' if value is None else value}"


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _listed(rules: Sequence[str]) -> str:
    return "shadow " + (", ".join(rules) if rules else "none")

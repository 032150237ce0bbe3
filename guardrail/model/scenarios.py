"""The tests a policy author writes beside the rules, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from guardrail.errors import Span
from guardrail.model.effects import Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a test expects of a decision; None (or an empty mapping) is not looked at.

    `detail` is the reason of a refusal or the model of a degrade; `retry_after` is in seconds;
    `shadow` lists the shadow rules that would have acted.
    """

    effect: Effect
    detail: str | None = None
    by: str | None = None
    retry_after: float | None = None
    obligations: Mapping[str, object] | None = None
    shadow: tuple[str, ...] | None = None
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioStep:
    """One request of a scenario, perhaps repeated.

    `advance` moves the clock before it, `every` after each repeat, `duration` passes before it
    settles; all in microseconds. `estimate` and `usage` map units to amounts; usage None settles
    at the estimate. `facts` add to the scenario's own.
    """

    facts: Mapping[str, object] = field(default_factory=dict)
    estimate: Mapping[str, object] = field(default_factory=dict)
    usage: Mapping[str, object] | None = None
    advance: int = 0
    repeat: int = 1
    every: int = 0
    duration: int = 0
    expect: Expectation | None = None
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One named test: facts, a starting time (microseconds since the epoch), and its steps."""

    name: str
    now: int
    facts: Mapping[str, object]
    steps: tuple[ScenarioStep, ...]
    span: Span

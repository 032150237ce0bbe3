"""A loaded policy set: everything a decision depends on, resolved and immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from guardrail.errors import Diagnostic, Ignore, Span
from guardrail.model.claims import Claim
from guardrail.model.conditions import Condition
from guardrail.model.effects import Effect
from guardrail.model.facts import Fact
from guardrail.model.links import Links, Score
from guardrail.model.rules import Exemption, Rule

PRICE_SCALE = 1_000_000
"""Prices are whole millionths of a micro-USD a token, so that sums stay exact integers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What tokens cost, in millionths of a micro-USD a token (USD per million tokens × 10⁶)."""

    input: int
    output: int
    cached_input: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model the host serves: its price, its output cap, the next weaker one."""

    name: str
    price: Price | None = None
    max_output: int | None = None
    weaker: str | None = None
    aliases: tuple[str, ...] = ()


Measure = Literal[
    "refused", "blocked", "throttled", "degraded", "stepped_up", "bad_lines",
]  # fmt: skip
"""What a replay is measured by: the requests that met this, or the lines that were none."""

BoundOperator = Literal["lt", "lte", "gt", "gte"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """What a replay of traffic must come to: one measure of a segment, and its bound.

    The segment is the requests for which `when` holds. `by` narrows the measure to what one rule
    decided, for a shadow rule to what it would have. `accounts` measures accounts instead of
    requests. The bound is a share (0 to 1) of the segment, or a number if not `is_share`. `text`
    is the whole in words.
    """

    when: Condition
    measure: Measure
    operator: BoundOperator
    bound: Fraction
    is_share: bool
    accounts: bool = False
    by: str | None = None
    text: str
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """All files of one policy set, compiled.

    `name` is the namespace of its counters, `revision` a digest of its files' contents
    (`sha256:…`), `timezone` an IANA name. `facts` holds the standard vocabulary with the set's
    declarations over it. `rules` stand in the order that breaks ties: relative path, then line.
    `unlisted_model` is the model that one not listed counts as, None where nothing is said: it then
    costs as the dearest, and no degrade moves it. `links` say which accounts act as one, None where
    each acts alone, and `score` what tells against actors. `thresholds` are what a replay of
    traffic must come to. `warnings` are what was found that keeps
    nothing from loading, and `ignores` the comments that accept such findings, `claims` are to be
    proved of all requests.
    """

    name: str
    revision: str
    files: tuple[str, ...]
    facts: Mapping[str, Fact]
    rules: tuple[Rule, ...]
    exemptions: tuple[Exemption, ...] = ()
    models: Mapping[str, Model] = field(default_factory=dict)
    units: tuple[str, ...] = ()
    timezone: str = "UTC"
    scenarios: tuple[Scenario, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    unlisted_model: str | None = None
    links: Links | None = None
    score: Score | None = None
    warnings: tuple[Diagnostic, ...] = ()
    ignores: tuple[Ignore, ...] = ()
    declared: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The names of its lists, tables, conditions and fixtures, by their section."""
    claims: tuple[Claim, ...] = ()
    places: Mapping[tuple[str, str], Span] = field(default_factory=dict)
    """Where amounts are written, by their rule's id and their key: in sets that are linted."""

    def model_named(self, name: object) -> Model | None:
        """Return the model of that name or alias, None if it is not listed."""
        found = self.models.get(name) if isinstance(name, str) else None
        if found is not None:
            return found
        for model in self.models.values():
            if name in model.aliases:
                return model
        return None

    def model_for(self, name: object) -> Model | None:
        """Return the model that a name counts as: its own, or that of `unlisted_model`.

        A request that names no model counts as none.
        """
        found = self.model_named(name)
        if found is None and self.unlisted_model is not None and isinstance(name, str):
            return self.models.get(self.unlisted_model)
        return found

    def weaker_than(self, name: object) -> tuple[str, ...]:
        """Return the models that degrading `name` may move to, strongest first."""
        chain: list[str] = []
        model = self.model_for(name)
        while model is not None and model.weaker is not None and model.weaker not in chain:
            chain.append(model.weaker)
            model = self.models.get(model.weaker)
        return tuple(chain)


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

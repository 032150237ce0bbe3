"""The shapes of what a policy set declares, and of its tests."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from guardrail.loading.shapes import (
    AnyDuration,
    AnyInstant,
    Degrading,
    ModeName,
    OpenShape,
    Shape,
    described_as,
)
from guardrail.model.cells import TOP

AnyValue: TypeAlias = Annotated[Any, described_as("Value")]
AnyPrice: TypeAlias = Annotated[Any, described_as("Price")]
AnyDetail: TypeAlias = Annotated[Any, described_as("Detail")]
AnyExpectation: TypeAlias = Annotated[Any, described_as("Expectation")]
AnyWait: TypeAlias = Annotated[Any, described_as("Wait")]
AnyFacts: TypeAlias = Annotated[dict[str, Any], described_as("Facts")]
AnyUsage: TypeAlias = Annotated[dict[str, Any], described_as("Usage")]


class FactShape(Shape):
    """The declaration of a fact."""

    type: Literal[
        "string",
        "bool",
        "integer",
        "number",
        "country",
        "ip",
        "timestamp",
        "duration",
        "enum",
        "level",
        "list",
    ]
    """The type of its value; a level is an ordered enum, lowest first."""
    values: list[str] | None = None
    """The values of an enum or a level."""
    default: AnyValue = None
    """Fills the fact in where it is missing."""
    required: bool = False
    """Whether a request without it is blocked."""
    source: Literal["client", "server"] | None = None
    """Who establishes it; only server facts may loosen anything. `client` if left out."""


class PriceShape(Shape):
    """Prices in USD per million tokens."""

    input: AnyPrice
    """Input tokens."""
    output: AnyPrice
    """Output tokens."""
    cached_input: AnyPrice = None
    """Input tokens read from a cache; as `input` if left out."""


class ModelShape(Shape):
    """A model the host serves."""

    price: PriceShape | None = None
    """What its tokens cost."""
    max_output: Annotated[int, Field(ge=0, le=TOP)] | None = None
    """The longest answer it gives, in tokens, 0 for embeddings; reserved where a request sets no
    cap."""
    weaker: str | None = None
    """The model that degrading may move to."""
    aliases: list[str] = Field(default_factory=list)
    """Its other names."""


class DefaultsShape(Shape):
    """What holds for the whole set where nothing else is said."""

    mode: ModeName | None = None
    """The mode of rules that state none."""
    timezone: str | None = None
    """The IANA name of the time zone of dates, calendar windows and `time.…` facts."""
    unlisted_model: str | None = None
    """The model of `models` that one not listed there counts as."""


class ExpectShape(Shape):
    """What a test expects of a decision: exactly one effect, and what explains it."""

    allow: AnyDetail = None
    """Served in full."""
    degrade: AnyDetail = None
    """Served with less: the model it is moved to."""
    throttle: AnyDetail = None
    """Refused for now: the reason."""
    block: AnyDetail = None
    """Refused: the reason."""
    by: str | None = None
    """The rule that decided."""
    retry_after: AnyWait = None
    """How long the client is told to wait."""
    obligations: Degrading | None = None
    """What the host must also do."""
    shadow: list[str] | None = None
    """The shadow rules that would have acted."""


class ScenarioStepShape(OpenShape):
    """One request of a test; amounts stand beside its other keys, by unit."""

    facts: AnyFacts = Field(default_factory=dict)
    """Facts of this request alone."""
    usage: AnyUsage | None = None
    """What it really used, by unit; the amounts if left out."""
    duration: AnyDuration = None
    """How long it runs before it settles."""
    advance: AnyDuration = None
    """How far the clock moves before it."""
    repeat: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """How many times it is sent."""
    every: AnyDuration = None
    """How far the clock moves after each repeat."""
    expect: AnyExpectation = None
    """What the decision must be, each time."""


class ScenarioShape(Shape):
    """One test: facts, and what is expected of them, at once or in steps."""

    name: str
    """What the test shows."""
    now: AnyInstant = "2026-01-05T12:00:00Z"
    """When it starts."""
    facts: AnyFacts = Field(default_factory=dict)
    """The facts of every request in it."""
    expect: AnyExpectation = None
    """What the decision must be."""
    steps: list[ScenarioStepShape] | None = None
    """Several requests, one after the other."""

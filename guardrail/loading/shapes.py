"""The shape of every construct a policy file can hold: its keys, and what kind stands under each.

What the values mean is checked afterwards, where they are compiled. The same models make the
JSON Schema that editors complete from, so each field's docstring is what an author sees there.
"""

from __future__ import annotations

from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from guardrail.loading.nodes import ListNode, MapNode, Node, plain
from guardrail.model.cells import TOP

Count = Annotated[int, Field(ge=1, le=TOP)]
Unknown = Literal["match", "skip"]
ModeName = Literal["enforce", "shadow", "off"]

OPEN = "\0"
"""The key under which a shape gathers what its author may name freely; no file can hold it."""


def described_as(name: str) -> WithJsonSchema:
    """Mark a part that its own code reads, not its shape; editors check it by a named schema."""
    return WithJsonSchema({USE: name})


USE = "$use"
"""In a schema, stands for a reference to the named schema of a part."""

AnyAmount: TypeAlias = Annotated[Any, described_as("Amount")]
AnyKey: TypeAlias = Annotated[Any, described_as("Key")]
AnyDuration: TypeAlias = Annotated[Any, described_as("Duration")]
AnyCondition: TypeAlias = Annotated[Any, described_as("Condition")]
AnyBounds: TypeAlias = Annotated[Any, described_as("Bounds")]
AnyBound: TypeAlias = Annotated[Any, described_as("Bound")]
AnyInstant: TypeAlias = Annotated[str, described_as("Instant")]


def _listed(written: object) -> object:
    return [written] if isinstance(written, str) else written


_TEXT = {"type": "string"}
Texts: TypeAlias = Annotated[
    list[str],
    BeforeValidator(_listed),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}),
]
"""A text, or several of which the first counts that fits."""


class Shape(BaseModel):
    """A construct with a fixed set of keys, made from the node of a map.

    What stands under a key of type `Any` stays a node, for the code that reads it and knows its
    place; all else is plain data.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @classmethod
    def takes(cls, name: str, units: frozenset[str]) -> bool:
        """Whether a key beyond the fixed ones may stand here."""
        return False

    @model_validator(mode="before")
    @classmethod
    def _from_node(cls, data: object, info: ValidationInfo) -> object:
        if not isinstance(data, MapNode):
            return data
        units: frozenset[str] = info.context or frozenset()
        types = _types_of(cls)
        fixed: dict[str, object] = {}
        named: dict[str, Node] = {}
        for entry in data.entries:
            name = entry.key.text
            if cls.takes(name, units):
                named[name] = entry.value
            else:
                fixed[name] = _as_type(entry.value, types.get(name, Any))
        return fixed | {OPEN: named} if issubclass(cls, OpenShape) else fixed


@cache
def _types_of(shape: type[Shape]) -> dict[str, Any]:
    """Return the type of each key of a shape."""
    fields = shape.model_fields.items()
    return {field.alias or name: _first_of(field.annotation) for name, field in fields}


def _first_of(annotation: Any) -> Any:
    """Return a type without what is annotated to it; of several the first."""
    while get_origin(annotation) in (Annotated, Union, UnionType):
        annotation = next(part for part in get_args(annotation) if part is not NoneType)
    return annotation


def _as_type(node: Node, annotation: Any) -> object:
    """Return a node as a field of a type takes it; a shape makes itself from its node."""
    if annotation is Any:
        return node
    if isinstance(node, MapNode):
        if get_origin(annotation) is dict:
            each = _first_of(get_args(annotation)[1])
            return {entry.key.text: _as_type(entry.value, each) for entry in node.entries}
        if isinstance(annotation, type) and issubclass(annotation, Shape):
            return node
    if isinstance(node, ListNode) and get_origin(annotation) is list:
        each = _first_of(get_args(annotation)[0])
        return [_as_type(part, each) for part in node.parts]
    return plain(node)


class OpenShape(Shape):
    """A construct that also takes keys its author names: units, or `x-…` obligations."""

    entries: dict[str, Any] = Field(default_factory=dict, alias="\0")

    @classmethod
    def takes(cls, name: str, units: frozenset[str]) -> bool:
        """Whether a key beyond the fixed ones may stand here."""
        return name in units


class Refusal(Shape):
    """A refusal, explained."""

    reason: str | None = None
    """A stable code for programs; the rule's id if left out."""
    message: str | None = None
    """A sentence for the person whose request it was."""
    status: int | None = None
    """The HTTP status of the answer."""
    remedy: Literal["verify", "pay", "contact"] | None = None
    """What the person can do about it."""


class Degrading(OpenShape):
    """Serve less: any `x-…` entry is handed to the host as it is."""

    model: str | None = None
    """The weaker model to serve; only where the model asked for leads to it by `weaker`."""
    max_output_tokens: Count | None = None
    """A cap on the answer's length; the lowest of several wins."""
    disable: list[Literal["tools", "reasoning", "stream"]] | None = None
    """Features to switch off."""

    @classmethod
    def takes(cls, name: str, units: frozenset[str]) -> bool:
        """Whether a key is an obligation of the host's own."""
        return name.startswith("x-")


class Over(Shape):
    """What happens when the limit refuses: exactly one of these."""

    throttle: Refusal | None = None
    """Refuse for now (429)."""
    block: Refusal | None = None
    """Refuse (403)."""
    degrade: Degrading | None = None
    """Serve less; the rule then never refuses."""


class StepShape(Shape):
    """What happens from a percentage of a budget on: exactly one of these."""

    at: Annotated[Any, described_as("Percent")]
    """The percentage, such as `80%`; steps rise, and `100%` is the limit itself."""
    notify: dict[str, str] | None = None
    """`x-…` entries for the host to pass on; the request is served in full."""
    degrade: Degrading | None = None
    """Serve less."""
    throttle: Refusal | None = None
    """Refuse for now (429)."""
    block: Refusal | None = None
    """Refuse (403)."""


class RateShape(OpenShape):
    """A pace of one unit, such as `requests: 60/minute`: at most burst + rate × time."""

    burst: AnyAmount = None
    """How much may come at once; the amount itself if left out."""
    key: AnyKey
    """Whose limit it is: a fact, a list of facts, or `global`."""


class BudgetShape(OpenShape):
    """An amount per window, of one unit or of several that are charged together."""

    per: Annotated[Any, described_as("Window")]
    """`hour`, `day`, `week`, `month` (calendar), `1m` … `366d` (rolling) or `lifetime`."""
    key: AnyKey
    """Whose budget it is: a fact, a list of facts, or `global`."""


class ConcurrencyShape(Shape):
    """How many requests may be in flight at once."""

    max: AnyAmount
    """The most at once."""
    lease: AnyDuration = "10m"
    """After how long a lost request no longer counts."""
    key: AnyKey
    """Whose requests: a fact, a list of facts, or `global`."""


class DistinctShape(Shape):
    """How many different values of a fact one key may show."""

    count: str
    """The fact whose values are counted."""
    max: AnyAmount
    """The most different values."""
    per: AnyDuration
    """How long a value counts after it was last seen, such as `90d`."""
    key: AnyKey
    """On whose account they are counted: a fact, a list of facts, or `global`."""


class EscalateShape(Shape):
    """Blocks a key that keeps running into this limit."""

    after: Count
    """How many refusals."""
    within: AnyDuration
    """In what time."""
    block_for: AnyDuration
    """How long the key is then blocked."""


def _spelled_out(over: object) -> object:
    return {over: {}} if isinstance(over, str) else over


class RuleShape(Shape):
    """One rule: `when` it applies, and exactly one verb."""

    id: str
    """Names the rule in decisions and keeps its counters; letters, digits, `-`, `_` and `.`."""
    when: AnyCondition = None
    """The condition, or `always`."""
    block: Refusal | None = None
    """Refuse what matches."""
    degrade: Degrading | None = None
    """Serve less of what matches."""
    rate: RateShape | None = None
    """Limit the pace."""
    budget: BudgetShape | None = None
    """Limit the amount in a window."""
    concurrency: ConcurrencyShape | None = None
    """Limit what is in flight at once."""
    distinct: DistinctShape | None = None
    """Limit how many different values of a fact one key shows."""
    over: Annotated[Over | None, BeforeValidator(_spelled_out)] = None
    """What happens when the limit refuses; the default is `throttle`, but `block` for
    `distinct` and `lifetime`."""
    steps: list[StepShape] | None = None
    """What happens on the way to the limit of a budget."""
    escalate: EscalateShape | None = None
    """Block a key that keeps running into this limit."""
    unknown: Unknown | None = None
    """Whether the rule applies when a fact it tests is missing."""
    mode: ModeName | None = None
    """`enforce`, `shadow` (report only) or `off`."""
    exemptible: bool = True
    """Whether exemptions may name this rule."""
    start: AnyInstant | None = Field(default=None, alias="from")
    """The first day, or the instant, from which the rule applies."""
    until: AnyInstant | None = None
    """The last day, or the instant, until which the rule applies."""
    on_store_error: Literal["allow", "deny", "local"] | None = None
    """What to do when the store does not answer."""
    was: str | None = None
    """The rule's former id; its counters go on."""
    rollout: Annotated[Any, described_as("Share")] = None
    """To what share of accounts the rule applies, such as `5%`: the same ones, and more as it
    grows."""
    description: str | None = None
    """What the rule is for, in a sentence."""
    owner: str | None = None
    """Who answers for it."""
    ticket: str | None = None
    """Where it was agreed on."""
    labels: dict[str, str] | None = None
    """Words of your own about it, each under a name."""


class ExemptionShape(Shape):
    """A named exception: where its condition holds, the rules it lists allow more, or do not apply.

    They do not apply unless `raise` says how much they allow.
    """

    id: str
    """Names the exemption."""
    rules: list[str]
    """The ids of the rules it lifts, or raises the amounts of."""
    raised: Annotated[Any, described_as("Raise")] = Field(default=None, alias="raise")
    """What these rules allow at least, by the keys of their amounts: units, `burst` or `max`."""
    when: AnyCondition = None
    """The condition; it may rest only on facts the server establishes."""
    reason: str
    """Why it was granted."""
    expires: AnyInstant
    """The last day, or the instant, on which it holds."""
    unknown: Unknown | None = None
    """Whether it holds when a fact it tests is missing; `skip` if left out."""


class ClaimShape(Shape):
    """A claim about all requests of which `when` holds, of exactly one kind."""

    id: str
    """Names the claim."""
    when: AnyCondition = None
    """Which requests it is about; may be left out beside `client_facts`."""
    never: Annotated[Any, described_as("Effects")] = None
    """The effect, or several, that no such request ever gets."""
    always: Annotated[Any, described_as("Effects")] = None
    """The effect, or several, of which every such request gets one."""
    by: str | None = None
    """The rule that is to see to it alone, all others left aside."""
    at_most: Annotated[dict[str, Any] | None, described_as("Usage")] = None
    """How much of a unit is served at most ..."""
    per: AnyKey = None
    """... to whom: a fact, a list of facts, or `global` ..."""
    over: Annotated[Any, described_as("Period")] = None
    """... and in what time: `ever`, `hour`, `day`, `week`, `month` (calendar), or any `30d`."""
    client_facts: Annotated[Any, described_as("ClientFacts")] = None
    """`never_admit`, or a list of facts: what a client says of them admits no more than saying
    nothing."""
    left_out: list[str] | None = Field(default=None, alias="except")
    """The client's facts that may admit more, as they say what is asked for."""
    unknown: Unknown | None = None
    """Whether it is about requests that lack a fact which `when` tests; `skip` if left out."""


COUNTING = ("rate", "budget", "concurrency", "distinct")
"""The verbs that count, which all have a key."""
VERBS = ("block", "degrade", *COUNTING)
"""The keys of a rule of which exactly one is there."""


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
    today: AnyInstant | None = None
    """When tests start that say no `now`."""
    unlisted_model: str | None = None
    """The model of `models` that one not listed there counts as."""


class LinkWindowShape(Shape):
    """How long evidence lasts after it was last used, in days such as `180d`."""

    strong: AnyDuration = "180d"
    """A shared value of a strong fact."""
    weak: AnyDuration = "14d"
    """Two shared values of weak facts."""


class LinksShape(Shape):
    """Which shared values show that accounts act as one."""

    trusted: AnyCondition
    """Which accounts are trusted, by server facts: they keep budgets of their own."""
    strong: list[str] = Field(default_factory=list)
    """Server facts of which one shared value links, such as `payment.fingerprint`."""
    weak: list[str] = Field(default_factory=list)
    """Facts of which two shared values together link, never a trusted account."""
    window: LinkWindowShape | None = None
    """How long evidence lasts after it was last used."""
    public_after: Annotated[int, Field(ge=1, le=16)] = 3
    """How many trusted accounts, each with a card and an identity of its own, make a weak value
    public: it links nobody any more."""
    max_accounts: Annotated[int, Field(ge=2, le=1_000_000)] = 5000
    """How many accounts an actor may have; who would be one more shares a crowd's budget."""
    exempt: AnyCondition = None
    """Accounts that are never linked, by server facts."""


class SignShape(Shape):
    """One kind of evidence: exactly one of `count`, `when`, `same` and `even`."""

    id: str
    """Names it in `actor.evidence`."""
    family: str
    """What it is evidence of, such as `payment`; of one family the most points count."""
    points: Annotated[int, Field(ge=1, le=1000)]
    """What it is worth."""
    count: str | None = None
    """A fact: `above` how many different values of it tell against an actor."""
    when: AnyCondition = None
    """A condition: for `above` what share of its requests it tells against an actor."""
    same: str | None = None
    """A fact: `above` what share of its requests showing one value of it tell against an actor."""
    even: bool | None = None
    """Whether even times between requests tell against an actor; `above` says how even."""
    above: Annotated[Any, described_as("Above")]
    """A number for `count`, a percentage such as `80%` for all else."""
    least: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """How many requests an actor must have made before a share tells anything."""


class BreakerShape(Shape):
    """Stops scores from acting on further established accounts, for a while."""

    established: AnyCondition
    """Which accounts are established, by server facts."""
    most: Count
    """How many of them may be newly refused or degraded for their actor's score ..."""
    per: AnyDuration
    """... in what time."""


class ScoreShape(Shape):
    """What tells against actors; `actor.score` sums it up for rules."""

    window: AnyDuration = "7d"
    """For how long evidence counts at most; at least for half of that."""
    min_accounts: Annotated[int, Field(ge=2, le=1_000_000)] = 3
    """The fewest accounts of an actor that has a score."""
    evidence: list[SignShape]
    """What is counted; nothing is scored before two families tell against an actor."""
    breaker: BreakerShape | None = None
    """Stops scores from acting on further established accounts, for a while."""


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


class ThresholdShape(Shape):
    """What a replay of traffic must come to, for the requests of a segment."""

    when: AnyCondition = None
    """Which requests; all of them if left out."""
    by: str | None = None
    """Only what this rule decided; what a shadow rule would have."""
    refused: AnyBounds = None
    """How many requests were refused: a share of the segment's such as `{lte: 0.1%}`, or a number.
    """
    refused_accounts: AnyBounds = None
    """How many accounts were refused at least once."""
    blocked: AnyBounds = None
    """How many requests were blocked."""
    blocked_accounts: AnyBounds = None
    """How many accounts were blocked at least once."""
    throttled: AnyBounds = None
    """How many requests were throttled."""
    throttled_accounts: AnyBounds = None
    """How many accounts were throttled at least once."""
    degraded: AnyBounds = None
    """How many requests were degraded."""
    degraded_accounts: AnyBounds = None
    """How many accounts were degraded at least once."""
    stepped_up: AnyBounds = None
    """How many requests were refused with a remedy: verify, pay or contact."""
    stepped_up_accounts: AnyBounds = None
    """How many accounts were refused with a remedy at least once."""
    bad_lines: AnyBounds = None
    """How many lines of the traffic could not be read."""


class BoundsShape(Shape):
    """What a measure must be, in percent of the segment or in numbers."""

    lt: AnyBound = None
    """Less than."""
    lte: AnyBound = None
    """At most."""
    gt: AnyBound = None
    """More than."""
    gte: AnyBound = None
    """At least."""


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
    """When it starts; as `today` of `defaults` says, if left out."""
    use: Annotated[Any, described_as("Names")] = None
    """A fixture, or several, whose facts it has; its own `facts` go before them."""
    matrix: Annotated[dict[str, Any] | None, described_as("Matrix")] = None
    """Facts with several values each: the test runs once with every combination."""
    facts: AnyFacts = Field(default_factory=dict)
    """The facts of every request in it."""
    expect: AnyExpectation = None
    """What the decision must be."""
    steps: list[ScenarioStepShape] | None = None
    """Several requests, one after the other."""

"""Rules as compiled values: what a policy file says, with every name resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from guardrail.errors import Span
from guardrail.model.amounts import Amount
from guardrail.model.effects import Effect, Mode
from guardrail.model.predicates import Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class Obligations:
    """What a host must also do; strictest wins where several rules oblige.

    `model` is the weaker model to serve, `max_output_tokens` a cap, `disable` a subset of tools,
    reasoning and stream; `extra` holds `x-…` entries for the host, passed on as they are.
    """

    model: str | None = None
    max_output_tokens: int | None = None
    disable: tuple[str, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a rule asks for when it strikes: an effect with its explanation.

    `reason` is a stable code, `message` a sentence for people, `status` an HTTP status (None for
    the default of the effect), `remedy` one of verify, pay, contact. An effect of ALLOW with
    obligations is a notice.
    """

    effect: Effect
    reason: str
    message: str | None = None
    status: int | None = None
    remedy: str | None = None
    obligations: Obligations | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A verdict that applies once (used + this reservation) × 100 > limit × `percent`."""

    percent: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Key:
    """Whose counter it is: the facts that tell them apart; none of them is `global`."""

    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """The time a budget covers.

    `kind` is a calendar window, `rolling` (then `length` is in microseconds) or `lifetime`;
    `text` is the window as written, part of the counter's identity.
    """

    kind: Literal["hour", "day", "week", "month", "rolling", "lifetime"]
    text: str
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """Refuses what the rule matches."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Degrade:
    """Serves less of what the rule matches."""

    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Limits the pace of one unit: GCRA, at most burst + rate × t.

    `amount` is units per `period` (microseconds); `burst` None is the amount itself.
    Source: ITU-T I.371, generic cell rate algorithm.
    """

    unit: str
    amount: Amount
    period: int
    burst: Amount | None
    key: Key
    over: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits what is used in a window, for one or several units charged together.

    `steps` rise; the one at 100 % (always there) is what happens when the limit refuses.
    """

    amounts: tuple[tuple[str, Amount], ...]
    window: Window
    key: Key
    steps: tuple[Step, ...]

    @property
    def over(self) -> Verdict:
        """The verdict at 100 %."""
        return self.steps[-1].verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """Limits requests in flight; a lost one ends after `lease` microseconds."""

    most: Amount
    lease: int
    key: Key
    over: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Distinct:
    """Limits how many values of a fact one key may show within `period` microseconds."""

    count: str
    most: Amount
    period: int
    key: Key
    over: Verdict


CountingVerb = Rate | Budget | Concurrency | Distinct
Verb = Block | Degrade | CountingVerb


def units_of(verb: Verb) -> tuple[str, ...]:
    """Return the units that a verb counts; what it counts otherwise has none."""
    if isinstance(verb, Rate):
        return (verb.unit,)
    return tuple(unit for unit, _ in verb.amounts) if isinstance(verb, Budget) else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalate:
    """Bans a key for `block_for` once `after` refusals fell `within`; both in microseconds."""

    after: int
    within: int
    block_for: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: a condition and what follows when it holds.

    `unknown` is as written (None where the file is silent; a rule then matches). `start` and
    `end` bound when it applies, in microseconds since the epoch, end exclusive. `was` is the id
    its counters were kept under before.
    """

    id: str
    index: int
    when: Condition
    verb: Verb
    span: Span
    unknown: Literal["match", "skip"] | None = None
    mode: Mode = Mode.ENFORCE
    exemptible: bool = True
    start: int | None = None
    end: int | None = None
    escalate: Escalate | None = None
    on_store_error: Literal["allow", "deny", "local"] | None = None
    was: str | None = None

    @property
    def counter_id(self) -> str:
        """The id this rule's counters are kept under."""
        return self.was or self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemption:
    """A named exception: the rules it lists do not apply where its condition holds.

    `expires` is in microseconds since the epoch, exclusive. It holds only where known true
    (`unknown_holds` False), unless written otherwise.
    """

    id: str
    rules: tuple[str, ...]
    when: Condition
    reason: str
    expires: int
    unknown_holds: bool
    span: Span

"""Rules as compiled values: what a policy file says, with every name resolved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from guardrail.errors import Span
from guardrail.model.amounts import DAY, HOUR, Amount
from guardrail.model.conditions import Condition
from guardrail.model.effects import Effect, Mode


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


BURST, MOST = "burst", "max"
"""The keys of amounts that are not named by their unit."""


class Clause(ABC):
    """What can be asked of every verb: what it reads and counts, what it may ask for, for how long.

    `name` is the verb's word in the policy language, `counted` what it counts where that is no
    unit, as people read it.
    """

    __slots__ = ()
    name: ClassVar[str]
    counted: ClassVar[str] = ""

    @property
    @abstractmethod
    def verdicts(self) -> tuple[Verdict, ...]:
        """All that it may ask for, as written, the weakest step first."""

    @property
    def facts(self) -> tuple[str, ...]:
        """The facts it counts by: those of its key, and the one whose values it counts."""
        return ()

    @property
    def units(self) -> tuple[str, ...]:
        """The units it counts; what it counts otherwise has none."""
        return ()

    @property
    def allowances(self) -> tuple[Amount, ...]:
        """The amounts it looks up for each request, in the order its limit takes them.

        What counts units has one for each, in their order, and may have more.
        """
        return ()

    @property
    def written(self) -> tuple[tuple[str, Amount], ...]:
        """The amounts that its author wrote, by their keys in the policy language."""
        return ()

    @property
    def on_the_way(self) -> tuple[Step, ...]:
        """Its steps, the last one included, where it has more than one."""
        return ()

    @property
    def covers(self) -> Window | None:
        """The window in which it adds amounts up, None where it does not."""
        return None

    @property
    def in_flight(self) -> int:
        """How long, in microseconds, a place of its requests in flight is held; 0: it has none."""
        return 0

    @property
    def lasts(self) -> int:
        """For how long, in microseconds, what it counted matters."""
        return 0


class Limiting(Clause):
    """What verbs that count have in common: they count for a key."""

    __slots__ = ()
    key: Key

    @property
    def facts(self) -> tuple[str, ...]:
        """The facts of its key."""
        return self.key.facts


@dataclass(frozen=True, slots=True)
class Block(Clause):
    """Refuses what the rule matches."""

    verdict: Verdict
    name: ClassVar[str] = "block"

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The one refusal."""
        return (self.verdict,)


@dataclass(frozen=True, slots=True)
class Degrade(Clause):
    """Serves less of what the rule matches."""

    verdict: Verdict
    name: ClassVar[str] = "degrade"

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The one degrade."""
        return (self.verdict,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate(Limiting):
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
    name: ClassVar[str] = "rate"

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What happens to what is too fast."""
        return (self.over,)

    @property
    def units(self) -> tuple[str, ...]:
        """Its one unit."""
        return (self.unit,)

    @property
    def allowances(self) -> tuple[Amount, ...]:
        """The amount, and the burst."""
        return (self.amount, self.burst or self.amount)

    @property
    def written(self) -> tuple[tuple[str, Amount], ...]:
        """The amount by its unit, and the burst where there is one."""
        amount = (self.unit, self.amount)
        return (amount,) if self.burst is None else (amount, (BURST, self.burst))

    @property
    def lasts(self) -> int:
        """Its period."""
        return self.period


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget(Limiting):
    """Limits what is used in a window, for one or several units charged together.

    `steps` rise; the one at 100 % (always there) is what happens when the limit refuses.
    """

    amounts: tuple[tuple[str, Amount], ...]
    window: Window
    key: Key
    steps: tuple[Step, ...]

    name: ClassVar[str] = "budget"

    @property
    def over(self) -> Verdict:
        """The verdict at 100 %."""
        return self.steps[-1].verdict

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdict of each step."""
        return tuple(step.verdict for step in self.steps)

    @property
    def units(self) -> tuple[str, ...]:
        """The units charged together."""
        return tuple(unit for unit, _ in self.amounts)

    @property
    def allowances(self) -> tuple[Amount, ...]:
        """The amount of each unit."""
        return tuple(amount for _, amount in self.amounts)

    @property
    def written(self) -> tuple[tuple[str, Amount], ...]:
        """The amount of each unit."""
        return self.amounts

    @property
    def on_the_way(self) -> tuple[Step, ...]:
        """Its steps, where it has more than the last one."""
        return self.steps if len(self.steps) > 1 else ()

    @property
    def covers(self) -> Window | None:
        """Its window."""
        return self.window

    @property
    def lasts(self) -> int:
        """The length of its window."""
        return self.window.length or CALENDAR[self.window.kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLimit(Limiting):
    """Limits how many members a set may have at a time."""

    most: Amount
    key: Key
    over: Verdict

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What happens to one member too many."""
        return (self.over,)

    @property
    def allowances(self) -> tuple[Amount, ...]:
        """How many there may be."""
        return (self.most,)

    @property
    def written(self) -> tuple[tuple[str, Amount], ...]:
        """How many there may be."""
        return ((MOST, self.most),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency(SetLimit):
    """Limits requests in flight; a lost one ends after `lease` microseconds."""

    lease: int
    name: ClassVar[str] = "concurrency"
    counted: ClassVar[str] = "in flight"

    @property
    def in_flight(self) -> int:
        """Its lease."""
        return self.lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Distinct(SetLimit):
    """Limits how many values of a fact one key may show within `period` microseconds."""

    count: str
    period: int
    name: ClassVar[str] = "distinct"
    counted: ClassVar[str] = "values"

    @property
    def facts(self) -> tuple[str, ...]:
        """The facts of its key, and the one whose values it counts."""
        return (*self.key.facts, self.count)

    @property
    def lasts(self) -> int:
        """Its period."""
        return self.period


CountingVerb = Rate | Budget | Concurrency | Distinct
Verb = Block | Degrade | CountingVerb


CALENDAR: Mapping[str, int] = {
    "hour": HOUR,
    "day": DAY,
    "week": 7 * DAY,
    "month": 30 * DAY,
    "lifetime": 400 * DAY,
}
"""How long a window without a length of its own is, in microseconds, a month's rounded.

What a lifetime counts is kept for 400 days after its last use.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalate:
    """Bans a key for `block_for` once `after` refusals fell `within`; both in microseconds."""

    after: int
    within: int
    block_for: int


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What people say of a rule: nothing of it decides anything.

    `labels` are words of the author's own, each under a name.
    """

    description: str | None = None
    owner: str | None = None
    ticket: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def contact(self) -> str:
        """Whom to ask, and the ticket: `abuse team, OPS-12`; empty where neither is said."""
        return ", ".join(filter(None, (self.owner, self.ticket)))

    def as_dict(self) -> dict[str, object]:
        """Return what is said as plain values, what is not left out."""
        said = {name: getattr(self, name) for name in ("description", "owner", "ticket")}
        return {name: one for name, one in {**said, "labels": dict(self.labels)}.items() if one}

    def lines(self) -> dict[str, str]:
        """Return what is said, by name; labels in one line."""
        said = {"about": self.description, "owner": self.owner, "ticket": self.ticket}
        labels = ", ".join(f"{name}: {text}" for name, text in self.labels.items())
        return {name: text for name, text in {**said, "labels": labels}.items() if text}


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
    about: About = About()

    @property
    def counter_id(self) -> str:
        """The id this rule's counters are kept under."""
        return self.was or self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemption:
    """A named exception: where its condition holds, the rules it lists do not apply.

    Of those in `raises` the amounts are larger there, see `Raised`. `expires` is in microseconds
    since the epoch, exclusive. It holds only where known true (`unknown_holds` False), unless
    written otherwise.
    """

    id: str
    rules: tuple[str, ...]
    when: Condition
    reason: str
    expires: int
    unknown_holds: bool
    span: Span
    raises: tuple[str, ...] = ()

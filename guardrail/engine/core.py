"""The engine: a policy set made ready to plan, conclude, settle and explain; pure throughout."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple, Protocol, cast

from guardrail.engine.conclude import Ruling, ShadowReport, conclude, refused_by
from guardrail.engine.explain import Explanation, rule_stories
from guardrail.engine.expressions import rule_facts
from guardrail.engine.facts import FactReader, Reading
from guardrail.engine.index import build_index
from guardrail.engine.sizes import Sizer, unlisted, unusable
from guardrail.engine.verbs import Finding, LimitStatus, Receipt, bind
from guardrail.model.amounts import SECOND
from guardrail.model.cells import LINE, MEMBERS, Correction, Pool
from guardrail.model.conditions import compile_condition, facts_of
from guardrail.model.effects import Effect, Mode, StoreMode
from guardrail.model.facts import Fact, Source
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Rule

_THROTTLE = Effect.THROTTLE
_DEGRADE = Effect.DEGRADE
_ALLOW = Effect.ALLOW


class Ids(Protocol):
    """Where decision ids come from: a name of the process, and a counter.

    `mark` is what the places in flight begin with that this process takes: no other has it.
    """

    mark: str

    @property
    def next(self) -> Callable[[], int]:
        """The function that returns the next serial number."""
        ...

    def name(self, serial: int) -> str:
        """Return the id of a serial number."""
        ...


class Engine:
    """A policy set in a namespace, compiled.

    What rules mean is told by the interpreter (`program`), which plans what a store is asked and
    decides requests that are odd. All others are decided by generated source (`emit_inline`,
    `emit_rows`), which must come to the same.
    `notice` goes with every decision; `sources` name the data its facts come from.
    """

    def __init__(
        self,
        policies: PolicySet,
        ids: Ids,
        *,
        namespace: str | None = None,
        notice: tuple[str, ...] = (),
    ) -> None:
        self.policies = policies
        self.notice = notice
        self.sources: tuple[str, ...] = ()
        self.ids = ids
        self.namespace = namespace or policies.name
        self.rules = tuple(rule for rule in policies.rules if rule.mode is not Mode.OFF)
        self.limits = [bind(rule, self.namespace, policies.timezone) for rule in self.rules]
        self.counters = tuple(
            (limit, part)
            for limit in self.limits
            if limit is not None
            for part in range(len(limit.idents))
        )
        for number, (limit, part) in enumerate(self.counters):
            if part == 0:
                limit.first = number
        self.facts_by_rule = [rule_facts(rule, policies.exemptions) for rule in self.rules]
        units = [unit for limit in self.limits if limit is not None for unit in limit.units]
        self.sizer = Sizer(policies, units)
        used = set().union(*self.facts_by_rule) if self.rules else set()
        if policies.models:
            used.add("request.model")
        self.reader = self._reader(used)
        self.required = tuple(name for name, fact in self.reader.facts.items() if fact.required)
        self.index = build_index(self.rules, policies.facts)

    def _reader(self, used: Iterable[str]) -> FactReader:
        policies = self.policies
        identities = _identities(self.rules, policies.facts)
        return FactReader(policies.facts, used, policies.timezone, identities)

    def reader_with(self, more: Iterable[str]) -> FactReader:
        """Return what reads the facts that decisions depend on, and more beside them."""
        return self._reader({*self.reader.used, *more}) if more else self.reader

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The counters that accounts share by `actor.id`."""
        found = []
        for limit in self.limits:
            if limit is not None and limit.key_facts == ("actor.id",):
                found += [Pool(ident, limit.kind) for ident in limit.idents]
                strikes, ban = limit.ban_idents
                if ban:
                    found += [Pool(strikes, MEMBERS), Pool(ban, LINE)]
        return tuple(found)

    @cached_property
    def direct_facts(self) -> frozenset[str]:
        """The facts that decisions depend on by name, not only as stand-ins in keys."""
        every = (rule_facts(r, self.policies.exemptions, stand_ins=False) for r in self.rules)
        return frozenset().union(*every, self.required)

    @property
    def used_facts(self) -> frozenset[str]:
        """The names of the facts that decisions depend on."""
        return self.reader.used

    def reading(self, case: Case) -> Reading:
        """Return what the facts and the estimate of a decision say."""
        if case.reading is not None:
            return case.reading
        return self.read(case.facts, case.estimate, case.now)

    def read(
        self,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None,
        now: int,
        unavailable: frozenset[str] = frozenset(),
    ) -> Reading:
        """Return what facts and an estimate say at `now` (microseconds)."""
        known, notes = self.reader.read(facts, now / SECOND, unavailable)
        model = known.get("request.model")
        amounts, sized = self.sizer.reserve(estimate, model)
        said = dict.fromkeys((*unusable(estimate), *sized, *unlisted(self.policies, model)))
        return Reading(known, amounts, now, (*self.notice, *notes, *said))

    def concluded(
        self,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None,
        now: int,
        serial: int,
        found: Sequence[Finding],
        looked: Sequence[tuple[Receipt, bool]],
        reading: Reading | None = None,
    ) -> Decision:
        """Return the decision on a request of which rules asked for something.

        `looked` has the receipt of each counter looked at, and whether it was charged. `reading`
        is what the request says, where that was kept.
        """
        ruling = self.ruled(found, facts, now, reading)
        debits = tuple([receipt for receipt, charged in looked if charged])
        every = tuple(looked)
        return Decision.of(
            ruling, Case(self, facts, estimate, now, serial, debits, every, tuple(found), reading)
        )

    def ruled(
        self,
        found: Sequence[Finding],
        facts: Mapping[str, object],
        now: int,
        reading: Reading | None = None,
    ) -> Ruling:
        """Return the answer to what rules asked for of a request at `now` (microseconds)."""
        if reading is not None:
            model = reading.facts.get("request.model")
            return conclude(self.policies, found, model, now, reading.notes)
        if len(found) == 1:
            (finding,) = found
            if finding.effect >= _THROTTLE and not finding.shadow:
                return refused_by(self.policies, finding, now)
        return conclude(self.policies, found, self.reader.value("request.model", facts), now)

    def settlement(
        self, decision: Decision, usage: Mapping[str, object], model: str | None
    ) -> tuple[list[Correction], tuple[str, ...]]:
        """Return the corrections that replace the estimate by `usage`, and notes on it."""
        case = decision.case
        requested = case.facts.get("request.model")
        served = model if model is not None else requested
        if model is None and decision.obligations:
            served = decision.obligations.get("model", requested)
        final, notes = self.sizer.settle(usage, case.estimate, requested, served)
        return self._corrections(decision, final.get), notes

    def lease(self, serial: int) -> str:
        """Return what the places in flight of a decision are known by; no client sees it."""
        return f"{self.ids.mark}{serial}"

    def release(self, decision: Decision) -> list[Correction]:
        """Return the corrections that give everything back."""
        return self._corrections(decision, lambda unit: 0)

    def owing(self, decision: Decision) -> Decision:
        """Return a decision that reserved nothing, to settle what a refused request used.

        What it is settled with is charged above every limit that was looked at. A static refusal
        looks at none.
        """
        case = decision.case
        debits = tuple(
            receipt._replace(increment=0, amount=0)
            for receipt, _ in case.consulted
            if self.counters[receipt.number][0].kind != MEMBERS
        )
        return Decision.of(decision.ruling, case._replace(debits=debits))

    def renewal(self, decision: Decision, now: int) -> list[Correction]:
        """Return the corrections that extend the decision's leases, counted from `now`."""
        lease = self.lease(decision.case.serial)
        renewals = (
            self.counters[debit.number][0].renewal(debit, now, lease)
            for debit in decision.case.charged
        )
        return [renewal for renewal in renewals if renewal is not None]

    def statuses(self, decision: Decision) -> tuple[LimitStatus, ...]:
        """Return how each counter stands after a decision, in the order of the rules."""
        case = decision.case
        return tuple(
            self.counters[receipt.number][0].status(receipt, case.now, charged)
            for receipt, charged in case.consulted
        )

    def errors(self, decision: Decision) -> tuple[str, ...]:
        """Return the notes of a decision, and a line for each rule that hinged on the unknown."""
        case, notes = decision.case, decision.ruling.notes
        # The interpreter notes what was wrong with facts and estimate; else it is found here.
        if case.reading is None:
            notes = self.reading(case).notes + notes
        skipping = {rule.id for rule in self.rules if rule.unknown == "skip"}
        return notes + tuple(
            f"rule `{rule}` {'was skipped' if rule in skipping else 'matched'}: `{fact}` is missing"
            for rule, fact in self.hinges(decision)
        )

    def hinges(self, decision: Decision) -> tuple[tuple[str, str], ...]:
        """Return the rules whose condition was unknown, each with the first fact it missed."""
        case = decision.case
        seconds = case.now / SECOND
        reading = case.reading
        facts = reading.facts if reading else self.reader.read(case.facts, seconds)[0]
        found = []
        for rule in self.rules:
            missing = sorted(facts_of(rule.when) - facts.keys())
            if missing and compile_condition(rule.when)(facts, seconds) is None:
                found.append((rule.id, missing[0]))
        return tuple(found)

    def explain(self, decision: Decision) -> Explanation:
        """Return the whole story of a decision."""
        case, limits = decision.case, decision.limits
        reading = self.reading(case)
        return Explanation(
            id=decision.id,
            revision=decision.revision,
            sources=self.sources,
            time=decision.time,
            effect=decision.effect,
            rule=decision.rule,
            reason=decision.reason,
            message=decision.message,
            retry_after=decision.retry_after,
            obligations=dict(decision.obligations),
            facts=dict(reading.facts),
            amounts=reading.amounts,
            rules=rule_stories(self.policies, reading, case.found, limits),
            shadow=decision.shadow,
            errors=decision.errors,
        )

    def _corrections(
        self, decision: Decision, amount_of: Callable[[str], int | None]
    ) -> list[Correction]:
        lease, found = self.lease(decision.case.serial), []
        for debit in [*decision.case.charged]:
            limit, part = self.counters[debit.number]
            amount = amount_of(limit.units[part]) if limit.units else None
            found.append(limit.correction(debit, amount, lease))
        return [correction for correction in found if correction is not None]


def _identities(rules: Iterable[Rule], facts: Mapping[str, Fact]) -> Iterator[str]:
    """Yield the server facts that policies declare and count by."""
    for rule in rules:
        for name in rule.verb.facts:
            if facts[name].declared and facts[name].source is Source.SERVER:
                yield name


class Case(NamedTuple):
    """The evidence of one decision: what was asked, when, and what was found and charged.

    `facts` are as the host stated them, signals included; `now` is in microseconds; `serial`
    numbers the decision. `debits` are the receipts of what was charged, None for counters that
    were not reached. `looked` has every counter that was looked at, and whether it was charged;
    it is None where those are the debits. `found` is what rules asked for. `reading` is kept where
    the request was planned by the interpreter; what it says is else read anew.
    """

    engine: Engine
    facts: Mapping[str, object]
    estimate: Mapping[str, object] | None
    now: int
    serial: int
    debits: tuple[Receipt | None, ...] = ()
    looked: tuple[tuple[Receipt, bool], ...] | None = None
    found: tuple[Finding, ...] = ()
    reading: Reading | None = None

    @property
    def simple(self) -> bool:
        """Whether nothing was found: every counter looked at was charged, none had a say."""
        return self.looked is None and not self.found

    @property
    def charged(self) -> Iterator[Receipt]:
        """The receipts of what was charged."""
        return (Receipt._make(debit) for debit in self.debits if debit is not None)

    @property
    def consulted(self) -> list[tuple[Receipt, bool]]:
        """Every counter looked at, and whether it was charged, in the order of the rules."""
        if self.looked is None:
            return sorted((debit, True) for debit in self.charged)
        return sorted(self.looked)


class Afterwards(NamedTuple):
    """What is generated beside a decision in memory; both are called with all that it kept.

    `receipts` makes the receipts of its counters, None for one that was not reached. `settle` puts
    the counters right, given before that what was used of each of `PLAIN_UNITS`, with None after
    them, and the time in seconds.
    """

    receipts: Callable[..., tuple[Receipt | None, ...]]
    settle: Callable[..., None]


class Acting(Protocol):
    """Whom the account of a request acts as: facts beside those that the request states.

    `actor` is a number where what the account shows counts for a score, else 0. `values` are those
    of the facts, in the order of their `ActingSource`, None for one that is missing.
    """

    actor: int
    values: tuple[object, ...]

    def added_to(self, facts: Mapping[str, object]) -> Mapping[str, object]:
        """Return the facts of a request together with these; what it states goes before."""
        ...


class ActingSource(Protocol):
    """Where generated decisions in memory learn whom accounts act as, and what they tell of it."""

    names: tuple[str, ...]
    """The facts that say whom an account acts as."""
    looks_at: tuple[str, ...]
    """The facts that it is found out by."""
    shown: tuple[str, ...]
    """The facts that are counted of each actor's served requests; none: nothing is."""
    count: Callable[[int, tuple[Any, ...], float], None]
    """Counts what a request of an actor showed that is simply allowed, at a time in seconds."""

    def recall(
        self, looked_at: tuple[object, ...], facts: Mapping[str, object], now: float
    ) -> Acting:
        """Return whom the account of a request acts as at `now` (seconds).

        `looked_at` are the values of the facts that it is found out by: as stated, or typed.
        """
        ...

    def note(self, acting: Any, decision: Decision, now: float) -> None:
        """Count what a decided request showed, if it was served, and whom a score acted on."""
        ...


class Decision:
    """The answer to one request.

    Comparing, printing and reading it costs little; `limits`, `errors` and `explain()` are
    computed when asked for. The facts and the estimate it was made from must not be changed
    before it is settled.
    """

    __slots__ = ("_case", "_ruling", "_settled", "_whole_case")
    # Generated source sets the first three without a call. `_case` is a `Case`, or what it is made
    # of when it is asked for: its first five values, what is to be done with it afterwards, what
    # was found, the first counters of the rules that were not charged (None: no rule was), and then
    # whatever `Afterwards` needs. Its facts are then a pair where whom the account acts as was
    # found beside them. `_whole_case` is the case that was made of it, once it was asked for.
    _ruling: Ruling
    _case: tuple[Any, ...]
    _settled: bool
    _whole_case: Case
    ruling: Ruling = cast(
        Any, property(attrgetter("_ruling"), doc="The combined answer, apart from its evidence.")
    )

    @classmethod
    def of(cls, ruling: Ruling, case: Case) -> Decision:
        """Return the decision that a ruling on a case makes."""
        decision = cls()
        decision._ruling = ruling
        decision._case = case
        decision._settled = False
        return decision

    @property
    def case(self) -> Case:
        """The evidence it rests on."""
        case = self._case
        if isinstance(case, Case):
            return case
        try:
            return self._whole_case
        except AttributeError:
            self._whole_case = _case_of(case[5].receipts(*case), *case[:8])
            return self._whole_case

    @property
    def debits(self) -> tuple[Receipt | None, ...]:
        """The receipts of what was charged, as plain tuples; None for counters not reached."""
        case = self._case
        if isinstance(case, Case) or case[6]:
            return self.case.debits
        made: tuple[Receipt | None, ...] = case[5].receipts(*case)
        return made

    @property
    def engine(self) -> Engine:
        """The engine that made it."""
        engine: Engine = self._case[0]
        return engine

    @property
    def effect(self) -> Effect:
        """What to do: allow, degrade, throttle or block."""
        return self._ruling.effect

    @property
    def allowed(self) -> bool:
        """Whether to serve the request, perhaps with obligations."""
        return self._ruling.effect < _THROTTLE

    @property
    def rule(self) -> str | None:
        """The id of the rule that decided, None where none did."""
        return self._ruling.rule

    @property
    def reason(self) -> str | None:
        """A stable code for the refusal or the degrade, None for allow."""
        return self._ruling.reason

    @property
    def message(self) -> str | None:
        """A sentence for people, None for allow."""
        ruling = self._ruling
        if ruling.message is not None or ruling.effect is _ALLOW:
            return ruling.message
        return _standard_message(ruling)

    @property
    def status(self) -> int | None:
        """The HTTP status the rule asks for, None where the effect's own will do."""
        return self._ruling.status

    @property
    def remedy(self) -> str | None:
        """What the client can do: verify, pay or contact; None where nothing is stated."""
        return self._ruling.remedy

    @property
    def retry_after(self) -> float | None:
        """Seconds until an idle client is served, None: waiting will not help (or is no need)."""
        return self._ruling.retry_after

    @property
    def obligations(self) -> Mapping[str, object]:
        """What the host must also do: model, max_output_tokens, disable, and `x-…` entries."""
        return self._ruling.obligations

    @property
    def shadow(self) -> tuple[ShadowReport, ...]:
        """What shadow rules would have done."""
        return self._ruling.shadow

    @property
    def mode(self) -> StoreMode:
        """How the counters were kept: normal unless the store failed."""
        return self._ruling.mode

    @property
    def limits(self) -> tuple[LimitStatus, ...]:
        """How each counter that was consulted stands now, in the order of the rules."""
        return self.engine.statuses(self)

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong while deciding, and which rules hinged on a missing fact."""
        return self.engine.errors(self)

    @property
    def hinges(self) -> tuple[tuple[str, str], ...]:
        """The rules whose condition was unknown, each with the first fact it missed."""
        return self.engine.hinges(self)

    @property
    def id(self) -> str:
        """The decision's id: unique to the process and its start."""
        return self.engine.ids.name(self._case[4])

    @property
    def revision(self) -> str:
        """The digest of the policy files that decided."""
        return self.engine.policies.revision

    @property
    def time(self) -> float:
        """The time of the decision, in seconds since the epoch."""
        now: int = self._case[3]
        return now / SECOND

    @property
    def facts(self) -> Mapping[str, object]:
        """The facts that the decision was made from: stated, or found by signals."""
        return _together(self._case[1])

    @property
    def model(self) -> object:
        """The model that the request asks for, as stated, None where it names none."""
        facts = self._case[1]
        return (facts[0] if facts.__class__ is tuple else facts).get("request.model")

    @property
    def settled(self) -> bool:
        """Whether it was settled or released."""
        return self._settled

    def mark_settled(self, notes: tuple[str, ...] = ()) -> None:
        """Note that it was settled or released, and what was wrong with the usage."""
        self._settled = True
        self.note(*notes)

    def note(self, *notes: str) -> None:
        """Add to `errors` what went wrong since it was made."""
        if notes:
            self._ruling = self._ruling._replace(notes=self._ruling.notes + notes)

    def explain(self) -> Explanation:
        """Return the whole story: every rule, whether it matched and why, every counter."""
        return self.engine.explain(self)

    def __repr__(self) -> str:
        parts = [f"{self.effect}"]
        if self.rule is not None:
            parts.append(f"by {self.rule}")
        if self.retry_after is not None:
            parts.append(f"retry after {self.retry_after:g} s")
        return f"<Decision {' '.join(parts)}>"


def _together(facts: Any) -> Mapping[str, object]:
    """Return the facts of a decision as one: those stated, and whom the account acts as."""
    if facts.__class__ is not tuple:
        known: Mapping[str, object] = facts
        return known
    stated, acting = facts
    return cast(Acting, acting).added_to(stated)


def _case_of(
    made: tuple[Any, ...],
    engine: Engine,
    stated: object,
    estimate: Mapping[str, object] | None,
    now: int,
    serial: int,
    afterwards: object,
    found: tuple[Finding, ...],
    left: tuple[int, ...] | None,
) -> Case:
    """Return the case of a decision, given the receipts that were `made` for it."""
    facts = _together(stated)
    if not found:
        return Case(engine, facts, estimate, now, serial, made)
    looked = []
    for receipt in map(Receipt._make, filter(None, made)):
        charged = left is not None and engine.counters[receipt.number][0].first not in left
        looked.append((receipt, charged))
    debits = tuple([receipt for receipt, charged in looked if charged])
    return Case(engine, facts, estimate, now, serial, debits, tuple(looked), found)


def _standard_message(ruling: Ruling) -> str:
    by = f"rule `{ruling.rule}`" if ruling.rule else "guardrail"
    if ruling.effect is _DEGRADE:
        return f"served with less, as {by} asks"
    wait = ruling.retry_after
    again = "" if wait is None else f"; retry in {_seconds(wait)} s"
    return f"refused by {by}: {ruling.reason}{again}"


def _seconds(wait: float) -> str:
    """Return a wait in digits, rounded up: who waits less is refused again."""
    return f"{math.ceil(wait)}" if wait >= _LONG else f"{math.ceil(wait * 100) / 100:g}"


_LONG = 10
"""Seconds from which on a wait is told in whole ones."""

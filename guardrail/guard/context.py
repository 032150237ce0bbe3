"""What both guards share: policies, signals, the clock, and the pure steps around the store call.

Also what the environment may override for a while, and the ids of a process's decisions.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard, cast

from guardrail.engine import (
    Corrections,
    Decision,
    Engine,
    Interpreter,
    Plan,
    PlanRows,
    completed,
    define,
    plan_in_rows,
    settle_elsewhere,
)
from guardrail.errors import DataError, SettingError
from guardrail.guard.fallback import share_from
from guardrail.links import (
    ACTOR_FACTS,
    NO_LINKS,
    SCORE_FACTS,
    ActorSignal,
    LinkLookup,
    LinkSignal,
    MemoryLinks,
    NoLinks,
    StoredLinks,
    Watch,
)
from guardrail.model.amounts import SECOND
from guardrail.model.cells import Correction
from guardrail.model.effects import Mode
from guardrail.model.facts import LATEST, epoch_of
from guardrail.model.policy import PolicySet
from guardrail.signals import Ageing, ClientNetworkSignal, Lookup, Refreshing, Signal, in_order
from guardrail.stores.forks import call_in_children
from guardrail.stores.links import AsyncLinkedStore, LinkedStore
from guardrail.stores.memory import AsyncMemoryStore, MemoryStore
from guardrail.stores.steps import Steps, awaited, performed

Clock = Callable[[], float]


Established = tuple[Mapping[str, object], frozenset[str]]
"""The facts, and which are unavailable."""


Establish = Callable[[Mapping[str, object], float], Mapping[str, object] | None]
Note = Callable[[Mapping[str, object], float, Decision], None]


class _Asked(NamedTuple):
    """A signal, and when to ask it: where it may find something that is not known."""

    signal: Signal
    is_due: Callable[[Mapping[str, object]], bool]
    is_awaited: bool


class Context:
    """A policy set with its signals and its clock: everything of a guard but the store."""

    def __init__(
        self,
        policies: PolicySet,
        *,
        signals: Sequence[Signal],
        namespace: str | None,
        clock: Clock,
        environ: Mapping[str, str],
        local_share: Fraction | None = None,
        host_clock: Clock | None = None,
        links: MemoryLinks | StoredLinks | None = None,
    ) -> None:
        self.policies = policies
        self.clock = clock
        self.host_clock = clock if host_clock is None else host_clock
        self._given = (tuple(signals), namespace, environ, local_share)
        self.parts = share_from(local_share, environ)
        ids = ProcessIds()
        self.engine = Engine(policies, ids, namespace=namespace)
        self._override = override_from(environ)
        self._shadowed = self.engine
        if self._override is not None:
            self._shadowed = Engine(
                self._override.shadowed(policies),
                ids,
                namespace=namespace,
                notice=(self._override.notice,),
            )
        self._in_rows: PlanRows | None = None
        self._settle_plain: Corrections | None = None
        self._interpreters = {engine: Interpreter(engine) for engine in self.engines}
        self.note: Note | None = None
        """What is told of each decision and its facts, None where nothing is scored."""
        self.links = links
        """Where links are kept, once the store is known."""
        self.acting: LinkSignal | None = None
        """Who says whom accounts act as beside the facts, where links are in memory.

        It is no such source where another signal needs those facts.
        """
        self._ask(tuple(signals))

    def link_warnings(self, now: float) -> tuple[str, ...]:
        """Return what an operator should know at `now` about links."""
        found = (s for s in self.signals if isinstance(s, ActorSignal | NoLinks))
        return tuple(warning for signal in found for warning in signal.warnings(now))

    @property
    def actor_signals(self) -> tuple[Signal, ...]:
        """The signals that say whom an account acts as."""
        return tuple(s for s in self.signals if isinstance(s, ActorSignal | NoLinks))

    def unasked(self, names: frozenset[str]) -> tuple[Signal, ...]:
        """Return the signals that establish some of these facts for no rule, in their order."""
        found = in_order(self._given[0], names - self.engine.used_facts)
        return tuple(signal for signal in found if signal not in self.signals)

    def begin_day(self, now: float) -> None:
        """Let go of links that have expired by `now` (seconds), where they are in memory."""
        for signal in self.signals:
            if isinstance(signal, LinkSignal):
                signal.begin_day(now)

    def _ask(self, signals: tuple[Signal, ...]) -> None:
        """Have these signals asked, those of them that rules need."""
        self.signals = in_order(signals, self.engine.used_facts)
        direct = self.engine.direct_facts | _needs(self.signals)
        self._due = [_due(signal, direct) for signal in self.signals]
        self._asked = [
            _Asked(signal, _tests(tests), isinstance(signal, Lookup))
            for signal, tests in zip(self.signals, self._due, strict=True)
        ]
        self._establish: dict[tuple[bool, ...], Establish] = {}
        self.establish = self.establish_but(())
        """Returns a request's facts with those of the signals at a time in seconds.

        None where a source fails; a SettingError where it is asked and the time is none.
        """
        self.looks_up = any(isinstance(signal, Lookup) for signal in self.signals)
        """Whether there are signals to be waited for."""
        sources = tuple(source for signal in self.signals for source in signal.sources)
        self.engine.sources = self._shadowed.sources = sources

    def establish_but(self, leave: Sequence[Signal]) -> Establish:
        """Return the generated function that does what `known` does where all sources answer.

        The signals in `leave` are not asked.
        """
        left = tuple(signal in leave for signal in self.signals)
        if left not in self._establish:
            self._establish[left] = self._establishing(left)
        return self._establish[left]

    def _establishing(self, left: Sequence[bool]) -> Establish:
        lines = ["def establish(facts, now):", "    try:"]
        constants: dict[str, object] = {
            "moment": self.moment, "DataError": DataError, "completed": completed,
        }  # fmt: skip
        for place, signal in enumerate(self.signals):
            if left[place]:
                continue
            constants[f"ask{place}"] = signal.facts
            lines += [
                f"        if {self._due[place]}:",
                f"            if not (0.0 <= now and now < {LATEST!r}): moment(now)",
                f"            found = ask{place}(facts, now)",
                "            if found:",
                # What the request states goes before; two dicts are put together in half the time.
                "                dicts = facts.__class__ is found.__class__ is dict",
                "                both = facts | found if dicts else ()",
                "                if len(both) == len(facts) + len(found): facts = both",
                "                else: facts = completed(facts, found)",
            ]
        lines += ["        return facts", "    except DataError:", "        return None"]
        made: Establish = define(lines, constants, "establish", "signals")
        return made

    def link(self, store: object, watch: Watch) -> None:
        """Find out which accounts act as one, over a store, if the policies say how.

        `watch` watches over the calls to it.
        """
        links, signals = self.policies.links, self._given[0]
        pools = tuple(dict.fromkeys(pool for engine in self.engines for pool in engine.pools))
        if keeps_links(store):
            store.share(pools)
        if links is None or not self.engine.used_facts & (ACTOR_FACTS | SCORE_FACTS):
            return
        if any(isinstance(signal, ActorSignal | NoLinks) for signal in self.signals):
            return
        counters = store.store if isinstance(store, AsyncMemoryStore) else store
        signal: ActorSignal[Any]
        if isinstance(counters, MemoryStore):
            former = self.links if isinstance(self.links, MemoryLinks) else None
            self.links = MemoryLinks(links, counters, former)
            signal = LinkSignal(self.policies, self.links, pools)
        elif keeps_links(store):
            stored = self.links if isinstance(self.links, StoredLinks) else None
            self.links = StoredLinks(links, store, self.engine.namespace, stored)
            signal = LinkLookup(self.policies, self.links, pools, watch)
        else:
            logging.getLogger("guardrail").warning("%s", NO_LINKS)
            self._ask((*signals, NoLinks(self.policies)))
            return
        self._ask((*signals, signal))
        self.note = signal.decided if signal.scores else None
        named = any(other.needs & signal.provides for other in signals)
        self.acting = signal if isinstance(signal, LinkSignal) and not named else None

    def forget_links(self) -> None:
        """Forget which accounts act as one, as if nobody had been seen; it is known in memory."""
        if isinstance(self.links, MemoryLinks):
            self.links.empty()
        for signal in self.signals:
            if isinstance(signal, LinkSignal):
                signal.forget()

    def with_policies(self, policies: PolicySet) -> Context:
        """Return a context like this one for another policy set, with signals as their files stand.

        Raises:
            DataError: a file of a signal was replaced and cannot be used.
        """
        signals, namespace, environ, local_share = self._given
        signals = tuple(s.refreshed() if isinstance(s, Refreshing) else s for s in signals)
        return Context(
            policies,
            signals=signals,
            namespace=namespace,
            clock=self.clock,
            environ=environ,
            local_share=local_share,
            host_clock=self.host_clock,
            links=self.links,
        )

    def engine_at(self, now: float) -> Engine:
        """Return the engine in force at a time."""
        override = self._override
        return self.engine if override is None or now >= override.until else self._shadowed

    @property
    def engines(self) -> tuple[Engine, ...]:
        """Every engine that may be in force."""
        return (self.engine,) if self._shadowed is self.engine else (self.engine, self._shadowed)

    @property
    def overridden(self) -> bool:
        """Whether the environment put the rules in shadow, for a while."""
        return self._override is not None

    def moment(self, now: float | None) -> float:
        """Return the time of a call, the clock's if none is given.

        Raises:
            SettingError: the time is not one: seconds since the epoch, before the year 2200.
        """
        moment = self.clock() if now is None else now
        kind: type = moment.__class__
        is_number = kind is float or (kind is not bool and issubclass(kind, int | float))
        if is_number and 0 <= moment < LATEST:
            return moment
        raise SettingError(f"`now` is `{moment!r}`: give seconds since the epoch")

    def known(
        self,
        facts: Mapping[str, object],
        now: float,
        leave: Sequence[Signal] = (),
        unavailable: frozenset[str] = frozenset(),
    ) -> Established:
        """Return the facts with those of the signals, and which of all are unavailable.

        The signals in `leave` are not asked: they were already, or are asked later. Nor are those
        that rely on what is unavailable.
        """
        return performed(self._finding(facts, now, leave, unavailable, waits=False))

    async def awaited(
        self,
        facts: Mapping[str, object],
        now: float,
        leave: Sequence[Signal] = (),
        unavailable: frozenset[str] = frozenset(),
    ) -> Established:
        """Return what `known` does, waiting for signals without holding up the event loop."""
        return await awaited(self._finding(facts, now, leave, unavailable, waits=True))

    def _finding(
        self,
        facts: Mapping[str, object],
        now: float,
        leave: Sequence[Signal],
        unavailable: frozenset[str],
        *,
        waits: bool,
    ) -> Steps[Established]:
        for signal, is_due, is_awaited in self._asked:
            if (leave and signal in leave) or not is_due(facts):
                continue
            try:
                if unavailable and isinstance(signal, ActorSignal) and signal.relies & unavailable:
                    found = signal.without(facts, now)
                elif waits and is_awaited:
                    found = yield cast(Lookup, signal).look_up, (facts, now)
                else:
                    found = signal.facts(facts, now)
            except DataError:
                unavailable |= signal.provides - facts.keys()
                continue
            if found:
                facts = completed(facts, found)
        return facts, unavailable

    def warnings(self, now: float) -> tuple[str, ...]:
        """Return what an operator should know at `now` about the sources of facts."""
        ageing = (signal for signal in self.signals if isinstance(signal, Ageing))
        return tuple(warning for signal in ageing for warning in signal.warnings(now))

    def plan_in_rows(self) -> None:
        """Have plain requests planned by generated source, which is made now and far cheaper."""
        if self._in_rows is None and not self.overridden:
            self._in_rows = plan_in_rows(self.engine)
            self._settle_plain = settle_elsewhere(self.engine)

    def plan(
        self,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None,
        now: float,
        unavailable: frozenset[str] = frozenset(),
    ) -> Plan:
        """Return the plan for a request; `facts` include the signals'.

        Raises:
            SettingError: `now` is not a time.
        """
        if self._in_rows is not None and not unavailable:
            plan = self._in_rows(facts, estimate, now)
            if plan is not None:
                return plan
        engine = self.engine_at(self.moment(now))
        return self._interpreters[engine].plan(
            facts, estimate, microseconds(now), engine.ids.next(), unavailable
        )

    def settlement(
        self, decision: Decision, usage: Mapping[str, object] | None, model: str | None
    ) -> list[Correction]:
        """Return what settles a decision, and mark it settled; nothing if it was already."""
        if self._settle_plain is not None and usage is not None:
            corrections = self._settle_plain(decision, usage, model)
            if corrections is not None:
                return corrections
        if decision.settled:
            return []
        corrections, notes = decision.engine.settlement(decision, usage or {}, model)
        decision.mark_settled(notes)
        return corrections

    def release(self, decision: Decision) -> list[Correction]:
        """Return what gives everything back, and mark the decision settled."""
        if decision.settled:
            return []
        decision.mark_settled()
        return decision.engine.release(decision)

    def renewal(self, decision: Decision, now: int) -> list[Correction]:
        """Return what extends a decision's leases, counted from `now` (microseconds)."""
        return [] if decision.settled else decision.engine.renewal(decision, now)


def microseconds(now: float) -> int:
    """Return a time in whole microseconds, rounded: a float of seconds is rarely exact."""
    return int(now * SECOND + 0.5)


def keeps_links(store: object) -> TypeGuard[LinkedStore | AsyncLinkedStore]:
    """Tell whether a store keeps links."""
    return isinstance(store, LinkedStore | AsyncLinkedStore)


def _needs(signals: Sequence[Signal]) -> frozenset[str]:
    return frozenset().union(*(signal.needs for signal in signals))


def _due(signal: Signal, direct: frozenset[str]) -> str:
    """Return the source of whether a signal may find something that some `facts` lack.

    Facts that are not `direct`, read by name, only stand in for a missing account.
    """
    needed = " or ".join(f"{name!r} in facts" for name in sorted(signal.needs)) or "True"
    known = " and ".join(f"{name!r} in facts" for name in sorted(signal.provides)) or "True"
    due = f"({needed}) and not ({known})"
    stands_in = signal.provides.isdisjoint(direct)
    return f"(facts.get('account.id') is None and {due})" if stands_in else f"({due})"


def _tests(source: str) -> Callable[[Mapping[str, object]], bool]:
    made: Callable[[Mapping[str, object]], bool]
    made = define(["def due(facts):", f"    return {source}"], {}, "due", "signals")
    return made


MODE, UNTIL = "GUARDRAIL_MODE", "GUARDRAIL_MODE_UNTIL"


@dataclass(frozen=True, slots=True)
class Override:
    """Shadows every rule that may be exempted, until a time (seconds since the epoch)."""

    until: float
    text: str

    def shadowed(self, policies: PolicySet) -> PolicySet:
        """Return the policy set with every enforced rule in shadow, but those never exempted."""
        rules = tuple(
            replace(rule, mode=Mode.SHADOW)
            if rule.exemptible and rule.mode is Mode.ENFORCE
            else rule
            for rule in policies.rules
        )
        return replace(policies, rules=rules)

    @property
    def notice(self) -> str:
        """What every decision made under the override says."""
        return (
            f"`{MODE}=shadow` until `{self.text}`: only rules that cannot be exempted are enforced"
        )


def override_from(environ: Mapping[str, str]) -> Override | None:
    """Return the override that the environment asks for, None for none.

    Raises:
        SettingError: the mode is not `shadow`, or its end is missing or not a time.
    """
    mode = environ.get(MODE, "")
    if mode in ("", "enforce"):
        return None
    if mode != "shadow":
        raise SettingError(f"`{MODE}` is `{mode}`: it can be `shadow`, or be left unset")
    text = environ.get(UNTIL, "")
    until = epoch_of(text)
    if until is None:
        stated = f"`{text}` is not a time" if text else "is not set"
        raise SettingError(
            f"`{MODE}=shadow` needs an end, and `{UNTIL}` {stated}: "
            "give an RFC 3339 time such as `2026-12-01T00:00:00Z`"
        )
    return Override(until, text)


_KEY_BYTES = 32
_ID_DIGITS, _IDS_AT_ONCE = 24, 5


class ProcessIds:
    """Ids unique to a decision, under a key of this process; drawn anew in a forked child.

    Clients see them: neither how many requests there were nor which process served one shows.
    `mark` is what the process's places in flight begin with, which no client sees.
    """

    def __init__(self) -> None:
        self.next = itertools.count(1).__next__
        self._draw()
        call_in_children(self._draw)

    def _draw(self) -> None:
        self._hash, self.mark, self._last = _drawn(), os.urandom(8).hex() + "-", (0, "")

    def name(self, serial: int) -> str:
        """Return the id of a serial number: 24 hex digits, the same at every call."""
        # Read in one piece, as another thread may move it on.
        first, digits = self._last
        at = (serial - first) * _ID_DIGITS
        if not 0 <= at < len(digits):
            block, place = divmod(serial, _IDS_AT_ONCE)
            digest = self._hash.copy()
            digest.update(block.to_bytes(8, "big"))
            digits, at = digest.hexdigest(), place * _ID_DIGITS
            self._last = serial - place, digits
        return digits[at : at + _ID_DIGITS]


def _drawn() -> blake2b:
    size = _ID_DIGITS // 2 * _IDS_AT_ONCE
    return blake2b(key=os.urandom(_KEY_BYTES), digest_size=size, person=b"decision id")


def standard_signals(geo: str | Path | None, environ: Mapping[str, str]) -> tuple[Signal, ...]:
    """Return the signals that need no configuration but, perhaps, a database's path.

    Raises:
        DataError: the database cannot be read.
        SettingError: an environment variable about it is not usable.
    """
    # Importing the reader of databases costs a third of importing guardrail: only where it is used.
    from guardrail.signals.geo import GeoSignal

    return (GeoSignal.configured(geo, environ), ClientNetworkSignal())

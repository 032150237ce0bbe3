"""What both guards share: settings, signals, engines, and the pure steps around the store call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from guardrail.engine import Decision, Engine
from guardrail.engine.decision import Case
from guardrail.engine.plan import Plan
from guardrail.errors import DataError, SettingError
from guardrail.guard.ids import ProcessIds
from guardrail.guard.override import override_from
from guardrail.guard.shares import share_from
from guardrail.model.amounts import SECOND
from guardrail.model.cells import Correction, Outcome
from guardrail.model.policy import PolicySet
from guardrail.signals import Ageing, Signal, in_order

Clock = Callable[[], float]
LATEST = 7258118400.0
"""Times past the year 2200 are taken for a mistake of units."""


class Frame:
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
        self.signals = in_order(signals, self.engine.used_facts)
        direct = self.engine.direct_facts
        self._asked = [
            (
                s,
                tuple(s.needs),
                tuple(s.provides),
                s.provides.isdisjoint(direct | _needs(self.signals)),
            )
            for s in self.signals
        ]
        sources = tuple(source for signal in self.signals for source in signal.sources)
        self.engine.sources = self._shadowed.sources = sources

    def with_policies(self, policies: PolicySet) -> Frame:
        """Return a frame like this one for another policy set."""
        signals, namespace, environ, local_share = self._given
        return Frame(
            policies,
            signals=signals,
            namespace=namespace,
            clock=self.clock,
            environ=environ,
            local_share=local_share,
            host_clock=self.host_clock,
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
        if not 0 <= moment < LATEST:
            raise SettingError(f"`now` is `{moment!r}`: give seconds since the epoch")
        return moment

    def known(
        self, facts: Mapping[str, object], now: float
    ) -> tuple[Mapping[str, object], frozenset[str]]:
        """Return the facts with those of the signals, and which of them are unavailable."""
        unavailable: frozenset[str] = frozenset()
        for signal, needs, provides, is_stand_in in self._asked:
            if is_stand_in and facts.get("account.id") is not None:
                continue
            if not _any_in(needs, facts) or _all_in(provides, facts):
                continue
            try:
                found = signal.facts(facts, now)
            except DataError:
                unavailable |= signal.provides - facts.keys()
                continue
            if found:
                facts = {**found, **facts}
        return facts, unavailable

    def warnings(self, now: float) -> tuple[str, ...]:
        """Return what an operator should know at `now` about the sources of facts."""
        ageing = (signal for signal in self.signals if isinstance(signal, Ageing))
        return tuple(warning for signal in ageing for warning in signal.warnings(now))

    def plan(
        self,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None,
        now: float,
        unavailable: frozenset[str] = frozenset(),
    ) -> tuple[Case, Plan]:
        """Return the case and its plan; `facts` include the signals'.

        Raises:
            SettingError: `now` is not a time.
        """
        engine = self.engine_at(self.moment(now))
        micros = microseconds(now)
        serial = engine.ids.next()
        plan = engine.plan(facts, estimate, micros, engine.ids.name(serial), unavailable)
        return Case(engine, facts, estimate, micros, (), serial), plan

    def concluded(self, case: Case, plan: Plan, outcome: Outcome | None) -> Decision:
        """Return the decision on a plan."""
        return case.engine.decision(case, plan, outcome)

    def settlement(
        self, decision: Decision, usage: Mapping[str, object] | None, model: str | None
    ) -> list[Correction]:
        """Return what settles a decision, and mark it settled; nothing if it was already."""
        if decision.settled:
            return []
        corrections, notes = decision.case.engine.settlement(decision, usage or {}, model)
        decision.mark_settled(notes)
        return corrections

    def release(self, decision: Decision) -> list[Correction]:
        """Return what gives everything back, and mark the decision settled."""
        if decision.settled:
            return []
        decision.mark_settled()
        return decision.case.engine.release(decision)

    def renewal(self, decision: Decision, now: int) -> list[Correction]:
        """Return what extends a decision's leases, counted from `now` (microseconds)."""
        return [] if decision.settled else decision.case.engine.renewal(decision, now)

    def needs_store(self, plan: Plan) -> bool:
        """Tell whether a plan has anything to ask a store."""
        return bool(plan.cells) and not plan.refused


def microseconds(now: float) -> int:
    """Return a time in whole microseconds, rounded: a float of seconds is rarely exact."""
    return int(now * SECOND + 0.5)


def _needs(signals: Sequence[Signal]) -> frozenset[str]:
    return frozenset().union(*(signal.needs for signal in signals))


def _any_in(names: tuple[str, ...], facts: Mapping[str, object]) -> bool:
    for name in names:
        if name in facts:
            return True
    return not names


def _all_in(names: tuple[str, ...], facts: Mapping[str, object]) -> bool:
    for name in names:  # noqa: SIM110
        if name not in facts:
            return False
    return True

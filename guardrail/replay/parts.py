"""Replaying some traffic in parts: what a part is told, looking for ties, replaying one part."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import cast

from guardrail.engine import Decision
from guardrail.errors import DataError
from guardrail.guard import Guard
from guardrail.loading import load_policies
from guardrail.model.conditions import facts_of
from guardrail.model.facts import typed_value
from guardrail.model.policy import PolicySet
from guardrail.replay.counters import seed_counters
from guardrail.replay.harm import USUAL_DIVISION, Place
from guardrail.replay.records import DecisionFile
from guardrail.replay.report import ReportFigures, report_divisions
from guardrail.replay.results import TrafficRun
from guardrail.replay.running import Begun, Replay
from guardrail.replay.sampling import Sample
from guardrail.replay.tally import Tally
from guardrail.replay.ties import Found, Parts, Ties
from guardrail.replay.today import standing_on
from guardrail.signals import Signal
from guardrail.stores import Store
from guardrail.stores.memory import MemoryStore
from guardrail.traffic.files import TrafficFiles
from guardrail.traffic.mapfile import load_map
from guardrail.traffic.maps import TrafficMap
from guardrail.traffic.reading import Recorded
from guardrail.traffic.requests import FactValue, Request

TICK = 1 << 12
"""How many requests pass between two looks at what goes on outside of a replay."""


class StopReplay(Exception):  # noqa: N818
    """A replay is to end here, and to tell what it saw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All that a process needs to replay a part of some traffic; it can be sent to one.

    `policies` are paths, `revision` what they have to hold. `warmup` is in seconds; `seed` names a
    file of saved counters. `expected` are more expectations of the traffic, `divisions` the facts
    by which segments are told apart. `reports` tells whether the figures of a report are wanted.
    `today` (seconds since the epoch) is the day as on which the policies stand, None for each
    request's own.
    """

    policies: tuple[str, ...]
    revision: str
    traffic: tuple[str, ...]
    map: str | None = None
    warmup: float = 0.0
    geo: str | None = None
    sample: Sample | None = None
    seed: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    expected: tuple[str, ...] = ()
    divisions: tuple[tuple[str, ...], ...] = (USUAL_DIVISION,)
    reports: bool = False
    today: float | None = None

    def loaded(self) -> PolicySet:
        """Return the policies.

        Raises:
            PolicyError: they cannot be loaded.
            DataError: they are not those that the job was made for.
        """
        policies = load_policies(list(self.policies), expected=self.expected)
        if policies.revision != self.revision:
            raise DataError(
                "the policies are not those that the other parts go by: replay all of them again"
            )
        return policies if self.today is None else standing_on(policies, self.today)

    def guard(self, policies: PolicySet, store: MemoryStore) -> Guard:
        """Return a guard whose counters are in a store."""
        return replay_guard(policies, store, self.geo, self.environ)


def replay_guard(
    policies: PolicySet,
    store: str | Store,
    geo: str | None,
    environ: Mapping[str, str],
    namespace: str | None = None,
) -> Guard:
    """Return a guard for a replay, whose counters are nobody else's."""
    return Guard.from_policies(
        policies,
        store=store,
        geo=geo,
        namespace=namespace or f"{policies.name}.replay",
        environ=environ,
    )


def found_in(job: Job, share: int = 0, of: int = 1) -> Found:
    """Return what ties the accounts of some traffic, by one in `of` of its lines.

    What is found by each `share`, merged, is what is found by all of them.

    Raises:
        DataError: a file cannot be opened, or holds another log than the map says.
    """
    policies = job.loaded()
    with ExitStack() as closing:
        guard = closing.enter_context(job.guard(policies, MemoryStore()))
        files = TrafficFiles(job.traffic, closing, share=(share, of))
        mapping = None if job.map is None else load_map(job.map, policies)
        ties = Ties(policies, guard)
        ties.look_at_all(drawn(files.requests(mapping), job.sample))
    return ties.found


def drawn(traffic: Iterator[Recorded], sample: Sample | None) -> Iterator[Recorded]:
    """Yield the requests of the accounts that a sample draws, all where there is none."""
    if sample is None:
        yield from traffic
        return
    for recorded in traffic:
        if sample.has(recorded[2].facts):
            yield recorded


def replayed_part(
    job: Job,
    parts: Parts,
    part: int,
    tick: Callable[[], None] = lambda: None,
    decisions: str | None = None,
) -> TrafficRun:
    """Return what came of one part of some traffic.

    `tick` is called now and then, and may raise `StopReplay`. Decisions are written to a file,
    each after its place in the traffic, for `DecisionFile.merge`.
    """
    policies, store = job.loaded(), MemoryStore()
    seeded = None if job.seed is None else seed_counters(store, policies, job.seed)
    with ExitStack() as closing:
        guard = closing.enter_context(job.guard(policies, store))
        files = TrafficFiles(job.traffic, closing)
        mapping = None if job.map is None else load_map(job.map, policies)
        writer = None
        if decisions is not None:
            writer = closing.enter_context(DecisionFile(decisions, policies, numbered=True))
        run = replayed(
            guard,
            policies,
            files,
            mapping,
            warmup=job.warmup,
            sample=job.sample,
            mine=lambda facts: parts.of(facts) == part,
            decisions=writer,
            tick=tick,
            divisions=job.divisions,
            figures=ReportFigures() if job.reports else None,
        )
    run.seeded, run.today = seeded, job.today
    return run


def replayed(
    guard: Guard,
    policies: PolicySet,
    files: TrafficFiles,
    mapping: TrafficMap | None,
    *,
    warmup: float = 0.0,
    sample: Sample | None = None,
    mine: Callable[[Mapping[str, object]], bool] | None = None,
    decisions: DecisionFile | None = None,
    tick: Callable[[], None] = lambda: None,
    divisions: Sequence[tuple[str, ...]] = (),
    figures: ReportFigures | None = None,
) -> TrafficRun:
    """Replay traffic files through a guard; add up, and write decisions where they are wanted.

    Segments are told by `divisions`. `figures` of a report are added up too, where they are given,
    and the segments that it tells.

    Where it is interrupted, or `tick` raises `StopReplay`, what was seen so far is returned.
    """
    replay = Replay(guard, mine)
    run = begun_run(guard, policies, files, mapping, replay, divisions, figures)
    told = told_facts(guard, policies, run.tally.harm.divisions)
    reading = TrafficReading(files.requests(mapping), sample, warmup, tick, told)
    several, begun = len(files.sources) > 1, reading.begun
    with contextlib.closing(replay.run(iter(reading))) as decided:
        try:
            for line, ts, request, decision in decided:
                if ts >= begun.warm_until:
                    count(run, Place(ts, files.current.name, line), request, decision)
                else:
                    run.warmed += 1
                if decisions is not None:
                    name = files.current.name if several else None
                    decisions.write(line, ts, request, decision, name, files.number)
        except (KeyboardInterrupt, StopReplay):
            run.interrupted = reading.place(files)
    end_run(run, guard, replay, reading)
    return run


def begun_run(
    guard: Guard,
    policies: PolicySet,
    files: TrafficFiles,
    mapping: TrafficMap | None,
    replay: Replay,
    divisions: Sequence[tuple[str, ...]],
    figures: ReportFigures | None,
    *,
    rules: bool = True,
) -> TrafficRun:
    """Return what is to come of a replay, with nothing counted yet.

    `rules` tells whether what rules matched is wanted.
    """
    told = divisions if figures is None else report_divisions(divisions, policies)
    tally = Tally(policies, told, rules=rules)
    run = TrafficRun(tally=tally, course=replay.course, bad=files.bad, warmup=0.0)
    run.faults, run.local_share = files.faults, guard.local_share
    run.notes = None if mapping is None else mapping.notes
    run.sources = tuple(source.name for source in files.sources)
    run.divisions, run.figures = tuple(divisions), figures
    return run


def count(run: TrafficRun, place: Place, request: Request, decision: Decision) -> None:
    """Count one decided request of a replay."""
    run.tally.add(place.ts, request, decision, place)
    if run.figures is not None:
        run.figures.add(place.ts, request, decision)


def end_run(run: TrafficRun, guard: Guard, replay: Replay, reading: TrafficReading) -> None:
    """Settle what is in flight at the end of a replay, and complete what came of it."""
    replay.finish()
    run.tally.finish()
    run.warmup, run.passed_over = reading.warmup, reading.passed_over
    run.sample = None if reading.sample is None else reading.sample.share
    run.warnings = guard.warnings(now=replay.course.newest)


def told_facts(guard: Guard, policies: PolicySet, divisions: Iterable[Sequence[str]]) -> Facts:
    """Return what adds the facts by which segments are told, and that traffic is expected by."""
    names = {name for division in divisions for name in division}
    for threshold in policies.thresholds:
        names |= facts_of(threshold.when)
    return Facts(policies, guard.unasked_signals(frozenset(names)))


class Facts:
    """Adds to requests the facts that `signals` establish: those that are told of and no rule uses.

    A guard asks its signals for what rules use alone.
    """

    def __init__(self, policies: PolicySet, signals: Sequence[Signal]) -> None:
        self._known = policies.facts
        self._signals = signals

    def add(self, ts: float, request: Request) -> None:
        """Add the facts of a request at `ts` (seconds) that it does not state.

        Raises:
            DataError: a source of facts failed.
        """
        for signal in self._signals:
            stated = request.facts
            known = {
                name: value
                for name in signal.needs
                if name in stated
                and (value := typed_value(self._known[name], stated[name])) is not None
            }
            found = cast(dict[str, FactValue], dict(signal.facts(known, ts)))
            request.facts = found | stated


class TrafficReading:
    """The requests that are replayed, with what is noted of them on the way.

    `sample` draws from them, None for all; `warmup` is in seconds. `tick` is called now and then.
    `told` adds facts to them. `passed_over` counts the requests of those who were not drawn.
    """

    def __init__(
        self,
        traffic: Iterator[Recorded],
        sample: Sample | None,
        warmup: float,
        tick: Callable[[], None],
        told: Facts,
    ) -> None:
        self.sample = sample
        self.warmup = warmup
        self.begun = Begun(warmup)
        self.passed_over = 0
        self._traffic = traffic
        self._tick = tick
        self._told = told
        self._line = 0

    def place(self, files: TrafficFiles) -> str:
        """Return how far the reading came."""
        return f"`{files.current.name}` line {self._line:,}"

    def __iter__(self) -> Iterator[Recorded]:
        return self.begun.of(self._sampled())

    def _sampled(self) -> Iterator[Recorded]:
        tick, left, sample = self._tick, TICK, self.sample
        for recorded in self._traffic:
            left -= 1
            if not left:
                left = TICK
                self._line = recorded[0]
                tick()
            if sample is not None and not sample.has(recorded[2].facts):
                self.passed_over += 1
                continue
            self._line = recorded[0]
            self._told.add(recorded[1], recorded[2])
            yield recorded

"""Two versions of the policies over traffic in parts, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from guardrail.errors import DataError
from guardrail.model.policy import PolicySet
from guardrail.replay.comparing import Compared, Comparison, compared_over
from guardrail.replay.counters import seed_counters
from guardrail.replay.down import DownStore
from guardrail.replay.parts import drawn, replay_guard
from guardrail.replay.results import merged
from guardrail.replay.sampling import Sample
from guardrail.replay.ties import Found, Parts, Ties, parts_of
from guardrail.replay.today import standing_on
from guardrail.replay.workers import awaited, process_pool, stoppable
from guardrail.stores.memory import MemoryStore
from guardrail.traffic.files import TrafficFiles
from guardrail.traffic.mapfile import load_map

Version = Callable[[], PolicySet]
"""Loads one version of the policies, in whatever process it is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareJob:
    """All that a process needs to compare two versions over a part of some traffic.

    `versions` load them, `revisions` are what they have to hold; `warmup` is in seconds. `seed`
    names a file of saved counters, from which both start. `reports` tells whether the figures of a
    report on each version are wanted. `today` (seconds since the epoch) is the day as on which both
    stand, None for each request's own. `store_down` decides as if there were no store.
    """

    versions: tuple[Version, Version]
    revisions: tuple[str, str]
    traffic: tuple[str, ...]
    map: str | None = None
    warmup: float = 0.0
    geo: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    divisions: tuple[tuple[str, ...], ...] = ()
    reports: bool = False
    sample: Sample | None = None
    seed: str | None = None
    today: float | None = None
    store_down: bool = False

    def loaded(self) -> tuple[PolicySet, PolicySet]:
        """Return both versions.

        Raises:
            DataError: they are not those that the job was made for.
        """
        old, new = self.versions
        loaded = old(), new()
        if (loaded[0].revision, loaded[1].revision) != self.revisions:
            raise DataError("the policies changed while they were compared: compare them again")
        return self.standing(loaded)

    def standing(self, policies: tuple[PolicySet, PolicySet]) -> tuple[PolicySet, PolicySet]:
        """Return both versions as they stand `today`."""
        if self.today is None:
            return policies
        return standing_on(policies[0], self.today), standing_on(policies[1], self.today)

    def compared(
        self,
        policies: tuple[PolicySet, PolicySet],
        files: TrafficFiles,
        tick: Callable[[], None] = lambda: None,
        mine: Callable[[Mapping[str, object]], bool] | None = None,
    ) -> Compared:
        """Return what came of the traffic, or of those requests whose facts are `mine`.

        Raises:
            DataError: a file of counters cannot be read, or holds those of another policy.
        """
        with ExitStack() as closing:
            guards, seeded = [], None
            for version in policies:
                store = DownStore() if self.store_down else MemoryStore()
                if self.seed is not None and isinstance(store, MemoryStore):
                    seeded = seed_counters(store, version, self.seed)
                guard = replay_guard(version, store, self.geo, self.environ)
                guards.append(closing.enter_context(guard))
            found = compared_over(
                (guards[0], guards[1]),
                policies,
                files,
                None if self.map is None else load_map(self.map, policies[1]),
                warmup=self.warmup,
                sample=self.sample,
                divisions=self.divisions,
                mine=mine,
                reports=self.reports,
                tick=tick,
            )
        for run in (found.before, found.after):
            run.seeded, run.today = seeded, self.today
        return found


def compared_in_parts(
    job: CompareJob,
    policies: tuple[PolicySet, PolicySet],
    count: int,
    told: Callable[[Found], None] = lambda found: None,
) -> Compared:
    """Return what came of a comparison in so many processes: the same as in one.

    `told` is called with what ties accounts under one of the two versions.

    Raises:
        GuardrailError: a process met what the command would have met by itself.
    """
    with process_pool(count) as pool:
        looking = [pool.submit(_found_in, job, share, count) for share in range(count)]
        found = Found()
        for share in looking:
            found.merge(share.result())
        parts_of(found, policies[0], count)  # ties those whom the old version alone counts together
        parts = parts_of(found, policies[1], count)
        told(found)
        waiting = [pool.submit(_compared_part, job, parts, part) for part in range(count)]
        return _merged(awaited(pool, waiting), policies)


def _merged(every: Sequence[Compared], policies: tuple[PolicySet, PolicySet]) -> Compared:
    """Return what came of all parts of some traffic together.

    Raises:
        DataError: the parts did not read the same traffic.
    """
    whole = Comparison(*policies)
    for one in every:
        whole.merge(one.figures)
    old, new = policies
    return Compared(
        whole,
        merged([one.before for one in every], old),
        merged([one.after for one in every], new),
    )


def _found_in(job: CompareJob, share: int, of: int) -> Found:
    """Return what ties accounts under either version, by one in `of` of the lines."""
    policies = job.loaded()
    with ExitStack() as closing:
        old, new = (
            Ties(one, closing.enter_context(replay_guard(one, MemoryStore(), job.geo, job.environ)))
            for one in policies
        )
        files = TrafficFiles(job.traffic, closing, share=(share, of))
        mapping = None if job.map is None else load_map(job.map, policies[1])
        for _, ts, request in drawn(files.requests(mapping), job.sample):
            old.look(ts, request.facts)
            new.look(ts, request.facts)
    old.found.merge(new.found)
    return old.found


def _compared_part(job: CompareJob, parts: Parts, part: int) -> Compared:
    policies = job.loaded()

    def run(tick: Callable[[], None]) -> Compared:
        with ExitStack() as closing:
            files = TrafficFiles(job.traffic, closing)
            return job.compared(policies, files, tick, lambda facts: parts.of(facts) == part)

    return stoppable(run)

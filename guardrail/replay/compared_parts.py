"""Two versions of the policies over traffic in parts, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from guardrail.errors import DataError
from guardrail.guard import Guard
from guardrail.model.policy import PolicySet
from guardrail.replay.comparing import Compared, Comparison, compared_over
from guardrail.replay.parts import replay_guard
from guardrail.replay.ties import Found, Parts, Ties, parts_of
from guardrail.replay.workers import process_pool
from guardrail.stores.memory import MemoryStore
from guardrail.traffic.files import TrafficFiles
from guardrail.traffic.mapfile import load_map

Version = Callable[[], PolicySet]
"""Loads one version of the policies, in whatever process it is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareJob:
    """All that a process needs to compare two versions over a part of some traffic.

    `versions` load them, `revisions` are what they have to hold; `warmup` is in seconds. `reports`
    tells whether the figures of a report on each version are wanted.
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

    def loaded(self) -> tuple[PolicySet, PolicySet]:
        """Return both versions.

        Raises:
            DataError: they are not those that the job was made for.
        """
        old, new = self.versions
        loaded = old(), new()
        if (loaded[0].revision, loaded[1].revision) != self.revisions:
            raise DataError("the policies changed while they were compared: compare them again")
        return loaded

    def guards(
        self, policies: tuple[PolicySet, PolicySet], closing: ExitStack
    ) -> tuple[Guard, Guard]:
        """Return a guard for each version, with counters of its own."""
        old, new = (
            closing.enter_context(replay_guard(one, MemoryStore(), self.geo, self.environ))
            for one in policies
        )
        return old, new


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
        return _merged([one.result() for one in waiting], policies, job)


def _merged(
    every: Sequence[Compared],
    policies: tuple[PolicySet, PolicySet],
    job: CompareJob,
) -> Compared:
    """Return what came of all parts of some traffic together.

    Raises:
        DataError: the parts did not read the same traffic.
    """
    whole = Comparison(*policies, job.divisions, reports=job.reports)
    whole.finish()
    for one in every:
        if one.course != every[0].course:
            raise DataError("the parts did not read the same traffic: compare them again")
        whole.merge(one.figures)
    whole.finish()
    return every[0]._replace(figures=whole, warmed=sum(one.warmed for one in every))


def _found_in(job: CompareJob, share: int, of: int) -> Found:
    """Return what ties accounts under either version, by one in `of` of the lines."""
    policies = job.loaded()
    with ExitStack() as closing:
        guards = job.guards(policies, closing)
        files = TrafficFiles(job.traffic, closing, share=(share, of))
        mapping = None if job.map is None else load_map(job.map, policies[1])
        old, new = (Ties(*pair) for pair in zip(policies, guards, strict=True))
        for _, ts, request in files.requests(mapping):
            old.look(ts, request.facts)
            new.look(ts, request.facts)
    old.found.merge(new.found)
    return old.found


def _compared_part(job: CompareJob, parts: Parts, part: int) -> Compared:
    policies = job.loaded()
    with ExitStack() as closing:
        guards = job.guards(policies, closing)
        files = TrafficFiles(job.traffic, closing)
        mapping = None if job.map is None else load_map(job.map, policies[1])
        found = compared_over(
            guards,
            policies,
            files,
            mapping,
            job.warmup,
            job.divisions,
            mine=lambda facts: parts.of(facts) == part,
            reports=job.reports,
        )
        if files.faults:
            raise DataError(f"traffic could not be read to its end: {files.faults[0]}")
        return found

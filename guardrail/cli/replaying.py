"""How `check` replays traffic: in this process, in several, or one part of it for `merge`."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from guardrail.cli.figures import plural, share
from guardrail.cli.files import Files
from guardrail.cli.loading import environment
from guardrail.cli.output import Output
from guardrail.cli.traffic import run_traffic, warn
from guardrail.cli.traffic_text import named_rules
from guardrail.errors import SettingError
from guardrail.guard.loading import MEMORY
from guardrail.model.policy import PolicySet
from guardrail.pages import check_drawing
from guardrail.replay.counters import save_counters, seed_counters
from guardrail.replay.down import DownStore
from guardrail.replay.parts import Job, found_in, replay_guard, replayed_part
from guardrail.replay.records import DecisionFile
from guardrail.replay.report import ReportFigures
from guardrail.replay.results import ShardFile, TrafficRun
from guardrail.replay.sampling import Sample
from guardrail.replay.ties import Found, largest_share, parts_of
from guardrail.replay.today import standing_on
from guardrail.replay.workers import Workers
from guardrail.stores import Store
from guardrail.stores.memory import MemoryStore
from guardrail.traffic.files import TrafficFiles
from guardrail.traffic.maps import TrafficMap

_MOST_SHARDS = 10_000


@dataclass(slots=True, kw_only=True)
class ReplayRequest:
    """How traffic is to be replayed, as the command line says; `warmup` is in seconds."""

    paths: list[str]
    traffic: list[str] = field(default_factory=list)
    map: str | None = None
    decisions: str | None = None
    store: str = MEMORY
    store_down: bool = False
    warmup: float = 0.0
    geo: str | None = None
    expect: list[str] = field(default_factory=list)
    by: list[str] = field(default_factory=list)
    divisions: list[tuple[str, ...]] = field(default_factory=list)
    workers: int = 1
    shard: str | None = None
    result: str | None = None
    sample: Fraction | None = None
    sample_key: str = ""
    seed_counters: str | None = None
    save_counters: str | None = None
    today: float | None = None
    report: str | None = None
    show_identifiers: bool = False

    def checked(self) -> None:
        """Check that what is asked for goes together.

        Raises:
            SettingError: it does not.
        """
        if self.store_down and self.store != MEMORY:
            raise SettingError("`--store-down` replays without a store: leave `--store` out")
        for name, file in (("seed", self.seed_counters), ("save", self.save_counters)):
            if self.store_down and file:
                raise SettingError(f"`--store-down` has no counters: leave `--{name}-counters` out")
        for name, wish in self._wishes().items():
            if wish and not self.traffic:
                raise SettingError(f"`{name}` replays traffic: give it with `--traffic`")
        if self.report is not None:
            check_drawing("`--report`")
        if (self.shard is None) != (self.result is None):
            raise SettingError("`--shard K/N` and `--result OUT` go together")
        in_parts = "--workers" if self.workers > 1 else "--shard" if self.shard else None
        if in_parts is None:
            if (self.seed_counters or self.save_counters) and self.store != MEMORY:
                raise SettingError("counters are saved from, and put into, memory: leave `--store`")
            return
        if self.workers > 1 and self.shard:
            raise SettingError("`--shard` replays in one process: leave `--workers` out")
        for name, is_given, why in (
            ("--store", self.store != MEMORY, "each process counts in a memory of its own"),
            ("--store-down", self.store_down, "what a store that is down does depends on all"),
            ("--save-counters", self.save_counters, "each process has but a part of them"),
            ("--traffic -", "-" in self.traffic, "each process reads all of the traffic"),
        ):
            if is_given:
                raise SettingError(f"`{name}` does not go with `{in_parts}`: {why}")
        if self.shard and self.report:
            raise SettingError("`--report` does not go with `--shard`: use `--workers`")
        if self.shard and self.decisions:
            raise SettingError("`--decisions` does not go with `--shard`: use `--workers`")

    @property
    def files(self) -> Files:
        """What is read and written; counters may be saved where they were read from."""
        return Files(
            reads={
                "the traffic": self.traffic,
                "the policies": self.paths,
                "the map": [self.map],
                "the country database": [self.geo],
                "what is expected": self.expect,
            },
            writes=(
                ("--decisions ", self.decisions),
                ("--report ", self.report),
                ("--result ", self.result),
                ("--save-counters ", self.save_counters),
            ),
        )

    @property
    def sampled(self) -> Sample | None:
        """The sample that is drawn, None for all of the traffic."""
        return None if self.sample is None else Sample(self.sample, self.sample_key)

    def job(self, policies: PolicySet) -> Job:
        """Return what a process needs to replay a part."""
        return Job(
            policies=tuple(self.paths),
            revision=policies.revision,
            traffic=tuple(self.traffic),
            map=self.map,
            warmup=self.warmup,
            geo=self.geo,
            sample=self.sampled,
            seed=self.seed_counters,
            environ=dict(environment()),
            expected=tuple(self.expect),
            divisions=tuple(self.divisions),
            reports=self.report is not None,
            today=self.today,
        )

    def _wishes(self) -> Mapping[str, object]:
        return {
            "--map": self.map,
            "--decisions": self.decisions,
            "--warmup": self.warmup,
            "--store-down": self.store_down,
            "--workers": self.workers > 1,
            "--shard": self.shard,
            "--sample": self.sample,
            "--seed-counters": self.seed_counters,
            "--save-counters": self.save_counters,
            "--today": self.today is not None,
            "--report": self.report,
            "--expect": self.expect,
            "--by": self.by,
        }


def replay(
    asked: ReplayRequest,
    policies: PolicySet,
    files: TrafficFiles,
    mapping: TrafficMap | None,
    writer: DecisionFile | None,
    output: Output,
) -> TrafficRun:
    """Return what came of the traffic, in as many processes as were asked for."""
    if asked.workers > 1:
        told = lambda found: tell_ties(found, [policies], asked.workers, output)  # noqa: E731
        run = Workers(asked.job(policies), policies, asked.workers).run(writer, told)
        warn(output, run)
        return run
    if asked.today is not None:
        policies = standing_on(policies, asked.today)
    store = _store(asked)
    seeded = None
    if asked.seed_counters is not None:
        assert isinstance(store, MemoryStore)
        seeded = seed_counters(store, policies, asked.seed_counters)
    in_memory = isinstance(store, MemoryStore)
    namespace = None if in_memory else f"{policies.name}.check-{secrets.token_hex(8)}"
    with replay_guard(policies, store, asked.geo, environment(), namespace) as guard:
        run = run_traffic(
            guard,
            policies,
            files,
            mapping,
            asked.warmup,
            writer,
            output,
            asked.sampled,
            asked.divisions,
            None if asked.report is None else ReportFigures(),
        )
    run.seeded, run.today = seeded, asked.today
    if asked.save_counters is not None:
        assert isinstance(store, MemoryStore)
        count = save_counters(store, policies, asked.save_counters, run.course.newest)
        output.note(f"{plural(count, 'counter')} saved to `{asked.save_counters}`")
    return run


def write_shard(asked: ReplayRequest, policies: PolicySet, output: Output) -> str:
    """Replay one part of the traffic, write what came of it, and return a line on it."""
    part, count = shard_of(str(asked.shard))
    job = asked.job(policies)
    found = found_in(job)
    tell_ties(found, [policies], count, output)
    run = replayed_part(job, parts_of(found, policies, count), part)
    warn(output, run)
    ShardFile(
        shard=part + 1,
        count=count,
        policies=tuple(asked.paths),
        revision=policies.revision,
        traffic=tuple(asked.traffic),
        run=run,
        expected=tuple(asked.expect),
    ).write(str(asked.result))
    return (
        f"part {part + 1} of {count}: {plural(run.readable, 'request')} decided; "
        f"merge all {count} with `guardrail merge`"
    )


def shard_of(written: str) -> tuple[int, int]:
    """Return the place of a shard, from 0, and how many there are.

    Raises:
        SettingError: it is not written as `K/N`, or K is not one of N.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", written)
    part, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= part <= count <= _MOST_SHARDS:
        raise SettingError(f"`--shard {written}` is no part: write `1/4` to `4/4` for four parts")
    return part - 1, count


def _store(asked: ReplayRequest) -> str | Store:
    if asked.store_down:
        return DownStore()
    return MemoryStore() if asked.store == MEMORY else asked.store


def tell_ties(found: Found, versions: Sequence[PolicySet], count: int, output: Output) -> None:
    """Say which rules keep accounts together, and how much of the traffic that is."""
    for policies in versions:
        parts_of(found, policies, count)  # which ties those whose links depend on each other
    largest = largest_share(found)
    every = [rule.id for policies in versions for rule in policies.rules]
    rules = [name for name in dict.fromkeys(every) if name in found.rules]
    why = named_rules(rules)
    if found.linked:
        why.append("links")
    if not why:
        output.note(f"{count} parts by account: no rule counts for several accounts together")
        return
    told = (
        f"{count} parts by account; accounts stay together that share counters of "
        f"{', '.join(why)}: the largest such group has {share(largest, 1)} of the requests"
    )
    if largest == 1:
        told += ", so one process decides them all, and several are no faster"
    elif largest * count > 1:
        fastest = math.ceil(10 / largest) / 10
        told += f", so several processes are at most {fastest} times as fast as one"
    output.note(told)

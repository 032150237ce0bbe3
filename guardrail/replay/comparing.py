"""Two versions of the policies over one reading of traffic, each with counters of its own."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import tee
from typing import NamedTuple

from guardrail.engine import Decision
from guardrail.guard import Guard
from guardrail.model.effects import Effect
from guardrail.model.policy import PolicySet
from guardrail.replay.harm import Hit, Place, Reading, reading
from guardrail.replay.parts import (
    StopReplay,
    TrafficReading,
    begun_run,
    count,
    end_run,
    told_facts,
)
from guardrail.replay.report import ReportFigures
from guardrail.replay.results import TrafficRun
from guardrail.replay.running import Replay, Replayed
from guardrail.replay.sampling import Sample
from guardrail.traffic.files import TrafficFiles
from guardrail.traffic.maps import TrafficMap


class Kind(NamedTuple):
    """Decisions that changed alike: from one effect to another, for the same cause.

    `rule` is what made the stricter of the two decisions, None where no rule did.
    """

    before: Effect
    after: Effect
    rule: str | None

    @property
    def looser(self) -> bool:
        """Whether the later decision is the milder one."""
        return self.after < self.before


@dataclass(slots=True)
class Changed:
    """The decisions of one kind: how many, whose, and the first of them with what was read."""

    place: Place
    account: str | None
    read: Reading
    requests: int = 0
    accounts: set[str] = field(default_factory=set)

    def merge(self, other: Changed) -> None:
        """Add decisions of the same kind; the first of all is kept."""
        self.requests += other.requests
        self.accounts |= other.accounts
        if other.place < self.place:
            self.place, self.account, self.read = other.place, other.account, other.read


class Comparison:
    """Adds up how decisions changed from one version of the policies to the next.

    `matrix` counts requests by both effects, `kinds` has those that changed. `otherwise` counts
    the requests that are degraded in both, with other obligations; `renamed` those with the same
    effect by another rule.
    """

    def __init__(self, old: PolicySet, new: PolicySet) -> None:
        self.matrix: Counter[tuple[Effect, Effect]] = Counter()
        self.kinds: dict[Kind, Changed] = {}
        self.otherwise = 0
        self.renamed = 0
        self._old = old
        self._new = new

    def __getstate__(self) -> dict[str, object]:
        """Return the figures alone, for another process to merge."""
        return {name: value for name, value in vars(self).items() if name not in ("_old", "_new")}

    def add(self, place: Place, before: Decision, after: Decision) -> None:
        """Count one request, decided by both versions."""
        was, now = before.effect, after.effect
        self.matrix[was, now] += 1
        if was is now:
            if now is Effect.DEGRADE and dict(before.obligations) != dict(after.obligations):
                self.otherwise += 1
            self.renamed += before.rule != after.rule
            return
        kind = Kind(was, now, before.rule if now < was else after.rule)
        account = after.facts.get("account.id")
        known = account if isinstance(account, str) else None
        found = self.kinds.get(kind)
        if found is None or place < found.place:
            cause, policies = (before, self._old) if kind.looser else (after, self._new)
            first = Changed(place, known, reading(cause, kind.rule, policies))
            if found is not None:
                first.merge(found)
            found = self.kinds[kind] = first
        found.requests += 1
        if known is not None:
            found.accounts.add(known)

    def merge(self, other: Comparison) -> None:
        """Add what was counted of other requests under the same two versions."""
        self.matrix.update(other.matrix)
        self.otherwise += other.otherwise
        self.renamed += other.renamed
        for kind, changed in other.kinds.items():
            if kind in self.kinds:
                self.kinds[kind].merge(changed)
            else:
                self.kinds[kind] = changed

    @property
    def requests(self) -> int:
        """How many requests both versions decided."""
        return self.matrix.total()

    def changed(self, *, looser: bool) -> list[tuple[Kind, Changed]]:
        """Return the kinds that became looser, or stricter, those of most requests first."""
        kinds = [pair for pair in self.kinds.items() if pair[0].looser is looser]
        return sorted(kinds, key=lambda pair: (-pair[1].requests, pair[0].after, str(pair[0].rule)))


class Compared(NamedTuple):
    """What came of a comparison: how decisions changed, and what came of each version alone.

    What rules matched is counted of the new version alone, unless a report is made.
    """

    figures: Comparison
    before: TrafficRun
    after: TrafficRun

    @property
    def first_refused(self) -> Mapping[str, Hit]:
        """The accounts that are refused now and were not before."""
        old, new = self.before.tally.harm.hits, self.after.tally.harm.hits
        return {account: hit for account, hit in new.items() if account not in old}

    @property
    def no_longer_refused(self) -> int:
        """How many accounts were refused before and are not now."""
        old, new = self.before.tally.harm.hits, self.after.tally.harm.hits
        return sum(account not in new for account in old)


def compared_over(
    guards: tuple[Guard, Guard],
    policies: tuple[PolicySet, PolicySet],
    files: TrafficFiles,
    mapping: TrafficMap | None,
    *,
    warmup: float = 0.0,
    sample: Sample | None = None,
    divisions: Sequence[tuple[str, ...]] = (),
    mine: Callable[[Mapping[str, object]], bool] | None = None,
    reports: bool = False,
    tick: Callable[[], None] = lambda: None,
) -> Compared:
    """Replay traffic through two guards, line by line; `warmup` is in seconds.

    Of the traffic only the requests are decided whose facts are `mine`. `reports` tells whether the
    figures of a report on each version are wanted.

    Where it is interrupted, or `tick` raises `StopReplay`, what was seen so far is returned.
    """
    figures = Comparison(*policies)
    replays = [Replay(guard, mine) for guard in guards]
    old, new = runs = [
        begun_run(
            guard,
            version,
            files,
            mapping,
            replay,
            divisions,
            ReportFigures() if reports else None,
            rules=reports or is_new,
        )
        for guard, version, replay, is_new in zip(
            guards, policies, replays, (False, True), strict=True
        )
    ]
    told = told_facts(guards[1], policies[1], new.tally.harm.divisions)
    source = TrafficReading(files.requests(mapping), sample, warmup, tick, told)
    with contextlib.ExitStack() as closing:
        decided: list[Iterator[Replayed]] = [
            closing.enter_context(contextlib.closing(replay.run(copy)))
            for replay, copy in zip(replays, tee(source), strict=True)
        ]
        try:
            for (line, ts, request, before), (_, _, _, after) in zip(*decided, strict=True):
                if ts >= source.begun.warm_until:
                    place = Place(ts, files.current.name, line)
                    figures.add(place, before, after)
                    count(old, place, request, before)
                    count(new, place, request, after)
                else:
                    old.warmed += 1
                    new.warmed += 1
        except (KeyboardInterrupt, StopReplay):
            old.interrupted = new.interrupted = source.place(files)
    for run, guard, replay in zip(runs, guards, replays, strict=True):
        end_run(run, guard, replay, source)
    return Compared(figures, old, new)

"""Two versions of the policies over one reading of traffic, each with counters of its own."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import tee
from typing import NamedTuple

from guardrail.engine import Decision
from guardrail.guard import Guard
from guardrail.model.effects import Effect
from guardrail.model.policy import PolicySet
from guardrail.replay.harm import Harm, Hit, Place, Reading, reading
from guardrail.replay.report import ReportFigures, report_divisions
from guardrail.replay.running import Begun, Course, Replay
from guardrail.replay.tally import Tally
from guardrail.traffic.files import TrafficFiles
from guardrail.traffic.maps import TrafficMap
from guardrail.traffic.requests import Request


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


class Side(NamedTuple):
    """What a report tells of one of two versions."""

    tally: Tally
    figures: ReportFigures

    @classmethod
    def of(cls, policies: PolicySet, divisions: Sequence[tuple[str, ...]]) -> Side:
        """Return a side that nothing was counted in yet."""
        return cls(Tally(policies, report_divisions(divisions, policies)), ReportFigures())


class Comparison:
    """Adds up how decisions changed from one version of the policies to the next.

    `matrix` counts requests by both effects, `kinds` has those that changed. `otherwise` counts
    the requests that are degraded in both, with other obligations; `renamed` those with the same
    effect by another rule. `before` and `after` tell whom refusals hit under each version.
    """

    def __init__(
        self,
        old: PolicySet,
        new: PolicySet,
        divisions: Iterable[tuple[str, ...]] = (),
        *,
        reports: bool = False,
    ) -> None:
        """Compare two versions; `reports` adds up the figures of a report on each, in `sides`."""
        kept = tuple(divisions)
        self.sides = (Side.of(old, kept), Side.of(new, kept)) if reports else None
        self.matrix: Counter[tuple[Effect, Effect]] = Counter()
        self.kinds: dict[Kind, Changed] = {}
        self.otherwise = 0
        self.renamed = 0
        self.before, self.after = (
            (Harm(old, kept), Harm(new, kept))
            if self.sides is None
            else (self.sides[0].tally.harm, self.sides[1].tally.harm)
        )
        self._old = old
        self._new = new

    def __getstate__(self) -> dict[str, object]:
        """Return the figures alone, for another process to merge."""
        return {name: value for name, value in vars(self).items() if name not in ("_old", "_new")}

    def add(self, place: Place, request: Request, before: Decision, after: Decision) -> None:
        """Count one request, decided by both versions."""
        was, now = before.effect, after.effect
        self.matrix[was, now] += 1
        if self.sides is None:
            self.before.add(place, before)
            self.after.add(place, after)
        else:
            for side, decision in zip(self.sides, (before, after), strict=True):
                side.tally.add(place.ts, request, decision, place)
                side.figures.add(place.ts, request, decision)
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
        """Add what was counted of other requests under the same two versions; both are finished."""
        self.matrix.update(other.matrix)
        self.otherwise += other.otherwise
        self.renamed += other.renamed
        for kind, changed in other.kinds.items():
            if kind in self.kinds:
                self.kinds[kind].merge(changed)
            else:
                self.kinds[kind] = changed
        if self.sides is None or other.sides is None:
            self.before.merge(other.before)
            self.after.merge(other.after)
            return
        for mine, theirs in zip(self.sides, other.sides, strict=True):
            mine.tally.merge(theirs.tally)
            mine.figures.merge(theirs.figures)

    def finish(self) -> None:
        """Complete the figures."""
        if self.sides is None:
            self.before.finished()
            self.after.finished()
            return
        for side in self.sides:
            side.tally.finish()

    @property
    def requests(self) -> int:
        """How many requests both versions decided."""
        return self.matrix.total()

    def changed(self, *, looser: bool) -> list[tuple[Kind, Changed]]:
        """Return the kinds that became looser, or stricter, those of most requests first."""
        kinds = [pair for pair in self.kinds.items() if pair[0].looser is looser]
        return sorted(kinds, key=lambda pair: (-pair[1].requests, pair[0].after, str(pair[0].rule)))

    @property
    def first_refused(self) -> Mapping[str, Hit]:
        """The accounts that are refused now and were not before."""
        return {
            account: hit
            for account, hit in self.after.hits.items()
            if account not in self.before.hits
        }

    @property
    def no_longer_refused(self) -> int:
        """How many accounts were refused before and are not now."""
        return sum(account not in self.after.hits for account in self.before.hits)


class Compared(NamedTuple):
    """What came of a comparison: its figures, its clock, and how many requests warmed it up.

    `divisions` are the facts by which segments are to be told.
    """

    figures: Comparison
    course: Course
    warmed: int
    sources: Sequence[str]
    divisions: Sequence[tuple[str, ...]]


def compared_over(
    guards: tuple[Guard, Guard],
    policies: tuple[PolicySet, PolicySet],
    files: TrafficFiles,
    mapping: TrafficMap | None,
    warmup: float = 0.0,
    divisions: Sequence[tuple[str, ...]] = (),
    *,
    mine: Callable[[Mapping[str, object]], bool] | None = None,
    reports: bool = False,
) -> Compared:
    """Replay traffic through two guards, line by line; `warmup` is in seconds.

    Of the traffic only the requests are decided whose facts are `mine`. `reports` tells whether the
    figures of a report on each version are wanted.
    """
    figures = Comparison(*policies, divisions, reports=reports)
    replays = [Replay(guard, mine) for guard in guards]
    warmed, begun = 0, Begun(warmup)
    with contextlib.ExitStack() as closing:
        copies = tee(begun.of(files.requests(mapping)))
        decided: list[Iterator[tuple[int, float, Request, Decision]]] = [
            closing.enter_context(contextlib.closing(replay.run(copy)))
            for replay, copy in zip(replays, copies, strict=True)
        ]
        for (line, ts, request, before), (_, _, _, after) in zip(*decided, strict=True):
            if ts >= begun.warm_until:
                figures.add(Place(ts, files.current.name, line), request, before, after)
            else:
                warmed += 1
    figures.finish()
    names = [source.name for source in files.sources]
    return Compared(figures, replays[1].course, warmed, names, divisions)

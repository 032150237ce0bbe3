"""Running recorded traffic through a guard for a command: opening, reading, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from guardrail.cli.inert import shortened
from guardrail.cli.output import Output
from guardrail.errors import DataError
from guardrail.guard import Guard
from guardrail.model.policy import PolicySet
from guardrail.replay.records import DecisionFile
from guardrail.replay.report import ReportFigures
from guardrail.replay.running import Course, Replay
from guardrail.replay.tally import Tally
from guardrail.traffic.lines import LineSource
from guardrail.traffic.maps import TrafficMap
from guardrail.traffic.reading import Recorded, recorded_requests
from guardrail.traffic.requests import BadLines

_TICK = 1 << 12


@dataclass(slots=True, kw_only=True)
class TrafficRun:
    """What came of the traffic: its tally, its clock, and what could not be read.

    `warmup` is in seconds; `warmed` counts the requests decided in it. `faults` are files that
    could not be read to their end; `local_share` is the part of limits that stands in for a store.
    `figures` are those of a report, where one is made.
    """

    tally: Tally
    course: Course
    bad: BadLines
    warmup: float
    warmed: int = 0
    faults: list[str] = field(default_factory=list)
    mapping: TrafficMap | None = None
    local_share: Fraction = Fraction(1)
    figures: ReportFigures | None = None

    @property
    def readable(self) -> int:
        """How many requests were read."""
        return self.tally.requests + self.warmed


class TrafficFiles:
    """The traffic files of one command, opened together so that a missing one is noticed first.

    `current` is the file being read.
    """

    def __init__(self, paths: Sequence[str], closing: ExitStack) -> None:
        self.sources = [closing.enter_context(LineSource(path)) for path in paths]
        self.bad = BadLines()
        self.faults: list[str] = []
        self.current = self.sources[0]

    @property
    def size(self) -> int | None:
        """How many bytes there are to read, None where that is not known."""
        sizes = [source.size for source in self.sources]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def position(self) -> int:
        """How many bytes have been read."""
        return sum(source.position for source in self.sources)

    def requests(self, mapping: TrafficMap | None) -> Iterator[Recorded]:
        """Yield the requests of all files; a damaged file ends early and is noted."""
        for source in self.sources:
            self.current = source
            try:
                yield from recorded_requests(source, self.bad, mapping)
            except DataError as error:
                self.faults.append(str(error))


def run_traffic(
    guard: Guard,
    policies: PolicySet,
    files: TrafficFiles,
    mapping: TrafficMap | None,
    warmup: float,
    decisions: DecisionFile | None,
    output: Output,
    figures: ReportFigures | None = None,
) -> TrafficRun:
    """Replay traffic files through a guard; add up, and write decisions where they are wanted.

    `figures` of a report are added up too, where they are given.
    """
    replay, tally = Replay(guard), Tally(policies)
    run = TrafficRun(tally=tally, course=replay.course, bad=files.bad, warmup=warmup)
    run.faults, run.mapping, run.local_share = files.faults, mapping, guard.local_share
    run.figures = figures
    several = len(files.sources) > 1
    warm_until: float | None = None
    with _progress(output, files) as tick:
        for number, (line, ts, request, decision) in enumerate(replay.run(files.requests(mapping))):
            if warm_until is None:
                warm_until = ts + warmup
            if ts >= warm_until or not warmup:
                tally.add(ts, request, decision)
                if figures is not None:
                    figures.add(ts, request, decision)
            else:
                run.warmed += 1
            if decisions is not None:
                name = files.current.name if several else None
                decisions.write(line, ts, request, decision, name)
            if not number % _TICK:
                tick()
        replay.finish()
    tally.finish()
    for warning in guard.warnings(now=replay.course.newest):
        output.warn(warning)
    return run


@contextmanager
def _progress(output: Output, files: TrafficFiles) -> Iterator[Callable[[], None]]:
    """Give a function that moves a progress bar; there is one only on a terminal."""
    if not output.interactive:
        yield lambda: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=output.notes, transient=True) as bar:
        task = bar.add_task(f"replaying {shortened(files.current.name, 40)}", total=files.size)
        yield lambda: bar.update(
            task,
            completed=files.position,
            description=f"replaying {shortened(files.current.name, 40)}",
        )

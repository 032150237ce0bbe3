"""Running recorded traffic through a guard for a command: progress, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from guardrail.cli.inert import shortened
from guardrail.cli.output import Output
from guardrail.errors import SettingError
from guardrail.guard import Guard
from guardrail.loading import nearest
from guardrail.model.policy import PolicySet
from guardrail.replay.harm import USUAL_DIVISION
from guardrail.replay.parts import replayed
from guardrail.replay.records import DecisionFile
from guardrail.replay.report import ReportFigures
from guardrail.replay.results import TrafficRun
from guardrail.replay.sampling import Sample
from guardrail.traffic.files import TrafficFiles
from guardrail.traffic.maps import TrafficMap

__all__ = ["TrafficFiles", "TrafficRun", "divisions_of", "progress", "run_traffic", "warn"]


def divisions_of(asked: Sequence[str], policies: PolicySet) -> list[tuple[str, ...]]:
    """Return the divisions by facts that `--by` asks for, `account.tier` if it asks for none.

    Raises:
        SettingError: a fact is not known.
    """
    found = []
    for written in asked:
        names = tuple(name.strip() for name in written.split(","))
        for name in names:
            if name not in policies.facts:
                near = nearest(name, policies.facts)
                meant = f"did you mean `{near}`?" if near else "declare it under `facts:`"
                raise SettingError(f"`--by {written}`: there is no fact `{name}`; {meant}")
        found.append(names)
    return list(dict.fromkeys(found)) or [USUAL_DIVISION]


def run_traffic(
    guard: Guard,
    policies: PolicySet,
    files: TrafficFiles,
    mapping: TrafficMap | None,
    warmup: float,
    decisions: DecisionFile | None,
    output: Output,
    sample: Sample | None = None,
    divisions: Sequence[tuple[str, ...]] = (),
    figures: ReportFigures | None = None,
) -> TrafficRun:
    """Replay traffic files through a guard; add up, and write decisions where they are wanted.

    `divisions` are the facts by which segments are told apart. `figures` of a report are added up
    too, where they are given.
    """
    with progress(output, files) as tick:
        run = replayed(
            guard,
            policies,
            files,
            mapping,
            warmup=warmup,
            sample=sample,
            divisions=divisions,
            decisions=decisions,
            tick=tick,
            figures=figures,
        )
    warn(output, run)
    return run


def warn(output: Output, run: TrafficRun) -> None:
    """Print what the guard of a replay said of its sources, and where it was stopped."""
    for warning in run.warnings:
        output.warn(warning)
    if run.interrupted is not None:
        output.warn(f"interrupted at {run.interrupted}: the figures are of what was read by then")


@contextmanager
def progress(output: Output, files: TrafficFiles) -> Iterator[Callable[[], None]]:
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

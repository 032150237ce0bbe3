"""What came of replayed traffic, whole or in parts: merged, written to a file, read from one."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any

import zstandard

from guardrail.errors import DataError
from guardrail.model.policy import PolicySet
from guardrail.replay.report import ReportFigures
from guardrail.replay.running import Course
from guardrail.replay.tally import Tally
from guardrail.traffic.notes import MapNotes
from guardrail.traffic.requests import BadLines

HEADING = b"guardrail replay result 2\n"
MOST_BYTES = 1 << 32
"""How large the figures of a result may be, in bytes."""


@dataclass(slots=True, kw_only=True)
class TrafficRun:
    """What came of the traffic: its tally, its clock, and what could not be read.

    `warmup` is in seconds; `warmed` counts the requests decided in it. `faults` are files that
    could not be read to their end; `local_share` is the part of limits that stands in for a store.
    `notes` say what a map met. `sample` is the share of accounts that was drawn, and `passed_over`
    counts the requests of the others; `seeded` is how many counters were there before the first
    request. `interrupted` says how far a replay came that was stopped, `warnings` what the guard
    said of its sources. `sources` are the names of the files, `divisions` the facts by which
    segments are to be told. `figures` are those of a report, where one is made. `today` is the time
    (seconds since the epoch) as at which the policies stood.
    """

    tally: Tally
    course: Course
    bad: BadLines
    warmup: float
    warmed: int = 0
    faults: list[str] = field(default_factory=list)
    notes: MapNotes | None = None
    local_share: Fraction = Fraction(1)
    sample: Fraction | None = None
    passed_over: int = 0
    seeded: int | None = None
    interrupted: str | None = None
    warnings: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    divisions: tuple[tuple[str, ...], ...] = ()
    figures: ReportFigures | None = None
    today: float | None = None

    @property
    def readable(self) -> int:
        """How many requests were read."""
        return self.tally.requests + self.warmed


def merged(runs: Sequence[TrafficRun], policies: PolicySet) -> TrafficRun:
    """Return what came of all parts of some traffic together, as if it had been one.

    Every part read all of the traffic, and decided a part of its requests.

    Raises:
        DataError: the parts did not read the same traffic.
    """
    first = runs[0]
    tally = Tally(policies, first.tally.harm.divisions)
    tally.finish()
    whole = TrafficRun(
        tally=tally,
        course=first.course,
        bad=first.bad,
        warmup=first.warmup,
        faults=first.faults,
        notes=first.notes,
        local_share=first.local_share,
        sample=first.sample,
        passed_over=first.passed_over,
        seeded=first.seeded,
        sources=first.sources,
        divisions=first.divisions,
        today=first.today,
    )
    if all(run.figures is not None for run in runs):
        whole.figures = ReportFigures()
    for run in runs:
        tally.merge(run.tally)
        if whole.figures is not None and run.figures is not None:
            whole.figures.merge(run.figures)
        whole.warmed += run.warmed
        whole.warnings += tuple(line for line in run.warnings if line not in whole.warnings)
    stopped = sorted({run.interrupted for run in runs if run.interrupted is not None})
    if stopped:
        whole.interrupted = "; ".join(stopped)
        for run in runs[1:]:
            whole.course = whole.course.merge(run.course)
        whole.bad = max((run.bad for run in runs), key=lambda bad: bad.count)
        whole.passed_over = max(run.passed_over for run in runs)
        return whole
    for run in runs[1:]:
        if _read(run) != _read(first):
            raise DataError("the parts did not read the same traffic: replay all of them again")
    return whole


def _read(run: TrafficRun) -> tuple[object, ...]:
    """Return what parts of the same traffic have in common."""
    return (
        run.course,
        run.bad,
        run.faults,
        run.notes,
        run.warmup,
        run.sample,
        run.passed_over,
        run.seeded,
        run.today,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFile:
    """One part of `count`, counted from 1, as it stands in a file, and what it was made from.

    `expected` are the expectations that were given beside those of the policies.
    """

    shard: int
    count: int
    policies: tuple[str, ...]
    revision: str
    traffic: tuple[str, ...]
    run: TrafficRun
    expected: tuple[str, ...] = ()

    def write(self, path: str) -> None:
        """Write it to a file.

        Raises:
            DataError: the file cannot be written.
        """
        heading = {
            "shard": self.shard,
            "of": self.count,
            "policies": self.policies,
            "revision": self.revision,
            "traffic": self.traffic,
            "expected": self.expected,
        }
        figures = io.BytesIO()
        _FiguresWriter(figures, protocol=5).dump(self.run)
        packed = zstandard.ZstdCompressor().compress(figures.getbuffer())
        try:
            Path(path).write_bytes(HEADING + json.dumps(heading).encode() + b"\n" + packed)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise DataError(f"cannot write `{path}`: {why}") from error

    @classmethod
    def read(cls, path: str) -> ShardFile:
        """Return what stands in a file.

        Nothing in a file is run: all it can hold is figures.

        Raises:
            DataError: it cannot be read, or is no result of a replay.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise DataError(f"cannot read `{path}`: {why}") from error
        refusal = DataError(f"`{path}` is no result of a replay: write one with `check --shard`")
        if not data.startswith(HEADING):
            raise refusal
        heading, _, figures = data[len(HEADING) :].partition(b"\n")
        try:
            told: dict[str, Any] = json.loads(heading)
            unpacked = zstandard.ZstdDecompressor().decompress(figures, max_output_size=MOST_BYTES)
            run = _Figures(io.BytesIO(unpacked)).load()
            if not isinstance(run, TrafficRun):
                raise refusal
            return cls(
                shard=int(told["shard"]),
                count=int(told["of"]),
                policies=tuple(map(str, told["policies"])),
                revision=str(told["revision"]),
                traffic=tuple(map(str, told["traffic"])),
                expected=tuple(map(str, told["expected"])),
                run=run,
            )
        except DataError:
            raise
        except Exception as error:
            raise refusal from error


_FIGURES = {
    ("collections", "Counter"),
    ("fractions", "Fraction"),
    ("guardrail.replay.few", "restored_names"),
    ("guardrail.replay.harm", "First"),
    ("guardrail.replay.harm", "Place"),
    ("guardrail.replay.harm", "Reading"),
    ("guardrail.replay.signs", "Standing"),
    ("guardrail.replay.results", "TrafficRun"),
    ("guardrail.model.effects", "Effect"),
    ("guardrail.model.effects", "StoreMode"),
    ("guardrail.traffic.notes", "MapNotes"),
    ("guardrail.traffic.requests", "BadLines"),
}


class _FiguresWriter(pickle.Pickler):
    """Writes figures, a member of an enumeration by its value in every version of Python."""

    def reducer_override(self, value: object) -> Any:
        # Up to version 3.11.3 it would be read by `getattr`, which reaches more than figures.
        return (type(value), (value.value,)) if isinstance(value, Enum) else NotImplemented


class _Figures(pickle.Unpickler):
    """Reads figures, and makes nothing but the values that a replay adds up in."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _FIGURES:
            return super().find_class(module, name)
        if module.startswith("guardrail.replay.") and "." not in name:
            found = super().find_class(module, name)
            # What can be merged holds figures; other classes may do more than that when made.
            if isinstance(found, type) and hasattr(found, "merge"):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is no figure")

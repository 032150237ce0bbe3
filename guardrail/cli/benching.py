"""`guardrail bench`: what decisions of these policies cost on this traffic, and against before."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Annotated, Any

import typer

from guardrail.cli import options
from guardrail.cli.failures import FINDINGS, OK, NothingToCheckError, ended
from guardrail.cli.figures import columns, plural
from guardrail.cli.files import Files, write
from guardrail.cli.inert import shortened
from guardrail.cli.loading import load, policy_line
from guardrail.cli.output import Color, Format, Output
from guardrail.cli.traffic import TrafficFiles
from guardrail.errors import SettingError
from guardrail.replay.costs import PERCENTILES, Cost, Timer, costs_by_effect, summed_up
from guardrail.traffic.mapfile import load_map
from guardrail.traffic.reading import Recorded

MOST_REQUESTS = 20_000
ROUNDS = 5


@dataclass(slots=True, kw_only=True)
class BenchRequest:
    """What was asked for on the command line; `least` is in microseconds."""

    paths: list[str]
    traffic: list[str]
    map: str | None
    requests: int
    rounds: int
    save: str | None
    compare: str | None
    threshold: Fraction
    least: float


def microseconds(written: str) -> float:
    """Return a short time option such as `5us` or `0.1ms` in microseconds."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)(us|µs|ms)", written)
    if found is None:
        raise typer.BadParameter(f"`{written}` is not a short time: write `5us`, or `0.1ms`")
    return float(found[1]) * (1000 if found[2] == "ms" else 1)


def bench(
    paths: options.Paths,
    traffic: options.Traffic = None,
    map: options.Map = None,
    requests: Annotated[
        int,
        typer.Option("--requests", metavar="N", min=1, help="How many requests to take, at most."),
    ] = MOST_REQUESTS,
    rounds: Annotated[
        int,
        typer.Option(
            "--rounds",
            metavar="N",
            min=1,
            help="How often to decide the traffic, after a warm-up.",
        ),
    ] = ROUNDS,
    save: Annotated[
        str | None,
        typer.Option("--save", metavar="OUT", help="Write what was measured, to compare with."),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option("--compare", metavar="BASE", help="Compare with what --save wrote before."),
    ] = None,
    threshold: Annotated[
        Fraction,
        typer.Option(
            "--threshold", metavar="SHARE", parser=options.portion, help="How much slower is found."
        ),
    ] = "10%",  # type: ignore[assignment]
    least: Annotated[
        float,
        typer.Option(
            "--min-threshold",
            metavar="TIME",
            parser=microseconds,
            help="How many µs slower is found, at least: a tenth of little is noise.",
        ),
    ] = "5us",  # type: ignore[assignment]
    form: options.FormatOption = Format.FULL,
    color: options.ColorOption = Color.AUTO,
) -> None:
    """Measure what decisions cost: these policies, on recorded traffic, by outcome."""
    output = Output(color)
    asked = BenchRequest(
        paths=paths,
        traffic=traffic or [],
        map=map,
        requests=requests,
        rounds=rounds,
        save=save,
        compare=compare,
        threshold=threshold,
        least=least,
    )
    run = lambda: run_bench(asked, output, form, time.thread_time_ns)  # noqa: E731
    files = Files(
        reads={"the traffic": asked.traffic, "the policies": paths, "the map": [map]},
        writes=(("--save ", save),),
    )
    raise typer.Exit(ended(run, output, form, not_run="; nothing was measured", files=files))


def run_bench(asked: BenchRequest, output: Output, form: Format, timer: Timer) -> int:
    """Measure, print, write and compare what was asked for, and return the exit code.

    Raises:
        SettingError: no traffic is given, or what to compare with is not usable.
        NothingToCheckError: the traffic has no readable line.
    """
    if not asked.traffic:
        raise SettingError("what decisions cost depends on the requests: give `--traffic FILE`")
    policies = load(asked.paths)
    base = None if asked.compare is None else read_base(asked.compare)
    with ExitStack() as closing:
        files = TrafficFiles(asked.traffic, closing)
        mapping = load_map(asked.map, policies) if asked.map is not None else None
        lines = list(islice(files.requests(mapping), asked.requests))
    if not lines:
        raise NothingToCheckError("the traffic has no readable line")
    costs = summed_up(costs_by_effect(policies, lines, asked.rounds, timer))
    told = {
        "policy": policies.name,
        "revision": policies.revision,
        "traffic": f"sha256:{digest_of(lines)}",
        "requests": len(lines),
        "rounds": asked.rounds,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "microseconds": {name: cost._asdict() for name, cost in costs.items()},
    }
    worse = [] if base is None else regressions(base, costs, asked.threshold, asked.least)
    if form is Format.JSON:
        output.json({**told, "regressions": worse} if base is not None else told)
    else:
        output.told("policy", policy_line(policies))
        output.told(
            "decided",
            f"{plural(len(lines), 'request')}, {plural(asked.rounds, 'round')} after a warm-up; "
            "of each request the median; µs of one core's time",
        )
        output.line()
        for line in _table(costs, base, output.width - 2):
            output.line("  ", line)
        if base is not None:
            output.line()
            _print_compared(output, base, told, worse, asked)
    if asked.save is not None:
        write(asked.save, json.dumps(told, indent=1) + "\n")
    return FINDINGS if worse else OK


def digest_of(lines: Sequence[Recorded]) -> str:
    """Return a digest of requests, equal only for those that are decided alike."""
    digest = hashlib.sha256()
    for _, ts, request in lines:
        parts = (ts, request.facts, request.estimate, request.usage, request.duration)
        digest.update(json.dumps(parts, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def read_base(path: str) -> Mapping[str, Any]:
    """Return what was measured before.

    Raises:
        SettingError: the file cannot be read, or `bench --save` did not write it.
    """
    try:
        with open(path, "rb") as file:
            base = json.load(file)
    except (OSError, ValueError, RecursionError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "it is not JSON"
        raise SettingError(f"`{path}` cannot be read: {why}") from None
    try:
        for cost in base["microseconds"].values():
            Cost(**cost)._replace(p50=float(cost["p50"]))
        _ = (base["traffic"], base["python"], base["machine"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise SettingError(f"`{path}` is not what `guardrail bench --save` writes") from None
    found: Mapping[str, Any] = base
    return found


def regressions(
    base: Mapping[str, Any], costs: Mapping[str, Cost], threshold: Fraction, least: float
) -> list[str]:
    """Return what costs more than before by more than a share and by at least `least` µs."""
    found = []
    for name, cost in costs.items():
        before = base["microseconds"].get(name)
        if before is None:
            continue
        for percent in PERCENTILES:
            old, new = before[f"p{percent}"], getattr(cost, f"p{percent}")
            if new - old >= least and new > old * (1 + threshold):
                more = f"+{100 * (new / old - 1):.0f}%" if old else "from nothing"
                found.append(f"{name} p{percent}: {old:.1f} → {new:.1f} µs ({more})")
    return found


def _table(costs: Mapping[str, Cost], base: Mapping[str, Any] | None, cells: int) -> list[str]:
    head = ("outcome", "requests", *(f"p{percent}" for percent in PERCENTILES))
    rows: list[tuple[str, ...]] = [head if base is None else (*head, "p50 before", "change")]
    for name, cost in costs.items():
        row: tuple[str, ...] = (name, f"{cost.requests:,}")
        row += tuple(f"{getattr(cost, f'p{percent}'):.1f}" for percent in PERCENTILES)
        if base is not None:
            before = base["microseconds"].get(name)
            old = None if before is None else before["p50"]
            row += ("–", "–") if not old else (f"{old:.1f}", f"{100 * (cost.p50 / old - 1):+.0f}%")
        rows.append(row)
    return columns(rows, (False, *[True] * (len(rows[0]) - 1)), cells=cells)


def _print_compared(
    output: Output,
    base: Mapping[str, Any],
    told: Mapping[str, Any],
    worse: list[str],
    asked: BenchRequest,
) -> None:
    for what, name in (("traffic", "other traffic"), ("machine", "another machine")):
        if base[what] != told[what]:
            output.warn(f"`{asked.compare}` was measured on {name}: the figures do not compare")
    if base["python"] != told["python"]:
        output.warn(f"`{asked.compare}` was measured with Python {shortened(base['python'], 20)}")
    for line in worse:
        output.line(("finding  ", "red"), f"slower: {line}")
    if not worse:
        share = f"{float(100 * asked.threshold):g}%"
        output.line((f"nothing is slower by {share} and {asked.least:g} µs", "green"))

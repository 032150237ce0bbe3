"""`guardrail simulate`: a campaign against the policies among honest customers, in virtual time."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from guardrail.cli import options
from guardrail.cli.failures import OK, ended
from guardrail.cli.files import Files, write
from guardrail.cli.inert import wrapped
from guardrail.cli.loading import load, policy_line
from guardrail.cli.output import Color, Format, Output
from guardrail.cli.simulate_text import report, side_by_side
from guardrail.pages import check_drawing
from guardrail.simulate import (
    Attack,
    Baseline,
    Job,
    Mode,
    Options,
    Prices,
    names_of,
    run_all,
)

UNLIMITED = "unlimited"
_LABEL = 11


def seed_range(written: str) -> range:
    """Return seeds written as `0..9`, both included."""
    found = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", written)
    if found is None or int(found[1]) > int(found[2]):
        raise typer.BadParameter(f"`{written}` is no range of seeds: write `0..9`")
    return range(int(found[1]), int(found[2]) + 1)


def supply_of(written: str) -> float:
    """Return a supply of fresh accounts a day, as a share of the fleet."""
    if written == UNLIMITED:
        return math.inf
    try:
        share = float(written)
    except ValueError:
        share = -1.0
    if not 0 <= share < math.inf:
        raise typer.BadParameter(f"`{written}` is no supply: write `0.05`, or `{UNLIMITED}`")
    return share


def tier_names(written: str) -> tuple[str, str, str]:
    """Return the names of three tiers, written with commas between them."""
    names = written.split(",")
    if len(names) != 3 or not all(names):
        raise typer.BadParameter(f"`{written}` are not three tiers: write `email,verified,company`")
    return (names[0], names[1], names[2])


def prices_of(written: Sequence[str]) -> Prices:
    """Return the prices of operators, those written as `card=3.5` in place of the usual ones."""
    prices: dict[str, Any] = dataclasses.asdict(Prices())
    exits: dict[str, float] = prices["exits"]
    for one in written:
        name, equals, amount = one.partition("=")
        if not equals or not re.fullmatch(r"\d{1,9}(?:\.\d{1,6})?", amount):
            raise typer.BadParameter(f"`{one}` is no price: write `identity=150`")
        known = sorted({*prices, *exits} - {"exits"})
        if name not in known:
            raise typer.BadParameter(
                f"nothing called `{name}` has a price: name one of `{'`, `'.join(known)}`"
            )
        (exits if name in exits else prices)[name] = float(amount)
    return Prices(**prices)


def simulate(
    paths: options.Paths,
    accounts: Annotated[
        int, typer.Option("--accounts", metavar="N", min=20, help="How many honest accounts.")
    ] = 3000,
    fleet: Annotated[
        int, typer.Option("--fleet", metavar="N", min=1, help="How many accounts operators run.")
    ] = 500,
    days: Annotated[
        int, typer.Option("--days", metavar="D", min=1, help="For how many days they attack.")
    ] = 45,
    seed: Annotated[int, typer.Option("--seed", metavar="S", min=0, help="What is drawn.")] = 0,
    seeds: Annotated[
        range | None,
        typer.Option("--seeds", metavar="A..B", parser=seed_range, help="Several seeds."),
    ] = None,
    attack: Annotated[
        Attack, typer.Option("--attack", help="How skilled the operators are.")
    ] = Attack.CAREFUL,
    supply: Annotated[
        float,
        typer.Option(
            "--supply",
            metavar=f"X|{UNLIMITED}",
            parser=supply_of,
            help="Fresh accounts a day that operators get, as a share of the fleet.",
        ),
    ] = "0.05",  # type: ignore[assignment]
    mode: Annotated[Mode, typer.Option("--mode", help="How the figures are made.")] = Mode.PLAIN,
    baseline: Annotated[
        Baseline | None,
        typer.Option(
            "--baseline",
            metavar="|".join(Baseline),
            help="Run under typical limits instead of the policies.",
        ),
    ] = None,
    beside: Annotated[
        list[Baseline] | None,
        typer.Option(
            "--beside",
            metavar="|".join(Baseline),
            help="Run the same attack under typical limits too, and compare them in one table; "
            "repeatable.",
        ),
    ] = None,
    shocks: Annotated[
        bool, typer.Option("--shocks/--no-shocks", help="Whether honest customers meet shocks.")
    ] = True,
    tiers: Annotated[
        str,
        typer.Option(
            "--tiers",
            metavar="A,B,C",
            help="The values of account.tier of unverified, verified and contracted accounts.",
        ),
    ] = "email,verified,enterprise",
    price: Annotated[
        list[str] | None,
        typer.Option(
            "--price", metavar="NAME=USD", help="What operators pay for something; repeatable."
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=1, help="Processes that share the seeds.")
    ] = 1,
    json_to: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Write all figures as JSON; - is stdout."),
    ] = None,
    html_to: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="Write a page with plots.")
    ] = None,
    color: options.ColorOption = Color.AUTO,
) -> None:
    """Run a campaign of many accounts against the policies, among honest customers."""
    output = Output(color, results_to_stderr=json_to == "-")
    asked = Options(
        accounts=accounts,
        fleet=fleet,
        days=days,
        attack=Attack.NONE if mode is Mode.NULL else attack,
        supply=supply,
        shocks=shocks,
        tiers=tier_names(tiers),
        prices=prices_of(price or []),
    )
    jobs = [
        Job(paths=tuple(paths), options=asked, seed=number, mode=mode, baseline=under)
        for under in dict.fromkeys((baseline, *(beside or ())))
        for number in (seeds if seeds is not None else [seed])
    ]
    run = lambda: run_simulation(jobs, workers, json_to, html_to, output)  # noqa: E731
    files = Files(
        reads={"the policies": paths}, writes=(("--json ", json_to), ("--html ", html_to))
    )
    not_run = "; nothing was simulated"
    raise typer.Exit(ended(run, output, Format.FULL, not_run=not_run, files=files))


def run_simulation(
    jobs: Sequence[Job],
    workers: int,
    json_to: str | None,
    html_to: str | None,
    output: Output,
) -> int:
    """Run every job, print and write what came of them, and return the exit code.

    The first are told of; those under another baseline than theirs stand beside them.
    """
    if html_to is not None:
        check_drawing("`--html`")
    first = jobs[0]
    unders = list(dict.fromkeys(job.baseline for job in jobs))
    each = len(jobs) // len(unders)
    if first.baseline is None:
        load(first.paths)
    policies = first.policies()
    names_of(policies, first.options.tiers)
    for label, text in (("policy", policy_line(policies)), ("simulated", summary(jobs[:each]))):
        first_line, *more = wrapped(text, output.width - _LABEL)
        output.line((label.ljust(_LABEL), "bold"), first_line)
        output.lines(more, _LABEL)
    output.line()
    with _progress(output, len(jobs)) as tick:
        ran = list(run_all(jobs, workers, tick))
    found = ran[:each]
    names = [policies.name, *(f"baseline `{under}`" for under in unders[1:])]
    blocks = {name: ran[at * each : (at + 1) * each] for at, name in enumerate(names)}
    cells = output.width
    lines = report(found, cells) if len(unders) == 1 else side_by_side(blocks, cells)
    for line in lines:
        output.line(line)
    told: dict[str, Any] = {
        "policy": policies.name,
        "revision": policies.revision,
        "mode": str(first.mode),
        "baseline": None if first.baseline is None else str(first.baseline),
        "options": option_fields(first.options),
        "seeds": found,
    }
    if len(unders) > 1:
        told["beside"] = {
            str(under): ran[at * each : (at + 1) * each] for at, under in enumerate(unders) if at
        }
    if json_to is not None:
        write(json_to, json.dumps(told, indent=1) + "\n")
    if html_to is not None:
        from guardrail.simulate.page import page

        write(html_to, page(told))
    return OK


def option_fields(asked: Options) -> dict[str, object]:
    """Return what a run was asked for, ready for JSON; an unlimited supply is None."""
    fields = dataclasses.asdict(asked)
    fields["supply"] = None if math.isinf(asked.supply) else asked.supply
    del fields["watch"]
    return fields


def summary(jobs: Sequence[Job]) -> str:
    """Return in a line what is simulated."""
    asked = jobs[0].options
    seeds = f"seed {jobs[0].seed}" if len(jobs) == 1 else f"seeds {jobs[0].seed}..{jobs[-1].seed}"
    under = "" if jobs[0].baseline is None else f", baseline `{jobs[0].baseline}`"
    mode = "" if jobs[0].mode is Mode.PLAIN else f", mode `{jobs[0].mode}`"
    return f"{asked.accounts:,} honest accounts, {asked.days} days, {seeds}{mode}{under}"


@contextmanager
def _progress(output: Output, total: int) -> Iterator[Callable[[float], None]]:
    """Give a function that moves a progress bar; there is one only on a terminal."""
    if not output.interactive:
        yield lambda done: None
        return
    bars = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*bars, console=output.notes, transient=True) as bar:
        task = bar.add_task("simulating", total=total)
        yield lambda done: bar.update(task, completed=done)

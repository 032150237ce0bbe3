"""`python -m benchmarks [T1 T2 …]`: run benchmarks, print their table, keep it if asked to."""

from __future__ import annotations

import argparse
import gc
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

from benchmarks.decisions import decision_costs, look_up_costs
from benchmarks.doors import door_costs
from benchmarks.footprint import memory_costs
from benchmarks.further_rules import further_costs, many_costs
from benchmarks.linking import linking_costs
from benchmarks.many_rules import index_costs, load_costs
from benchmarks.peers import peer_costs
from benchmarks.refusing import flood_costs
from benchmarks.replaying import replay_costs
from benchmarks.results import Result, table
from benchmarks.scale import scale_costs
from benchmarks.serving import crowd_costs, serving_costs
from benchmarks.sharing import sharing_costs
from benchmarks.shipped import outcome_costs

Benchmark = Callable[[int, float], list[Result]]
"""Takes the number of rounds and a scale of the work (1: in full)."""

BENCHMARKS: Mapping[str, Benchmark] = {
    "T1": decision_costs,
    "T2": peer_costs,
    "T3": index_costs,
    "T4": sharing_costs,
    "T5": serving_costs,
    "T6": crowd_costs,
    "T7": door_costs,
    "T8": replay_costs,
    "T9": memory_costs,
    "T10": load_costs,
    "T11": scale_costs,
    "T12": look_up_costs,
    "T13": outcome_costs,
    "T14": many_costs,
    "T15": further_costs,
    "T16": flood_costs,
    "T17": linking_costs,
}
ROUNDS, QUICK_ROUNDS, QUICK_SCALE = 9, 3, 0.02
SAVED = Path(__file__).with_name("results.md")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line names, and return the exit code: 0, whatever the figures say."""
    asked = _parser().parse_args(arguments)
    rounds = asked.rounds or (QUICK_ROUNDS if asked.quick else ROUNDS)
    results: list[Result] = []
    for name in asked.benchmarks or BENCHMARKS:
        began = perf_counter()
        print(f"{name} …", end=" ", file=sys.stderr, flush=True)
        results += BENCHMARKS[name](rounds, QUICK_SCALE if asked.quick else 1.0)
        gc.collect()
        print(f"{perf_counter() - began:.0f} s", file=sys.stderr)
    shown = table(results)
    print(shown)
    if asked.save:
        SAVED.write_text(_page(shown, rounds), "utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = "which to run (default: all): " + ", ".join(BENCHMARKS)
    parser.add_argument("benchmarks", nargs="*", metavar="T", help=names, type=_known)
    parser.add_argument("--rounds", type=int, help=f"rounds of each contender ({ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="little work, rough figures")
    parser.add_argument("--save", action="store_true", help=f"write benchmarks/{SAVED.name}")
    return parser


def _known(name: str) -> str:
    if name not in BENCHMARKS:
        raise argparse.ArgumentTypeError(
            f"no benchmark `{name}`; there are {', '.join(BENCHMARKS)}"
        )
    return name


def _page(shown: str, rounds: int) -> str:
    made = f"{platform.python_implementation()} {platform.python_version()}"
    return (
        f"# What decisions cost\n\n"
        f"Measured on {datetime.now(UTC):%Y-%m-%d} with {made}, {rounds} interleaved rounds; made "
        f"by `make bench ARGS=--save`.\nAbsolute figures drift with the machine and its load; the "
        f"ratios, taken round by round, hold.\n\n```text\n{shown}\n```\n"
    )


if __name__ == "__main__":
    sys.exit(main())

"""Replays each recorded trace through the shipped policies and writes benchmarks/traces.md.

The traces are not part of the project: they are read from the folder that the environment
variable GUARDRAIL_TEST_DATA names. Each is mapped by a file of examples/maps.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAPS = {
    "azure2023_code": "azure2023_code",
    "mooncake_synthetic": "mooncake_synthetic",
    "ragpulse_week": "ragpulse_week",
    "servegen_deepseek-r1_1h_drawn": "servegen",
    "weblog_elastic_apache": "weblog",
}


def command(trace: Path, mapping: str) -> list[str]:
    """Return the command that checks the shipped policies against one trace."""
    here = [sys.executable, "-m", "guardrail", "check", "policies/", "--traffic", str(trace)]
    return [*here, "--map", f"examples/maps/{mapping}.yaml"]


def run(trace: Path, mapping: str) -> tuple[str, float]:
    """Return what the command prints, and the seconds it took; findings are no failure here."""
    start = time.perf_counter()
    done = subprocess.run(command(trace, mapping), cwd=ROOT, capture_output=True, text=True)
    if done.returncode > 1:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout, time.perf_counter() - start


def section(name: str, trace: Path, mapping: str, idle: float) -> str:
    """Return one trace's part of the page; `idle` is what the command takes without traffic."""
    shown, seconds = run(trace, mapping)
    replaying = max(seconds - idle, 0.001)
    # What is said of the policies by themselves is the same for all traces.
    told = shown[shown.index("traffic ") : shown.index("\ntests ")]
    tables = shown[shown.index("\ndecisions\n") : shown.index("\nthe most that")]
    requests = int(told.split()[1].replace(",", ""))
    return (
        f"## {name}\n\n{requests:,} requests in {seconds:.2f} s as a whole command, "
        f"{requests / replaying:,.0f} decisions a second beyond its start.\n\n"
        f"```text\n{told}\n{tables.rstrip()}\n```\n"
    )


def main() -> None:
    """Write the page."""
    folder = Path(os.environ["GUARDRAIL_TEST_DATA"]) / "traces"
    with tempfile.TemporaryDirectory() as empty:
        line = Path(empty) / "one.jsonl"
        line.write_text('{"timestamp": 0, "session": "192.0.2.1", "kind": "web"}\n', "utf-8")
        idle = min(run(line, "weblog")[1] for _ in range(3))
    parts = [
        section(name, folder / f"{name}.jsonl.gz", mapping, idle) for name, mapping in MAPS.items()
    ]
    page = (
        "# The shipped policies on recorded traffic\n\n"
        "Made by `python -m benchmarks.traces`. What a log does not tell (tier, country) is "
        "assumed in its map, so the tables show how the limits meet real shapes of traffic, not "
        "what these customers would have seen. "
        f"Python {platform.python_version()}; starting the command takes {idle:.2f} s.\n\n"
    )
    (ROOT / "benchmarks" / "traces.md").write_text(page + "\n".join(parts), "utf-8")


if __name__ == "__main__":
    main()

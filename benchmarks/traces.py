"""Replays each recorded trace through the shipped policies and writes benchmarks/traces.md.

The traces are not part of the project: they are read from the folder that the environment
variable GUARDRAIL_TEST_DATA names. Each is mapped by a file of examples/maps.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MAPS = {
    "azure2023_code": "azure2023_code",
    "mooncake_synthetic": "mooncake_synthetic",
    "ragpulse_week": "ragpulse_week",
    "servegen_deepseek-r1_1h_drawn": "servegen",
    "weblog_elastic_apache": "weblog",
}


UNMATCHED = "        0      –       –      –"


def command(trace: Path, mapping: str, *options: str) -> list[str]:
    """Return the command that checks the shipped policies against one trace."""
    here = [sys.executable, "-m", "guardrail", "check", "policies/", "--traffic", str(trace)]
    return [*here, "--map", f"examples/maps/{mapping}.yaml", *options]


def run(trace: Path, mapping: str, *options: str) -> tuple[str, float]:
    """Return what the command prints, and the seconds it took."""
    start = time.perf_counter()
    done = subprocess.run(
        command(trace, mapping, *options), cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout, time.perf_counter() - start


def section(name: str, trace: Path, mapping: str, idle: float) -> str:
    """Return one trace's part of the page; `idle` is what the command takes without traffic."""
    report: dict[str, Any] = json.loads(run(trace, mapping, "--format", "json")[0])
    shown, seconds = run(trace, mapping)
    requests = report["traffic"]["requests"]
    replaying = max(seconds - idle, 0.001)
    table = shown[shown.index("traffic ") :].rstrip()
    rows = [line for line in table.splitlines() if line[2:12].strip() or UNMATCHED not in line]
    return (
        f"## {name}\n\n{requests:,} requests in {seconds:.2f} s as a whole command, "
        f"{requests / replaying:,.0f} decisions a second beyond its start. "
        f"Rules that matched nothing are left out.\n\n```text\n" + "\n".join(rows) + "\n```\n"
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

"""The example for Dask, on a real cluster of two processes."""

from __future__ import annotations

import gzip
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.replay.test_parts import HEAD, POLICIES

ROOT = Path(__file__).resolve().parents[2]
WEEK = ROOT / "examples" / "traffic" / "sample-week.jsonl.gz"


@pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None,
    reason="dask is not installed: `pip install --group dask`",
)
def test_a_cluster_comes_to_the_same_as_one_process(tmp_path):
    with gzip.open(WEEK) as week:
        lines = [line for line, _ in zip(week, range(2_400), strict=False)]
    files = []
    for number in range(3):
        files.append(str(tmp_path / f"day-{number}.jsonl"))
        Path(files[-1]).write_bytes(b"".join(lines[number * 800 : number * 800 + 800]))
    policies = str(tmp_path / "linked.yaml")
    Path(policies).write_text(HEAD + POLICIES["global"] + POLICIES["links"])
    example = [sys.executable, str(ROOT / "examples" / "dask" / "replay.py"), policies, *files]
    check = [sys.executable, "-m", "guardrail", "check", policies]
    check += [part for file in files for part in ("--traffic", file)]
    cluster, one = (
        subprocess.run([*command, "--format", "json"], capture_output=True, cwd=ROOT, check=False)
        for command in (example, check)
    )

    assert cluster.stdout == one.stdout
    assert b'"requests": 2400' in one.stdout
    assert cluster.returncode == one.returncode

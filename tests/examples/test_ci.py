"""What pipelines copy: the pre-commit hook and the workflow run as they stand."""

from __future__ import annotations

import gzip
import shlex
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
POLICY = """\
guardrail: 1
policy: shop
rules:
  - {id: embargo, when: {geo.country: {in: [IR]}}, unknown: skip, block: {}}
tests:
  - {name: an embargo holds, facts: {account.id: a, geo.country: IR}, expect: block}
"""


@pytest.fixture
def checkout(tmp_path):
    """A folder with the policies and the traffic of a project."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/shop.yaml").write_text(POLICY)
    (tmp_path / "examples/traffic").mkdir(parents=True)
    week = "examples/traffic/sample-week.jsonl.gz"
    with gzip.open(ROOT / week) as whole, gzip.open(tmp_path / week, "w") as part:
        part.writelines(islice(whole, 500))
    return tmp_path


def run(command, folder):
    """Run a command line of a pipeline, with the `guardrail` of this environment."""
    program = [sys.executable, "-m", *shlex.split(command)]
    return subprocess.run(program, cwd=folder, capture_output=True, text=True, timeout=100)


def test_the_hook_checks_a_whole_set(checkout):
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
    command = f"{hook['entry']} {' '.join(hook['args'])}"

    assert hook["language"] == "python"
    assert hook["pass_filenames"] is False
    assert run(command, checkout).returncode == 0

    (checkout / "policies/shop.yaml").write_text(POLICY.replace("geo.country", "geo.contry"))
    assert run(command, checkout).returncode == 3


def test_each_step_of_the_workflow_succeeds(checkout):
    workflow = yaml.safe_load((ROOT / "examples/ci/github.yaml").read_text("utf-8"))
    steps = [step for step in workflow["jobs"]["check"]["steps"] if "run" in step]
    lines = [line for step in steps for line in step["run"].splitlines()]
    ours = [line for line in lines if line.startswith("guardrail ")]
    shutil.copytree(checkout / "policies", checkout / "base/policies")

    assert [line.split()[0] for line in lines if line not in ours] == ["pip", "git"]
    assert [line.split()[1] for line in ours] == ["check", "check", "diff", "bench", "bench"]
    for command in ours:
        done = run(command, checkout)
        # On a machine with other work the second measurement may really be slower.
        slower = "--compare" in command and "slower:" in done.stdout
        assert done.returncode == (1 if slower else 0), done.stdout + done.stderr
    (kept,) = [step["with"]["path"] for step in workflow["jobs"]["check"]["steps"]
               if "upload-artifact" in step.get("uses", "")]  # fmt: skip
    assert all((checkout / name).exists() for name in kept.split())
